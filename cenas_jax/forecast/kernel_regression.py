"""Kernel ridge regression of log intensity, one an hour ahead: days like this one, rather than a trained network.

It is the mean of a Gaussian process with a linear and a squared-exponential kernel (Rasmussen and Williams 2006,
chapter 2). There are two of them on the same days: one is given history, calendar and weather, the other the source
forecast, too. Errors of the first differ from those of forecasters that rest on it, which makes it useful in a
combination (`mixture`).

`learn` forecasts at many issues, each from every outcome known by then, at the price of one fit; `predict` goes on from
the state of the last of them, in milliseconds.
"""

import functools
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

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

    Of one window; of several, their axis is first, but for `KernelState.inputs`. Weights are `[w]`, `[1, f]`, `[1, g]`.
    """

    of_window: Float[Array, "..."]
    """`[w]`"""
    of_hour: Float[Array, "..."]
    """`[H, f]`"""
    of_source: Float[Array, "..."]
    """`[H, g]`, which the second regression alone reads."""


class KernelState(NamedTuple):
    """What n windows teach, as of the last of them."""

    mean: Inputs
    scale: Inputs
    """Weight over standard deviation; 0 where an input was constant."""
    inputs: Inputs
    """Standardised and weighted, of the n windows; their axis is last: `[w, n]`, `[H, f, n]`, `[H, g, n]`."""
    squared: Float[Array, "2 H n"]
    """Their squared norms, to either regression."""
    dual: Float[Array, "2 H n"]
    """0 where the outcome was not known yet."""
    intercept: Float[Array, " H"]


@functools.partial(jax.jit, static_argnames=("factor_g_per_kwh", "config"))
def learn(
    grid: GridArrays,
    rows: Int[Array | np.ndarray, " n"],
    first: Int[Array, ""] | int,
    factor_g_per_kwh: tuple[float, ...],
    config: KernelConfig = KernelConfig(),  # noqa: B008 (frozen)
) -> tuple[Float[Array, "2 n H"], KernelState]:
    """Point forecasts (g/kWh) of both regressions issued at `rows`, in order, each from all outcomes of earlier `rows`
    that were known then, and the state of the last; forecasts are NaN before place `first`, for rows without a week of
    history, and beyond the record's end. Lead day k (from 0) of an issue is known k + 1 days later. `ValueError`
    without rows.

    They are the means of one Gaussian process, whose inputs are scaled by the windows before place `first` (give it
    some tens of them: by one window alone no input varies, and none is used), and whose intercept is of the outcomes
    known there. One Cholesky factor serves all issues: with gram + noise = L L' and z = L^-1 y, the mean at issue i
    given the outcomes up to m < i is the sum over j <= m of L_ij z_j. Unknown weather and source forecasts count as
    average. Invalid hours are not learnt from, nor rows without a week of history.

    Args:
        rows: at one hour of the day; the last may be repeated, to compile once for several numbers of days.
        first: the place in `rows` of the first issue that is asked for.
        factor_g_per_kwh: emission factors by which the source forecast is mixed.
    """
    if not len(rows):
        raise ValueError("kernel_regression.learn: there is no issue hour")
    rows = jnp.asarray(rows)
    days, place = _days(grid, rows, factor_g_per_kwh), jnp.arange(len(rows))
    mean, scale = _scales(days, (place < first) & jnp.isfinite(days.level))
    inputs = _standard_days(days, mean, scale)
    delay_h = DAY_H * (jnp.arange(HORIZON_H) // DAY_H + 1)
    intercept = _mean(days.target, days.valid & (rows[:, None] + delay_h[None] <= rows[first]))

    shared = inputs.of_window @ inputs.of_window.T

    def of_hour(given):
        of_hour, of_source, valid, target, delay_h = given
        product = _both(shared + of_hour @ of_hour.T, of_source @ of_source.T)
        squared = jnp.diagonal(product, axis1=1, axis2=2)
        noise = jnp.diag(jnp.where(valid, config.penalty, INVALID_NOISE))
        gram = _kernels(product, squared[:, :, None] + squared[:, None], days.weight, config) + noise[None]
        factor = jnp.linalg.cholesky(gram)
        residual = jnp.broadcast_to(jnp.where(valid, target, 0)[:, None], (2, len(rows), 1))
        whitened = jax.scipy.linalg.solve_triangular(factor, residual, lower=True)
        known = rows[None] + delay_h <= rows[:, None]
        over = jnp.where(known[-1][:, None], whitened, 0)
        dual = jax.scipy.linalg.solve_triangular(factor, over, lower=True, trans=1)
        return (jnp.where(known[None], factor, 0) @ whitened)[..., 0], dual[..., 0]

    by_hour = inputs.of_hour.swapaxes(0, 1), inputs.of_source.swapaxes(0, 1)
    residual = (days.target - intercept[None]).T
    found, dual = jax.lax.map(of_hour, (*by_hour, days.valid.T, residual, delay_h))
    log_points = days.level[None, :, None] + intercept[None, None] + found.transpose(1, 2, 0)
    points = jnp.where(place[None, :, None] >= first, jnp.exp(log_points), jnp.nan)
    inputs = jax.tree.map(lambda values: jnp.moveaxis(values, 0, -1), inputs)
    return points, KernelState(mean, scale, inputs, _squared(inputs), dual.swapaxes(0, 1), intercept)


@functools.partial(jax.jit, static_argnames=("factor_g_per_kwh", "config"))
def predict(
    state: KernelState,
    window: Window,
    factor_g_per_kwh: tuple[float, ...],
    config: KernelConfig = KernelConfig(),  # noqa: B008 (frozen)
) -> Float[Array, "2 H"]:
    """Both point forecasts (g/kWh) for a window issued at the hour of the day that was learnt, as days are told apart
    by their hours ahead; factors and config are those of `learn`. At the last row learnt they are the last of its
    forecasts."""
    raw, weight, level = _inputs(window, factor_g_per_kwh)
    inputs = _standard(raw, state.mean, state.scale, weight)
    of_hour, of_source = (
        jnp.einsum("hf,hfn->hn", ours, theirs) for ours, theirs in zip(inputs[1:], state.inputs[1:], strict=True)
    )
    product = _both((inputs.of_window @ state.inputs.of_window)[None] + of_hour, of_source)
    squared = _squared(jax.tree.map(lambda values: values[..., None], inputs))
    similar = _kernels(product, squared + state.squared, weight, config)
    return jnp.exp(level + state.intercept[None] + (similar * state.dual).sum(axis=2))


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
        return _Days(inputs, weight, level, target, actual.valid & jnp.isfinite(target))

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


def _both(without: Float[Array, "*n"], of_source: Float[Array, "*n"]) -> Float[Array, "2 *n"]:
    """A sum over the inputs of the first regression, and over those of the second."""
    return jnp.stack([without, without + of_source])


def _squared(inputs: Inputs) -> Float[Array, "2 H n"]:
    """Squared norms of windows whose axis is last."""
    of_window, of_hour, of_source = ((values**2).sum(axis=-2) for values in inputs)
    return _both(of_window[None] + of_hour, of_source)


def _kernels(product: Float[Array, "2 *n m"], squared: Float[Array, "2 *n m"], weight: Inputs, config: KernelConfig):
    """From products of standardised inputs, and sums of their squared norms."""
    of_window, of_hour, of_source = (jnp.array([(part**2).sum(), part.size]) for part in weight)
    typical, size = _both(of_window + of_hour, of_source).T[..., None, None]
    distance = jnp.maximum(squared - 2 * product, 0)
    return jnp.exp(-distance / (2 * typical * config.length**2)) + config.linear * product / size


def _inputs(window: Window, factor_g_per_kwh: tuple[float, ...]):
    """`(inputs, weight, level)`: inputs (NaN where unknown), how much each tells two windows apart, and the mean log
    intensity (ln g/kWh)."""
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
    foreseen = jnp.maximum(window.future.source_forecast_mw, 0)
    mixed = mixed_intensity(foreseen, factor_g_per_kwh)[:, None]
    relative = jnp.log(jnp.maximum(mixed, LOWEST_G_PER_KWH)) - level
    shares = foreseen / jnp.maximum(foreseen.sum(axis=1, keepdims=True), 1.0)
    of_source = [(relative, 5.0), (_of_the_day(relative), 2.0), (_around(relative), 2.0), (shares, 1.5)]

    def joined(columns):
        return (
            jnp.concatenate([values for values, _ in columns], axis=-1),
            jnp.concatenate([jnp.full(values.shape[-1], weight) for values, weight in columns]),
        )

    inputs, weights = zip(*map(joined, (of_window, of_hour, of_source)), strict=True)
    return Inputs(*inputs), Inputs(weights[0], *(weight[None] for weight in weights[1:])), level


def _of_the_day(values: Float[Array, "H c"]) -> Float[Array, "H c"]:
    """Means over the horizon's days, at each of their hours."""
    return jnp.repeat(values.reshape(HORIZON_H // DAY_H, DAY_H, values.shape[1]).mean(axis=1), DAY_H, axis=0)


def _around(values: Float[Array, "H c"]) -> Float[Array, "H c"]:
    """Means over the hours from `NEAR_H` before to `NEAR_H` after, of those in the horizon."""
    near = jnp.arange(HORIZON_H)[:, None] + jnp.arange(-NEAR_H, NEAR_H + 1)[None]
    inside = (near >= 0) & (near < HORIZON_H)
    around = jnp.where(inside[..., None], values[jnp.clip(near, 0, HORIZON_H - 1)], 0).sum(axis=1)
    return around / inside.sum(axis=1, keepdims=True)
