"""Windows hold what was known, all of it and nothing else; and no forecaster sees beyond them."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_grid import DAYS, FACTOR_G_PER_KWH, published_at, slow_window, small_grid

from cenas_jax.carbon.trace import IntensityTrace
from cenas_jax.forecast.baselines import persistence, repeat_last, ridge, seasonal_average, source_forecast
from cenas_jax.forecast.boosted_trees import BoostedTreesConfig, boosted_trees
from cenas_jax.forecast.grid import from_trace
from cenas_jax.forecast.windows import actual_at, issue_rows, to_device, window_at

BOOSTED = BoostedTreesConfig(rounds=10, min_data=5, threads=1)
FORECASTERS = {
    "persistence": persistence,
    "yesterday": lambda: repeat_last(24),
    "last week": lambda: repeat_last(168),
    "seasonal average": seasonal_average,
    "source forecast": lambda: source_forecast(FACTOR_G_PER_KWH),
    "ridge": lambda: ridge(1.0),
    "ridge with source forecast": lambda: ridge(1.0, FACTOR_G_PER_KWH),
    "boosted trees": lambda: boosted_trees(BOOSTED, FACTOR_G_PER_KWH),
}


def changed(grid, row: int, run_delay_h: int, *, known: bool):
    """The grid with every value changed that is known (or that is not) at the start of hour `row`."""
    hours = (np.arange(grid.hours) < row) == known
    runs = (published_at(grid, row, run_delay_h) == known)[:, None, None]
    return replace(
        grid,
        intensity_g_per_kwh=np.where(hours, 777 - grid.intensity_g_per_kwh / 2, grid.intensity_g_per_kwh),
        valid=np.where(hours, ~grid.valid, grid.valid),
        generation_mw=np.where(hours[:, None], 3 * grid.generation_mw[:, ::-1], grid.generation_mw),
        weather_runs=np.where(runs, grid.weather_runs + 9, grid.weather_runs),
        source_forecast_mw=np.where(runs, 3 * grid.source_forecast_mw[..., ::-1], grid.source_forecast_mw),
    )


@pytest.mark.parametrize("run_delay_h", (0, 5))
@pytest.mark.parametrize("name", FORECASTERS)
def test_no_forecast_depends_on_what_is_not_known(name, run_delay_h):
    """Fitted on windows whose horizons are over, and issued: the same to the last bit, whatever comes later."""
    if name == "boosted trees":
        pytest.importorskip("lightgbm")
    forecaster, grid = FORECASTERS[name](), small_grid()
    predict = forecaster.predict if name == "boosted trees" else jax.jit(forecaster.predict)
    rows = np.arange(168, 24 * 26 + 1, 24, dtype=np.int32)  # The last horizon ends at the first issue hour.
    for row in (24 * 30, 24 * 30 + 17):

        def forecast(record, row=row):
            arrays = to_device(record)
            state = forecaster.fit(jax.random.key(0), arrays, rows)
            return np.asarray(predict(state, window_at(arrays, jnp.asarray(row), run_delay_h=run_delay_h)))

        before = forecast(grid)
        np.testing.assert_array_equal(before, forecast(changed(grid, row, run_delay_h, known=False)))
        assert not np.array_equal(before, forecast(changed(grid, row, run_delay_h, known=True)), equal_nan=True)


def test_changing_the_unknown_changes_all_of_it():
    """Guards the test above: what is not known at an issue hour is there, and is changed."""
    grid, row = small_grid(), 24 * 30
    other = changed(grid, row, 0, known=False)
    for name in ("intensity_g_per_kwh", "generation_mw"):
        assert (getattr(grid, name)[row:] != getattr(other, name)[row:]).all()
        np.testing.assert_array_equal(getattr(grid, name)[:row], getattr(other, name)[:row])
    for name in ("weather_runs", "source_forecast_mw"):
        assert (getattr(grid, name)[31:] != getattr(other, name)[31:]).mean() > 0.99
        np.testing.assert_array_equal(getattr(grid, name)[:31], getattr(other, name)[:31])


@pytest.mark.parametrize("start", ("2020-03-05T00", "2020-03-05T07"))
@pytest.mark.parametrize("run_delay_h", (0, 5))
def test_windows_equal_a_slow_implementation(start, run_delay_h):
    grid = small_grid(start=start)
    arrays = to_device(grid)
    drawn = np.random.default_rng(3).integers(168, grid.hours, 12)
    for row in (168, 24 * 20, 24 * 20 + 4, 24 * 20 + 5, *(int(row) for row in drawn), grid.hours):
        expected, got = (
            slow_window(grid, row, run_delay_h),
            jax.device_get(window_at(arrays, row, run_delay_h=run_delay_h)),
        )
        assert int(got.hour) == int(expected.hour)
        for part in ("history", "future"):
            for name, values in getattr(expected, part).items():
                np.testing.assert_array_equal(getattr(getattr(got, part), name), values, err_msg=f"{row} {name}")


@pytest.mark.parametrize("row", (-5, 0, 100, 167, 961, 2000))
def test_a_row_without_history_or_beyond_the_end_reads_nothing(row):
    """A start that is out of range would wrap to the end, or be clamped: to hours of the future."""
    grid = small_grid()
    assert grid.hours == 960
    window = window_at(to_device(grid), jnp.asarray(row))
    for part in (*window.history, *window.future):
        assert np.isnan(part).all()


def test_runs_are_late_by_their_delay():
    """At 04:00 with a delay of 5 h the run of the day before is the last: its 72 - 4 hours after, and no more."""
    grid = small_grid()
    weather = np.asarray(window_at(to_device(grid), jnp.asarray(24 * 15 + 4), run_delay_h=5).future.weather)
    np.testing.assert_array_equal(weather[:68], grid.weather_runs[14, 28:])
    assert np.isnan(weather[68:]).all()


def test_actual_values_end_with_the_grid():
    grid = small_grid()
    actual = jax.device_get(actual_at(to_device(grid), jnp.asarray(grid.hours - 40)))
    np.testing.assert_array_equal(actual.intensity_g_per_kwh[:40], grid.intensity_g_per_kwh[-40:])
    np.testing.assert_array_equal(actual.valid, np.arange(96) < 40)
    half = grid.hours // 2
    assert not actual_at(to_device(grid), jnp.asarray(half - 2)).valid[2]


def test_issue_rows():
    grid = small_grid()
    rows = issue_rows(grid, "2020-03-20", "2020-04-01")
    np.testing.assert_array_equal(rows, np.arange(15 * 24, (27 - 4) * 24 + 1, 24))
    # The first week has no history: hours 0, 50, ..., 150 are left out.
    assert issue_rows(grid, "2020-03-05", "2020-04-14", every_h=50)[0] == 200
    assert issue_rows(grid, "2020-03-05T03", "2020-04-14", every_h=1)[0] == 168
    # The horizon may end with the grid.
    assert issue_rows(grid, "2020-03-20", "2020-04-14")[-1] == DAYS * 24 - 96
    assert issue_rows(grid, "2020-03-20", "2020-04-14", horizon_h=24)[-1] == DAYS * 24 - 24


@pytest.mark.parametrize(
    "start, end, message",
    [
        ("2020-03-05", "2020-03-15", "no forecast can be issued between 2020-03-05 and 2020-03-15: it takes 168 h"),
        ("2020-03-20", "2020-03-23", "and 96 h after"),
        ("2020-03-20", "2020-03-01", "2020-03-01 is outside small"),
        ("2020-03-04T23", "2020-04-01", "2020-03-04T23 is outside small"),
        ("2020-03-20", "2020-04-14T01", "2020-04-14T01 is outside small"),
    ],
)
def test_issue_rows_that_do_not_exist(start, end, message):
    with pytest.raises(ValueError, match=message) as caught:
        issue_rows(small_grid(), start, end)
    assert "\n" not in str(caught.value)


def trace_with(gap_rows, value=np.nan, hours: int = 240) -> IntensityTrace:
    values = np.arange(100.0, 100.0 + hours)
    values[list(gap_rows)] = value
    return IntensityTrace(values, np.datetime64("2021-01-01T00", "h"), "made", "direct", "made.csv")


@pytest.mark.parametrize("value", (np.nan, 0.0, 0.05))
def test_gaps_take_the_value_24_hours_earlier(value):
    grid = from_trace(trace_with([100, 101, 150], value))
    expected = np.arange(100.0, 340.0, dtype=np.float32)
    expected[[100, 101, 150]] -= 24
    np.testing.assert_array_equal(grid.intensity_g_per_kwh, expected)
    np.testing.assert_array_equal(np.flatnonzero(~grid.valid), [100, 101, 150])
    assert grid.generation_mw.shape == (240, 0) and grid.weather_runs.shape == (11, 96, 0)


def test_a_record_ends_after_the_last_reading():
    whole, missing = from_trace(trace_with([150])), from_trace(trace_with([150, *range(200, 240)]))
    assert (whole.hours, missing.hours) == (240, 200)
    np.testing.assert_array_equal(missing.intensity_g_per_kwh, whole.intensity_g_per_kwh[:200])


def test_the_longest_gap():
    np.testing.assert_array_equal(
        from_trace(trace_with(range(100, 124))).intensity_g_per_kwh[100:124], np.arange(176.0, 200.0)
    )
    for rows, message in (
        (range(100, 125), r"made.csv: intensity missing at 2021-01-06 04:00 UTC \(row 124\), for more than 24 h"),
        ([23], r"row 23\), in the first 24 h"),
        ([0], r"row 0\), in the first 24 h"),
    ):
        with pytest.raises(ValueError, match=message):
            from_trace(trace_with(rows))
