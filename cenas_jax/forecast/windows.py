"""Windows: what was known when a forecast was issued, and nothing else. The only way from a grid to a forecaster.

`window_at` reads hourly values before the issue hour, and of the daily forecasts the one row that was published last;
so a forecaster that is given a window cannot look ahead. What came later is read by `actual_at` alone; what learns from
outcomes as they come (`mixture`, `conformal`, `kernel_regression.learn`) masks them by their hour.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from cenas_jax.forecast.grid import DAY_H, RUN_H, GridRecord

HORIZON_H = 96
HISTORY_H = 168
"""Hours of history in a window: one week. A forecast cannot be issued with less."""
HISTORY_DAYS = HISTORY_H // DAY_H


class GridArrays(NamedTuple):
    """A `GridRecord` on the device. Rows beyond what is known are never read through `window_at`."""

    first_hour: Int[Array, ""]
    """Hours from 1970-01-01T00:00 UTC to row 0."""
    intensity_g_per_kwh: Float[Array, " hours"]
    valid: Bool[Array, " hours"]
    generation_mw: Float[Array, "hours sources"]
    weather_runs: Float[Array, "days run weather"]
    source_forecast_mw: Float[Array, "days run sources"]


class History(NamedTuple):
    """The `T` hours before the issue hour, oldest first."""

    intensity_g_per_kwh: Float[Array, " T"]
    generation_mw: Float[Array, "T sources"]
    weather: Float[Array, "T weather"]
    """As the runs of those days foresaw it. NaN: no run."""
    source_forecast_mw: Float[Array, "T sources"]
    """As it was forecast for those days. NaN: none."""


class KnownFuture(NamedTuple):
    """What others had forecast for the `HORIZON_H` hours from the issue hour on. NaN: beyond the run, or no run."""

    weather: Float[Array, "H weather"]
    source_forecast_mw: Float[Array, "H sources"]


class Window(NamedTuple):
    hour: Int[Array, ""]
    """The issue hour: hours since 1970-01-01T00:00 UTC. The calendar follows from it."""
    history: History
    future: KnownFuture


def to_device(grid: GridRecord) -> GridArrays:
    return GridArrays(
        first_hour=jnp.asarray(grid.first_hour, jnp.int32),
        intensity_g_per_kwh=jnp.asarray(grid.intensity_g_per_kwh),
        valid=jnp.asarray(grid.valid),
        generation_mw=jnp.asarray(grid.generation_mw),
        weather_runs=jnp.asarray(grid.weather_runs),
        source_forecast_mw=jnp.asarray(grid.source_forecast_mw),
    )


@functools.partial(jax.jit, static_argnames="run_delay_h")
def window_at(grid: GridArrays, row: Int[Array, ""], *, run_delay_h: int = 0) -> Window:
    """The window of a forecast issued at the start of hour `row`, which lies in `HISTORY_H .. hours`.

    Everything is NaN for a row outside, as there is no such history.

    Args:
        run_delay_h: hours after 00:00 UTC at which a day's weather run and source forecast are there. 0, as in the
            published work, is their nominal time; 5 is near the truth.
    """
    hour = grid.first_hour + row
    past = row - HISTORY_H + jnp.arange(HISTORY_H)
    there = (row >= HISTORY_H) & (row <= grid.intensity_g_per_kwh.shape[0])

    def known(values):  # hourly values before the issue hour
        history = jax.lax.dynamic_slice_in_dim(values, row - HISTORY_H, HISTORY_H)
        return jnp.where(there, history, jnp.nan)

    def published(runs, rows, issued_hours):  # hours `rows` as forecast by the run that was there at `issued_hours`
        run_day = (issued_hours - run_delay_h) // DAY_H
        day = run_day - grid.first_hour // DAY_H
        lead = grid.first_hour + rows - run_day * DAY_H
        inside = (lead < RUN_H) & (day >= 0) & there
        values = runs[jnp.clip(day, 0, runs.shape[0] - 1), jnp.clip(lead, 0, RUN_H - 1)]
        return jnp.where(inside[:, None], values, jnp.nan)

    ahead = row + jnp.arange(HORIZON_H)
    then, now = grid.first_hour + past, jnp.broadcast_to(hour, ahead.shape)
    return Window(
        hour,
        History(
            known(grid.intensity_g_per_kwh),
            known(grid.generation_mw),
            published(grid.weather_runs, past, then),
            published(grid.source_forecast_mw, past, then),
        ),
        KnownFuture(
            published(grid.weather_runs, ahead, now),
            published(grid.source_forecast_mw, ahead, now),
        ),
    )


class Actual(NamedTuple):
    """What came to pass in the `HORIZON_H` hours from the issue hour on: for losses and scores, not for forecasts."""

    intensity_g_per_kwh: Float[Array, " H"]
    valid: Bool[Array, " H"]
    generation_mw: Float[Array, "H sources"]


@jax.jit
def actual_at(grid: GridArrays, row: Int[Array, ""]) -> Actual:
    """The actual values of the horizon of `row`; invalid, with values of no meaning, beyond the last hour."""
    rows = row + jnp.arange(HORIZON_H)
    inside = rows < grid.intensity_g_per_kwh.shape[0]
    rows = jnp.minimum(rows, grid.intensity_g_per_kwh.shape[0] - 1)
    return Actual(grid.intensity_g_per_kwh[rows], grid.valid[rows] & inside, grid.generation_mw[rows])


def issue_rows(grid: GridRecord, start, end, *, every_h: int = DAY_H, horizon_h: int = HORIZON_H) -> np.ndarray:
    """Rows of the issue hours from `start` on, every `every_h` hours, whose horizon ends by `end` (both UTC hours).

    Issue hours without a week of history are left out; `ValueError` where none remains.
    """
    first, last = grid.row(start), grid.row(end) - horizon_h
    skipped = -(-max(HISTORY_H - first, 0) // every_h) * every_h
    rows = np.arange(first + skipped, last + 1, every_h, dtype=np.int32)
    if not rows.size:
        raise ValueError(
            f"{grid.source}: no forecast can be issued between {start} and {end}: "
            f"it takes {HISTORY_H} h of history before and {horizon_h} h after"
        )
    return rows
