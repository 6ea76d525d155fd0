"""Plain forecasters: by hand, against scikit-learn, and against every published row that they can reproduce."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arrays import replaced
from sklearn.linear_model import Ridge
from small_grid import FACTOR_G_PER_KWH, small_grid

from cenas_jax.carbon.trace import IntensityTrace
from cenas_jax.forecast.base import POINT, QUANTILES, forecast_table
from cenas_jax.forecast.baselines import (
    fit_linear,
    mixed_intensity,
    persistence,
    repeat_last,
    ridge,
    seasonal_average,
    source_forecast,
)
from cenas_jax.forecast.grid import GRIDS, from_trace, load_grid
from cenas_jax.forecast.metrics import mape_by_day
from cenas_jax.forecast.windows import Actual, actual_at, issue_rows, to_device, window_at

KEY = jax.random.key(0)
GRID = small_grid()
ARRAYS = to_device(GRID)
ROW = 24 * 20 + 7
WINDOW = window_at(ARRAYS, jnp.asarray(ROW))
PAST = GRID.intensity_g_per_kwh[:ROW]
solved, compiled_mix = jax.jit(fit_linear, static_argnums=3), jax.jit(mixed_intensity, static_argnums=1)


def point(forecaster, window=WINDOW):
    """The point forecast of a forecaster that learns nothing; it is in every column."""
    quantiles = np.asarray(jax.jit(forecaster.predict)(forecaster.fit(KEY, ARRAYS, jnp.zeros(0, jnp.int32)), window))
    assert quantiles.shape == (96, len(QUANTILES))
    np.testing.assert_array_equal(quantiles, np.repeat(quantiles[:, :1], len(QUANTILES), axis=1))
    return quantiles[:, POINT]


def test_forecasts_by_hand():
    np.testing.assert_array_equal(point(persistence()), np.repeat(PAST[-1], 96))
    np.testing.assert_array_equal(point(repeat_last(24)), np.tile(PAST[-24:], 4))
    np.testing.assert_array_equal(point(repeat_last(168)), PAST[-168:-72])
    np.testing.assert_array_equal(point(repeat_last(5)), np.tile(PAST[-5:], 20)[:96])
    week = np.tile(PAST[-168:].reshape(7, 24).mean(axis=0), 4)
    np.testing.assert_allclose(point(seasonal_average()), week, rtol=1e-6)


@pytest.mark.parametrize("period_h", (0, -24, 169))
def test_periods_without_history(period_h):
    with pytest.raises(ValueError, match=rf"a period of {period_h} h must lie in 1\.\.168 h"):
        repeat_last(period_h)


def test_source_forecast():
    """Issued at 07:00, it has the run of midnight from its hour 7 on; its last 7 hours are beyond the run."""
    mixed = GRID.source_forecast_mw[20, 7:]
    expected = mixed @ np.array(FACTOR_G_PER_KWH) / mixed.sum(axis=1)
    got = point(source_forecast(FACTOR_G_PER_KWH))
    np.testing.assert_allclose(got[:89], expected, rtol=1e-5)
    assert np.isnan(got[89:]).all()
    assert np.isnan(point(source_forecast(FACTOR_G_PER_KWH), window_at(ARRAYS, jnp.asarray(24 * 8)))).all()


def test_mixed_intensity():
    """(1 x 800 + 3 x 400) / 4 = 500; nothing generated has no intensity."""
    mw = jnp.array([[1.0, 3, 0], [0, 0, 0], [1, jnp.nan, 1]])
    np.testing.assert_allclose(compiled_mix(mw, FACTOR_G_PER_KWH), [500, np.nan, np.nan])
    with pytest.raises(ValueError, match="2 emission factors do not fit 3 sources"):
        mixed_intensity(mw, (1.0, 2.0))


def test_linear_regression_equals_scikit_learn():
    draw = np.random.default_rng(0)
    x = draw.normal(5, [1, 3, 0.2, 10], (60, 4))
    y, valid = x @ [1, -0.5, 4, 0.1] + draw.normal(size=60), draw.uniform(size=60) < 0.8
    state = solved(x.astype(np.float32), y.astype(np.float32), valid, 7.0)
    mean, std = x[valid].mean(axis=0), x[valid].std(axis=0)
    rival = Ridge(alpha=7.0).fit((x[valid] - mean) / std, y[valid])
    np.testing.assert_allclose(state.mean, mean, rtol=1e-4)
    np.testing.assert_allclose(state.std, std, rtol=1e-4)
    np.testing.assert_allclose(state.weights, rival.coef_, rtol=1e-3)
    np.testing.assert_allclose(state.intercept, rival.intercept_, rtol=1e-4)


def test_linear_regression_leaves_out_what_says_nothing():
    """Rows that are not valid, however wild; a constant input; NaN counts as the mean of the known values."""
    draw = np.random.default_rng(1)
    x, valid = draw.normal(size=(40, 3)).astype(np.float32), np.arange(40) < 30
    y = (x @ [2.0, -1, 0]).astype(np.float32)
    plain = solved(x[:30], y[:30], np.ones(30, bool), 1.0)
    x[30:], y[30:] = np.nan, np.inf
    for got, expected in zip(solved(x, y, valid, 1.0), plain, strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-5)
    x[:, 2] = 288.7
    constant = solved(x, y, valid, 1.0)
    assert constant.weights[2] == 0 and np.isinf(constant.std[2])
    x[:, 2] = np.where(np.arange(40) % 3, np.sin(np.arange(40)), np.nan)
    unknown = solved(x, y, valid, 1.0)
    seen = x[:30, 2][~np.isnan(x[:30, 2])]
    np.testing.assert_allclose([unknown.mean[2], unknown.std[2]], [seen.mean(), seen.std()], rtol=1e-5)
    x[:, 2] = np.where(np.isnan(x[:, 2]), 0, (x[:, 2] - seen.mean()) / seen.std())
    rival = Ridge(alpha=1.0).fit(np.c_[(x[:30, :2] - x[:30, :2].mean(0)) / x[:30, :2].std(0), x[:30, 2]], y[:30])
    np.testing.assert_allclose(unknown.weights, rival.coef_, atol=1e-4)


def test_ridge_learns_a_cycle_and_nothing_from_nothing():
    """A week that repeats is forecast to half a percent; two periods keep the problem from being trivial."""
    hours = np.arange(24 * 7 * 12)
    values = 300 + 80 * np.sin(2 * np.pi * hours / 24) + 40 * np.cos(2 * np.pi * hours / 168)
    grid = to_device(from_trace(IntensityTrace(values, np.datetime64("2021-01-01T00", "h"), "made", "direct", "made")))
    forecaster = ridge(1e-3)
    state = forecaster.fit(KEY, grid, jnp.arange(168, 1200, 24))
    table = np.asarray(forecast_table(forecaster, state, grid, np.arange(1416, 1800, 24)))
    expected = np.stack([values[row : row + 96] for row in range(1416, 1800, 24)])
    np.testing.assert_allclose(table[..., POINT], expected, rtol=5e-3)
    with pytest.raises(ValueError, match="no issue hour to learn from"):
        forecaster.fit(KEY, grid, jnp.zeros(0, jnp.int32))


def test_ridge_learns_nothing_from_hours_that_are_not_valid():
    """As an outcome it is not learnt from, whatever its value."""
    forecaster, half = ridge(1.0), GRID.hours // 2
    rows = jnp.arange(half - 90, half - 1, 24)  # All before it.
    wild = ARRAYS._replace(intensity_g_per_kwh=jnp.asarray(replaced(GRID.intensity_g_per_kwh, half, 5000.0)))
    for got, expected in zip(forecaster.fit(KEY, wild, rows), forecaster.fit(KEY, ARRAYS, rows), strict=True):
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("factors", ((), FACTOR_G_PER_KWH))
def test_table_equals_a_loop(factors):
    forecaster = ridge(10.0, factors)
    state = forecaster.fit(KEY, ARRAYS, jnp.arange(168, 500, 24))
    rows = np.arange(600, 700, 31)
    table = forecast_table(forecaster, state, ARRAYS, rows, batch=3, run_delay_h=5)
    one = jax.jit(lambda row: forecaster.predict(state, window_at(ARRAYS, row, run_delay_h=5)))
    loop = [one(row) for row in rows]
    np.testing.assert_allclose(table, np.stack(loop), rtol=1e-4)
    assert np.isfinite(table).all()


# Published rows: July to December 2021, the one place where this half-year is looked at before the final test.

PUBLISHED = ("2021-07-01", "2022-01-01")


@pytest.fixture(scope="module")
def load(data_dir):
    return functools.lru_cache(lambda zone, factor: load_grid(zone, data_dir, factor=factor))


@pytest.fixture(scope="module")
def published(data_dir):
    folder = data_dir / "forecast"
    with np.load(folder / "baselines.npz", allow_pickle=False) as file:
        stored = {name: file[name] for name in file.files}
    return json.loads((folder / "baseline_mape.json").read_text(encoding="utf-8")), stored


def actual_of(grid, rows) -> Actual:
    arrays = to_device(grid)
    return jax.tree.map(np.asarray, jax.vmap(actual_at, (None, 0))(arrays, rows))


@pytest.mark.data
@pytest.mark.parametrize("zone", GRIDS)
@pytest.mark.parametrize("factor", ("direct", "lifecycle"))
def test_published_rows(load, published, zone, factor):
    """181 issues at 00:00 UTC from 2021-07-01 on; errors of days 1 to 4 to 0.01 percentage points."""
    grid, (errors, stored) = load(zone, factor), published
    rows = issue_rows(grid, *PUBLISHED)
    actual = actual_of(grid, rows)
    assert len(rows) == 181 and bool(actual.valid.all())
    np.testing.assert_array_equal(actual.intensity_g_per_kwh, stored[f"{zone}_actual_{factor}"])
    forecasters = {
        "repeat_yesterday": repeat_last(24),
        "repeat_last_week": repeat_last(168),
        "carboncast_tier1_full_run": source_forecast(grid.factor_g_per_kwh),
    }
    for name, forecaster in forecasters.items():
        table = np.asarray(forecast_table(forecaster, (), to_device(grid), rows))
        got = mape_by_day(table[..., POINT], actual.intensity_g_per_kwh, actual.valid)
        np.testing.assert_allclose(got, errors[zone][factor][name]["mape_day1_4"], atol=0.01, err_msg=name)


@pytest.mark.data
@pytest.mark.parametrize("zone", GRIDS)
@pytest.mark.parametrize("factor", ("direct", "lifecycle"))
def test_stored_forecasts_of_carboncast(load, published, zone, factor):
    grid, (errors, stored) = load(zone, factor), published
    actual = actual_of(grid, issue_rows(grid, *PUBLISHED))
    got = mape_by_day(stored[f"{zone}_carboncast_tier1_{factor}"], actual.intensity_g_per_kwh, actual.valid)
    np.testing.assert_allclose(got, errors[zone][factor]["carboncast_tier1"]["mape_day1_4"], atol=0.01)
    factor_of = dict(zip(grid.sources, grid.factor_g_per_kwh, strict=True))
    factors = tuple(factor_of[name] for name in stored[f"{zone}_carboncast_tier1_sources"])  # in its own order
    forecast_mw = stored[f"{zone}_carboncast_tier1_src_mw"].swapaxes(1, 2)
    mixed = jax.vmap(lambda mw: compiled_mix(mw, factors))(forecast_mw)
    got = mape_by_day(mixed, actual.intensity_g_per_kwh, actual.valid)
    expected = errors[zone][factor]["carboncast_tier1_from_source_forecasts"]["mape_day1_4"]
    np.testing.assert_allclose(got, expected, atol=0.01)


@pytest.mark.data
@pytest.mark.parametrize("zone", GRIDS)
def test_dacf(load, published, zone):
    """DACF's stored day-ahead forecasts: 181 days as in the protocol, and all 184, which is its published figure."""
    grid, (errors, stored) = load(zone, "direct"), published
    assert str(stored["origin_day0"]) == PUBLISHED[0]
    rows = issue_rows(grid, *PUBLISHED, horizon_h=24)
    actual, row = actual_of(grid, rows), errors[zone]["direct"]["dacf"]
    forecast = stored[f"{zone}_dacf_direct"]
    for days, expected in ((181, row["mape_day1"]), (184, row["mape_day1_own_actual_184days"])):
        got = mape_by_day(forecast[:days], actual.intensity_g_per_kwh[:days, :24], actual.valid[:days, :24])
        np.testing.assert_allclose(got, [expected], atol=0.01)
    np.testing.assert_allclose(row["mape_day1_own_actual_184days"], row["published"], atol=0.011)
