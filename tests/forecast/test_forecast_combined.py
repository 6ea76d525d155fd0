"""What `cenas forecast` says of a grid with sources: combined forecasts, by outcomes that were known at the time."""

import functools
from dataclasses import replace

import jax
import numpy as np
import pytest
from small_grid import small_grid

from cenas_jax.forecast import combined
from cenas_jax.forecast.baselines import repeat_last
from cenas_jax.forecast.windows import to_device, window_at
from cenas_jax.runs.forecasting import _forecasts, evaluate_forecaster, predict_hours
from cenas_jax.training.forecaster import FitConfig, Fitted

GRID = small_grid(days=130)
UNTIL, ISSUE = 90 * 24, 110 * 24


def time_of(row: int) -> str:
    return f"{GRID.start + np.timedelta64(row, 'h')}Z"


def fitted(until: int) -> Fitted:
    """Yesterday's hours, as if they had been learnt until row `until`."""
    return Fitted(repeat_last(24), (), FitConfig(), GRID.factor_g_per_kwh, {"fitted_until": time_of(until)})  # type: ignore


def predicted(record, until: int = UNTIL, issue: int = ISSUE):
    return predict_hours(record, fitted(until), at=time_of(issue), hours=96).quantiles_g_per_kwh


def changed(rows):
    intensity = GRID.intensity_g_per_kwh.copy()
    intensity[rows] *= 1.5
    return replace(GRID, intensity_g_per_kwh=intensity)


def test_a_forecast_rests_on_others_and_on_past_outcomes_alone():
    yesterday = np.tile(GRID.intensity_g_per_kwh[ISSUE - 24 : ISSUE], 4)
    found = predicted(GRID)
    assert (np.abs(found[:, 2] / yesterday - 1) > 1e-3).mean() > 0.9
    np.testing.assert_array_equal(predicted(changed(slice(ISSUE, None))), found)
    # 10 days ago: in no history of this forecast, but an outcome of earlier ones.
    assert (predicted(changed(slice(ISSUE - 240, ISSUE - 216)))[:, 2] != found[:, 2]).all()


def test_too_little_to_learn_from_leaves_the_forecaster_alone():
    issue = 69 * 24  # one day too early
    yesterday = np.tile(GRID.intensity_g_per_kwh[issue - 24 : issue], 4)
    np.testing.assert_allclose(predicted(GRID, 60 * 24, issue)[:, 2], yesterday, rtol=1e-6)


def test_issues_before_the_first_expert_are_the_forecasters_own():
    rows = np.arange(66, 73, dtype=np.int32) * 24  # experts from day 70 on
    grid, until = to_device(GRID), fitted(60 * 24)
    alone, together = _forecasts(GRID, until, grid, rows[:4]), _forecasts(GRID, until, grid, rows)
    np.testing.assert_allclose(together[:4], alone, rtol=1e-6)
    yesterday = np.stack([np.tile(GRID.intensity_g_per_kwh[row - 24 : row], 4) for row in rows])
    assert (np.abs(together[4:, :, 2] / yesterday[4:] - 1) > 1e-3).mean() > 0.9


def test_what_is_learnt_forecasts_its_own_hour_of_the_day():
    main, grid, rows = repeat_last(24), to_device(GRID), np.arange(80, 113, dtype=np.int32) * 24
    factors = GRID.factor_g_per_kwh
    table, state = combined.learn(main, (), GRID, grid, rows, unseen_from=UNTIL)
    predict = jax.jit(functools.partial(combined.predict, main, factors))
    np.testing.assert_allclose(predict(state, window_at(grid, rows[-1])), table[-1], rtol=1e-5)
    np.testing.assert_array_equal(table, _forecasts(GRID, fitted(UNTIL), grid, rows))
    for row in range(rows[-1] + 1, rows[-1] + 24):
        window = window_at(grid, row)
        np.testing.assert_array_equal(predict(state, window), main.predict((), window), "another hour of the day")
    next_day = window_at(grid, rows[-1] + 24)
    assert (np.abs(predict(state, next_day) / main.predict((), next_day) - 1) > 1e-3).mean() > 0.9
    assert predict._cache_size() == 1


def test_a_combination_takes_experts_and_issues_a_day_apart():
    with pytest.raises(ValueError, match=r"combined.learn: .* in small, as fewer than 60 days are over"):
        combined.learn(repeat_last(24), (), GRID, to_device(GRID), np.array([69 * 24], np.int32))
    for rows in (np.array([], np.int32), np.array([80, 82], np.int32) * 24, np.array([81, 80], np.int32) * 24):
        with pytest.raises(ValueError, match="give issues a day apart"):
            combined.learn(repeat_last(24), (), GRID, to_device(GRID), rows)
    with pytest.raises(ValueError, match="the last issue is row 3144, and small has 3120 h"):
        combined.learn(repeat_last(24), (), GRID, to_device(GRID), np.arange(80, 132, dtype=np.int32) * 24)
    alone = replace(GRID, sources=(), factor_g_per_kwh=())
    with pytest.raises(ValueError, match="as it has no sources"):
        combined.learn(repeat_last(24), (), alone, to_device(alone), np.array([100 * 24], np.int32))


@pytest.mark.slow
def test_the_combination_beats_its_parts():
    scores = evaluate_forecaster(GRID, fitted(UNTIL), start=time_of(UNTIL), end=None)["scores"]
    together, alone = (scores[name]["mape_by_day_percent"] for name in ("forecaster", "repeat yesterday"))
    assert all(ours < theirs for ours, theirs in zip(together, alone, strict=True))
    assert scores["forecaster"]["coverage_90_by_day_percent"][0] == pytest.approx(90, abs=8)
