"""Kernel ridge regression of log intensity, one an hour ahead: days like this one, rather than a trained network.

It is the mean of a Gaussian process with a linear and a squared-exponential kernel (Rasmussen and Williams 2006,
chapter 2), given history, calendar and weather, and on demand the source forecast. Without that its errors differ from
those of forecasters that rest on it, which makes it useful in a combination (`mixture`).
"""

import functools
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cenas_jax.forecast.base import Forecaster, as_quantiles
from cenas_jax.forecast.baselines import mixed_intensity
from cenas_jax.forecast.features import calendar, every_day
from cenas_jax.forecast.grid import DAY_H, LOWEST_G_PER_KWH
from cenas_jax.forecast.windows import HISTORY_DAYS, HORIZON_H, GridArrays, Window, actual_at, window_at

NEAR_H = 3
MOST_STANDARD = 4.0
"""Standardised inputs are cut off here, so that no window is far from all others for one odd reading."""


@dataclass(frozen=True)
class KernelConfig:
    """The defaults were chosen on July 2020 to June 2021 of CISO, DE and PJM; the weights of what is made of the source
    forecast by CISO and DE."""

    penalty: float = 0.2
    """Variance of the noise, where the squared-exponential kernel has variance 1."""
    linear: float = 0.3
    """Weight of the linear kernel."""
    length: float = 1.0
    """Of the squared-exponential kernel: two windows that differ by `length` times the typical distance of two draws
    are alike by exp(-1)."""

    def __post_init__(self):
        if self.penalty <= 0 or self.length <= 0 or self.linear < 0:
            raise ValueError(
                f"KernelConfig: penalty {self.penalty} and length {self.length} must be above 0, linear {self.linear} "
                "at least 0"
            )


class KernelState(NamedTuple):
    mean: Float[Array, "H features"]
    scale: Float[Array, "H features"]
    """Weight over standard deviation; 0 where a feature was constant."""
    inputs: Float[Array, "H n features"]
    """Standardised and weighted, of the windows learnt from."""
    dual: Float[Array, "H n"]
    intercept: Float[Array, " H"]


@functools.lru_cache
def kernel_regression(
    config: KernelConfig = KernelConfig(),  # noqa: B008 (frozen)
    factor_g_per_kwh: tuple[float, ...] = (),
) -> Forecaster:
    """A point forecaster; issue hours to learn from should be of the same hour of the day as the forecasts asked for.

    Unknown weather and source forecasts count as average. Invalid hours are not learnt from, nor rows without a week of
    history. Takes memory for all windows learnt from, so give it daily ones. `ValueError` without any.

    Args:
        factor_g_per_kwh: emission factors by which the source forecast is mixed; empty: it is not read.
    """

    def fit(key, grid: GridArrays, rows) -> KernelState:
        if not rows.size:
            raise ValueError("kernel_regression: there is no issue hour to learn from")

        def of_row(row):
            actual = actual_at(grid, row)
            inputs, weight, level = _inputs(window_at(grid, row), factor_g_per_kwh)
            target = jnp.log(jnp.maximum(actual.intensity_g_per_kwh, LOWEST_G_PER_KWH)) - level
            return inputs, weight, target, actual.valid & jnp.isfinite(level)

        inputs, weight, target, valid = jax.lax.map(of_row, rows, batch_size=256)

        def of_hour(by_hour):
            inputs, target, valid = by_hour
            known = jnp.isfinite(inputs) & valid[:, None]
            count = jnp.maximum(known.sum(axis=0), 1)
            mean = jnp.where(known, inputs, 0).sum(axis=0) / count
            std = jnp.sqrt((jnp.where(known, inputs - mean[None], 0) ** 2).sum(axis=0) / count)
            varies = std > 1e-5 * (1 + jnp.abs(mean))
            scale = jnp.where(varies, weight[0] / jnp.where(varies, std, 1), 0)
            standard = _standard(inputs, mean[None], scale[None], weight[:1])
            intercept = jnp.where(valid, target, 0).sum() / jnp.maximum(valid.sum(), 1)
            # Invalid rows are like no other, and have target 0: their dual weight is 0.
            gram = jnp.where(valid[:, None] & valid[None], _kernel(standard, standard, weight[0], config), 0)
            gram += config.penalty * jnp.eye(len(gram))
            residual = jnp.where(valid, target - intercept, 0)
            dual = jax.scipy.linalg.solve(gram, residual, assume_a="pos")
            return KernelState(mean, scale, standard, dual, intercept)

        return jax.lax.map(of_hour, (inputs.swapaxes(0, 1), target.T, valid.T))

    def predict(state: KernelState, window: Window):
        inputs, weight, level = _inputs(window, factor_g_per_kwh)
        standard = _standard(inputs, state.mean, state.scale, weight[None])
        similar = jax.vmap(lambda one, learnt: _kernel(one[None], learnt, weight, config)[0])(standard, state.inputs)
        return as_quantiles(jnp.exp(level + state.intercept + (similar * state.dual).sum(axis=1)))

    return Forecaster(jax.jit(fit), predict)


