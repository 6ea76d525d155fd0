"""The experts beside the transformer in a combination: kernel regressions, which learn every day, and the source
forecast."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from cenas_jax.forecast import kernel_regression
from cenas_jax.forecast.base import POINT, forecast_table, padded
from cenas_jax.forecast.baselines import source_forecast
from cenas_jax.forecast.grid import DAY_H, GridRecord
from cenas_jax.forecast.kernel_regression import KernelState
from cenas_jax.forecast.windows import HISTORY_H, HORIZON_H, GridArrays, Window

FEWEST_DAYS = 60
"""Of issues that are wholly over, for kernel regression to learn from; with fewer there are no experts."""
DAYS_BATCH = 64
"""Kernel regression compiles anew each time that so many days have gone by."""


def known_issues(row: int) -> Int[np.ndarray, " n"]:
    """The issues at the same hour of the days before `row` that had a week of history, and are over at `row`."""
    return np.arange(HISTORY_H + (row - HISTORY_H) % DAY_H, row - HORIZON_H + 1, DAY_H, dtype=np.int32)


def there_are_experts(record: GridRecord, row: int) -> bool:
    """Whether the record has sources, and enough days before `row` to learn from."""
    return bool(record.sources) and known_issues(row).size >= FEWEST_DAYS


def learn_experts(
    record: GridRecord, grid: GridArrays, rows: Int[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, "experts n H"], KernelState | None]:
    """Point forecasts (g/kWh) issued at daily `rows` of the record, which is `grid` on the device, and what
    `expert_forecasts` goes on from at the last of them; NaN, and None, where there are no experts. They are kernel
    regression without and with the source forecast, both of which learn from every outcome once it is known, and the
    source forecast. `ValueError` for rows at different hours of the day, or not in order.
    """
    if ((rows - rows[:1]) % DAY_H).any() or (np.diff(rows) < 0).any():
        raise ValueError("learn_experts: give rows at one hour of the day, in order")
    points = np.full((3, len(rows), HORIZON_H), np.nan, np.float32)
    first = next((place for place, row in enumerate(rows) if there_are_experts(record, int(row))), len(rows))
    if first == len(rows):
        return points, None
    asked, factors = rows[first:], record.factor_g_per_kwh
    start = known_issues(int(asked[0]))[0]
    days, places = padded(np.arange(start, asked[-1] + 1, DAY_H), DAYS_BATCH), (asked - start) // DAY_H
    learnt, state = kernel_regression.learn(grid, days, places[0], factors)
    points[:2, first:] = np.asarray(learnt)[:, places]
    source = forecast_table(source_forecast(factors), (), grid, asked)
    points[2, first:] = np.asarray(source)[..., POINT]
    return points, state


def expert_forecasts(
    state: KernelState, window: Window, factor_g_per_kwh: tuple[float, ...]
) -> Float[Array, "experts H"]:
    """Point forecasts (g/kWh) for one window, from the state of `learn_experts` on a grid with these factors."""
    source = source_forecast(factor_g_per_kwh).predict((), window)[None, :, POINT]
    return jnp.concatenate([kernel_regression.predict(state, window, factor_g_per_kwh), source])
