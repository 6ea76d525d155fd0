"""Image sets: archives as they are published, damaged ones, splits without an overlap, augmentation."""

import io
import tarfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cenas_jax.training.image_files import CIFAR10, decode_jpegs, load_images
from cenas_jax.training.images import (
    AugmentationConfig,
    augmented,
    image_set,
    mixed,
    split_images,
    standardised,
    to_device,
)


def synthetic(count: int = 50, seed: int = 0, size: int = 8):
    draw = np.random.default_rng(seed)
    return draw.integers(0, 256, (count, size, size, 3), np.uint8), np.arange(count) % 5


def test_digits_are_split_without_an_overlap_and_the_same_way_every_time():
    split, again = load_images("digits"), load_images("digits")
    assert [len(part.labels) for part in split] == [1079, 359, 359]
    assert split.train.images.shape[1:] == (8, 8, 1) and split.train.images.max() == 255
    for one, other in zip(split, again, strict=True):
        np.testing.assert_array_equal(one.images, other.images)
    rows = image_set(np.arange(60, dtype=np.uint8).reshape(60, 1, 1, 1), np.arange(60) % 3)
    parts = split_images(rows, 0.3, 0.1, seed=1)
    np.testing.assert_array_equal(np.sort(np.concatenate([part.images.ravel() for part in parts])), np.arange(60))
    assert [len(part.labels) for part in parts] == [36, 18, 6]


