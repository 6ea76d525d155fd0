"""The experts of a combination: kernel regression learns from what is over, and from nothing else."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from small_grid import small_grid

from cenas_jax.forecast.base import POINT, forecast_table
from cenas_jax.forecast.baselines import source_forecast
from cenas_jax.forecast.experts import FEWEST_DAYS, REFIT_ISSUES, expert_points, known_issues, there_are_experts
from cenas_jax.forecast.kernel_regression import kernel_regression
from cenas_jax.forecast.windows import to_device

GRID = small_grid(days=120)
FIRST = (7 + 4 + FEWEST_DAYS - 1) * 24  # a week of history, four days ahead: the issue at which enough days are over
ROWS = np.arange(FIRST - 48, FIRST + 24 * (REFIT_ISSUES + 2), 24, dtype=np.int32)
AGAIN = 2 + REFIT_ISSUES  # place in ROWS of the second fit


def points(record, rows=ROWS):
    return expert_points(record, to_device(record), rows)


def test_known_issues_are_over_and_had_a_week_of_history():
    for row in (264, 265, 1000, FIRST):
        days = known_issues(row)
        assert days[0] >= 168 and days[0] < 192 and days[-1] + 96 <= row < days[-1] + 120
        assert ((row - days) % 24 == 0).all()
    assert known_issues(263).size == 0 and known_issues(264).tolist() == [168]


def test_every_fit_is_on_the_known_issues_then():
    got, grid = points(GRID), to_device(GRID)
    assert np.isnan(got[:, :2]).all() and np.isfinite(got[:, 2:]).all()
    for own, kernel in enumerate((kernel_regression(), kernel_regression(factor_g_per_kwh=GRID.factor_g_per_kwh))):
        for begin, end in ((2, AGAIN), (AGAIN, len(ROWS))):
            state = kernel.fit(jax.random.key(0), grid, jnp.asarray(known_issues(int(ROWS[begin]))))
            expected = np.asarray(forecast_table(kernel, state, grid, ROWS[begin:end]))[..., POINT]
            np.testing.assert_allclose(got[own, begin:end], expected, rtol=1e-4)
    expected = forecast_table(source_forecast(GRID.factor_g_per_kwh), (), grid, ROWS[2:])
    np.testing.assert_array_equal(got[2, 2:], np.asarray(expected)[..., POINT])


def test_nothing_that_comes_later_is_known():
    intensity, generation = GRID.intensity_g_per_kwh.copy(), GRID.generation_mw.copy()
    intensity[ROWS[AGAIN] :] *= 2
    generation[ROWS[AGAIN] :] *= 3
    later = points(replace(GRID, intensity_g_per_kwh=intensity, generation_mw=generation))
    np.testing.assert_array_equal(later[:, : AGAIN + 1], points(GRID)[:, : AGAIN + 1])


def test_kernel_regression_goes_on_learning():
    """A day that is over at the second fit, but not at the first: the first fit's forecasts see it as history only."""
    intensity = GRID.intensity_g_per_kwh.copy()
    changed = slice(int(ROWS[AGAIN]) - 240, int(ROWS[AGAIN]) - 216)
    intensity[changed] *= 1.5
    got, as_it_was = points(replace(GRID, intensity_g_per_kwh=intensity)), points(GRID)
    before = ROWS[:AGAIN] <= changed.start
    np.testing.assert_array_equal(got[:, :AGAIN][:, before], as_it_was[:, :AGAIN][:, before])
    assert (got[:2, AGAIN:] != as_it_was[:2, AGAIN:]).all()
    np.testing.assert_array_equal(got[2], as_it_was[2])


def test_there_are_none_without_sources_or_days():
    assert there_are_experts(GRID, FIRST) and not there_are_experts(GRID, FIRST - 24)
    alone = replace(GRID, sources=(), factor_g_per_kwh=())
    assert not there_are_experts(alone, FIRST) and np.isnan(points(alone)).all()
