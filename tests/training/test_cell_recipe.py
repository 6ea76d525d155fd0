"""DARTS' training recipe: the auxiliary head and dropped paths, both in training alone."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cell_networks import filled
from compiling import jit_convolutions
from test_classifier import CONFIG, KEY, equal, synthetic

from cenas_jax.nets import (
    DartsNetworkConfig,
    NasBench201Config,
    darts_candidate,
    darts_inherited,
    darts_supernet,
    nas_bench_201_candidate,
    nasnet_supernet,
)
from cenas_jax.nets.cell_operations import operation_parts
from cenas_jax.nets.cells import dropped
from cenas_jax.spaces import space
from cenas_jax.spaces.darts import DARTS_V2
from cenas_jax.spaces.darts import OPERATIONS as DARTS
from cenas_jax.spaces.nasnet import OPERATIONS as NASNET
from cenas_jax.spaces.nasnet import NasNetConfig
from cenas_jax.training.classifier import TrainingConfig, classifier
from cenas_jax.training.images import standardised
from cenas_jax.training.loop import train

TINY = DartsNetworkConfig(cells=3, channels=2, num_classes=3)


def everywhere(operations, name: str, nodes: int) -> tuple[int, ...]:
    return (0, operations.index(name), operations.index(name)) * 2 * nodes


POOLS, SKIPS = everywhere(DARTS, "max_pool_3x3", 4), everywhere(DARTS, "skip_connect", 4)


def images(count: int = 8, size: int = 8):
    data = synthetic(count, size=size)
    return data, standardised(data, data.images)


def test_parameters_of_the_auxiliary_head():
    codes, shape = tuple(map(int, space("darts").from_string(DARTS_V2))), jnp.zeros((1, 32, 32, 3))
    counts = []
    for auxiliary in (False, True):
        network = darts_candidate(DartsNetworkConfig(auxiliary=auxiliary), codes)
        params = jax.eval_shape(network.init, KEY, shape)["params"]
        counts.append(sum(leaf.size for leaf in jax.tree.leaves(params)))
    # It reads 4 nodes of 4 * 36 channels: 576 * 128 weights and 2 * 128; 4 * 128 * 768 and 2 * 768; 769 * 10.
    assert counts == [3_349_342, 3_349_342 + 73_728 + 256 + 393_216 + 1536 + 7690]


def test_the_auxiliary_loss_is_added_in_training_alone(monkeypatch):
    monkeypatch.setattr(jax, "jit", jit_convolutions)
    network = darts_candidate(dataclasses.replace(TINY, auxiliary=True), SKIPS)
    config = TrainingConfig(steps=1, chunk_steps=1, batch=8, auxiliary_weight=0.4)
    program, (data, values) = classifier(network, config, optimiser=optax.sgd(0.1)), images(size=32)
    before = jax.tree.map(np.array, program.init(KEY, data).variables)
    state, info = program.train_chunk(program.restart(before), KEY, data)
    both, _ = jit_convolutions(lambda variables: network.apply(variables, values, "train", auxiliary=True))(before)
    alone, _ = jit_convolutions(lambda variables: network.apply(variables, values, "batch"))(before)
    loss, auxiliary = (optax.softmax_cross_entropy_with_integer_labels(head, data.labels).mean() for head in both)
    np.testing.assert_allclose(info.loss[0], loss + 0.4 * auxiliary, rtol=1e-4)
    np.testing.assert_allclose(alone, both[0], rtol=1e-5, atol=1e-6)
    for name in ("auxiliary_first", "auxiliary_second", "auxiliary_head"):
        after, old = (jax.tree.leaves(tree["params"][name]) for tree in (state.variables, before))
        assert all((one != other).any() for one, other in zip(after, old, strict=True))


def test_dropped_paths_keep_the_mean():
    y, drop = jax.random.normal(KEY, (5, 2, 2, 3)), 0.2
    drawn = jax.vmap(lambda key: dropped(key, y, drop))(jax.random.split(KEY, 4000))
    zeros = np.asarray((drawn == 0).all(axis=(2, 3, 4)))
    error = np.sqrt(drop / (1 - drop) / 4000)  # of the mean of values that are 0 or 1 / 0.8
    np.testing.assert_allclose(drawn.mean(axis=0), y, atol=5 * error * np.abs(y).max())
    np.testing.assert_allclose(zeros.mean(), drop, atol=5 * np.sqrt(0.2 * 0.8 / zeros.size))
    # A whole image or nothing of it, each image by itself.
    assert ((drawn != 0).all(axis=(2, 3, 4)) | zeros).all() and len(np.unique(zeros, axis=0)) == 2**5


def statistics_by_key(apply):
    """Of what reads the first cell's output: without dropped paths, with them, again, by another key."""
    run = jit_convolutions(lambda key, drop: apply("train", key=key, drop=drop)[1]["cell_1"]["second"]["running"].mean)
    turns = (KEY, 0.0), (KEY, 0.5), (KEY, 0.5), (jax.random.key(1), 0.5)
    return [np.asarray(run(*turn)) for turn in turns]


