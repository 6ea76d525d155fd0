"""`--forecast`: the tables by hand, what they refuse, and a run from the command line."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cenas_jax import cli
from cenas_jax.carbon import from_arrays
from cenas_jax.config import GridOptions, SimulateConfig, settled
from cenas_jax.forecast.base import POINT
from cenas_jax.forecast.grid import from_trace
from cenas_jax.forecast.windows import HISTORY_H, to_device, window_at
from cenas_jax.runs.forecasts import FORECAST_H
from cenas_jax.runs.inputs import load_inputs
from cenas_jax.training.saved_forecaster import load_shipped

HOURS, FIRST = 6, 180
"""Of the search, and its first hour's row in the trace."""
SHOWN = np.datetime64("2021-01-01T00", "m")
FIRST_HOUR = f"{SHOWN + FIRST * 60}Z"
VALUES = 300 + 100 * np.sin(np.arange(260) / 24 * 2 * np.pi) + np.arange(260)
AHEAD = FIRST + np.arange(HOURS)[:, None] + np.arange(FORECAST_H)[None, :]
"""Rows of the trace that the forecasts are of."""


@pytest.fixture
def write(tmp_path):
    """`write(values)`: a CSV trace from 2021-01-01 on, without the hours that are NaN; its path."""

    def write(values=VALUES):
        stamps = np.datetime_as_string(SHOWN + np.arange(len(values)) * 60)
        rows = [f"{stamp}Z,{value:.6f}" for stamp, value in zip(stamps, values, strict=True) if not np.isnan(value)]
        (tmp_path / "trace.csv").write_text("\n".join(["datetime,carbon_intensity", *rows]))
        return str(tmp_path / "trace.csv")

    return write


def forecast_of(path, name, hours=HOURS, start=FIRST_HOUR, **grid):
    base = SimulateConfig()
    options = GridOptions(trace=path, start=start, forecast=name, **grid)
    inputs = load_inputs(settled(replace(base, grid=options, limits=replace(base.limits, hours=hours)), {}))
    assert inputs.config.grid.forecast == name
    return inputs.forecast_g_per_kwh


def missing(*rows):
    values = VALUES.copy()
    values[list(rows)] = np.nan
    return values


def test_tables_by_hand(write):
    path = write()
    assert forecast_of(path, "none").shape == (HOURS, 0)
    last = VALUES[FIRST + np.arange(HOURS) - 1]
    np.testing.assert_allclose(forecast_of(path, "persistence"), np.repeat(last[:, None], FORECAST_H, 1), rtol=1e-6)
    np.testing.assert_allclose(forecast_of(path, "yesterday"), VALUES[AHEAD - 24], rtol=1e-6)
    np.testing.assert_allclose(forecast_of(path, "perfect"), VALUES[AHEAD], rtol=1e-6)


def test_perfect_is_the_trace_of_the_search_and_needs_no_past(write):
    path = write()
    table = forecast_of(path, "perfect", hours=HOURS, start=None)
    np.testing.assert_allclose(table, VALUES[AHEAD - FIRST], rtol=1e-6)
    longest = len(VALUES) - FIRST - FORECAST_H + 1
    np.testing.assert_allclose(forecast_of(path, "perfect", hours=longest)[-1, -1], VALUES[-1], rtol=1e-6)
    with pytest.raises(ValueError, match=f"--forecast perfect sees 23 h beyond the search: {longest + 24} h from"):
        forecast_of(path, "perfect", hours=longest + 1)


def test_a_week_of_history_is_needed(write):
    path = write()
    week = f"{SHOWN + HISTORY_H * 60}Z"
    assert forecast_of(path, "yesterday", start=week).shape == (HOURS, FORECAST_H)
    early = f"{SHOWN + (HISTORY_H - 1) * 60}Z"
    words = r"--forecast transformer takes 168 h .* has 167 h before 2021-01-07 23:00 UTC: .* --start from 2021-01-08"
    with pytest.raises(ValueError, match=words):
        forecast_of(path, "transformer", start=early)
    assert forecast_of(path, "none", start=early).shape == (HOURS, 0)


