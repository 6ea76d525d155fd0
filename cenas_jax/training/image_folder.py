"""A folder of JPEG and PNG files too large for the device, such as ImageNet's, read a chunk of steps at a time.

`FOLDER/train/CLASS/*.JPEG`, `FOLDER/val/CLASS/*.JPEG` and so on; the classes are the subfolders of `train`, numbered in
the order of their names, in every split. Needs grain and Pillow: `pip install 'cenas-jax[imagenet]'`.
"""

import importlib.util
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8

from cenas_jax.training.images import ImageArrays

IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of the channels of ImageNet's training images, as shares of 255: red, green, blue."""
SUFFIXES = (".jpeg", ".jpg", ".png")
CENTRE = 0.875
"""Side of the square that is evaluated, as a share of the shorter side: 224 of 256 pixels."""
Box = tuple[float, float, float, float]
"""Left, upper, right and lower border in pixels."""


def stream_folder(
    folder: str | Path,
    image_size: int,
    count: int,
    *,
    split: str = "train",
    seed: int = 0,
    start: int = 0,
    threads: int = 16,
    mean: tuple[float, float, float] = IMAGENET_MEAN,
    deviation: tuple[float, float, float] = IMAGENET_DEVIATION,
) -> Iterator[ImageArrays]:
    """Training images without an end, `count` at a time: `[count, image_size, image_size, 3]` and their labels.

    Every pass over the split is an order of its own, and every image in it a random part of 8 to 100 % of its area, of
    an aspect ratio of 3/4 to 4/3, resized to a square (Szegedy et al., CVPR 2015); mirroring is for
    `AugmentationConfig`. With `count` = `chunk_steps * batch` a chunk of steps takes each of its images once, so that
    `train` goes through the passes as they are drawn here:

        train(key, program, config, lambda chunk: stream_folder("imagenet", 224, count, start=chunk))

    Args:
        start: the first chunk's number; from there on the images are those of a stream that began at 0.
        threads: they decode (Pillow does so outside of Python's lock), up to `count` images ahead.

    `ValueError`, one line, names a folder that does not fit, and the file that cannot be read when it is its turn.
    """
    if min(image_size, count, threads) < 1 or min(seed, start) < 0:
        raise ValueError(
            "stream_folder: give positive image_size, count and threads, and seed and start from 0 on, not "
            f"{image_size}, {count}, {threads}, {seed} and {start}"
        )
    files, labels = _files(Path(folder), split)

    def draw(row, random: np.random.Generator):
        return _decoded(files[row], image_size, lambda width, height: _random_box(width, height, random)), labels[row]

    source = _grain().MapDataset.source(range(len(files))).seed(seed)
    endless = source.shuffle().repeat().random_map(draw)[start * count :]
    return _chunks(endless, count, threads, mean, deviation)


def read_folder(
    folder: str | Path,
    image_size: int,
    *,
    split: str = "val",
    threads: int = 16,
    mean: tuple[float, float, float] = IMAGENET_MEAN,
    deviation: tuple[float, float, float] = IMAGENET_DEVIATION,
) -> ImageArrays:
    """A whole split on the device, to be judged by: of every image the middle square, 87.5 % of the shorter side.

    In the order of the classes and the files' names. `ValueError` as of `stream_folder`.
    """
    if min(image_size, threads) < 1:
        raise ValueError(f"read_folder: give positive image_size and threads, not {image_size} and {threads}")
    files, labels = _files(Path(folder), split)
    rows = _grain().MapDataset.source(range(len(files)))
    images = rows.map(lambda row: (_decoded(files[row], image_size, _middle_box), labels[row]))
    return next(_chunks(images, len(files), threads, mean, deviation))


def _grain() -> Any:
    if any(importlib.util.find_spec(name) is None for name in ("grain", "PIL")):
        raise ValueError("image folders need grain and Pillow: pip install 'cenas-jax[imagenet]'")
    import grain

    return grain


def _chunks(images: Any, count: int, threads: int, mean, deviation) -> Iterator[ImageArrays]:
    """Decodes a grain dataset of `(image, label)` in threads, and puts `count` images at a time on the device."""
    ahead = _grain().ReadOptions(num_threads=threads, prefetch_buffer_size=max(count, threads))
    iterator = iter(images.to_iter_dataset(ahead).batch(count))
    scale = jnp.asarray(mean, jnp.float32), jnp.asarray(deviation, jnp.float32)
    try:
        for pixels, labels in iterator:
            yield ImageArrays(jnp.asarray(pixels), jnp.asarray(labels), *scale)
    finally:  # whoever stops early waits for no images that are under way
        iterator.close()


def _files(folder: Path, split: str) -> tuple[list[str], np.ndarray]:
    """Every image file of a split and its class's number `[n]`."""
    for needed in (folder / "train", folder / split):
        if not needed.is_dir():
            raise ValueError(f"{needed}: no such folder: give one with train/CLASS/*.JPEG and {split}/CLASS/*.JPEG")
    classes = sorted(path.name for path in (folder / "train").iterdir() if path.is_dir())
    files, labels = [], []
    for path in sorted(path for path in (folder / split).iterdir() if path.is_dir()):
        if path.name not in classes:
            raise ValueError(f"{path}: no class of {folder / 'train'}: give both splits the same subfolders")
        found = sorted(str(file) for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
        files += found
        labels += [classes.index(path.name)] * len(found)
    if not files:
        raise ValueError(f"{folder / split}: no {', '.join(SUFFIXES)} in its subfolders: give a folder for every class")
    return files, np.asarray(labels, np.int32)


def _decoded(file: str, image_size: int, box: Callable[[int, int], Box]) -> UInt8[np.ndarray, "s s 3"]:
    """The part of an image in `box(width, height)`, resized to a square."""
    from PIL import Image

    try:
        with Image.open(file) as image:
            square = image.convert("RGB").resize(
                (image_size, image_size), Image.Resampling.BILINEAR, box(image.width, image.height)
            )
            return np.asarray(square)
    except Exception as error:  # Pillow's decoders raise what they like
        raise ValueError(f"{file}: cannot be read ({error}): mend the file, or remove it") from None


def _random_box(width: int, height: int, random: np.random.Generator) -> Box:
    for _ in range(10):
        area, ratio = random.uniform(0.08, 1) * width * height, math.exp(random.uniform(-1, 1) * math.log(4 / 3))
        across, down = math.sqrt(area * ratio), math.sqrt(area / ratio)
        if across <= width and down <= height:
            left, upper = random.uniform(0, width - across), random.uniform(0, height - down)
            # Rounding must not reach over the border.
            return left, upper, min(left + across, width), min(upper + down, height)
    return _middle_box(width, height)


def _middle_box(width: int, height: int) -> Box:
    side = CENTRE * min(width, height)
    left, upper = (width - side) / 2, (height - side) / 2
    return left, upper, left + side, upper + side
