"""Loops that train networks: the carbon forecaster, policies, image classifiers; the public ones are named here."""

from cenas_jax.training.classifier import ChunkInfo, Classifier, TrainingConfig, TrainState, classifier
from cenas_jax.training.image_files import load_images
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
from cenas_jax.training.supernet import Supernet, screen_parts, split_supernet, supernet

__all__ = [
    "AugmentationConfig",
    "ChunkInfo",
    "Classifier",
    "ImageArrays",
    "ImageSet",
    "ImageSplit",
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
    "screen_parts",
    "split_images",
    "split_supernet",
    "supernet",
    "to_device",
    "train",
    "uniform_path",
]
