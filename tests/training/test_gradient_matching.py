"""Splits by gradients: cosines by hand, minimum cuts, entries whose choices pull the shared weights apart."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from linear_network import linear_network
from test_classifier import CONFIG, DATA, KEY, SMALL, synthetic

from cenas_jax.nets import Network, nas_bench_201_supernet
from cenas_jax.spaces.nas_bench_201 import nas_bench_201
from cenas_jax.training.gradient_matching import gradient_similarity, minimum_cut
from cenas_jax.training.images import standardised
from cenas_jax.training.paths import every_choice
from cenas_jax.training.supernet import screen_parts, split_by_gradients, supernet

# Of entry 0's choices, 0 and 3 scale the images by positive factors, 1 and 2 by negative ones: their gradients are
# opposed. Entry 1's choices agree.
FACTORS = jnp.array([[1.0, -1.0, -2.0, 2.0], [1.0, 1.5, 2.0, 0.0]])
ALLOWED = every_choice((4, 3))


def opposed(codes):
    return FACTORS[jnp.arange(2), codes].prod()


def test_cosines_are_those_of_the_gradients_that_two_choices_share():
    """A network with a common head, and biases that only choices 0 and 1, or 2, of entry 0 use."""

    def apply(variables, images, codes, mode):
        params = variables["params"]
        own = jnp.where(codes[0] < 2, params["low"], jnp.where(codes[0] == 2, params["high"], 0.0))
        flat = opposed(codes) * images.reshape(images.shape[0], -1)
        return flat @ params["head"]["kernel"] + own[None, :], variables["statistics"]

    plain = linear_network().init(KEY, DATA.images[:1])["params"]["head"]["kernel"]
    params = {"head": {"kernel": plain}, "low": jnp.zeros(3), "high": jnp.ones(3)}
    variables = {"params": params, "statistics": {}}
    rows, codes = jnp.arange(24).reshape(2, 12), jnp.array([[3, 1], [0, 2]], jnp.int32)
    network = Network(linear_network().init, apply)
    found = gradient_similarity(network, variables, DATA, rows, codes, 0, 4)

    def gradient(path, some, label):
        def loss(params):
            logits, _ = apply({"params": params, "statistics": {}}, some, path, "batch")
            return -(jax.nn.one_hot(label, 3) * jax.nn.log_softmax(logits)).sum(axis=1).mean()

        return jax.grad(loss)(params)

    expected = np.zeros((4, 4))
    for path, batch in zip(codes, rows, strict=True):
        some, label = standardised(DATA, DATA.images[batch]), DATA.labels[batch]
        each = [gradient(path.at[0].set(choice), some, label) for choice in range(4)]
        for i in range(4):
            for j in range(4):
                shared = [["low"], ["low"], ["high"], []]
                names = ["head", *(shared[i] if shared[i] == shared[j] else [])]
                one, other = (
                    np.concatenate([np.ravel(leaf) for name in names for leaf in jax.tree.leaves(each[choice][name])])
                    for choice in (i, j)
                )
                expected[i, j] += one @ other / np.linalg.norm(one) / np.linalg.norm(other) / 2
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(np.diag(found), 1, atol=1e-5)
    assert found[0, 3] > 0.3 > -0.3 > found[0, 1]


def test_minimum_cuts():
    # Pairs 0-2 and 1-3 agree; across, the pairs have 0.1, -0.2, 0.0 and 0.3.
    similarity = np.array([[1, 0.1, 0.9, -0.2], [0.1, 1, 0.0, 0.8], [0.9, 0.0, 1, 0.3], [-0.2, 0.8, 0.3, 1]])
    group, across = minimum_cut(similarity, np.ones(4, bool))
    np.testing.assert_array_equal(group, [True, False, True, False])
    np.testing.assert_allclose(across, 0.05)
    # Without choice 2: 0 alone has (0.1 - 0.2) / 2, 1 alone 0.45, 3 alone 0.3.
    similarity[2] = similarity[:, 2] = np.nan
    group, across = minimum_cut(similarity, np.array([True, True, False, True]))
    np.testing.assert_array_equal(group, [True, False, False, False])
    np.testing.assert_allclose(across, -0.05)
    # Of five, two against three.
    assert minimum_cut(np.eye(5), np.ones(5, bool))[0].sum() == 2


def test_the_entry_whose_choices_disagree_is_split_into_those_that_agree():
    net = supernet(linear_network(entries=2, scale=opposed), dataclasses.replace(CONFIG, batch=15))
    variables = net.init(KEY, DATA).variables
    parts = split_by_gradients(net, variables, DATA, ALLOWED, KEY, paths=8)
    assert [part.allowed.tolist()[0] for part in parts] == [
        [True, False, False, True],
        [False, True, True, False],
    ]
    assert all((part.allowed[1] == ALLOWED[1]).all() and int(part.state.step) == 0 for part in parts)
    assert net.gradient_similarity._cache_size() == 1
    # Screening: every path by the part that has its choices.
    trained = [part._replace(state=net.train_chunk(part.state, KEY, DATA, part.allowed)[0]) for part in parts]
    codes = jnp.array([[3, 0], [1, 1], [0, 2], [2, 0]], jnp.int32)
    found = screen_parts(net, trained, codes, DATA)
    expected = [
        net.screen(trained[home].state.variables, row[None], DATA)[0]
        for home, row in zip((0, 1, 0, 1), codes, strict=True)
    ]
    np.testing.assert_array_equal(found, jnp.stack(expected))
    np.testing.assert_array_equal(np.isnan(screen_parts(net, trained[:1], codes, DATA)), [False, True, False, True])
    # A part may be split again: what has one choice is left alone.
    again = split_by_gradients(net, trained[1].state.variables, DATA, parts[1].allowed, KEY, paths=8)
    assert len(again) == 2 and net.gradient_similarity._cache_size() == 1
    similarity = net.gradient_similarity(KEY, variables, DATA, parts[1].allowed, codes[:1], 0)
    np.testing.assert_array_equal(np.isfinite(similarity), np.outer(parts[1].allowed[0], parts[1].allowed[0]))


def test_what_cannot_be_split_is_refused():
    net = supernet(linear_network(entries=2, scale=opposed), CONFIG)
    variables = net.init(KEY, DATA).variables
    with pytest.raises(ValueError, match="no entry has two allowed choices"):
        split_by_gradients(net, variables, DATA, every_choice((1, 1)), KEY)
    spoilt = jax.tree.map(lambda leaf: leaf * jnp.nan, variables)
    with pytest.raises(ValueError, match="entry 0's gradients are not finite: train the supernet anew"):
        split_by_gradients(net, spoilt, DATA, ALLOWED, KEY, paths=2)


@pytest.mark.slow
def test_choices_of_the_real_supernet():
    """Convolutions of an edge have no weights in common; all else they share, and on an edge that both leave alone
    they agree entirely."""
    data, space = synthetic(30, size=8), nas_bench_201()
    net = supernet(nas_bench_201_supernet(SMALL), CONFIG)
    variables, allowed = net.init(KEY, data).variables, every_choice(space.num_choices)
    dead = jnp.tile(jnp.array([0, 0, 0, 1, 0, 0], jnp.int32), (6, 1))  # edge 1>2 leads to a node that nothing leaves
    similarity = net.gradient_similarity(KEY, variables, data, allowed, dead, 2)
    np.testing.assert_allclose(similarity, 1, atol=1e-4)
    parts = split_by_gradients(net, variables, data, allowed, KEY, paths=6)
    entry = int(jnp.flatnonzero((parts[0].allowed != allowed).any(axis=1))[0])
    assert [int(part.allowed[entry].sum()) for part in parts] == [2, 3]
    assert net.gradient_similarity._cache_size() == 1
