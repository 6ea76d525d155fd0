"""Paths, screening and few-shot splits, against the plain way to do each."""

import dataclasses
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from linear_network import linear_network
from test_classifier import CONFIG, DATA, KEY, SMALL, synthetic

from cenas_jax.nets import nas_bench_201_supernet
from cenas_jax.nets.nas_bench_201 import NasBench201Config
from cenas_jax.spaces.nas_bench_201 import nas_bench_201
from cenas_jax.training.images import standardised
from cenas_jax.training.paths import every_choice, fair_path, listed_path, only, uniform_path
from cenas_jax.training.supernet import screen_parts, split_supernet, supernet

EVERY = every_choice((3, 2, 3))
STEPS = jnp.arange(300)


def drawn(path, choice):
    return np.asarray(jax.jit(jax.vmap(lambda step: path(KEY, step, choice)[0]))(STEPS))


def test_uniform_paths_draw_every_allowed_choice_alike():
    codes = drawn(uniform_path, EVERY)
    for entry, count in enumerate((3, 2, 3)):
        found = np.bincount(codes[:, entry], minlength=count)
        assert len(found) == count and (abs(found - 300 / count) < 5 * np.sqrt(300 / count)).all()
    part = drawn(uniform_path, only(EVERY, 2, 1))
    assert (part[:, 2] == 1).all() and len(np.unique(part[:, 0])) == 3


def test_fair_paths_draw_every_choice_once_in_as_many_steps():
    codes = drawn(fair_path, EVERY)
    for entry, count in enumerate((3, 2, 3)):
        rounds = np.sort(codes[: 300 // count * count, entry].reshape(-1, count), axis=1)
        np.testing.assert_array_equal(rounds, np.broadcast_to(np.arange(count), rounds.shape))
    assert len(np.unique(codes, axis=0)) == 18  # entries are shuffled by themselves
    assert (drawn(fair_path, only(EVERY, 0, 2))[:, 0] == 2).all()


def test_listed_paths_are_rows_that_are_valid():
    codes = jnp.arange(12, dtype=jnp.int32).reshape(4, 3)
    found = drawn(listed_path, (codes, jnp.array([True, False, True, True])))
    np.testing.assert_array_equal(np.unique(found[:, 0]), [0, 6, 9])


@pytest.fixture(scope="module")
def net():
    return supernet(nas_bench_201_supernet(SMALL), CONFIG)


def test_a_supernet_learns_and_is_screened_as_paths_one_by_one(net):
    data, space = synthetic(30, size=8), nas_bench_201()
    state, allowed, losses = net.init(KEY, data), every_choice(space.num_choices), []
    for _ in range(CONFIG.steps // CONFIG.chunk_steps):
        state, info = net.train_chunk(state, KEY, data, allowed)
        losses.append(float(info.loss.mean()))
    assert losses[-1] < losses[0] and not bool(state.failed)
    codes = space.sample(jax.random.key(2), 6)
    found = net.screen(state.variables, codes, data)
    network, images = nas_bench_201_supernet(SMALL), standardised(data, data.images)
    apply = jax.jit(lambda row: network.apply(state.variables, images, row, "batch")[0])
    expected = [float((apply(row).argmax(axis=1) == data.labels).mean()) for row in codes]
    np.testing.assert_allclose(found, expected)
    spoilt = jax.tree.map(lambda leaf: leaf.at[0].set(jnp.nan), state.variables)
    assert np.isnan(net.screen(spoilt, codes, data)).all()
    assert net.screen._cache_size() == 1


def test_statistics_are_those_of_the_calibration_images(monkeypatch):
    module = importlib.import_module("cenas_jax.training.supernet")  # the package has the function under this name
    monkeypatch.setattr(module, "SCREENED", 12)
    net = supernet(linear_network(entries=2), CONFIG)
    variables = net.init(KEY, DATA).variables
    # The linear network's statistics are those of its last batch; 30 images are batches of 10.
    calibration = DATA._replace(images=255 - DATA.images)
    mean = standardised(DATA, calibration.images[20:]).mean()
    known = variables | {"statistics": {"mean": mean}}
    codes = jnp.array([[0, 1], [2, 0]], jnp.int32)
    expected = [net.apply(known, DATA, row).argmax(axis=1) == DATA.labels for row in codes]
    np.testing.assert_allclose(
        net.screen(variables, codes, DATA, calibration), [float(right.mean()) for right in expected]
    )


def test_a_split_inherits_and_each_part_keeps_to_its_choice():
    net = supernet(linear_network(entries=2), dataclasses.replace(CONFIG, steps=8))
    allowed = every_choice((3, 2))
    state, _ = net.train_chunk(net.init(KEY, DATA), KEY, DATA, allowed)
    weights = np.array(state.variables["params"]["head"]["kernel"])
    parts = split_supernet(net, state.variables, allowed, 0)
    assert [np.flatnonzero(part.allowed[0]).tolist() for part in parts] == [[0], [1], [2]]
    trained = []
    for part in parts:
        assert int(part.state.step) == 0
        np.testing.assert_array_equal(part.state.variables["params"]["head"]["kernel"], weights)
        trained.append(part._replace(state=net.train_chunk(part.state, KEY, DATA, part.allowed)[0]))
    np.testing.assert_array_equal(state.variables["params"]["head"]["kernel"], weights)  # parts have copies
    codes = jnp.array([[2, 0], [0, 1], [2, 1], [2, 0]], jnp.int32)
    found = screen_parts(net, trained, codes, DATA)
    expected = [net.screen(trained[int(row[0])].state.variables, row[None], DATA)[0] for row in codes]
    np.testing.assert_array_equal(found, jnp.stack(expected))
    assert np.isnan(screen_parts(net, trained[:2], codes, DATA)[0])


@pytest.mark.slow
def test_recalibrated_statistics_on_the_real_network():
    """Running statistics after calibration on the screened images themselves rank as the batch's own."""
    data, space = synthetic(30, size=8), nas_bench_201()
    net = supernet(nas_bench_201_supernet(NasBench201Config(4, 1, 3)), CONFIG)
    variables, codes = net.init(KEY, data).variables, space.sample(KEY, 8)
    own, calibrated = net.screen(variables, codes, data), net.screen(variables, codes, data, data)
    np.testing.assert_allclose(own, calibrated, atol=0.11)  # the variance is the unbiased one
