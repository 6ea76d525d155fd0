"""The archive against a plain Python list."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cenas_jax.pareto import archive_add, archive_init, archive_valid

CAPACITY, BATCH, D, M = 9, 4, 3, 2
add = jax.jit(archive_add)


def batches(seed, count):
    """`count` batches of distinct random rows with random masks."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 5, (count, BATCH, D)).astype(np.int32)
    objectives = rng.normal(size=(count, BATCH, M)).astype(np.float32)
    return codes, objectives, rng.random((count, BATCH)) < 0.6


def assert_same(left, right):
    jax.tree.map(np.testing.assert_array_equal, left, right)


def test_empty():
    archive = archive_init(CAPACITY, D, M)
    assert archive.codes.shape == (CAPACITY, D) and archive.codes.dtype == jnp.int32
    assert archive.objectives.shape == (CAPACITY, M) and archive.objectives.dtype == jnp.float32
    assert archive.count == 0 and not archive_valid(archive).any()


@settings(max_examples=40, deadline=None)
@given(masks=hnp.arrays(np.bool_, st.tuples(st.integers(0, 6), st.just(BATCH))), seed=st.integers(0, 1000))
def test_behaves_like_a_list(masks, seed):
    codes, objectives, _ = batches(seed, len(masks))
    archive, rows = archive_init(CAPACITY, D, M), []
    for batch_codes, batch_objectives, mask in zip(codes, objectives, masks, strict=True):
        archive, overflow = add(archive, batch_codes, batch_objectives, mask)
        new = [(batch_codes[i].tolist(), batch_objectives[i].tolist()) for i in np.flatnonzero(mask)]
        assert overflow == max(len(rows) + len(new) - CAPACITY, 0)
        rows = (rows + new)[:CAPACITY]
    count = len(rows)
    assert archive.count == count
    in_use = np.asarray(archive_valid(archive))
    archive = jax.device_get(archive)
    assert in_use.tolist() == [True] * count + [False] * (CAPACITY - count)
    assert list(zip(archive.codes[:count].tolist(), archive.objectives[:count].tolist(), strict=True)) == rows
    assert not archive.codes[count:].any() and not archive.objectives[count:].any()


def test_a_full_archive_keeps_what_it_has():
    full, _ = add(archive_init(2, 1, 1), jnp.asarray([[1], [2]]), jnp.asarray([[1.0], [2.0]]), jnp.ones(2, bool))
    after, overflow = add(full, jnp.asarray([[3], [4]]), jnp.asarray([[3.0], [4.0]]), jnp.asarray([True, False]))
    assert overflow == 1
    assert_same(after, full)


def test_a_failed_evaluation_is_kept():
    archive, _ = add(
        archive_init(3, 1, 2), jnp.asarray([[7]], jnp.int32), jnp.asarray([[jnp.nan, 1.0]]), jnp.ones(1, bool)
    )
    assert archive_valid(archive).tolist() == [True, False, False]
    assert np.asarray(archive.codes)[0].tolist() == [7] and np.isnan(np.asarray(archive.objectives)[0, 0])


@pytest.mark.parametrize("x64", [False, True])
def test_add_keeps_dtypes(x64):
    with jax.enable_x64(x64):
        archive = archive_init(CAPACITY, D, M)
        assert archive.objectives.dtype == (jnp.float64 if x64 else jnp.float32)
        for held in (archive, archive._replace(objectives=archive.objectives.astype(jnp.float32))):
            # Default dtypes on purpose: int64 and float64 rows under x64.
            after, overflow = archive_add(held, jnp.ones((1, D), int), jnp.ones((1, M)), jnp.ones(1, bool))
            assert [leaf.dtype for leaf in after] == [leaf.dtype for leaf in held]
            assert overflow.dtype == jnp.int32


def test_loop_scan_and_vmap_agree_and_compile_once():
    traces = []

    @jax.jit
    def counted_add(archive, *rows):
        traces.append(1)
        return archive_add(archive, *rows)

    @jax.jit
    def fill(rows):
        return jax.lax.scan(lambda archive, batch: archive_add(archive, *batch), archive_init(CAPACITY, D, M), rows)

    filled = []
    for seed in range(3):
        archive, overflows = archive_init(CAPACITY, D, M), []
        for rows in zip(*batches(seed, 5), strict=True):
            archive, overflow = counted_add(archive, *rows)
            overflows.append(overflow)
        filled.append((archive, np.stack(overflows)))
        assert_same(fill(batches(seed, 5)), filled[-1])
    assert len(traces) == 1
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *[batches(seed, 5) for seed in range(3)])
    assert_same(jax.jit(jax.vmap(fill))(stacked), jax.tree.map(lambda *leaves: np.stack(leaves), *filled))
