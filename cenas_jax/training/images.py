"""Labelled images on the host and, as bytes, on the device; augmentation inside the compiled step."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Int32, Key, UInt8


class ImageSet(NamedTuple):
    """Images and their classes on the host; `image_set` makes one from any arrays, and checks them."""

    name: str
    images: UInt8[np.ndarray, "n h w c"]
    labels: Int32[np.ndarray, " n"]
    classes: tuple[str, ...]
    """Their names; a label is an index into them."""


class ImageSplit(NamedTuple):
    """Three sets without an image in common."""

    train: ImageSet
    validation: ImageSet
    test: ImageSet


class ImageArrays(NamedTuple):
    """A whole set on the device; mean and deviation of the training images' channels, as shares of 255."""

    images: UInt8[Array, "n h w c"]
    labels: Int32[Array, " n"]
    mean: Float[Array, " c"]
    deviation: Float[Array, " c"]


@dataclass(frozen=True)
class AugmentationConfig:
    """What happens to a training image. Images that are judged by are only standardised."""

    crop_margin: int = 0
    """Pixels of the mean colour around an image, out of which a crop of its size is drawn."""
    flip: bool = False
    """Mirror left and right, with probability 1/2."""
    cutout: int = 0
    """Side in pixels of a square of the mean colour at a random place; it may overlap the border (DeVries & Taylor,
    2017)."""
    mixup: float = 0.0
    """Alpha of the Beta distribution by which two images and their labels are mixed (Zhang et al., ICLR 2018)."""

    def __post_init__(self):
        if min(self.crop_margin, self.cutout, self.mixup) < 0:
            raise ValueError(f"AugmentationConfig: crop_margin, cutout and mixup must not be negative, got {self}")


def image_set(
    images: np.ndarray, labels: np.ndarray, classes: int | tuple[str, ...] | None = None, *, name: str = "arrays"
) -> ImageSet:
    """Checks arrays: `images` uint8 `[n, h, w, c]` or `[n, h, w]`, `labels` integers `[n]`.

    `classes`: their names or number; by default as many as the labels need. `ValueError` names the set and what is
    wrong with it.
    """
    images, labels = np.asarray(images), np.asarray(labels)
    images = images[..., None] if images.ndim == 3 else images
    if images.ndim != 4 or images.dtype != np.uint8 or 0 in images.shape:
        raise ValueError(
            f"{name}: images are {images.dtype}{list(images.shape)}; give bytes, uint8[n, height, width, channels]"
        )
    if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu":
        raise ValueError(f"{name}: labels are {labels.dtype}{list(labels.shape)}; give {len(images)} integers")
    if classes is None:
        classes = int(labels.max()) + 1
    names = tuple(str(number) for number in range(classes)) if isinstance(classes, int) else tuple(classes)
    if labels.min() < 0 or labels.max() >= len(names):
        raise ValueError(
            f"{name}: labels are {labels.min()} .. {labels.max()}, but {len(names)} classes have 0 .. {len(names) - 1}"
        )
    return ImageSet(name, images, labels.astype(np.int32), names)


def split_images(
    whole: ImageSet, validation: float = 0.2, test: float | ImageSet = 0.2, *, seed: int = 0
) -> ImageSplit:
    """Draws the shares `validation` and `test` of a set by `seed`, the rest is for training.

    `test` may be a set of its own, of the same shape and classes. `ValueError` where a part would be empty.
    """
    count = len(whole.labels)
    order = np.random.default_rng(seed).permutation(count)
    held = round(count * validation), 0 if isinstance(test, ImageSet) else round(count * test)
    parts = np.split(order, np.cumsum(held))
    if not isinstance(test, ImageSet):
        drawn = _rows(whole, parts[1])
    else:
        drawn = test
        if test.images.shape[1:] != whole.images.shape[1:] or test.classes != whole.classes:
            raise ValueError(f"{test.name}: its images or classes are not those of {whole.name}: give sets of one kind")
    if held[0] < 1 or len(drawn.labels) < 1 or len(parts[2]) < 1:
        raise ValueError(f"{whole.name}: of {count} images nothing is left for a part: give shares in (0, 1)")
    return ImageSplit(_rows(whole, parts[2]), _rows(whole, parts[0]), drawn)


def _rows(images: ImageSet, rows: np.ndarray) -> ImageSet:
    return images._replace(images=images.images[rows], labels=images.labels[rows])


def to_device(images: ImageSet, like: ImageArrays | None = None) -> ImageArrays:
    """Puts a set on the device. `like`: the training set, whose mean and deviation all others take."""
    if like is None:
        values = images.images.astype(np.float64) / 255
        mean, deviation = values.mean(axis=(0, 1, 2)), np.maximum(values.std(axis=(0, 1, 2)), 1e-3)
        scale = jnp.asarray(mean, jnp.float32), jnp.asarray(deviation, jnp.float32)
    else:
        scale = like.mean, like.deviation
    return ImageArrays(jnp.asarray(images.images), jnp.asarray(images.labels), *scale)


def standardised(data: ImageArrays, images: UInt8[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    """Images less the mean, over the deviation, as one product and one sum."""
    scale = 1 / data.deviation
    return images * (scale / 255)[None, None, None, :] - (data.mean * scale)[None, None, None, :]


def augmented(
    key: Key[Array, ""], images: Float[Array, "b h w c"], config: AugmentationConfig
) -> Float[Array, "b h w c"]:
    """Every standardised image cropped, mirrored and cut out by its own draw; zeros are the mean colour."""
    count, height, width, _ = images.shape
    key_crop, key_flip, key_cut = jax.random.split(key, 3)
    if config.crop_margin:
        margin = config.crop_margin
        padded = jnp.pad(images, ((0, 0), (margin, margin), (margin, margin), (0, 0)))
        corner = jax.random.randint(key_crop, (count, 2), 0, 2 * margin + 1)
        cut = jax.vmap(lambda image, at: jax.lax.dynamic_slice(image, (at[0], at[1], 0), images.shape[1:]))
        images = cut(padded, corner)
    if config.flip:
        mirror = jax.random.bernoulli(key_flip, shape=(count, 1, 1, 1))
        images = jnp.where(mirror, images[:, :, ::-1], images)
    if config.cutout:
        centre = jax.random.randint(key_cut, (count, 2), 0, jnp.array([[height, width]]))
        down, across = (_covered(centre[:, axis], size, config.cutout) for axis, size in enumerate((height, width)))
        images = jnp.where((down[:, :, None] & across[:, None, :])[..., None], 0, images)
    return images


def _covered(centre: Int[Array, " b"], size: int, side: int) -> Array:
    """Pixels of a row within a stretch of `side` pixels about the centre: `[b, size]`."""
    away = jnp.arange(size)[None, :] - centre[:, None]
    return (away >= -(side // 2)) & (away < side - side // 2)


def mixed(
    key: Key[Array, ""], images: Float[Array, "b h w c"], wanted: Float[Array, "b k"], alpha: float
) -> tuple[Float[Array, "b h w c"], Float[Array, "b k"]]:
    """Images and class probabilities mixed with those of the batch in reverse order, all by one share."""
    if not alpha:
        return images, wanted
    share = jax.random.beta(key, alpha, alpha)
    return share * images + (1 - share) * images[::-1], share * wanted + (1 - share) * wanted[::-1]
