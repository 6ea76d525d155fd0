"""Kernel ridge regression of log intensity, one an hour ahead: days like this one, rather than a trained network.

It is the mean of a Gaussian process with a linear and a squared-exponential kernel (Rasmussen and Williams 2006,
chapter 2), given history, calendar and weather, and on demand the source forecast. Without that its errors differ from
those of forecasters that rest on it, which makes it useful in a combination (`mixture`).

`kernel_regression` is fitted on days and forecasts in milliseconds; `learning_forecasts` learns from every outcome once
it is known, at the price of one fit.
"""

import functools
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from cenas_jax.forecast.base import Forecaster, as_quantiles
from cenas_jax.forecast.baselines import mixed_intensity
from cenas_jax.forecast.features import calendar, every_day
from cenas_jax.forecast.grid import DAY_H, LOWEST_G_PER_KWH
from cenas_jax.forecast.windows import HISTORY_DAYS, HORIZON_H, GridArrays, Window, actual_at, window_at

NEAR_H = 3
MOST_STANDARD = 4.0
"""Standardised inputs are cut off here, so that no window is far from all others for one odd reading."""
INVALID_NOISE = 1e6
"""Variance of the noise of what is not known: it teaches next to nothing."""


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


class Inputs(NamedTuple):
    """What is the same for every hour ahead stands once: it is half of all, and memory sets the pace.

    Of one window; of several, their axis is first, but for `KernelState.inputs`. Weights are `[w]` and `[1, f]`.
    """

    of_window: Float[Array, "..."]
    """`[w]`"""
    of_hour: Float[Array, "..."]
    """`[H, f]`"""


class KernelState(NamedTuple):
    mean: Inputs
    scale: Inputs
    """Weight over standard deviation; 0 where an input was constant."""
    inputs: Inputs
    """Standardised and weighted, of the n windows learnt from; their axis is last: `[w, n]` and `[H, f, n]`."""
    squared: Float[Array, "H n"]
    """Their squared norms."""
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
        days = _days(grid, rows, factor_g_per_kwh)
        mean, scale = _scales(days, jnp.isfinite(days.level))
        inputs = _standard_days(days, mean, scale)
        intercept = _mean(days.target, days.valid)

        def dual(gram, residual):
            return jax.scipy.linalg.solve(gram, residual, assume_a="pos")

        solved = _by_hour(dual, inputs, days, config, (days.target - intercept[None]).T)
        inputs = jax.tree.map(lambda values: jnp.moveaxis(values, 0, -1), inputs)
        return KernelState(mean, scale, inputs, _squared(inputs), solved, intercept)

    def predict(state: KernelState, window: Window):
        raw, weight, level = _inputs(window, factor_g_per_kwh)
        inputs = _standard(raw, state.mean, state.scale, weight)
        by_hour = jnp.einsum("hf,hfn->hn", inputs.of_hour, state.inputs.of_hour)
        product = (inputs.of_window @ state.inputs.of_window)[None] + by_hour
        squared = (inputs.of_window**2).sum() + (inputs.of_hour**2).sum(axis=1, keepdims=True)
        similar = _kernel(product, squared + state.squared, weight, config)
        return as_quantiles(jnp.exp(level + state.intercept + (similar * state.dual).sum(axis=1)))

    return Forecaster(jax.jit(fit), predict)


