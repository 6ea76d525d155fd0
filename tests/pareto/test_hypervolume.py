"""Exact hypervolume: hand-worked numbers, unit cells counted one by one, and the real tables' known values."""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cenas_jax.pareto import grouped_hypervolume_2d, hypervolume, hypervolume_host, hypervolume_improvement

SIZE = 10
PROPERTY = settings(max_examples=40, deadline=None)
# Small whole numbers: every volume is exact in float32, so the properties hold with ==.
REFERENCE = {m: np.asarray([-1.0, 0.0, 2.0][:m], np.float32) for m in (1, 2, 3)}
jitted = jax.jit(hypervolume)


@st.composite
def point_sets(draw, objective_counts=(1, 2, 3)):
    m = draw(st.sampled_from(objective_counts))
    points = draw(hnp.arrays(np.float32, (SIZE, m), elements=st.integers(-4, 7).map(float)))
    return points, draw(hnp.arrays(np.bool_, SIZE)), REFERENCE[m]


def volume(points, valid, reference):
    return float(jitted(jnp.asarray(points), jnp.asarray(valid), jnp.asarray(reference)))


def count_cells(points, valid, reference):
    """The unit cells between the reference and 7 whose upper corner some valid point reaches in every objective."""
    corners = np.indices((12,) * len(reference)).reshape(len(reference), -1).T + reference + 1
    return int((points[valid][None, :, :] >= corners[:, None, :]).all(axis=2).any(axis=1).sum())


HAND_WORKED = [
    ([[3.0], [5.0]], [1.0], 4.0),
    # 3x1 + 2x(2-1) + 1x(3-2) = 6; the dominated (1, 1) and the second (2, 2) add nothing.
    ([[3, 1], [1, 3], [2, 2], [1, 1], [2, 2]], [0, 0], 6.0),
    # Against (-1, -1): 4x2 + 3x1 + 2x1 = 13.
    ([[3, 1], [1, 3], [2, 2]], [-1, -1], 13.0),
    # (3, 0) touches the reference and (9, -1) lies below it: nothing.
    ([[3, 0], [9, -1], [1, 1]], [0, 0], 1.0),
    # Boxes 2x2x1 and 1x1x3 share 1x1x1: 4 + 3 - 1 = 6.
    ([[2, 2, 1], [1, 1, 3]], [0, 0, 0], 6.0),
    # Three 3x1x1 bars along the axes share one unit cube: 9 - 2 = 7.
    ([[3, 1, 1], [1, 3, 1], [1, 1, 3], [1, 1, 1]], [0, 0, 0], 7.0),
    # Far from the origin: 0.5 x 0.25 survives in float32.
    ([[4096.5, -4095.75]], [4096, -4096], 0.125),
]


@pytest.mark.parametrize("points, reference, expected", HAND_WORKED)
def test_hand_worked(points, reference, expected):
    points, reference = jnp.asarray(points, jnp.float32), jnp.asarray(reference, jnp.float32)
    assert float(hypervolume(points, jnp.ones(len(points), bool), reference)) == expected
    assert hypervolume_host(points, reference) == expected
    assert hypervolume_host(np.asarray(points, np.float64), np.asarray(reference, np.float64)) == expected


@pytest.mark.parametrize("m", [1, 2, 3])
def test_empty_masked_and_failed_rows_count_nothing(m):
    zeros = jnp.zeros(m)
    assert float(hypervolume(jnp.zeros((0, m)), jnp.zeros(0, bool), zeros)) == 0.0
    assert float(hypervolume(jnp.ones((3, m)), jnp.zeros(3, bool), zeros)) == 0.0
    for objective in range(m):
        failed = jnp.full((1, m), 9.0).at[0, objective].set(jnp.nan)
        rows = jnp.concatenate([jnp.full((1, m), 2.0), failed, jnp.full((1, m), -jnp.inf)])
        assert float(hypervolume(rows, jnp.ones(3, bool), zeros)) == 2.0**m
        assert hypervolume_host(rows, zeros) == 2.0**m


@PROPERTY
@given(point_sets())
def test_equals_counted_cells(point_set):
    assert volume(*point_set) == count_cells(*point_set)


@PROPERTY
@given(point_sets(), st.integers(0, 1000))
def test_permutation_changes_nothing(point_set, seed):
    points, valid, reference = point_set
    order = np.random.default_rng(seed).permutation(SIZE)
    assert volume(points[order], valid[order], reference) == volume(points, valid, reference)


@PROPERTY
@given(point_sets(), st.integers(0, SIZE - 1), st.integers(0, SIZE - 1), st.integers(0, 3))
def test_a_dominated_or_duplicate_point_changes_nothing(point_set, source, target, drop):
    points, valid, reference = point_set
    before = valid & (np.arange(SIZE) != target)
    after = before | ((np.arange(SIZE) == target) & before[source])
    weaker = points.copy()
    weaker[target] = points[source] - drop
    assert volume(weaker, after, reference) == volume(points, before, reference)


@PROPERTY
@given(point_sets(), st.integers(0, SIZE - 1))
def test_no_point_lowers_it(point_set, added):
    points, valid, reference = point_set
    without = valid & (np.arange(SIZE) != added)
    assert volume(points, without | (np.arange(SIZE) == added), reference) >= volume(points, without, reference)


