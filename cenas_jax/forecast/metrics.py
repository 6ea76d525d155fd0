"""Scores of forecasts: error, calibration, and what a decision taken on the forecast loses.

Tables are `[issues, hours ahead]` in g/kWh; the hours ahead are whole days. Hours whose `valid` is False count nothing.
A score is NaN where no hour is valid, or where the forecast of a valid hour is NaN: a missing forecast is no good one.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from cenas_jax.forecast.base import QUANTILES
from cenas_jax.forecast.grid import DAY_H


@jax.jit
def mape_by_day(
    point: Float[Array, "n H"], actual: Float[Array, "n H"], valid: Bool[Array, "n H"]
) -> Float[Array, " days"]:
    """Mean absolute percentage error (%) of each day ahead: the mean of |forecast - actual| / actual over its hours."""
    return 100 * _mean_by_day(jnp.abs(point - actual) / jnp.where(valid, actual, 1.0), valid)


@jax.jit
def coverage_by_day(
    low: Float[Array, "n H"], high: Float[Array, "n H"], actual: Float[Array, "n H"], valid: Bool[Array, "n H"]
) -> Float[Array, " days"]:
    """Share (%) of the hours of each day ahead that lie inside the interval, its ends included."""
    inside = (actual >= low) & (actual <= high)
    return 100 * _mean_by_day(jnp.where(jnp.isnan(low + high), jnp.nan, inside), valid)


@jax.jit
def quantile_loss(
    quantiles: Float[Array, "n H Q"], actual: Float[Array, "n H"], valid: Bool[Array, "n H"]
) -> Float[Array, ""]:
    """Mean pinball loss over the levels `QUANTILES`, in g/kWh (Koenker and Bassett 1978)."""
    error = actual[..., None] - quantiles
    level = jnp.array(QUANTILES)[None, None]
    pinball = error * jnp.where(error > 0, level, level - 1)  # jnp.maximum may lose a NaN when XLA fuses it.
    return _mean(pinball.mean(axis=-1), valid)


class Regret(NamedTuple):
    """Mean intensity (g/kWh) of the hours in which work ran, by how they were chosen; all scalars."""

    chosen_g_per_kwh: Float[Array, ""]
    """The hours of lowest forecast."""
    clairvoyant_g_per_kwh: Float[Array, ""]
    """The truly lowest hours."""
    blind_g_per_kwh: Float[Array, ""]
    """All hours of the window: what work costs that runs at any time."""

    @property
    def regret_g_per_kwh(self) -> Float[Array, ""]:
        """What the forecast loses against perfect knowledge, for each kWh."""
        return self.chosen_g_per_kwh - self.clairvoyant_g_per_kwh

    @property
    def captured_share(self) -> Float[Array, ""]:
        """Share of the clairvoyant saving that the forecast captures; NaN where there is nothing to save."""
        most = self.blind_g_per_kwh - self.clairvoyant_g_per_kwh
        return (self.blind_g_per_kwh - self.chosen_g_per_kwh) / jnp.where(
            most > 1e-5 * self.blind_g_per_kwh, most, jnp.nan
        )


def decision_regret(
    point: Float[Array | np.ndarray, "n H"],
    actual: Float[Array | np.ndarray, "n H"],
    valid: Bool[Array | np.ndarray, "n H"],
    *,
    window_h: int,
    share: float,
) -> Regret:
    """Work runs in `round(share * window_h)` of the next `window_h` hours: those of lowest forecast (the earlier where
    equal). Means are over issues and over the hours run, so that absolute gCO2 follow by times the energy.

    Windows with an invalid hour are left out; a NaN forecast in one makes the chosen hours' intensity NaN.
    `ValueError` where no hour would be run, or more than there are.
    """
    hours = round(share * window_h)
    if not 1 <= hours <= window_h <= point.shape[1]:
        raise ValueError(
            f"decision_regret: {hours} of {window_h} h (share {share:g}): run at least one hour of a window "
            f"of at most {point.shape[1]} h"
        )
    return _regret(point, actual, valid, hours, window_h)


@functools.partial(jax.jit, static_argnames="window_h")
def _regret(point, actual, valid, hours, window_h: int) -> Regret:
    point, actual, whole = point[:, :window_h], actual[:, :window_h], valid[:, :window_h].all(axis=1)
    earlier = jnp.tri(window_h, k=-1, dtype=bool)[None]

    def mean_of_lowest(table):
        # By counting what comes first, so that one program serves any number of hours.
        this, other = table[:, :, None], table[:, None, :]
        first = ((other < this) | ((other == this) & earlier)).sum(axis=2)
        return _mean(jnp.where(first < hours, actual, 0).sum(axis=1) / hours, whole)

    # In one loop, so that equal choices have equal sums to the bit: XLA may add up two separate ones in other orders.
    chosen, clairvoyant = jax.lax.map(mean_of_lowest, jnp.stack([point, actual]))
    missing = (jnp.isnan(point).any(axis=1) & whole).any()
    return Regret(jnp.where(missing, jnp.nan, chosen), clairvoyant, _mean(actual.mean(axis=1), whole))


def _mean_by_day(values, valid):
    by_day = (values.shape[0], values.shape[1] // DAY_H, DAY_H)
    return jax.vmap(_mean, (1, 1))(values.reshape(by_day), valid.reshape(by_day))


def _mean(values, valid):
    """Over the valid entries; NaN without any."""
    return jnp.where(valid.any(), jnp.where(valid, values, 0).sum() / jnp.maximum(valid.sum(), 1), jnp.nan)
