"""Loops that train networks: the carbon forecaster, policies, image classifiers; the public ones are named here."""

from cenas_jax.training.classifier import ChunkInfo, Classifier, TrainingConfig, TrainState, classifier
from cenas_jax.training.image_files import load_images
from cenas_jax.training.image_folder import read_folder, stream_folder
from cenas_jax.training.images import (
    AugmentationConfig,
    ImageArrays,
    ImageSet,
    ImageSplit,
    image_set,
    split_images,
    to_device,
)
from cenas_jax.training.loop import Trained, train
from cenas_jax.training.paths import every_choice, fair_path, given_path, listed_path, no_path, only, uniform_path
from cenas_jax.training.supernet import Part, Supernet, screen_parts, split_by_gradients, split_supernet, supernet

__all__ = [
    "AugmentationConfig",
    "ChunkInfo",
    "Classifier",
    "ImageArrays",
    "ImageSet",
    "ImageSplit",
    "Part",
    "Supernet",
    "TrainState",
    "Trained",
    "TrainingConfig",
    "classifier",
    "every_choice",
    "fair_path",
    "given_path",
    "image_set",
    "listed_path",
    "load_images",
    "no_path",
    "only",
    "read_folder",
    "screen_parts",
    "split_by_gradients",
    "split_images",
    "split_supernet",
    "stream_folder",
    "supernet",
    "to_device",
    "train",
    "uniform_path",
]
