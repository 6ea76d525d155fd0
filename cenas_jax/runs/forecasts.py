"""The forecasts that policies see: at the start of every hour of a search, from what was known then."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32

from cenas_jax.carbon import IntensityTrace, fill_gaps
from cenas_jax.carbon.trace import HOUR, hour_text
from cenas_jax.config import GridOptions
from cenas_jax.forecast.base import POINT, Forecaster, forecast_table
from cenas_jax.forecast.baselines import persistence, repeat_last
from cenas_jax.forecast.grid import DAY_H, GridRecord, from_trace
from cenas_jax.forecast.windows import HISTORY_H, GridArrays, to_device

FORECAST_H = 24
"""Hours of a forecast, the hour at whose start it is issued being the first."""


def forecast_ahead(
    options: GridOptions, load: Callable[..., IntensityTrace], search: IntensityTrace
) -> Float32[np.ndarray, "hours forecast_h"]:
    """Intensity (g/kWh) as `options.forecast` has it: row i is issued at the start of the search's hour i, for the
    hours i, i + 1, ..., from the hours before i alone (`perfect` excepted, which is the trace itself).

    Args:
        load: `load(start, hours, gap_policy)` of the options' trace; None: from its first hour, to its last, unfilled.
        search: the hours of the search.

    `ValueError`, one line: too few hours before the search (`perfect`: after it), a gap that cannot be filled, or no
    forecaster for the zone.
    """
    name = options.forecast
    if name == "perfect":
        return _truth(load, search, options)
    grid = to_device(_record(load(None, None, None), search, options))
    try:
        forecaster, state = _fitted(name, search.zone, grid)
    except ValueError as error:
        raise ValueError(f"--forecast {name}: {error}") from error
    rows = HISTORY_H + jnp.arange(search.hours, dtype=jnp.int32)
    table = forecast_table(forecaster, state, grid, rows)
    return np.asarray(table[:, :FORECAST_H, POINT], np.float32)


def _truth(load: Callable[..., IntensityTrace], search: IntensityTrace, options: GridOptions):
    """What will be. A trace that ends too early is refused: a value made up would not be the truth."""
    try:
        actual = load(search.start, search.hours + FORECAST_H - 1, options.gap_policy)
    except ValueError as error:
        raise ValueError(f"--forecast perfect sees {FORECAST_H - 1} h beyond the search: {error}") from error
    windows = np.lib.stride_tricks.sliding_window_view(actual.intensity_g_per_kwh, FORECAST_H)
    return np.asarray(windows, np.float32)


def _record(whole: IntensityTrace, search: IntensityTrace, options: GridOptions) -> GridRecord:
    """`HISTORY_H` hours before the search and its own; gaps filled from what was known, whatever the gap policy."""
    first = whole.row(search.start) - HISTORY_H
    if first < 0:
        raise ValueError(
            f"--forecast {options.forecast} takes {HISTORY_H} h before the search, and {whole.source} has "
            f"{HISTORY_H + first} h before {hour_text(search.start)}: give a --start from "
            f"{hour_text(whole.start + HISTORY_H * HOUR)} on, a longer trace, or --forecast none"
        )
    hours = HISTORY_H + search.hours
    try:
        if options.gap_policy == "hold":
            whole = fill_gaps(whole, "hold", options.max_gap_h, first=first, last=first + hours)
        return from_trace(whole.window(whole.start + first * HOUR, hours))
    except ValueError as error:
        # A line drawn over a gap knows the reading after it, which a forecast issued in the gap may not.
        mend = "" if options.gap_policy == "hold" else " with hold: interpolated hours look ahead"
        raise ValueError(f"--forecast {options.forecast}: {error}{mend}") from error


def _fitted(name: str, zone: str, grid: GridArrays) -> tuple[Forecaster, object]:
    if name == "transformer":
        from cenas_jax.training.saved_forecaster import load_shipped  # imports flax, which nothing else here needs

        shipped = load_shipped(zone)
        return shipped.forecaster, shipped.state
    forecaster = {"persistence": persistence(), "yesterday": repeat_last(DAY_H)}[name]
    nothing = jnp.zeros(0, jnp.int32)  # no issue hour that may be learnt from, and none is needed
    return forecaster, forecaster.fit(jax.random.key(0), grid, nothing)