@functools.partial(jax.jit, static_argnames=("factor_g_per_kwh", "config"))
def learning_forecasts(
    grid: GridArrays,
    rows: Int[Array | np.ndarray, " n"],
    first: Int[Array, ""] | int,
    factor_g_per_kwh: tuple[float, ...] = (),
    config: KernelConfig = KernelConfig(),  # noqa: B008 (frozen)
) -> Float[Array, "n H"]:
    """Point forecasts (g/kWh) issued at `rows`, in order, each from all outcomes of earlier `rows` that were known
    then; NaN before place `first`, for rows without a week of history, and beyond the record's end. Lead day k (from 0)
    of an issue is known k + 1 days later. `ValueError` without rows.

    They are the means of one Gaussian process, whose inputs are scaled by the windows before place `first` (give it
    some tens of them: by one window alone no input varies, and none is used), and whose intercept is of the outcomes
    known there. One Cholesky factor serves all issues: with gram + noise = L L' and z = L^-1 y, the mean at issue i
    given the outcomes up to m < i is the sum over j <= m of L_ij z_j.
    """
    if not len(rows):
        raise ValueError("learning_forecasts: there is no issue hour")
    rows = jnp.asarray(rows)
    days, place = _days(grid, rows, factor_g_per_kwh), jnp.arange(len(rows))
    inputs = _standard_days(days, *_scales(days, (place < first) & jnp.isfinite(days.level)))
    delay_h = DAY_H * (jnp.arange(HORIZON_H) // DAY_H + 1)
    intercept = _mean(days.target, days.valid & (rows[:, None] + delay_h[None] <= rows[first]))

    def of_hour(gram, residual, delay_h):
        factor = jnp.linalg.cholesky(gram)
        known = rows[None] + delay_h <= rows[:, None]
        return jnp.where(known, factor, 0) @ jax.scipy.linalg.solve_triangular(factor, residual, lower=True)

    found = _by_hour(of_hour, inputs, days, config, (days.target - intercept[None]).T, delay_h)
    return jnp.where(place[:, None] >= first, jnp.exp(days.level[:, None] + intercept[None] + found.T), jnp.nan)


class _Days(NamedTuple):
    """n windows and what came of them."""

    inputs: Inputs
    weight: Inputs
    level: Float[Array, " n"]
    target: Float[Array, "n H"]
    """Logarithm of the outcome over the level."""
    valid: Bool[Array, "n H"]


def _days(grid: GridArrays, rows, factor_g_per_kwh: tuple[float, ...]) -> _Days:
    def of_row(row):
        actual = actual_at(grid, row)
        inputs, weight, level = _inputs(window_at(grid, row), factor_g_per_kwh)
        target = jnp.log(jnp.maximum(actual.intensity_g_per_kwh, LOWEST_G_PER_KWH)) - level
        return _Days(inputs, weight, level, target, actual.valid & jnp.isfinite(level))

    days = jax.lax.map(of_row, rows, batch_size=256)
    return days._replace(weight=jax.tree.map(lambda weight: weight[0], days.weight))


def _scales(days: _Days, read: Bool[Array, " n"]) -> tuple[Inputs, Inputs]:
    """Mean, and weight over standard deviation, of each input over the windows to be `read`."""

    def scales(values, weight):
        known = jnp.isfinite(values) & read.reshape(-1, *(1,) * (values.ndim - 1))
        count = jnp.maximum(known.sum(axis=0), 1)
        mean = jnp.where(known, values, 0).sum(axis=0) / count
        std = jnp.sqrt((jnp.where(known, values - mean[None], 0) ** 2).sum(axis=0) / count)
        varies = std > 1e-5 * (1 + jnp.abs(mean))
        return mean, jnp.where(varies, weight / jnp.where(varies, std, 1), 0)

    found = [scales(values, weight) for values, weight in zip(days.inputs, days.weight, strict=True)]
    return Inputs(*(mean for mean, _ in found)), Inputs(*(scale for _, scale in found))


def _mean(target: Float[Array, "n H"], known: Bool[Array, "n H"]) -> Float[Array, " H"]:
    return jnp.where(known, target, 0).sum(axis=0) / jnp.maximum(known.sum(axis=0), 1)


def _standard(inputs: Inputs, mean: Inputs, scale: Inputs, weight: Inputs) -> Inputs:
    """Inputs of one window, scaled and bounded; 0 where unknown."""

    def standard(values, mean, scale, weight):
        bounded = jnp.clip((values - mean) * scale, -MOST_STANDARD * weight, MOST_STANDARD * weight)
        return jnp.where(jnp.isfinite(values), bounded, 0)

    return Inputs(*map(standard, inputs, mean, scale, weight))


def _standard_days(days: _Days, mean: Inputs, scale: Inputs) -> Inputs:
    return jax.vmap(_standard, (0, None, None, None))(days.inputs, mean, scale, days.weight)


def _by_hour(function, inputs: Inputs, days: _Days, config: KernelConfig, residual: Float[Array, "H n"], *more):
    """`function(gram + noise, residual, *more)` for each hour ahead."""
    shared = inputs.of_window @ inputs.of_window.T

    def of_hour(given):
        of_hour, valid, residual, *more = given
        product = shared + of_hour @ of_hour.T
        squared = jnp.diagonal(product)
        noise = jnp.where(valid, config.penalty, INVALID_NOISE)
        gram = _kernel(product, squared[:, None] + squared[None], days.weight, config) + jnp.diag(noise)
        return function(gram, jnp.where(valid, residual, 0), *more)

    return jax.lax.map(of_hour, (inputs.of_hour.swapaxes(0, 1), days.valid.T, residual, *more))


def _squared(inputs: Inputs) -> Float[Array, "H n"]:
    return (inputs.of_window**2).sum(axis=0)[None] + (inputs.of_hour**2).sum(axis=1)


def _kernel(product: Float[Array, "*n m"], squared: Float[Array, "*n m"], weight: Inputs, config: KernelConfig):
    """From products of standardised inputs, and sums of their squared norms."""
    weights = jnp.concatenate([weight.of_window, weight.of_hour[0]])
    typical = 2 * (weights**2).sum() * config.length**2
    distance = jnp.maximum(squared - 2 * product, 0)
    return jnp.exp(-distance / typical) + config.linear * product / len(weights)


def _inputs(window: Window, factor_g_per_kwh: tuple[float, ...]):
    """`(inputs, weight, level)`: of the window and of its hours ahead (NaN where unknown), how much each tells two
    windows apart (`[w]` and `[1, f]`), and the mean log intensity (ln g/kWh)."""
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

    def joined(columns):
        return (
            jnp.concatenate([values for values, _ in columns], axis=-1),
            jnp.concatenate([jnp.full(values.shape[-1], weight) for values, weight in columns]),
        )

    (window_inputs, window_weight), (hour_inputs, hour_weight) = joined(of_window), joined(of_hour)
    return Inputs(window_inputs, hour_inputs), Inputs(window_weight, hour_weight[None]), level


def _of_the_day(values: Float[Array, "H c"]) -> Float[Array, "H c"]:
    """Means over the horizon's days, at each of their hours."""
    return jnp.repeat(values.reshape(HORIZON_H // DAY_H, DAY_H, values.shape[1]).mean(axis=1), DAY_H, axis=0)


def _around(values: Float[Array, "H c"]) -> Float[Array, "H c"]:
    """Means over the hours from `NEAR_H` before to `NEAR_H` after, of those in the horizon."""
    near = jnp.arange(HORIZON_H)[:, None] + jnp.arange(-NEAR_H, NEAR_H + 1)[None]
    inside = (near >= 0) & (near < HORIZON_H)
    around = jnp.where(inside[..., None], values[jnp.clip(near, 0, HORIZON_H - 1)], 0).sum(axis=1)
    return around / inside.sum(axis=1, keepdims=True)
