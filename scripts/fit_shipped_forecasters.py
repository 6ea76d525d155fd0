"""Fits the forecasters of intensities alone that ship with the package: CISO, DE, PJM and a generic one.

    CENAS_DATA=/path/to/data python scripts/fit_shipped_forecasters.py

Expected time: about 10 minutes on 2 cores. Writes cenas_jax/training/shipped/*.npz (new files: remove the old ones
first). Nothing after June 2021 is read, so that everything from July 2021 on is left for tests: the generic one learns
from all zones at hand, the others go on from it on their own grid.
"""

import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from cenas_jax.carbon import IntensityTrace, from_arrays, load_trace
from cenas_jax.carbon.catalogue import COMPACT_ZONES, PAPER_TRACE
from cenas_jax.forecast.grid import GRIDS, GridRecord, from_trace, load_grid, pooled
from cenas_jax.forecast.windows import issue_rows
from cenas_jax.training.forecaster import FitConfig, Fitted, fine_tuning, fit, history_only
from cenas_jax.training.saved_forecaster import save_forecaster

SHIPPED = Path(__file__).parents[1] / "cenas_jax" / "training" / "shipped"
END, VALIDATION = np.datetime64("2021-07-01T00", "h"), np.datetime64("2021-01-01T00", "h")
"""The first hour that is not read, and the first that early stopping looks at."""
SAFE_H, WEEK_H, MONTH_H = 336, 168, 720
"""What `pooled` may cut off at the beginning, history included, and at the end."""


def main() -> None:
    data = Path(os.environ["CENAS_DATA"])
    grids = {zone: without_sources(load_grid(zone, data)) for zone in GRIDS}
    others = [until_end(load_trace(f"em-{zone.lower()}", data)) for zone in COMPACT_ZONES]
    paper = until_end(load_trace(PAPER_TRACE, data, gap_policy="hold", max_gap_h=7))
    generic = fit_twice([*grids.values(), paper, *others], history_only(), None)
    save_forecaster(SHIPPED / "generic.npz", generic)
    for zone, grid in grids.items():
        save_forecaster(SHIPPED / f"{zone.lower()}.npz", fit_twice([grid], fine_tuning(), generic))


def until_end(trace: IntensityTrace) -> GridRecord:
    return from_trace(trace.window(trace.start, int((END - trace.start).astype(int))))


def without_sources(grid: GridRecord) -> GridRecord:
    values = np.where(grid.valid, grid.intensity_g_per_kwh, np.nan)
    return until_end(from_arrays(values, grid.start, zone=grid.zone, source=grid.source))


def rounded(values: jax.Array) -> jax.Array:
    """Half precision in single: files of two thirds the size, forecasts equal to a thousandth."""
    return values.astype(jnp.float16).astype(jnp.float32)


def fit_twice(records: list[GridRecord], config: FitConfig, initial: Fitted | None) -> Fitted:
    """Finds how long to train on what was before the validation's start, then trains so long on everything.

    Records that begin with the validation (half a year of 2021) keep their last month for it.
    """
    pool, begins = pooled(records)
    learnt, validation, everything = [], [], []
    for record, begin in zip(records, begins, strict=True):
        first, last = record.start + SAFE_H, END - WEEK_H
        split = VALIDATION if record.start < VALIDATION - SAFE_H else END - MONTH_H
        learnt.append(begin + issue_rows(record, first, split, every_h=1))
        validation.append(begin + issue_rows(record, split, last))
        everything.append(begin + issue_rows(record, first, last, every_h=1))
    key = jax.random.key(0)
    held_out = np.concatenate(validation)
    found = fit(
        key, pool, np.concatenate(learnt), config, validation_rows=held_out, initial=initial, progress=print
    ).info
    final = fit(key, pool, np.concatenate(everything), config, steps=found["steps"], initial=initial)
    return final._replace(
        state=jax.tree.map(rounded, final.state),
        info={**final.info, "fitted_until": f"{END}Z", "validation_mape": found["validation_mape"], "source": ""},
    )


if __name__ == "__main__":
    main()