def _kernel(some: Float[Array, "n f"], others: Float[Array, "m f"], weight: Float[Array, " f"], config: KernelConfig):
    product = some @ others.T
    distance = (some**2).sum(axis=1)[:, None] + (others**2).sum(axis=1)[None] - 2 * product
    typical = 2 * (weight**2).sum() * config.length**2
    return jnp.exp(-jnp.maximum(distance, 0) / typical) + config.linear * product / some.shape[1]


def _standard(inputs, mean, scale, weight):
    bounded = jnp.clip((inputs - mean) * scale, -MOST_STANDARD * weight, MOST_STANDARD * weight)
    return jnp.where(jnp.isfinite(inputs), bounded, 0)


def _inputs(window: Window, factor_g_per_kwh: tuple[float, ...]):
    """`(inputs[H, features], weight[features], level)`: an hour's features (NaN where unknown), how much they tell
    two windows apart, and the mean log intensity (ln g/kWh)."""
    past, weather = window.history, window.future.weather
    log_intensity = jnp.log(past.intensity_g_per_kwh)
    level = log_intensity.mean()
    by_day = (log_intensity - level).reshape(HISTORY_DAYS, DAY_H)
    positive = jnp.maximum(past.generation_mw, 0)
    load = jnp.maximum(positive.sum(axis=1), 1.0)
    log_load = jnp.log(load).reshape(HISTORY_DAYS, DAY_H)
    of_window = [
        (by_day[-1], 0.3),
        (by_day.mean(axis=1), 0.7),
        (level[None], 0.5),
        (past.weather[-DAY_H:].mean(axis=0), 0.7),
        ((positive / load[:, None])[-DAY_H:].mean(axis=0), 0.5),
    ]
    of_hour = [
        (every_day(by_day.T), 0.7),
        (every_day((log_load - log_load.mean()).T), 0.5),
        (weather, 1.5),
        (_of_the_day(weather), 1.5),
        (_around(weather), 1.5),
        (calendar(window.hour + jnp.arange(HORIZON_H))[:, 4:], 1.0),
    ]
    if factor_g_per_kwh:
        foreseen = jnp.maximum(window.future.source_forecast_mw, 0)
        mixed = mixed_intensity(foreseen, factor_g_per_kwh)[:, None]
        relative = jnp.log(jnp.maximum(mixed, LOWEST_G_PER_KWH)) - level
        shares = foreseen / jnp.maximum(foreseen.sum(axis=1, keepdims=True), 1.0)
        of_hour += [(relative, 5.0), (_of_the_day(relative), 2.0), (_around(relative), 2.0), (shares, 1.5)]
    columns = [(jnp.broadcast_to(values, (HORIZON_H, *values.shape)), weight) for values, weight in of_window] + of_hour
    inputs = jnp.concatenate([values for values, _ in columns], axis=1)
    weight = jnp.concatenate([jnp.full(values.shape[1], weight) for values, weight in columns])
    return inputs, weight, level


def _of_the_day(values: Float[Array, "H c"]) -> Float[Array, "H c"]:
    """Means over the horizon's days, at each of their hours."""
    return jnp.repeat(values.reshape(HORIZON_H // DAY_H, DAY_H, values.shape[1]).mean(axis=1), DAY_H, axis=0)


def _around(values: Float[Array, "H c"]) -> Float[Array, "H c"]:
    """Means over the hours from `NEAR_H` before to `NEAR_H` after, of those in the horizon."""
    near = jnp.arange(HORIZON_H)[:, None] + jnp.arange(-NEAR_H, NEAR_H + 1)[None]
    inside = (near >= 0) & (near < HORIZON_H)
    around = jnp.where(inside[..., None], values[jnp.clip(near, 0, HORIZON_H - 1)], 0).sum(axis=1)
    return around / inside.sum(axis=1, keepdims=True)
