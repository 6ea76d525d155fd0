"""The experts of a combination: kernel regression learns from what is over, and from nothing else."""

from dataclasses import replace

import numpy as np
import pytest
from small_grid import small_grid

from cenas_jax.forecast.base import POINT, forecast_table, padded
from cenas_jax.forecast.baselines import source_forecast
from cenas_jax.forecast.experts import (
    DAYS_BATCH,
    FEWEST_DAYS,
    expert_forecasts,
    known_issues,
    learn_experts,
    there_are_experts,
)
from cenas_jax.forecast.kernel_regression import learn
from cenas_jax.forecast.windows import to_device, window_at

GRID = small_grid(days=120)
FIRST = (7 + 4 + FEWEST_DAYS - 1) * 24  # a week of history, four days ahead: the issue at which enough days are over
ROWS = np.arange(FIRST - 48, FIRST + 24 * 16, 24, dtype=np.int32)
LATER = 8  # a place in ROWS


def points(record, rows=ROWS):
    return learn_experts(record, to_device(record), rows)[0]


def test_known_issues_are_over_and_had_a_week_of_history():
    for row in (264, 265, 1000, FIRST):
        days = known_issues(row)
        assert days[0] >= 168 and days[0] < 192 and days[-1] + 96 <= row < days[-1] + 120
        assert ((row - days) % 24 == 0).all()
    assert known_issues(263).size == 0 and known_issues(264).tolist() == [168]


def test_they_are_two_kernel_regressions_and_the_source_forecast():
    got, grid = points(GRID), to_device(GRID)
    assert np.isnan(got[:, :2]).all() and np.isfinite(got[:, 2:]).all()
    days = np.arange(known_issues(FIRST)[0], ROWS[-1] + 1, 24, dtype=np.int32)
    expected, _ = learn(grid, padded(days, DAYS_BATCH), len(days) - len(ROWS) + 2, GRID.factor_g_per_kwh)
    np.testing.assert_array_equal(got[:2, 2:], np.asarray(expected)[:, len(days) - len(ROWS) + 2 : len(days)])
    expected = forecast_table(source_forecast(GRID.factor_g_per_kwh), (), grid, ROWS[2:])
    np.testing.assert_array_equal(got[2, 2:], np.asarray(expected)[..., POINT])


def test_what_is_learnt_forecasts_the_last_issue():
    grid, factors = to_device(GRID), GRID.factor_g_per_kwh
    got, state = learn_experts(GRID, grid, ROWS)
    again = expert_forecasts(state, window_at(grid, ROWS[-1]), factors)
    np.testing.assert_allclose(again, got[:, -1], rtol=1e-5)


def test_some_days_more_compile_nothing():
    days = np.arange(known_issues(FIRST)[0], ROWS[-1] + 1, 24)
    assert len(days) % DAYS_BATCH > 2
    points(GRID)
    compiled = learn._cache_size()
    points(GRID, ROWS[:-2])
    assert learn._cache_size() == compiled


def test_rows_left_out_after_the_first_change_nothing():
    some = np.array([0, 2, 3, 6, 11])
    np.testing.assert_allclose(points(GRID, ROWS[some]), points(GRID)[:, some], rtol=1e-5)


def test_nothing_that_comes_later_is_known():
    """At another hour than midnight, and with later outcomes invalid."""
    row, run = int(ROWS[LATER]) + 5, int(ROWS[LATER]) // 24 + 1
    changed = {
        name: getattr(GRID, name).copy()
        for name in ("intensity_g_per_kwh", "generation_mw", "valid", "weather_runs", "source_forecast_mw")
    }
    changed["intensity_g_per_kwh"][row:] *= 2
    changed["generation_mw"][row:] *= 3
    changed["valid"][row::2] = False
    changed["weather_runs"][run:] += 10
    changed["source_forecast_mw"][run:, :, 0] *= 2
    later, as_it_was = points(replace(GRID, **changed), ROWS + 5), points(GRID, ROWS + 5)
    np.testing.assert_array_equal(later[:, : LATER + 1], as_it_was[:, : LATER + 1])
    assert (later[:, LATER + 1 :] != as_it_was[:, LATER + 1 :]).all()


def test_rows_are_at_one_hour_of_the_day_and_in_order():
    for rows in (ROWS + np.arange(len(ROWS), dtype=np.int32), ROWS[::-1]):
        with pytest.raises(ValueError, match="one hour of the day, in order"):
            points(GRID, rows)


def test_kernel_regression_learns_from_a_day_after_it_has_left_the_history():
    intensity = GRID.intensity_g_per_kwh.copy()
    intensity[ROWS[3] : ROWS[4]] *= 1.5
    got, as_it_was = points(replace(GRID, intensity_g_per_kwh=intensity)), points(GRID)
    assert (got[:2, 12:] != as_it_was[:2, 12:]).mean() > 0.9
    np.testing.assert_array_equal(got[2], as_it_was[2])


def test_there_are_none_without_sources_or_days():
    assert there_are_experts(GRID, FIRST) and not there_are_experts(GRID, FIRST - 24)
    alone = replace(GRID, sources=(), factor_g_per_kwh=())
    assert not there_are_experts(alone, FIRST) and np.isnan(points(alone)).all()
    assert learn_experts(alone, to_device(alone), ROWS)[1] is None