@pytest.mark.parametrize("gap_policy", ["error", "interpolate"])
def test_gaps_of_the_past_are_filled_from_the_day_before(write, gap_policy):
    values = missing(100, 101, FIRST - 30)
    table = forecast_of(write(values), "yesterday", gap_policy=gap_policy)
    np.testing.assert_allclose(table, VALUES[AHEAD - 24], rtol=1e-6)
    values = missing(FIRST - 24 + 2)
    expected = VALUES.copy()
    expected[FIRST - 24 + 2] = VALUES[FIRST - 48 + 2]
    # This hour lies in the window that policies look back on, where gaps are the gap policy's.
    table = forecast_of(write(values), "yesterday", gap_policy="interpolate")
    np.testing.assert_allclose(table[0], expected[AHEAD[0] - 24], rtol=1e-6)


def test_a_forecast_issued_in_a_gap_does_not_know_its_end(write):
    """Hour 3 of the search is interpolated between its neighbours; the forecast of hour 4 may not see hour 4."""
    table = forecast_of(write(missing(FIRST + 3)), "persistence", gap_policy="interpolate")
    np.testing.assert_allclose(table[4], VALUES[FIRST + 3 - 24], rtol=1e-6)
    held = forecast_of(write(missing(FIRST + 3)), "persistence", gap_policy="hold")
    np.testing.assert_allclose(held[4], VALUES[FIRST + 2], rtol=1e-6)


def test_gaps_that_cannot_be_filled_are_one_line(write):
    path = write(missing(*range(100, 126)))
    assert forecast_of(path, "none").shape == (HOURS, 0)
    for gap_policy, words in (("error", "with hold"), ("interpolate", "look ahead"), ("hold", "max_gap_h")):
        with pytest.raises(ValueError, match="--forecast yesterday: .*trace.csv.*" + words) as refusal:
            forecast_of(path, "yesterday", gap_policy=gap_policy)
        assert "\n" not in str(refusal.value)
    held = forecast_of(path, "yesterday", gap_policy="hold", max_gap_h=26)
    np.testing.assert_allclose(held, VALUES[AHEAD - 24], rtol=1e-6)


def test_the_shipped_transformer_is_asked(write):
    """Each hour's forecast is the shipped forecaster's own, from the week before."""
    path = write()
    table = forecast_of(path, "transformer")
    shipped = load_shipped("trace")
    grid = to_device(from_trace(from_arrays(VALUES, "2021-01-01T00:00Z", zone="trace")))
    for hour in (0, HOURS - 1):
        quantiles = jax.jit(shipped.forecaster.predict)(shipped.state, window_at(grid, jnp.int32(FIRST + hour)))
        np.testing.assert_allclose(table[hour], quantiles[: table.shape[1], POINT], rtol=1e-4)


SMALL = (
    "simulate --policy heuristic --seeds 1 --hours 3 --slots 2 --initial-design 2 --queue-capacity 4 "
    "--screen-per-interval 16 --searcher random --no-figures"
).split()


@pytest.mark.slow
def test_plain_policies_decide_as_without_forecast_and_the_run_says_what_was_forecast(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("CENAS_DATA", raising=False)
    documents = {}
    for name in ("none", "yesterday"):
        with pytest.raises(SystemExit) as leaving:
            cli.main([*SMALL, "--forecast", name, "--out", str(tmp_path / name)])
        assert leaving.value.code == 0
        documents[name] = json.loads((tmp_path / name / "result.json").read_text())
        assert documents[name]["config"]["grid"].pop("forecast") == name
        assert f'forecast = "{name}"' in (tmp_path / name / "config.toml").read_text()
        assert ("; forecast yesterday" in capsys.readouterr().out) == (name == "yesterday")
        del documents[name]["seconds"]
    assert documents["none"] == documents["yesterday"]
    for file in ("history.csv", "ledger.csv", "pareto.csv"):
        assert (tmp_path / "none" / file).read_bytes() == (tmp_path / "yesterday" / file).read_bytes()
