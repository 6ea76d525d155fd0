"""Kernel regression: against a plain NumPy solution, and on grids where much is unknown."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from small_grid import small_grid

from cenas_jax.carbon.trace import IntensityTrace
from cenas_jax.forecast.grid import from_trace
from cenas_jax.forecast.kernel_regression import KernelConfig, learn, predict
from cenas_jax.forecast.windows import issue_rows, to_device, window_at

GRID = small_grid()
LEARNT = issue_rows(GRID, GRID.start, GRID.start + np.timedelta64(34 * 24, "h"))


FIRST = len(LEARNT) - 8


def forecasts(record, rows=LEARNT, first=FIRST):
    return np.asarray(learn(to_device(record), rows, first, record.factor_g_per_kwh)[0])


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


def test_forecasts_rest_on_what_is_over():
    """Against a solution for each issue and hour on the outcomes that were over then, one of them invalid, and one day
    missing. The state of the last forecasts the same, and other windows by what was over there."""
    whole, factors = whole_grid(), GRID.factor_g_per_kwh
    bad = int(LEARNT[FIRST - 3]) + 30
    whole.valid[bad], whole.intensity_g_per_kwh[bad] = False, whole.intensity_g_per_kwh[bad - 24]
    rows, grid = np.delete(LEARNT, FIRST + 2), to_device(whole)
    learnt, later = rows[:-2], rows[-2:]
    got, state = learn(grid, learnt, FIRST, factors, CONFIG)
    assert np.isnan(got[:, :FIRST]).all() and np.isfinite(got[:, FIRST:]).all()
    after = [predict(state, window_at(grid, row), factors, CONFIG) for row in (learnt[-1], *later)]
    np.testing.assert_allclose(after[0], got[:, -1], rtol=1e-5)
    got = np.concatenate([got, np.stack(after[1:], axis=1)], axis=1)
    for source_forecast, ahead_h in itertools.product((0, 1), (0, 23, 24, 30, 95)):
        kernel, level = slow_kernel(whole, rows, FIRST, ahead_h, bool(source_forecast), CONFIG)
        target = np.log(whole.intensity_g_per_kwh[rows + ahead_h]) - level
        known_h, valid = rows + 24 * (ahead_h // 24 + 1), whole.valid[rows + ahead_h]
        mean = target[valid & (known_h <= rows[FIRST])].mean()
        for issue in range(FIRST, len(rows)):
            over = valid & (known_h <= min(rows[issue], learnt[-1]))
            gram = kernel[over][:, over] + 0.3 * np.eye(over.sum())
            expected = level[issue] + mean + kernel[issue, over] @ np.linalg.solve(gram, target[over] - mean)
            np.testing.assert_allclose(got[source_forecast, issue, ahead_h], np.exp(expected), rtol=2e-4)


def test_the_last_row_may_be_repeated():
    grid, factors = to_device(GRID), GRID.factor_g_per_kwh
    got, state = learn(grid, LEARNT, FIRST, factors)
    padded, padded_state = learn(grid, np.pad(LEARNT, (0, 5), mode="edge"), FIRST, factors)
    np.testing.assert_allclose(padded[:, : len(LEARNT)], got, rtol=1e-5)
    window = window_at(grid, LEARNT[-1])
    np.testing.assert_allclose(predict(padded_state, window, factors), predict(state, window, factors), rtol=1e-5)


def test_invalid_and_later_hours_are_not_learnt_from():
    """With next to no dual weight, or none, its window is in no forecast."""
    dual = np.asarray(learn(to_device(GRID), LEARNT, FIRST, GRID.factor_g_per_kwh)[1].dual)
    row = int(np.flatnonzero(~GRID.valid)[0])
    invalid = [row - hour for hour in range(row % 24, 96, 24) if row - hour in LEARNT]
    assert invalid
    for issue in invalid:
        assert (np.abs(dual[:, row - issue, LEARNT == issue]) < 1e-6).all()
    for day in range(4):
        of_day = dual[:, 24 * day : 24 * day + 24]
        assert not of_day[..., -1 - day :].any() and of_day[..., -2 - day].all()


def test_an_outcome_that_is_no_number_teaches_nothing():
    """Though it is marked valid; it lies after the last history that a forecast reads."""
    intensity = GRID.intensity_g_per_kwh.copy()
    intensity[LEARNT[-1] + 30] = np.nan
    np.testing.assert_array_equal(forecasts(replace(GRID, intensity_g_per_kwh=intensity)), forecasts(GRID))


def test_rows_without_a_week_of_history_teach_nothing():
    early = np.concatenate([np.arange(0, 168, 24, dtype=np.int32), LEARNT])
    np.testing.assert_allclose(forecasts(GRID, early, FIRST + 7)[:, 7:], forecasts(GRID), rtol=1e-4)


def test_unknown_weather_and_grids_of_intensities_alone():
    unknown = replace(GRID, weather_runs=np.full_like(GRID.weather_runs, np.nan))
    alone = from_trace(IntensityTrace(GRID.intensity_g_per_kwh.astype(float), GRID.start, "made", "direct", "made"))
    for record in (unknown, alone):
        point = forecasts(record)[:, FIRST:]
        assert (point > 20).all() and (point < 800).all(), "between the lowest and the highest emission factor"


def test_the_second_alone_reads_the_source_forecast():
    hidden = forecasts(replace(GRID, source_forecast_mw=np.full_like(GRID.source_forecast_mw, np.nan)))
    np.testing.assert_array_equal(hidden[0], forecasts(GRID)[0])
    assert (hidden[1] != forecasts(GRID)[1])[FIRST:].mean() > 0.9
    with pytest.raises(ValueError, match="2 emission factors do not fit 3 sources"):
        learn(to_device(GRID), LEARNT, FIRST, (1.0, 2.0))


def test_needs_rows():
    with pytest.raises(ValueError, match="there is no issue hour"):
        learn(to_device(GRID), np.zeros(0, np.int32), 0, GRID.factor_g_per_kwh)


@pytest.mark.parametrize("fields", [{"penalty": 0.0}, {"length": -1.0}, {"linear": -0.1}])
def test_what_cannot_be_is_refused(fields):
    with pytest.raises(ValueError, match="KernelConfig: penalty"):
        KernelConfig(**fields)
