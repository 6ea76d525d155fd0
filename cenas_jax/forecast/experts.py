"""The experts beside the transformer in a combination: kernel regressions, which go on learning, and the source
forecast."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from cenas_jax.forecast.base import POINT, Forecaster, forecast_table
from cenas_jax.forecast.baselines import source_forecast
from cenas_jax.forecast.grid import DAY_H, GridRecord
from cenas_jax.forecast.kernel_regression import kernel_regression
from cenas_jax.forecast.windows import HISTORY_H, HORIZON_H, GridArrays

REFIT_ISSUES = 14
"""Chosen on July 2020 to June 2021 of CISO and DE: 28 is worse by half a per cent, 7 no better."""
FEWEST_DAYS = 60
"""Of outcomes that kernel regression learns from; with fewer there are no experts."""


def known_issues(row: int) -> Int[np.ndarray, " n"]:
    """The issues at the same hour of the days before `row` that had a week of history, and are over at `row`."""
    return np.arange(HISTORY_H + (row - HISTORY_H) % DAY_H, row - HORIZON_H + 1, DAY_H, dtype=np.int32)


def there_are_experts(record: GridRecord, row: int) -> bool:
    """Whether the record has sources, and enough days before `row` to learn from."""
    return bool(record.sources) and known_issues(row).size >= FEWEST_DAYS


def expert_points(
    record: GridRecord, grid: GridArrays, rows: Int[np.ndarray, " n"]
) -> Float[np.ndarray, "experts n H"]:
    """Point forecasts (g/kWh) issued at daily `rows` of the record, which is `grid` on the device; NaN where there are
    no experts. They are kernel regression without and with the source forecast, fitted again every `REFIT_ISSUES` rows
    on the days whose outcomes were known by then, and the source forecast.
    """
    kernels = kernel_regression(), kernel_regression(factor_g_per_kwh=record.factor_g_per_kwh)
    points = np.full((len(kernels) + 1, len(rows), HORIZON_H), np.nan, np.float32)
    first = next((place for place, row in enumerate(rows) if there_are_experts(record, int(row))), len(rows))
    if first == len(rows):
        return points
    most = known_issues(int(rows[-1])).size
    for start in range(first, len(rows), REFIT_ISSUES):
        some = rows[start : start + REFIT_ISSUES]
        learnt = known_issues(int(some[0]))
        # Row 0, which has no history and teaches nothing, fills up: one compilation for all fits.
        padded = jnp.asarray(np.pad(learnt, (most - learnt.size, 0)))
        for kernel_points, kernel in zip(points[:-1], kernels, strict=True):
            state = kernel.fit(jax.random.key(0), grid, padded)
            kernel_points[start : start + REFIT_ISSUES] = _points(kernel, state, grid, some)
    points[-1, first:] = _points(source_forecast(record.factor_g_per_kwh), (), grid, rows[first:])
    return points


def _points(forecaster: Forecaster, state, grid: GridArrays, rows) -> np.ndarray:
    return np.asarray(forecast_table(forecaster, state, grid, rows))[..., POINT]
