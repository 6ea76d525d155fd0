"""Forecasts from past intensities alone on ten zones: learnt from 2021 and 2022, tested on every day of 2023.

    CENAS_DATA=/path/to/data python experiments/table_forecast_zones.py

Expected time: 5 minutes on 2 cores. Expected figures: the transformer's mean MAPE below repeat-yesterday's and
ridge regression's in every zone; see results/table_forecast_zones.json, which this writes, and the printed table.

The transformer is what `cenas forecast fit --trace em-ZONE --until 2023-01-01T00:00Z` makes: it goes on from the
generic forecaster that ships with the package (nothing after June 2021) and finds on July to December 2022 how long to
train.
Ridge regression is fitted on the issues at 00:00 UTC, as they are tested, which suits it better than all hours.
"""

import json
import os
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
from rich.console import Console
from rich.table import Table

from cenas_jax.carbon import load_trace
from cenas_jax.carbon.catalogue import COMPACT_ZONES
from cenas_jax.forecast.base import POINT, forecast_table
from cenas_jax.forecast.baselines import repeat_last, ridge, seasonal_average
from cenas_jax.forecast.grid import from_trace
from cenas_jax.forecast.metrics import mape_by_day
from cenas_jax.forecast.windows import actual_at, issue_rows, to_device
from cenas_jax.runs.forecasting import fit_forecaster
from cenas_jax.training.saved_forecaster import load_forecaster

RESULTS = Path(__file__).parent / "results" / "table_forecast_zones.json"
TEST = "2023-01-01"


def of_zone(zone: str) -> dict:
    record = from_trace(load_trace(f"em-{zone.lower()}", Path(os.environ["CENAS_DATA"])))
    grid, test = to_device(record), jnp.asarray(issue_rows(record, TEST, record.start + record.hours))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "fitted.npz"
        info = fit_forecaster(record, file, until=f"{TEST}T00:00Z")
        fitted = load_forecaster(file)
    learn = jnp.asarray(issue_rows(record, record.start + 168, TEST))
    linear = ridge()
    tables = {
        "repeat yesterday": forecast_table(repeat_last(24), (), grid, test),
        "weekly average": forecast_table(seasonal_average(), (), grid, test),
        "ridge": forecast_table(linear, linear.fit(jax.random.key(0), grid, learn), grid, test),
        "transformer": forecast_table(fitted.forecaster, fitted.state, grid, test),
    }
    actual = jax.vmap(actual_at, (None, 0))(grid, test)
    found = {}
    for name, table in tables.items():
        by_day = mape_by_day(table[..., POINT], actual.intensity_g_per_kwh, actual.valid)
        found[name] = {"mape_day1_4": [round(float(day), 3) for day in by_day], "mean": round(float(by_day.mean()), 3)}
    return {**found, "steps": info["steps"]}


def main() -> None:
    document = {}
    for zone in COMPACT_ZONES:
        document[zone] = of_zone(zone)
        RESULTS.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        print(f"{zone}: done", flush=True)
    shown = Table(title="MAPE %, 2023, days 1 to 4 ahead (mean)")
    names = [name for name in next(iter(document.values())) if name != "steps"]
    for column in ("zone", *names):
        shown.add_column(column)
    for zone, found in document.items():
        cells = (f"{' '.join(map(str, found[name]['mape_day1_4']))} ({found[name]['mean']})" for name in names)
        shown.add_row(zone, *cells)
    Console().print(shown)


if __name__ == "__main__":
    main()