@pytest.mark.parametrize(
    ("images", "labels", "classes", "message"),
    [
        (np.zeros((4, 8, 8, 3)), np.arange(4), 4, r"mine: images are float64\[4, 8, 8, 3\]; give bytes"),
        (np.zeros((4, 8), np.uint8), np.arange(4), 4, r"uint8\[4, 8\]; give bytes"),
        (np.zeros((4, 8, 8), np.uint8), np.arange(3), 4, r"labels are int64\[3\]; give 4 integers"),
        (np.zeros((4, 8, 8), np.uint8), np.arange(4), 3, "labels are 0 .. 3, but 3 classes have 0 .. 2"),
        (np.zeros((4, 8, 8), np.uint8), np.arange(4) - 1, 3, "labels are -1 .. 2"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(images, labels, classes, message):
    with pytest.raises(ValueError, match=message):
        image_set(images, labels, classes, name="mine")


def test_npz_files(tmp_path):
    images, labels = synthetic()
    np.savez(tmp_path / "plain.npz", images=images, labels=labels)
    assert [len(part.labels) for part in load_images(tmp_path / "plain.npz")] == [30, 10, 10]
    np.savez(tmp_path / "parts.npz", x_train=images, y_train=labels, x_test=images[:7], y_test=labels[:7])
    split = load_images(tmp_path / "parts.npz", validation=0.1)
    assert [len(part.labels) for part in split] == [45, 5, 7]
    np.testing.assert_array_equal(split.test.images, images[:7])
    with pytest.raises(ValueError, match="none.npz: no such file"):
        load_images(tmp_path / "none.npz")
    np.savez(tmp_path / "empty.npz", x=images)
    with pytest.raises(ValueError, match="empty.npz: no array x_train: give images and labels"):
        load_images(tmp_path / "empty.npz")
    whole = (tmp_path / "plain.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="cut.npz: damaged, or no npz file"):
        load_images(tmp_path / "cut.npz")
    with pytest.raises(ValueError, match="'imagenet': give digits, cifar10, cifar100, cifar10-jpeg, or an .npz file"):
        load_images("imagenet")


def records(count: int, label_bytes: int, classes: int, seed: int) -> bytes:
    draw = np.random.default_rng(seed)
    rows = draw.integers(0, 256, (count, label_bytes + 3072), np.uint8)
    rows[:, :label_bytes] %= classes
    return rows.tobytes()


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("kind", ["cifar10", "cifar100"])
def test_official_archives_of_cifar(tmp_path, kind, packed):
    """Synthetic records in the official layout."""
    if kind == "cifar10":
        folder, archive, label_bytes, names = "cifar-10-batches-bin", "cifar-10-binary.tar.gz", 1, "batches.meta.txt"
        files = {f"data_batch_{n}.bin": records(4, 1, 10, n) for n in range(1, 6)} | {
            "test_batch.bin": records(6, 1, 10, 9)
        }
        classes = CIFAR10
    else:
        folder, archive, label_bytes, names = "cifar-100-binary", "cifar-100-binary.tar.gz", 2, "fine_label_names.txt"
        files = {"train.bin": records(20, 2, 100, 1), "test.bin": records(6, 2, 100, 9)}
        classes = tuple(f"class_{number}" for number in range(100))
    files[names] = ("\n".join(classes) + "\n\n").encode()
    images = tmp_path / "images"
    (images / folder).mkdir(parents=True)
    for name, content in files.items():
        (images / folder / name).write_bytes(content)
    if packed:
        with tarfile.open(images / archive, "w:gz") as target:
            target.add(images / folder, folder)
        for path in (images / folder).iterdir():
            path.unlink()
        (images / folder).rmdir()
    split = load_images(kind, tmp_path, validation=0.25)
    assert [len(part.labels) for part in split] == [15, 5, 6] and split.train.classes == classes
    test = np.frombuffer(files["test_batch.bin" if kind == "cifar10" else "test.bin"], np.uint8).reshape(6, -1)
    np.testing.assert_array_equal(split.test.labels, test[:, label_bytes - 1])
    np.testing.assert_array_equal(split.test.images[2, 3, 4], test[2, label_bytes:].reshape(3, 32, 32)[:, 3, 4])
    if packed:
        whole = (images / archive).read_bytes()
        for damaged in (
            whole[: len(whole) // 2],
            whole[:-4],
            whole[:20000] + bytes([whole[20000] ^ 4]) + whole[20001:],
        ):
            (images / archive).write_bytes(damaged)
            with pytest.raises(ValueError, match=f"{archive}: damaged"):
                load_images(kind, tmp_path)
        message = f"{archive}: damaged"
    else:
        last = "test_batch.bin" if kind == "cifar10" else "test.bin"
        (images / folder / last).write_bytes(files[last][:-1])
        message = f"{last}: .* bytes are no whole records"
    with pytest.raises(ValueError, match=message):
        load_images(kind, tmp_path)
    with pytest.raises(ValueError, match="binary.tar.gz: no such file: put the official archive there"):
        load_images(kind, tmp_path / "nowhere")


def jpeg_archive(path, damage: int | None = None):
    """Synthetic images as JPEGs with a common header, and what they look like once decoded."""
    image_module = pytest.importorskip("PIL.Image")
    images, labels = synthetic(6, size=16)
    files = []
    for image in images:
        buffer = io.BytesIO()
        image_module.fromarray(image).save(buffer, "JPEG")
        files.append(buffer.getvalue())
    decoded = np.stack([np.asarray(image_module.open(io.BytesIO(file))) for file in files])
    cut = 100  # the first bytes are the same in all
    bodies = [file[cut:] for file in files]
    if damage is not None:
        bodies[damage] = bodies[damage][:20]
    np.savez(
        path,
        label=labels,
        header_id=np.zeros(6, np.uint8),
        headers=np.frombuffer(files[0][:cut], np.uint8),
        header_len=np.array([cut]),
        body=np.frombuffer(b"".join(bodies), np.uint8),
        body_len=np.array([len(body) for body in bodies]),
    )
    return decoded, labels


def test_archives_of_jpegs(tmp_path):
    decoded, labels = jpeg_archive(tmp_path / "a.npz")
    found = decode_jpegs(tmp_path / "a.npz", ("a", "b", "c", "d", "e"))
    np.testing.assert_array_equal(found.images, decoded)
    np.testing.assert_array_equal(found.labels, labels)
    jpeg_archive(tmp_path / "b.npz", damage=3)
    with pytest.raises(ValueError, match="b.npz: image 3 is damaged"):
        decode_jpegs(tmp_path / "b.npz", CIFAR10)
    with pytest.raises(ValueError, match="a.npz: labels are 0 .. 4, but 2 classes"):
        decode_jpegs(tmp_path / "a.npz", ("a", "b"))


@pytest.mark.data
def test_the_archive_of_real_images(data_dir):
    pytest.importorskip("PIL")
    found = decode_jpegs(data_dir / "images" / "cifar10_jpeg_test.npz", CIFAR10)
    assert found.images.shape == (10000, 32, 32, 3)
    np.testing.assert_array_equal(np.bincount(found.labels), np.full(10, 1000))
    np.testing.assert_allclose(found.images.mean(axis=(0, 1, 2)) / 255, [0.494, 0.485, 0.450], atol=0.003)


@pytest.mark.data
def test_parts_of_real_files_are_kept(data_dir):
    flowers = load_images(data_dir / "images" / "flowers17_16x16.npz")
    assert [len(part.labels) for part in flowers] == [680, 340, 340] and len(flowers.train.classes) == 17
    subset = load_images(data_dir / "images" / "cifar10_subset.npz")
    assert [len(part.labels) for part in subset] == [2400, 600, 1000] and len(subset.train.classes) == 10


def test_standardised_training_images_have_mean_0_and_deviation_1():
    images, labels = synthetic()
    data = to_device(image_set(images, labels))
    values = standardised(data, data.images)
    np.testing.assert_allclose(values.mean(axis=(0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(values.std(axis=(0, 1, 2)), 1, atol=1e-4)
    other = to_device(image_set(images[:4], labels[:4]), data)
    np.testing.assert_array_equal(other.mean, data.mean)


def test_augmentation_moves_mirrors_and_hides():
    images = jnp.arange(1.0, 1 + 20 * 6 * 6).reshape(20, 6, 6, 1)
    key = jax.random.key(0)
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    seen = set()
    for image, source in zip(augmented(key, images, AugmentationConfig(crop_margin=1)), padded, strict=True):
        places = [(i, j) for i in range(3) for j in range(3) if np.array_equal(image, source[i : i + 6, j : j + 6])]
        assert len(places) == 1
        seen.add(places[0])
    assert len(seen) > 4
    flipped = augmented(key, images, AugmentationConfig(flip=True))
    mirrored = (flipped == images[:, :, ::-1]).all(axis=(1, 2, 3))
    assert 2 < int(mirrored.sum()) < 18 and bool((mirrored | (flipped == images).all(axis=(1, 2, 3))).all())
    hidden = (augmented(key, images, AugmentationConfig(cutout=3)) == 0).sum(axis=(1, 2, 3))
    assert int(hidden.max()) == 9 and int(hidden.min()) >= 4
    np.testing.assert_array_equal(augmented(key, images, AugmentationConfig()), images)
    with pytest.raises(ValueError, match="must not be negative"):
        AugmentationConfig(flip=True, cutout=-1)


def test_mixup_mixes_images_and_labels_alike():
    images, wanted = jnp.arange(4.0).reshape(4, 1, 1, 1), jnp.eye(4)
    found, labels = mixed(jax.random.key(3), images, wanted, 0.4)
    share = float(labels[0, 0])
    assert 0 < share < 1
    np.testing.assert_allclose(found.ravel(), share * np.arange(4) + (1 - share) * np.arange(4)[::-1], rtol=1e-6)
    np.testing.assert_allclose(labels.sum(axis=1), 1, rtol=1e-6)
