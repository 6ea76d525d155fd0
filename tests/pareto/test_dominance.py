"""Strict dominance against hand-worked counts, a slow NumPy loop, moocore and the real table's front."""

import json

import jax
import jax.numpy as jnp
import moocore
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cenas_jax.pareto import dominance_counts, non_dominated_mask

SIZE = 12
ROWS = hnp.arrays(np.float32, (SIZE, 3), elements=st.sampled_from([np.nan, -np.inf, 0, 1, 2, 3, np.inf]))
MASKS = hnp.arrays(np.bool_, SIZE)
GROUPS = hnp.arrays(np.int32, SIZE, elements=st.integers(0, 2))
PROPERTY = settings(max_examples=60, deadline=None)


def slow_counts(objectives, valid, group):
    """Pair by pair, in words: no worse everywhere, better somewhere; NaN and invalid rows take no part."""
    size = len(objectives)
    takes_part = [valid[i] and not any(np.isnan(value) for value in objectives[i]) for i in range(size)]
    counts = np.full(size, size)
    for i in range(size):
        if takes_part[i]:
            counts[i] = sum(
                takes_part[j]
                and group[j] == group[i]
                and all(a >= b for a, b in zip(objectives[j], objectives[i], strict=True))
                and any(a > b for a, b in zip(objectives[j], objectives[i], strict=True))
                for j in range(size)
            )
    return counts


def random_rows(seed, shape):
    """Rows on a coarse grid, so that ties and duplicates are common."""
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.integers(0, 6, shape), jnp.float32), jnp.asarray(rng.random(shape[:-1]) < 0.8)


def test_hand_worked_counts():
    #           front, front, front, below (2,2), its duplicate, beaten by (3,1) by a tie, invalid, NaN
    rows = [[3, 1], [1, 3], [2, 2], [1, 1], [1, 1], [3, 0], [9, 9], [np.nan, 9]]
    objectives = jnp.asarray(rows, jnp.float32)
    valid = jnp.asarray([True] * 6 + [False, True])
    # (1,1) lies below (3,1) and (1,3) by a tie in one objective, and below (2,2); (3,0) reaches only 0 in the second.
    assert dominance_counts(objectives, valid).tolist() == [0, 0, 0, 3, 3, 1, 8, 8]
    assert non_dominated_mask(objectives, valid).tolist() == [True, True, True] + [False] * 5
    group = jnp.asarray([0, 0, 1, 1, 0, 1, 1, 1], jnp.int32)
    assert dominance_counts(objectives, valid, group).tolist() == [0, 0, 0, 1, 2, 0, 8, 8]


def test_duplicates_of_a_front_point_are_all_in():
    objectives = jnp.asarray([[2.0, 2.0], [2.0, 2.0], [1.0, 2.0]])
    assert non_dominated_mask(objectives, jnp.ones(3, bool)).tolist() == [True, True, False]


@pytest.mark.parametrize("size", [0, 1])
def test_tiny_sets(size):
    objectives = jnp.zeros((size, 2))
    assert dominance_counts(objectives, jnp.ones(size, bool)).tolist() == [0] * size
    assert non_dominated_mask(objectives, jnp.zeros(size, bool)).tolist() == [False] * size


@PROPERTY
@given(rows=ROWS, valid=MASKS, group=GROUPS)
def test_counts_equal_the_slow_loop(rows, valid, group):
    counts = dominance_counts(jnp.asarray(rows), jnp.asarray(valid))
    assert counts.dtype == jnp.int32
    np.testing.assert_array_equal(counts, slow_counts(rows, valid, np.zeros(SIZE)))
    grouped = dominance_counts(jnp.asarray(rows), jnp.asarray(valid), jnp.asarray(group))
    np.testing.assert_array_equal(grouped, slow_counts(rows, valid, group))


@PROPERTY
@given(rows=ROWS, valid=MASKS)
def test_failed_and_invalid_rows_never_win(rows, valid):
    takes_part = valid & ~np.isnan(rows).any(axis=1)
    front = np.asarray(non_dominated_mask(jnp.asarray(rows), jnp.asarray(valid)))
    counts = np.asarray(dominance_counts(jnp.asarray(rows), jnp.asarray(valid)))
    assert not front[~takes_part].any()
    assert (counts[~takes_part] == SIZE).all() and (counts[takes_part] < SIZE).all()
    assert front.any() == takes_part.any()


@PROPERTY
@given(rows=ROWS, valid=MASKS, seed=st.integers(0, 1000))
def test_permuting_rows_permutes_counts(rows, valid, seed):
    order = np.random.default_rng(seed).permutation(SIZE)
    counts = np.asarray(dominance_counts(jnp.asarray(rows), jnp.asarray(valid)))
    np.testing.assert_array_equal(dominance_counts(jnp.asarray(rows[order]), jnp.asarray(valid[order])), counts[order])


@pytest.mark.parametrize("objective_count", [1, 2, 3, 5])
def test_front_equals_moocore(objective_count):
    front = jax.jit(non_dominated_mask)
    for seed in range(20):
        objectives, valid = random_rows(seed, (60, objective_count))
        chosen = np.flatnonzero(valid)
        expected = moocore.is_nondominated(np.asarray(objectives, np.float64)[chosen], maximise=True, keep_weakly=True)
        np.testing.assert_array_equal(np.flatnonzero(front(objectives, valid)), chosen[expected])


def test_jit_vmap_and_single_calls_agree_and_compile_once():
    traces = []

    @jax.jit
    def counts(objectives, valid, group):
        traces.append(1)
        return dominance_counts(objectives, valid, group)

    batch, valid = random_rows(0, (8, 50, 2))
    group = jnp.asarray(np.random.default_rng(1).integers(0, 3, (8, 50)), jnp.int32)
    looped = np.stack([counts(*row) for row in zip(batch, valid, group, strict=True)])
    assert len(traces) == 1
    np.testing.assert_array_equal(jax.vmap(dominance_counts)(batch, valid, group), looped)
    np.testing.assert_array_equal(dominance_counts(batch[0], valid[0], group[0]), looped[0])


@pytest.mark.data
@pytest.mark.parametrize(
    "problem, energy", [("c10_edgegpu_energy", "c10_edgegpu_energy"), ("c10_fpga_energy", "c10_fpga_energy")]
)
def test_front_of_the_real_table(data_dir, problem, energy):
    expected = json.loads((data_dir / "nas/reference_values.json").read_text())[problem]["pareto_indices"]
    accuracy = np.load(data_dir / "nas/nb201.npz")["c10_test_200"]
    cost = np.load(data_dir / "nas/hwnasbench.npz")[energy]
    objectives = jnp.asarray(np.stack([accuracy, -cost], axis=1), jnp.float32)
    front = non_dominated_mask(objectives, jnp.ones(len(accuracy), bool))
    assert np.flatnonzero(front).tolist() == expected
