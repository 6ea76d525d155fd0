"""Kernel regression: against a plain NumPy solution, and on grids where much is unknown."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_grid import small_grid

from cenas_jax.carbon.trace import IntensityTrace
from cenas_jax.forecast.base import POINT, QUANTILES, forecast_table
from cenas_jax.forecast.grid import from_trace
from cenas_jax.forecast.kernel_regression import KernelConfig, kernel_regression, learning_forecasts
from cenas_jax.forecast.windows import issue_rows, to_device, window_at

KEY = jax.random.key(0)
GRID = small_grid()
LEARNT = issue_rows(GRID, GRID.start, GRID.start + np.timedelta64(34 * 24, "h"))
LATER = LEARNT[-1] + 24 * np.arange(1, 4, dtype=np.int32)


def forecasts(record, learnt=LEARNT, rows=LATER, config=KernelConfig(), factors=()):  # noqa: B008 (frozen)
    grid, forecaster = to_device(record), kernel_regression(config, factors)
    state = forecaster.fit(KEY, grid, learnt)
    table = np.asarray(forecast_table(forecaster, state, grid, rows))
    assert table.shape == (len(rows), 96, len(QUANTILES)) and np.isfinite(table).all()
    np.testing.assert_array_equal(table, np.repeat(table[..., :1], len(QUANTILES), axis=2))
    return table[..., POINT], state


def slow_inputs(record, row, ahead_h, source_forecast):
    """`(values, weights)` of one hour ahead, from the record's own rows; every run is there and issues at midnight."""
    past, day = slice(row - 168, row), row // 24
    log_intensity = np.log(record.intensity_g_per_kwh[past].astype(np.float64))
    by_day = (log_intensity - log_intensity.mean()).reshape(7, 24)
    generation = record.generation_mw[past].astype(np.float64)
    log_load = np.log(generation.sum(axis=1)).reshape(7, 24)
    run, clock = record.weather_runs[day].astype(np.float64), ahead_h % 24
    weekday = (record.start + np.timedelta64(row + ahead_h, "h")).astype("datetime64[D]").astype(int) + 3
    parts = [
        (by_day[-1], 0.3),
        (by_day.mean(axis=1), 0.7),
        ([log_intensity.mean()], 0.5),
        (record.weather_runs[day - 1, :24].mean(axis=0, dtype=np.float64), 0.7),
        ((generation / generation.sum(axis=1, keepdims=True))[-24:].mean(axis=0), 0.5),
        (by_day[:, clock], 0.7),
        (log_load[:, clock] - log_load.mean(), 0.5),
        (run[ahead_h], 1.5),
        (run[24 * (ahead_h // 24) : 24 * (ahead_h // 24) + 24].mean(axis=0), 1.5),
        (run[max(ahead_h - 3, 0) : ahead_h + 4].mean(axis=0), 1.5),
        (np.eye(7)[weekday % 7], 1.0),
    ]
    if source_forecast:
        foreseen = record.source_forecast_mw[day].astype(np.float64)
        mixed = np.log((foreseen * record.factor_g_per_kwh).sum(axis=1) / foreseen.sum(axis=1)) - log_intensity.mean()
        parts += [
            ([mixed[ahead_h]], 5.0),
            ([mixed[24 * (ahead_h // 24) : 24 * (ahead_h // 24) + 24].mean()], 2.0),
            ([mixed[max(ahead_h - 3, 0) : ahead_h + 4].mean()], 2.0),
            (foreseen[ahead_h] / foreseen[ahead_h].sum(), 1.5),
        ]
    return np.concatenate([values for values, _ in parts]), np.concatenate([[w] * len(values) for values, w in parts])


def whole_grid():
    """The small grid lacks a run, and the first source forecasts."""
    runs, sources = GRID.weather_runs.copy(), GRID.source_forecast_mw.copy()
    runs[20] = runs[21] + 1
    sources[:12] = sources[12:24] * np.linspace(0.5, 2, 12, dtype=np.float32)[:, None, None]
    own = {"valid": GRID.valid.copy(), "intensity_g_per_kwh": GRID.intensity_g_per_kwh.copy()}
    return replace(GRID, weather_runs=runs, source_forecast_mw=sources, **own)


def slow_kernel(record, rows, scaled_by: int, ahead_h, source_forecast, config):
    """`(kernel[n, n], levels[n])` of the rows' windows, scaled by the first `scaled_by` of them."""
    built = [slow_inputs(record, row, ahead_h, source_forecast) for row in rows]
    inputs, weight = np.stack([values for values, _ in built]), built[0][1]
    learnt = inputs[:scaled_by]
    std = learnt.std(axis=0)
    std = np.where(std > 1e-5 * (1 + np.abs(learnt.mean(axis=0))), std, np.inf)
    standard = np.clip((inputs - learnt.mean(axis=0)) / std, -4, 4) * weight
    squared = ((standard[:, None] - standard[None]) ** 2).sum(axis=2)
    similar = np.exp(-squared / (2 * (weight**2).sum() * config.length**2))
    return similar + config.linear * standard @ standard.T / len(weight), inputs[:, 24 + 7]


CONFIG = KernelConfig(penalty=0.3, linear=0.5, length=0.8)


@pytest.mark.parametrize("source_forecast", (False, True))
@pytest.mark.parametrize("ahead_h", (1, 30, 95))
def test_equals_a_plain_solution_on_inputs_built_by_hand(ahead_h, source_forecast):
    whole, days = whole_grid(), len(LEARNT)
    got, _ = forecasts(whole, config=CONFIG, factors=whole.factor_g_per_kwh if source_forecast else ())
    kernel, level = slow_kernel(whole, (*LEARNT, *LATER), days, ahead_h, source_forecast, CONFIG)
    assert whole.valid[LEARNT + ahead_h].all()
    target = np.log(whole.intensity_g_per_kwh[LEARNT + ahead_h]) - level[:days]
    dual = np.linalg.solve(kernel[:days, :days] + 0.3 * np.eye(days), target - target.mean())
    expected = level[days:] + target.mean() + kernel[days:, :days] @ dual
    np.testing.assert_allclose(got[:, ahead_h], np.exp(expected), rtol=2e-4)


@pytest.mark.parametrize("source_forecast", (False, True))
def test_learning_forecasts_learn_from_what_is_over(source_forecast):
    """Against a solution for each issue and hour on the outcomes that were over then, one of them invalid, and one day
    missing."""
    whole, first = whole_grid(), len(LEARNT) - 8
    factors = whole.factor_g_per_kwh if source_forecast else ()
    bad = int(LEARNT[first - 3]) + 30
    whole.valid[bad], whole.intensity_g_per_kwh[bad] = False, whole.intensity_g_per_kwh[bad - 24]
    rows = np.delete(LEARNT, first + 2)
    got = np.asarray(learning_forecasts(to_device(whole), rows, first, factors, CONFIG))
    assert np.isnan(got[:first]).all() and np.isfinite(got[first:]).all()
    for ahead_h in (0, 23, 24, 30, 95):
        kernel, level = slow_kernel(whole, rows, first, ahead_h, source_forecast, CONFIG)
        target = np.log(whole.intensity_g_per_kwh[rows + ahead_h]) - level
        for issue in range(first, len(rows)):
            over = whole.valid[rows + ahead_h] & (rows + 24 * (ahead_h // 24 + 1) <= rows[issue])
            mean = target[over & (rows + 24 * (ahead_h // 24 + 1) <= rows[first])].mean()
            gram = kernel[over][:, over] + 0.3 * np.eye(over.sum())
            expected = level[issue] + mean + kernel[issue, over] @ np.linalg.solve(gram, target[over] - mean)
            np.testing.assert_allclose(got[issue, ahead_h], np.exp(expected), rtol=2e-4)


def test_invalid_hours_are_not_learnt_from():
    """With next to no dual weight its window is in no forecast."""
    row = int(np.flatnonzero(~GRID.valid)[0])
    _, state = forecasts(GRID)
    for hour in range(row % 24, 96, 24):
        issue = row - hour
        if issue in LEARNT:
            assert np.abs(np.asarray(state.dual)[hour, np.flatnonzero(LEARNT == issue)[0]]) < 1e-6


def test_rows_without_a_week_of_history_teach_nothing():
    early = np.concatenate([np.arange(0, 168, 24, dtype=np.int32), LEARNT])
    np.testing.assert_allclose(forecasts(GRID, early)[0], forecasts(GRID)[0], rtol=1e-4)


def test_unknown_weather_and_grids_of_intensities_alone():
    unknown = replace(GRID, weather_runs=np.full_like(GRID.weather_runs, np.nan))
    alone = from_trace(IntensityTrace(GRID.intensity_g_per_kwh.astype(float), GRID.start, "made", "direct", "made"))
    for record in (unknown, alone):
        point, _ = forecasts(record)
        assert (point > 20).all() and (point < 800).all(), "between the lowest and the highest emission factor"


def test_source_forecasts_are_read_on_demand():
    hidden, factors = replace(GRID, source_forecast_mw=np.full_like(GRID.source_forecast_mw, np.nan)), (800.0, 9.0, 2.0)
    np.testing.assert_array_equal(forecasts(hidden)[0], forecasts(GRID)[0])
    assert (forecasts(hidden, factors=factors)[0] != forecasts(GRID, factors=factors)[0]).mean() > 0.9
    with pytest.raises(ValueError, match="2 emission factors do not fit 3 sources"):
        forecasts(GRID, factors=(1.0, 2.0))


def test_runs_under_jit_and_needs_rows():
    _, state = forecasts(GRID)
    predict = jax.jit(kernel_regression().predict)
    single = np.asarray(predict(state, window_at(to_device(GRID), LATER[0])))
    np.testing.assert_allclose(single[:, POINT], forecasts(GRID)[0][0], rtol=1e-5)
    with pytest.raises(ValueError, match="there is no issue hour to learn from"):
        kernel_regression().fit(KEY, to_device(GRID), jnp.zeros(0, jnp.int32))


@pytest.mark.parametrize("fields", [{"penalty": 0.0}, {"length": -1.0}, {"linear": -0.1}])
def test_what_cannot_be_is_refused(fields):
    with pytest.raises(ValueError, match="KernelConfig: penalty"):
        KernelConfig(**fields)
