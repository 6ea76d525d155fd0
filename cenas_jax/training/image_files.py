"""Image sets by name or file: digits, CIFAR's official archives, JPEGs, any npz. Every file is checked."""

import gzip
import io
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from cenas_jax.training.images import ImageSet, ImageSplit, image_set, split_images

NAMES = ("digits", "cifar10", "cifar100", "cifar10-jpeg")
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_DAMAGE = (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error, tarfile.TarError)
"""What reading a file with wrong bytes raises."""


def load_images(
    name: str | Path, data_dir: str | Path | None = None, *, validation: float = 0.2, test: float = 0.2, seed: int = 0
) -> ImageSplit:
    """Training, validation and test images by name, or of an npz file.

    Names: `digits` (1,797 grey images of 8 x 8, with scikit-learn, no file needed); `cifar10` and `cifar100`, from
    `images/cifar-10-binary.tar.gz` or `cifar-100-binary.tar.gz` of the data folder (`data_dir`, or `CENAS_DATA`), or
    from what they unpack to; `cifar10-jpeg`, from `images/cifar10_jpeg_*.npz` there, which needs Pillow.
    An npz file has `images` and `labels`, or `x_train`, `y_train`, and where there are official parts `x_val`,
    `y_val`, `x_test`, `y_test`; `classes`, their names, may be absent.

    What has no official validation or test part gets one by the share and the seed. `ValueError`, one line, names the
    file that is missing, damaged or does not fit, and what mends it.
    """
    if name not in NAMES:
        if Path(name).suffix != ".npz":
            raise ValueError(f"image set {str(name)!r}: give {', '.join(NAMES)}, or an .npz file")
        return _from_arrays(Path(name), validation, test, seed)
    if name == "digits":
        return split_images(_digits(), validation, test, seed=seed)
    folder = data_dir or os.environ.get("CENAS_DATA")
    if not folder:
        raise ValueError(f"image set {name!r}: name the data folder by CENAS_DATA, or give data_dir")
    read = {"cifar10": _cifar10, "cifar100": _cifar100, "cifar10-jpeg": _jpeg_archive}[str(name)]
    train, held_out = read(Path(folder) / "images")
    return split_images(train, validation, held_out, seed=seed)


def _digits() -> ImageSet:
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise ValueError("image set 'digits' comes with scikit-learn: pip install scikit-learn") from None
    values, labels = load_digits(return_X_y=True)
    images = (np.reshape(values, (-1, 8, 8)) * (255 / 16)).round().astype(np.uint8)
    return image_set(images, np.asarray(labels), 10, name="digits")


def _from_arrays(path: Path, validation: float, test: float, seed: int) -> ImageSplit:
    arrays = _open(path)
    parts = {"train": ("x_train", "y_train"), "validation": ("x_val", "y_val"), "test": ("x_test", "y_test")}
    if "images" in arrays:
        parts = {"train": ("images", "labels")}
    missing = [key for key in parts["train"] if key not in arrays]
    if missing:
        raise ValueError(f"{path}: no array {missing[0]}: give images and labels, or x_train and y_train")
    present = {part: keys for part, keys in parts.items() if keys[0] in arrays and keys[1] in arrays}
    known = arrays.get("classes")
    if known is None:
        classes: int | tuple[str, ...] = 1 + max(int(np.max(arrays[y], initial=0)) for _, y in present.values())
    else:
        classes = tuple(str(label) for label in np.atleast_1d(known))
    sets = {part: image_set(arrays[x], arrays[y], classes, name=str(path)) for part, (x, y) in present.items()}
    held_out = sets.get("test", test)
    if "validation" not in sets:
        return split_images(sets["train"], validation, held_out, seed=seed)
    if "test" in sets:
        return ImageSplit(**sets)
    return split_images(sets["train"], 0.5, sets["validation"], seed=seed)._replace(train=sets["train"])


def _open(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise ValueError(f"{path}: no such file: name an .npz file of images and labels")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}
    except _DAMAGE as error:
        raise ValueError(f"{path}: damaged, or no npz file of plain arrays ({error}): fetch it again") from None


# --- CIFAR's official binary archives (Krizhevsky, 2009) -------------------------------------------------------------


def _cifar10(folder: Path) -> tuple[ImageSet, ImageSet]:
    read = _archive(folder, "cifar-10-binary.tar.gz", "cifar-10-batches-bin")
    train = [f"data_batch_{number}.bin" for number in range(1, 6)]
    classes = _lines(read, "batches.meta.txt")
    return _records(read, train, 1, classes, "cifar10"), _records(read, ["test_batch.bin"], 1, classes, "cifar10")


def _cifar100(folder: Path) -> tuple[ImageSet, ImageSet]:
    read = _archive(folder, "cifar-100-binary.tar.gz", "cifar-100-binary")
    classes = _lines(read, "fine_label_names.txt")
    return _records(read, ["train.bin"], 2, classes, "cifar100"), _records(read, ["test.bin"], 2, classes, "cifar100")


Reader = Callable[[str], tuple[str, bytes]]
"""A member's name -> where it is (for messages) and its bytes."""


