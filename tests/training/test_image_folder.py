"""Folders of image files: every pass has every image once, streams resume, what cannot be read is named."""

import itertools
import sys

import jax
import numpy as np
import pytest
from linear_network import linear_network

from cenas_jax.training.classifier import TrainingConfig, batch_rows, classifier
from cenas_jax.training.image_folder import IMAGENET_MEAN, read_folder, stream_folder
from cenas_jax.training.loop import train

pytest.importorskip("grain")
Image = pytest.importorskip("PIL.Image")

CLASSES = ("ape", "bee", "cow")


def picture(number: int, width: int, height: int):
    """Red tells the picture, blue is a ramp from left to right."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0] = 20 * number
    pixels[..., 2] = np.linspace(0, 255, width)[None, :]
    return Image.fromarray(pixels)


@pytest.fixture
def folder(tmp_path):
    for split, each in (("train", 4), ("val", 1)):
        for label, name in enumerate(CLASSES):
            (tmp_path / split / name).mkdir(parents=True)
            for place in range(each):
                number = each * label + place
                suffix = ("JPEG", "png", "jpg")[number % 3]
                picture(number, 30 + number, 50 - 2 * number).save(tmp_path / split / name / f"{number:02}.{suffix}")
    (tmp_path / "train" / "ape" / "notes.txt").write_text("no image")
    return tmp_path


def numbers(chunk) -> list[int]:
    return (np.asarray(chunk.images)[..., 0].mean(axis=(1, 2)) / 20).round().astype(int).tolist()


def chunks(folder, count: int, number: int, **options):
    return list(itertools.islice(stream_folder(folder, 8, count, **options), number))


def test_every_pass_has_every_image_once_in_an_order_of_its_own(folder):
    found = chunks(folder, 5, 5)
    assert all(each.images.shape == (5, 8, 8, 3) and each.images.dtype == np.uint8 for each in found)
    np.testing.assert_allclose(found[0].mean, IMAGENET_MEAN)
    order = sum((numbers(each) for each in found), [])
    labels = np.concatenate([each.labels for each in found])
    np.testing.assert_array_equal(labels, np.array(order) // 4)
    assert sorted(order[:12]) == sorted(order[12:24]) == list(range(12)) and order[:12] != order[12:24]


def test_streams_resume_and_depend_on_the_seed_alone(folder):
    whole = chunks(folder, 5, 4, threads=3)
    for start in (1, 3):
        for one, other in zip(whole[start:], chunks(folder, 5, 4 - start, start=start, threads=1), strict=True):
            jax.tree.map(np.testing.assert_array_equal, one, other)
    assert numbers(chunks(folder, 12, 1, seed=1)[0]) != numbers(chunks(folder, 12, 1)[0])


def test_training_images_are_parts_of_theirs(folder):
    """Where the blue ramp begins and how far it goes: both vary, within the picture."""
    (seen,) = chunks(folder, 60, 1)
    blue = np.asarray(seen.images, float)[..., 2].mean(axis=1)
    first, reach = blue[:, 0], blue[:, -1] - blue[:, 0]
    assert first.min() < 40 and first.max() > 80 and reach.min() < 120 and reach.max() > 180
    assert (np.diff(blue, axis=1) > 0).all()


def test_validation_images_are_the_middle_in_the_order_of_their_names(folder):
    ramp = np.broadcast_to(np.arange(128, dtype=np.uint8), (64, 128))
    Image.fromarray(ramp).save(folder / "val" / "ape" / "00.JPEG", quality=95)  # grey: all channels alike
    found = read_folder(folder, 8)
    assert numbers(found)[1:] == [1, 2] and found.labels.tolist() == [0, 1, 2]
    # 56 of 128 columns, 36 .. 92, in 8 columns of 7: the middle of the first is column 39.
    expected = np.broadcast_to(np.arange(39, 92, 7)[None, :, None], (8, 8, 3))
    np.testing.assert_allclose(found.images[0], expected, atol=2)


def test_a_training_streams_its_chunks(folder):
    config = TrainingConfig(steps=6, chunk_steps=3, batch=4)
    program, key = classifier(linear_network(), config), jax.random.key(0)
    trained = train(key, program, config, lambda chunk: stream_folder(folder, 8, 12, start=chunk))
    state = None
    for chunk in chunks(folder, 12, 2):
        state, _ = program.train_chunk(program.init(key, chunk) if state is None else state, key, chunk)
    jax.tree.map(np.testing.assert_array_equal, trained.state, state)
    for step in (0, 3, 6):
        np.testing.assert_array_equal(np.sort(batch_rows(key, step, 12, 3, 4).ravel()), np.arange(12))


def test_what_cannot_be_read_is_named(folder, monkeypatch):
    whole = (folder / "train" / "bee" / "06.JPEG").read_bytes()
    (folder / "train" / "bee" / "06.JPEG").write_bytes(whole[: len(whole) - 200])
    with pytest.raises(ValueError, match=r"bee/06.JPEG: cannot be read \(.*\): mend the file, or remove it"):
        chunks(folder, 12, 1)
    (folder / "val" / "cow" / "02.jpg").write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match=r"cow/02.jpg: cannot be read \(cannot identify image file"):
        read_folder(folder, 8)
    (folder / "val" / "dog").mkdir()
    with pytest.raises(ValueError, match="val/dog: no class of .*train: give both splits the same subfolders"):
        read_folder(folder, 8)
    with pytest.raises(ValueError, match="test: no such folder: give one with train/CLASS"):
        read_folder(folder, 8, split="test")
    (folder / "test" / "ape").mkdir(parents=True)
    with pytest.raises(ValueError, match="test: no .jpeg, .jpg, .png in its subfolders"):
        read_folder(folder, 8, split="test")
    with pytest.raises(ValueError, match="seed and start from 0 on, not 8, 0, 16, 0 and 0"):
        stream_folder(folder, 8, 0)
    monkeypatch.setitem(sys.modules, "grain", None)
    with pytest.raises(ValueError, match="need grain and Pillow: pip install 'cenas-jax"):
        stream_folder(folder, 8, 4)
