"""Plain forecasters, the rivals of the transformer. All are point forecasts and run under `jit` and `vmap`.

A factory returns the same forecaster for the same arguments, so that what was compiled for it serves again.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from cenas_jax.forecast.base import Forecaster, as_quantiles
from cenas_jax.forecast.features import calendar
from cenas_jax.forecast.grid import DAY_H, LOWEST_G_PER_KWH
from cenas_jax.forecast.windows import HISTORY_H, HORIZON_H, GridArrays, Window, actual_at, window_at


def _nothing_to_fit(key, grid, rows):
    return ()


@functools.cache
def persistence() -> Forecaster:
    """The last known hour, held."""

    def predict(state, window: Window):
        return as_quantiles(jnp.broadcast_to(window.history.intensity_g_per_kwh[-1], (HORIZON_H,)))

    return Forecaster(_nothing_to_fit, predict)


@functools.cache
def repeat_last(period_h: int) -> Forecaster:
    """The last `period_h` hours over and over: 24 repeats yesterday, 168 last week. `ValueError` beyond the history."""
    if not 1 <= period_h <= HISTORY_H:
        raise ValueError(f"repeat_last: a period of {period_h} h must lie in 1..{HISTORY_H} h, the history of a window")

    def predict(state, window: Window):
        return as_quantiles(jnp.resize(window.history.intensity_g_per_kwh[-period_h:], (HORIZON_H,)))

    return Forecaster(_nothing_to_fit, predict)


@functools.cache
def seasonal_average() -> Forecaster:
    """The mean of the same hour of the day over the last week."""

    def predict(state, window: Window):
        days = window.history.intensity_g_per_kwh.reshape(-1, DAY_H)
        return as_quantiles(jnp.resize(days.mean(axis=0), (HORIZON_H,)))

    return Forecaster(_nothing_to_fit, predict)


@functools.cache
def source_forecast(factor_g_per_kwh: tuple[float, ...]) -> Forecaster:
    """The intensity of the source forecast: megawatts times emission factors over all megawatts; NaN without one.

    With the data's source forecasts it is the first tier of CarbonCast (Maji et al., BuildSys 2022).
    """

    def predict(state, window: Window):
        return as_quantiles(mixed_intensity(window.future.source_forecast_mw, factor_g_per_kwh))

    return Forecaster(_nothing_to_fit, predict)


def mixed_intensity(generation_mw: Float[Array, "H sources"], factor_g_per_kwh: tuple[float, ...]):
    """Intensity `[H]` (g/kWh) of a mix of sources; NaN where a source is NaN or nothing is generated."""
    if generation_mw.shape[1] != len(factor_g_per_kwh):
        raise ValueError(f"{len(factor_g_per_kwh)} emission factors do not fit {generation_mw.shape[1]} sources")
    return generation_mw @ jnp.array(factor_g_per_kwh, jnp.float32) / generation_mw.sum(axis=1)


class RidgeState(NamedTuple):
    mean: Float[Array, "H features"]
    std: Float[Array, "H features"]
    """Infinite where a feature was constant: it then counts nothing."""
    weights: Float[Array, "H features"]
    intercept: Float[Array, " H"]


@functools.cache
def ridge(penalty: float = 0.1, factor_g_per_kwh: tuple[float, ...] = ()) -> Forecaster:
    """Linear regression of log intensity, one an hour ahead, in closed form (Hoerl and Kennard 1970).

    Features: the week's log intensities relative to their mean, the hour's calendar, and, where the grid has them, the
    hour's weather and, given the `factor_g_per_kwh` of its sources, the logarithm of the source forecast's intensity.
    Unknown weather and source forecasts count as average, and a flag says so. `penalty` is that of the squared weights
    of standardised features against the mean squared error; its default was chosen on January to June 2021 of CISO, DE
    and PJM. Invalid hours are not learnt from. `ValueError` without issue hours to learn from; those should be of the
    same hours of the day as the forecasts that are asked for.
    """

    def fit(key, grid: GridArrays, rows) -> RidgeState:
        if not rows.size:
            raise ValueError("ridge: there is no issue hour to learn from")

        def of_row(row):
            actual = actual_at(grid, row)
            target = jnp.log(jnp.maximum(actual.intensity_g_per_kwh, LOWEST_G_PER_KWH))
            return *_ridge_inputs(window_at(grid, row), factor_g_per_kwh), target, actual.valid

        past, hours, level, target, valid = jax.lax.map(of_row, rows, batch_size=256)

        def of_hour(by_hour):
            own, target, valid = by_hour
            inputs = jnp.concatenate([past, own], axis=1)
            return fit_linear(inputs, target - level, valid, penalty * rows.size)

        return jax.lax.map(of_hour, (hours.swapaxes(0, 1), target.T, valid.T))

    def predict(state: RidgeState, window: Window):
        past, hours, level = _ridge_inputs(window, factor_g_per_kwh)
        inputs = jnp.concatenate([jnp.broadcast_to(past, (HORIZON_H, HISTORY_H)), hours], axis=1)
        relative = state.intercept + (_standard(inputs, state.mean, state.std) * state.weights).sum(axis=1)
        return as_quantiles(jnp.exp(level + relative))

    return Forecaster(jax.jit(fit), predict)


def fit_linear(
    inputs: Float[Array, "n features"], target: Float[Array, " n"], valid: Bool[Array, " n"], penalty: float
) -> RidgeState:
    """Ridge regression on standardised features, of one hour: the state without its leading axis.

    An input that is NaN counts as that feature's mean. Rows that are not valid count nothing.
    """
    known = jnp.isfinite(inputs) & valid[:, None]
    count = jnp.maximum(known.sum(axis=0), 1)
    mean = jnp.where(known, inputs, 0).sum(axis=0) / count
    std = jnp.sqrt((jnp.where(known, inputs - mean[None], 0) ** 2).sum(axis=0) / count)
    std = jnp.where(std > 1e-5 * (1 + jnp.abs(mean)), std, jnp.inf)
    standard = _standard(inputs, mean[None], std[None]) * valid[:, None]
    intercept = jnp.where(valid, target, 0).sum() / jnp.maximum(valid.sum(), 1)
    gram = standard.T @ standard + penalty * jnp.eye(inputs.shape[1])
    weights = jnp.linalg.solve(gram, standard.T @ jnp.where(valid, target - intercept, 0))
    return RidgeState(mean, std, weights, intercept)


def _standard(inputs, mean, std):
    return jnp.where(jnp.isfinite(inputs), (inputs - mean) / std, 0)


def _ridge_inputs(window: Window, factor_g_per_kwh: tuple[float, ...]):
    """`(past[T], hours[H, columns], level)`: what all hours share, what is an hour's own, the mean log intensity.

    NaN where unknown.
    """
    log_intensity = jnp.log(window.history.intensity_g_per_kwh)
    level = log_intensity.mean()
    columns = [calendar(window.hour + jnp.arange(HORIZON_H))]
    weather = window.future.weather
    if weather.shape[1]:
        columns += [weather, jnp.isfinite(weather).all(axis=1, keepdims=True) * 1.0]
    if factor_g_per_kwh:
        mixed = mixed_intensity(window.future.source_forecast_mw, factor_g_per_kwh)[:, None]
        known = mixed >= LOWEST_G_PER_KWH  # False for NaN.
        columns += [jnp.where(known, jnp.log(mixed) - level, jnp.nan), known * 1.0]
    return log_intensity - level, jnp.concatenate(columns, axis=1), level
