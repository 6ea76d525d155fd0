"""Hypervolume against moocore on 1,000 random sets of each number of objectives, in float32 and with x64."""

import jax
import jax.numpy as jnp
import moocore
import numpy as np
import pytest

from cenas_jax.pareto import hypervolume, hypervolume_improvement

SETS, CAPACITY = 1000, 40
SCALE, OFFSET = np.asarray([100.0, 60.0, 0.02]), np.asarray([0.0, -60.0, 5.0])


def random_sets(m, dtype):
    """Sets of 0 to CAPACITY points among masked rubbish, some on a coarse grid, with duplicates and dominated points.

    The reference lies inside the cloud, so about a fifth of the points in each objective are below it.
    """
    rng = np.random.default_rng(m)
    unit = rng.random((SETS, CAPACITY, m))
    unit[: SETS // 2] = np.round(unit[: SETS // 2] * 8) / 8
    copies = rng.integers(0, CAPACITY, (SETS, CAPACITY))
    copies = np.where(rng.random((SETS, CAPACITY)) < 0.2, copies, np.arange(CAPACITY))
    points = np.take_along_axis(unit, copies[:, :, None], axis=1) * SCALE[:m] + OFFSET[:m]
    valid = rng.random((SETS, CAPACITY)) < rng.integers(0, 11, (SETS, 1)) / 10
    points[~valid] = rng.choice([0.0, 1e6, np.nan, np.inf], (int((~valid).sum()), 1))
    reference = 0.2 * SCALE[:m] + OFFSET[:m]
    return points.astype(dtype), valid, reference.astype(dtype)


def exact(points, reference):
    return moocore.hypervolume(points.astype(np.float64), ref=reference.astype(np.float64), maximise=True)


@pytest.mark.parametrize("dtype, tolerance", [(np.float32, 1e-5), (np.float64, 1e-9)])
@pytest.mark.parametrize("m", [2, 3])
def test_equals_moocore(m, dtype, tolerance):
    points, valid, reference = random_sets(m, dtype)
    with jax.enable_x64(dtype is np.float64):
        values = jax.jit(jax.vmap(hypervolume, in_axes=(0, 0, None)))(*map(jnp.asarray, (points, valid, reference)))
    expected = np.asarray([exact(rows[mask], reference) for rows, mask in zip(points, valid, strict=True)])
    assert values.dtype == dtype
    assert (valid.sum(axis=1) == 0).sum() > 50 and (expected > 0).sum() > 800  # empty and full sets both occur
    np.testing.assert_allclose(values, expected, rtol=tolerance, atol=0)


@pytest.mark.parametrize("dtype, tolerance", [(np.float32, 1e-5), (np.float64, 1e-9)])
def test_improvement_equals_moocore(dtype, tolerance):
    points, valid, reference = random_sets(2, dtype)
    points, valid, candidates = points[::20], valid[::20], points[7::20, :4]
    with jax.enable_x64(dtype is np.float64):
        gains = jax.jit(jax.vmap(hypervolume_improvement, in_axes=(0, 0, 0, None)))(
            *map(jnp.asarray, (candidates, points, valid, reference))
        )
    for rows, mask, extra, gain in zip(points, valid, candidates, gains, strict=True):
        before = exact(rows[mask], reference)
        for candidate, value in zip(extra, gain, strict=True):
            if np.isfinite(candidate).all():
                after = exact(np.append(rows[mask], [candidate], axis=0), reference)
                assert float(value) == pytest.approx(after - before, abs=tolerance * after)