def check_drops(applies):
    """`applies`: of pools and of identities, which are not dropped."""
    of_pools, of_identities = map(statistics_by_key, applies)
    np.testing.assert_array_equal(of_pools[1], of_pools[2])
    assert (of_pools[0] != of_pools[1]).any() and (of_pools[1] != of_pools[3]).any()
    for found in of_identities[1:]:
        np.testing.assert_allclose(found, of_identities[0], rtol=1e-5, atol=1e-6)


def test_paths_are_dropped_by_the_key_but_for_identities():
    _, values = images()
    applies = []
    for codes in (POOLS, SKIPS):
        network = darts_candidate(TINY, codes)
        variables = jax.jit(network.init)(KEY, values)
        applies.append(lambda *how, v=variables, net=network, **recipe: net.apply(v, values, *how, **recipe))
    check_drops(applies)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["darts", "nasnet"])
def test_supernets_drop_paths_too(name):
    _, values = images()
    if name == "darts":
        network, size, operations, nodes = darts_supernet(TINY), (), DARTS, 4
    else:
        network, size = nasnet_supernet(NasNetConfig((3,), (2,), num_classes=3, image_size=8)), (0, 0)
        operations, nodes = NASNET, 5
    variables = filled(jax.eval_shape(network.init, KEY, values))
    applies = []
    for choice in ("max_pool_3x3", "skip_connect"):
        codes = jnp.asarray((*everywhere(operations, choice, nodes), *size), jnp.int32)
        applies.append(lambda *how, c=codes, **recipe: network.apply(variables, values, c, *how, **recipe))
    check_drops(applies)


@pytest.mark.slow
def test_a_resumed_training_that_drops_paths_ends_with_the_same_bits(tmp_path):
    config = dataclasses.replace(CONFIG, steps=6, chunk_steps=2, drop_path=0.5)
    program, (data, _) = classifier(darts_candidate(TINY, SKIPS), config), images(30)
    whole = train(KEY, program, config, data)
    kept = {"checkpoints": tmp_path, "identity": {"network": "skips"}}
    train(KEY, program, config, data, **kept, pause=lambda step: step == 2)
    equal(whole.state, train(KEY, program, config, data, **kept).state)


def test_the_auxiliary_head_is_inherited():
    config = dataclasses.replace(TINY, auxiliary=True)
    shapes = jax.eval_shape(darts_supernet(config).init, KEY, jnp.zeros((1, 32, 32, 3)))
    own = darts_inherited(config, shapes, POOLS)
    wanted = jax.eval_shape(darts_candidate(config, POOLS).init, KEY, jnp.zeros((1, 32, 32, 3)))
    assert jax.tree.map(lambda leaf: leaf.shape, own) == jax.tree.map(lambda leaf: leaf.shape, wanted)


def test_what_makes_no_sense_is_refused():
    _, values = images()
    network = darts_candidate(TINY, POOLS)
    with pytest.raises(ValueError, match=r"drop_path must be in \[0, 1\), got 1.0"):
        TrainingConfig(drop_path=1.0)
    with pytest.raises(ValueError, match="no auxiliary head: give its config auxiliary=True"):
        network.apply({}, values, "train", auxiliary=True)
    with pytest.raises(ValueError, match="in mode 'train' alone"):
        network.apply({}, values, "running", key=KEY, drop=0.2)
    with pytest.raises(ValueError, match="one for images of 32 x 32"):
        darts_candidate(dataclasses.replace(TINY, auxiliary=True), POOLS).init(KEY, values)
    with pytest.raises(ValueError, match="operation 'avg_pool_5x5' is none of skip_connect"):
        operation_parts("avg_pool_5x5", 4, 1, False)


@pytest.mark.parametrize("option", ["drop_path", "auxiliary_weight"])
def test_networks_without_the_recipes_parts_are_refused(option):
    config, cells = dataclasses.replace(CONFIG, **{option: 0.2}), darts_candidate(TINY, POOLS)
    assert classifier(cells, config)
    with pytest.raises(ValueError, match=f"{option} 0.2: this network takes no such part"):
        classifier(nas_bench_201_candidate(NasBench201Config(), (1,) * 6), config)