def _archive(folder: Path, packed: str, unpacked: str) -> Reader:
    if (folder / unpacked).is_dir():

        def read(name: str) -> tuple[str, bytes]:
            path = folder / unpacked / name
            if not path.is_file():
                raise ValueError(f"{path}: no such file: unpack {packed} again")
            return str(path), path.read_bytes()

        return read
    path = folder / packed
    if not path.is_file():
        raise ValueError(f"{path}: no such file: put the official archive there, or what it unpacks to ({unpacked}/)")
    try:
        # Whole, for its check sum: tarfile stops reading before it.
        with tarfile.open(fileobj=io.BytesIO(gzip.decompress(path.read_bytes()))) as archive:
            found = {Path(each.name).name: archive.extractfile(each) for each in archive.getmembers() if each.isfile()}
            members = {name: file.read() for name, file in found.items() if file is not None}
    except _DAMAGE as error:
        raise ValueError(f"{path}: damaged, or no archive ({error}): fetch it again") from None

    def read_packed(name: str) -> tuple[str, bytes]:
        if name not in members:
            raise ValueError(f"{path}: has no {name}: is this the official binary archive?")
        return f"{path}: {name}", members[name]

    return read_packed


def _lines(read: Reader, name: str) -> tuple[str, ...]:
    return tuple(read(name)[1].decode("ascii", "replace").split())


def _records(read: Reader, names: list[str], label_bytes: int, classes: tuple[str, ...], title: str) -> ImageSet:
    """Records of label bytes (the last of them is the fine label), then 3 planes of 32 x 32 bytes."""
    images, labels, size = [], [], label_bytes + 3 * 32 * 32
    for name in names:
        where, content = read(name)
        if not content or len(content) % size:
            raise ValueError(f"{where}: {len(content)} bytes are no whole records of {size}: fetch the archive again")
        rows = np.frombuffer(content, np.uint8).reshape(-1, size)
        own = rows[:, label_bytes - 1]
        if own.max() >= len(classes):
            raise ValueError(
                f"{where}: label {own.max()}, but there are {len(classes)} classes: fetch the archive again"
            )
        labels.append(own)
        images.append(rows[:, label_bytes:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    return image_set(np.ascontiguousarray(np.concatenate(images)), np.concatenate(labels), classes, name=title)


# --- JPEGs -----------------------------------------------------------------------------------------------------------


def _jpeg_archive(folder: Path) -> tuple[ImageSet, ImageSet]:
    parts = [decode_jpegs(folder / f"cifar10_jpeg_{part}.npz", CIFAR10) for part in ("train_a", "train_b", "test")]
    images, labels = (np.concatenate([part[place] for part in parts[:2]]) for place in (1, 2))
    return image_set(images, labels, CIFAR10, name="cifar10-jpeg"), parts[2]._replace(name="cifar10-jpeg")


def decode_jpegs(path: Path, classes: tuple[str, ...]) -> ImageSet:
    """Decodes an archive: image i is header `header_id[i]` (out of `headers`, cut by `header_len`), then its part of
    `body` (cut by `body_len`). `ValueError` names the file, and the image that is damaged; needs Pillow.
    """
    try:
        from PIL import Image
    except ImportError:
        raise ValueError(f"{path}: JPEGs need Pillow: pip install 'cenas-jax[images]'") from None
    arrays = _open(path)
    headers, bodies, header_id = _cut(arrays, "headers", path), _cut(arrays, "body", path), _column(arrays, path)
    if not len(bodies) == len(header_id) == len(arrays["label"]) or header_id.max(initial=0) >= len(headers):
        raise ValueError(f"{path}: label, header_id and body_len do not fit each other: fetch it again")
    images = []
    for number, (which, body) in enumerate(zip(header_id, bodies, strict=True)):
        try:
            with Image.open(io.BytesIO(headers[which] + body)) as image:
                pixels = np.asarray(image.convert("RGB"))
        except (OSError, SyntaxError, ValueError) as error:  # what Pillow raises for damaged bytes
            raise ValueError(f"{path}: image {number} is damaged ({error}): fetch the file again") from None
        if images and pixels.shape != images[0].shape:
            raise ValueError(
                f"{path}: image {number} has shape {pixels.shape}, others {images[0].shape}: fetch it again"
            )
        images.append(pixels)
    return image_set(np.stack(images), arrays["label"], classes, name=str(path))


def _column(arrays: Mapping[str, np.ndarray], path: Path) -> np.ndarray:
    missing = [key for key in ("label", "header_id") if key not in arrays]
    if missing:
        raise ValueError(f"{path}: no array {missing[0]}: is this an archive of JPEGs?")
    return arrays["header_id"]


def _cut(arrays: Mapping[str, np.ndarray], name: str, path: Path) -> list[bytes]:
    lengths = f"{name.removesuffix('s')}_len"
    if name not in arrays or lengths not in arrays:
        raise ValueError(f"{path}: no arrays {name} and {lengths}: is this an archive of JPEGs?")
    ends = np.cumsum(arrays[lengths], dtype=np.int64)
    content = arrays[name].tobytes()
    if not len(ends) or ends[-1] != len(content):
        raise ValueError(f"{path}: {lengths} does not add up to the size of {name}: fetch it again")
    return [content[start:end] for start, end in zip(np.concatenate([[0], ends[:-1]]), ends, strict=True)]
