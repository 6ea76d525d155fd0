"""Draws without replacement, and the maximum that a batch shares."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chisquare

from cenas_jax.search.base import draw_without_replacement, random_ranks, shared_maximum

LARGEST = 200


def test_random_ranks_are_a_bijection_for_every_count():
    counts = jnp.arange(1, LARGEST + 1)
    ranks = np.asarray(jax.jit(jax.vmap(lambda count: random_ranks(jax.random.key(3), count, LARGEST)))(counts))
    for count, row in zip(range(1, LARGEST + 1), ranks, strict=True):
        assert sorted(row[:count]) == list(range(count))


def test_random_ranks_do_not_depend_on_how_many_are_asked_for():
    few, many = (jax.jit(random_ranks, static_argnums=2)(jax.random.key(0), 50, asked) for asked in (5, 50))
    np.testing.assert_array_equal(few, np.asarray(many)[:5])


def test_all_permutations_are_equally_likely():
    keys = jax.random.split(jax.random.key(11), 24_000)
    ranks = np.asarray(jax.jit(jax.vmap(lambda key: random_ranks(key, jnp.asarray(4), 4)))(keys))
    _, counts = np.unique(ranks, axis=0, return_counts=True)
    assert len(counts) == 24  # 4!
    assert chisquare(counts).pvalue > 1e-3


@jax.jit
def ranks_of_many(keys, count):
    return jax.vmap(lambda key: random_ranks(key, count, 97))(keys)


@pytest.mark.parametrize("count", [2, 3, 7, 64, 97])
def test_every_place_gets_every_rank_equally_often(count):
    keys = jax.random.split(jax.random.key(count), 20_000)
    ranks = np.asarray(ranks_of_many(keys, count))[:, :count]
    for place in {0, 1, count // 2, count - 1}:
        assert chisquare(np.bincount(ranks[:, place], minlength=count)).pvalue > 1e-4


draw = jax.jit(draw_without_replacement, static_argnums=2)
MASK = np.isin(np.arange(40), [0, 3, 4, 11, 17, 25, 38, 39])


def test_draws_are_distinct_and_inside_the_mask():
    draw = jax.jit(jax.vmap(lambda key: draw_without_replacement(key, jnp.asarray(MASK), 8)))
    positions, valid = draw(jax.random.split(jax.random.key(0), 500))
    assert bool(valid.all())
    for row in np.asarray(positions):
        assert set(row.tolist()) == set(np.flatnonzero(MASK).tolist())


def test_draws_are_uniform():
    draw = jax.jit(jax.vmap(lambda key: draw_without_replacement(key, jnp.asarray(MASK), 2)))
    positions = np.asarray(draw(jax.random.split(jax.random.key(1), 28_000))[0])
    first = np.bincount(positions[:, 0], minlength=len(MASK))[MASK]
    assert chisquare(first).pvalue > 1e-3
    pairs = np.unique(positions, axis=0, return_counts=True)[1]
    assert len(pairs) == 8 * 7 and chisquare(pairs).pvalue > 1e-3


@pytest.mark.parametrize("left", [0, 1, 5])
def test_draws_say_when_everything_is_used_up(left):
    mask = np.arange(30) % 6 == 2
    mask = mask & (np.cumsum(mask) <= left)
    positions, valid = map(np.asarray, draw(jax.random.key(4), mask, 9))
    assert valid.tolist() == [True] * left + [False] * (9 - left)
    assert sorted(positions[:left]) == np.flatnonzero(mask).tolist()
    assert np.all((positions >= 0) & (positions < 30))


def branch(value, x):
    return jax.lax.switch(shared_maximum(value), [jnp.sin, jnp.cos, jnp.exp], x)


def test_shared_maximum_is_the_identity_without_a_batch():
    assert int(jax.jit(shared_maximum)(jnp.asarray(2))) == 2


def test_shared_maximum_of_a_batch_and_of_nested_batches():
    values = jnp.asarray([[0, 2, 1], [1, 0, 1]])
    np.testing.assert_array_equal(jax.vmap(shared_maximum)(values[0]), [2, 2, 2])
    nested = jax.jit(jax.vmap(jax.vmap(shared_maximum)))
    np.testing.assert_array_equal(nested(values), np.full((2, 3), 2))
    # Not batched in the inner axis: nothing to share there.
    np.testing.assert_array_equal(
        jax.vmap(lambda v: jax.vmap(lambda _: shared_maximum(v))(jnp.ones(4)))(values[1]), np.ones((3, 4))
    )


def test_a_branch_on_the_shared_maximum_stays_a_branch_under_vmap():
    values, x = jnp.asarray([[0, 2, 1], [1, 0, 1]]), jnp.ones((2, 3))
    one, two = jax.jit(jax.vmap(branch)), jax.jit(jax.vmap(jax.vmap(branch)))
    np.testing.assert_allclose(one(values[0], x[0]), np.exp(np.ones(3)), rtol=1e-6)
    for lowered in (one.lower(values[0], x[0]), two.lower(values, x)):
        assert lowered.as_text().count("stablehlo.case") == 1
    # A branch on each member's own value becomes a select that runs every side: what is avoided.
    plain = jax.jit(jax.vmap(lambda value, x: jax.lax.switch(value, [jnp.sin, jnp.cos, jnp.exp], x)))
    assert "stablehlo.case" not in plain.lower(values[0], x[0]).as_text()
