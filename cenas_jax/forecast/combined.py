"""The combination: a forecaster, and the experts beside it, weighted by their errors.

`learn` forecasts at many daily issues, each from what was known by then, in seconds; `predict` goes on from the state
of the last of them, in milliseconds. Kernel regression knows days by their hours ahead, so a state is of one hour of
the day: forecasts every hour take 24 of them, each learnt again when another day is over.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from cenas_jax.forecast import mixture
from cenas_jax.forecast.base import POINT, Forecaster, forecast_table, padded
from cenas_jax.forecast.experts import DAYS_BATCH, FEWEST_DAYS, expert_forecasts, learn_experts
from cenas_jax.forecast.grid import DAY_H, GridRecord
from cenas_jax.forecast.kernel_regression import KernelState
from cenas_jax.forecast.mixture import MixtureState
from cenas_jax.forecast.windows import GridArrays, Window, actual_at


class CombinedState(NamedTuple):
    """What was known at an issue: some tens of MB for a few years of days."""

    hour: Int[Array, ""]
    """Of the issue: hours since 1970-01-01T00:00 UTC."""
    main_state: Any
    kernels: KernelState
    mixture: MixtureState


def learn(
    main: Forecaster,
    main_state: Any,
    record: GridRecord,
    grid: GridArrays,
    issues: Int[np.ndarray, " n"],
    *,
    unseen_from: int = 0,
) -> tuple[Float[np.ndarray, "n H Q"], CombinedState]:
    """Quantiles (g/kWh) issued at `issues`, a day apart, by the outcomes since the first of them; and what `predict`
    goes on from at the last. Before there are experts they are the forecaster's own. Weather runs and source forecasts
    are known from their nominal hour on.

    `ValueError` for issues that are not a day apart or lie beyond the record, and where there are no experts at the
    last: for a record without sources, or with too few days.

    Args:
        main: the forecaster, which stands first in the mixture's prior.
        grid: the record on the device.
        issues: rows of the record; the one after its last is allowed.
        unseen_from: the row after the last that `main` was fitted on: errors on what it learnt from say nothing.
    """
    if not len(issues) or (np.diff(issues) != DAY_H).any():
        raise ValueError("combined.learn: give issues a day apart, at least one")
    if issues[-1] > record.hours:
        raise ValueError(f"combined.learn: the last issue is row {issues[-1]}, and {record.zone} has {record.hours} h")
    count, issues = len(issues), padded(issues, DAYS_BATCH)
    points, kernels = learn_experts(record, grid, issues)
    if kernels is None:
        why = f"fewer than {FEWEST_DAYS} days are over at the last issue" if record.sources else "it has no sources"
        raise ValueError(f"combined.learn: nothing to combine with in {record.zone}, as {why}")
    actual = jax.vmap(actual_at, (None, 0))(grid, issues)
    valid = actual.valid & (issues >= unseen_from)[:, None]
    alone = forecast_table(main, main_state, grid, issues)
    table, mixtures = mixture.combine(alone, points, actual.intensity_g_per_kwh, valid)
    there = np.isfinite(points).any(axis=(0, 2)).reshape(-1, 1, 1)
    last = jax.tree.map(lambda values: values[count - 1], mixtures)
    return np.where(there, table, alone)[:count], CombinedState(grid.first_hour + issues[-1], main_state, kernels, last)


def predict(
    main: Forecaster, factor_g_per_kwh: tuple[float, ...], state: CombinedState, window: Window
) -> Float[Array, "H Q"]:
    """Quantiles (g/kWh) for a window of the grid with these factors, under `jit`; `main` is that of `learn`.

    For a window issued at another hour of the day than the state, they are `main`'s own: the experts have learnt other
    hours.
    """
    quantiles = main.predict(state.main_state, window)
    own = quantiles[None, :, POINT]
    experts = jnp.log(jnp.concatenate([own, expert_forecasts(state.kernels, window, factor_g_per_kwh)]))
    mixed = mixture.corrected(state.mixture, mixture.mix(state.mixture, experts))
    same_hour = (window.hour - state.hour) % DAY_H == 0
    return quantiles * jnp.where(same_hour, jnp.exp(mixed - experts[0]), 1)[:, None]