@PROPERTY
@given(point_sets(), st.integers(0, 2), st.sampled_from([0.5, 3.0, 8.0]))
def test_scaling_an_axis_scales_it(point_set, axis, factor):
    points, valid, reference = point_set
    scale = np.ones(len(reference), np.float32)
    scale[axis % len(reference)] = factor
    assert volume(points * scale, valid, reference * scale) == factor * volume(points, valid, reference)


@PROPERTY
@given(point_sets(), st.sampled_from([0.0, 99.0, np.nan, np.inf]))
def test_padding_changes_nothing(point_set, fill):
    points, valid, reference = point_set
    padded = np.concatenate([points, np.full((7, points.shape[1]), fill, np.float32)])
    assert volume(padded, np.append(valid, np.zeros(7, bool)), reference) == volume(points, valid, reference)


@PROPERTY
@given(point_sets((2,)), hnp.arrays(np.bool_, (4, SIZE)))
def test_grouped_equals_one_by_one(point_set, membership):
    points, valid, reference = point_set
    grouped = grouped_hypervolume_2d(jnp.asarray(points), jnp.asarray(membership & valid), jnp.asarray(reference))
    assert grouped.tolist() == [volume(points, members & valid, reference) for members in membership]


@PROPERTY
@given(point_sets((2,)), hnp.arrays(np.float32, (SIZE, 2), elements=st.integers(-4, 9).map(float)))
def test_improvement_is_the_gain_of_each_candidate_alone(point_set, candidates):
    points, valid, reference = point_set
    candidates[0, 1] = np.nan
    gain = hypervolume_improvement(*map(jnp.asarray, (candidates, points, valid, reference)))
    before = volume(points, valid, reference)
    with_one_more = [
        volume(np.append(points, [row], axis=0), np.append(valid, True), reference) - before for row in candidates
    ]
    assert gain.tolist() == with_one_more
    assert gain[0] == 0.0


def test_improvement_hand_worked():
    front = jnp.asarray([[3.0, 1.0], [1.0, 3.0]])
    candidates = jnp.asarray([[2.0, 2.0], [4.0, 4.0], [1.0, 1.0], [4.0, -1.0], [0.5, 5.0]])
    gain = hypervolume_improvement(candidates, front, jnp.ones(2, bool), jnp.zeros(2))
    # The front covers 5: (2, 2) adds the cell [1, 2]^2, (4, 4) adds 16 - 5, (0.5, 5) adds 0.5 x 2.
    assert gain.tolist() == [1.0, 11.0, 0.0, 0.0, 1.0]
    empty = hypervolume_improvement(candidates, front, jnp.zeros(2, bool), jnp.zeros(2))
    assert empty.tolist() == [4.0, 16.0, 1.0, 0.0, 2.5]
    assert hypervolume_improvement(candidates[:0], front, jnp.ones(2, bool), jnp.zeros(2)).shape == (0,)


def test_four_objectives_go_to_the_host(monkeypatch):
    points = jnp.asarray([[2.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 3.0]])
    with pytest.raises(ValueError, match="got 4: use hypervolume_host"):
        hypervolume(points, jnp.ones(2, bool), jnp.zeros(4))
    assert hypervolume_host(points, jnp.zeros(4)) == 4.0  # 2 + 3 - 1
    assert hypervolume_host(points[:0], jnp.zeros(4)) == 0.0
    monkeypatch.setitem(sys.modules, "moocore", None)
    with pytest.raises(ImportError, match=r"pip install cenas-jax\[moocore\]"):
        hypervolume_host(points, jnp.zeros(4))


@pytest.mark.parametrize("m", [1, 2, 3])
def test_jit_vmap_and_single_calls_agree_and_compile_once(m):
    traces = []

    @jax.jit
    def compiled(points, valid, reference):
        traces.append(1)
        return hypervolume(points, valid, reference)

    rng = np.random.default_rng(m)
    points = jnp.asarray(rng.integers(-4, 8, (8, 20, m)), jnp.float32)
    valid, reference = jnp.asarray(rng.random((8, 20)) < 0.7), jnp.asarray(REFERENCE[m])
    looped = [float(compiled(*row, reference)) for row in zip(points, valid, strict=True)]
    assert len(traces) == 1
    assert jax.vmap(hypervolume, in_axes=(0, 0, None))(points, valid, reference).tolist() == looped
    assert [float(hypervolume(*row, reference)) for row in zip(points, valid, strict=True)] == looped


@pytest.mark.data
@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize(
    "problem, reference_energy, expected",
    [("c10_edgegpu_energy", -50.0, 4154.9996), ("c10_fpga_energy", -61.0, 4942.7431)],
)
def test_real_tables(data_dir, problem, reference_energy, expected, x64):
    accuracy = np.load(data_dir / "nas/nb201.npz")["c10_test_200"].astype(np.float64)
    energy = np.load(data_dir / "nas/hwnasbench.npz")[problem]
    stored = json.loads((data_dir / "nas/reference_values.json").read_text())[problem]["max_hypervolume"]
    with jax.enable_x64(x64):
        objectives = jnp.asarray(np.stack([accuracy, -energy], axis=1))
        value = hypervolume(objectives, jnp.ones(len(energy), bool), jnp.asarray([0.0, reference_energy]))
    assert float(value) == pytest.approx(expected, rel=1e-6)
    assert float(value) == pytest.approx(stored, rel=1e-12 if x64 else 1e-6)
