"""The contract of every forecaster: from a window to quantiles of the next 96 hours."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from cenas_jax.forecast.windows import GridArrays, Window, window_at

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
POINT = QUANTILES.index(0.5)
"""The column that is the forecast itself."""


class Forecaster(NamedTuple):
    """`fit(key, grid, rows) -> state` and `predict(state, window) -> quantiles`.

    `rows` are the issue hours that may be learnt from, with their horizons (`windows.issue_rows`). `predict` gives
    `[HORIZON_H, len(QUANTILES)]` in gCO2eq/kWh, ascending along the last axis, and runs under `jit` and `vmap` unless
    the forecaster says that it works on the host. A point forecast repeats itself in every column.
    """

    fit: Callable[[Array, GridArrays, Int[Array, " n"]], Any]
    predict: Callable[[Any, Window], Float[Array, "H quantiles"]]


def as_quantiles(point: Float[Array, " H"]) -> Float[Array, "H quantiles"]:
    """A point forecast in every column."""
    return jnp.broadcast_to(point[:, None], (point.shape[0], len(QUANTILES)))


def forecast_table(
    forecaster: Forecaster,
    state: Any,
    grid: GridArrays,
    rows: Int[Array | np.ndarray, " n"],
    *,
    batch: int = 64,
    run_delay_h: int = 0,
) -> Float[Array, "n H quantiles"]:
    """Forecasts issued at each of the `rows`, each from what was known then; `run_delay_h` as for `window_at`.

    Compiled: once for a forecaster, a grid's shape and any number of rows up to `batch`, as rows are padded to whole
    batches.
    """
    return _table(forecaster, state, grid, padded(rows, batch), batch, run_delay_h)[: len(rows)]


def padded(rows: Int[Array | np.ndarray, " n"], batch: int) -> Int[np.ndarray, " m"]:
    """The rows and the last of them again, up to whole batches, for few compilations; none where there is none."""
    rows = np.asarray(rows, np.int32)
    return np.pad(rows, (0, -len(rows) % batch), mode="edge") if len(rows) else rows


@functools.partial(jax.jit, static_argnums=(0, 4, 5))
def _table(forecaster: Forecaster, state, grid, rows, batch: int, run_delay_h: int):
    return jax.lax.map(
        lambda row: forecaster.predict(state, window_at(grid, row, run_delay_h=run_delay_h)), rows, batch_size=batch
    )
