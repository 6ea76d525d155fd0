"""The transformer's forecast: what a network's outputs mean, and the loss they are trained by.

Where a grid's generation is known, the network corrects the shares of its sources, once from the last days' shares and
once from the source forecast, and chooses between the two hour by hour and source by source; the intensity is their mix
by emission factors, times a small residual. Elsewhere the network corrects the week's mean of the same hour of the day.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from cenas_jax.forecast.base import POINT, QUANTILES
from cenas_jax.forecast.features import Features, Scales, features_of
from cenas_jax.forecast.grid import DAY_H, LOWEST_G_PER_KWH
from cenas_jax.forecast.windows import Actual, Window

SMALLEST_SHARE = 1e-3
FIRST_SPREAD = -3.0
"""Softplus of this is about 5 %: the first distance between neighbouring quantiles."""


@dataclass(frozen=True)
class LossConfig:
    share: float = 0.5
    """Weight of the error of the sources' shares."""
    quantile: float = 0.3
    """Weight of the pinball loss of the outer quantiles."""
    shape: float = 0.0
    """Weight of the error within each day, about the day's mean error: what the choice of hours depends on."""


class Prediction(NamedTuple):
    log_quantiles: Float[Array, "H quantiles"]
    """ln g/kWh, ascending."""
    share: Float[Array, "H sources"]


class TransformerState(NamedTuple):
    params: Any
    """The network's, with a leading axis of ensemble members."""
    scales: Scales


def output_size(sources: int) -> int:
    """Outputs an hour that `read_out` needs: two corrections and a gate a source, the residual, and the spreads."""
    return 3 * sources + 1 + len(QUANTILES) - 1


def read_out(outputs: Float[Array, "H n"], features: Features, factor_g_per_kwh: tuple[float, ...]) -> Prediction:
    """The `Prediction` that one network's outputs stand for."""
    sources = len(factor_g_per_kwh)
    residual, outputs = outputs[:, 0], outputs[:, 1:]
    from_base, from_forecast, gate = (outputs[:, i * sources : (i + 1) * sources] for i in range(3))
    spread = outputs[:, 3 * sources :]
    if sources:
        base = jnp.log(features.base_share + SMALLEST_SHARE) + 3 * from_base
        forecast = jnp.log(features.forecast_share + SMALLEST_SHARE) + from_forecast
        gate = jax.nn.sigmoid(3 * gate) * features.forecast_valid[:, None]
        share = jax.nn.softmax(gate * forecast + (1 - gate) * base, axis=-1)
        point = jnp.log(share @ jnp.array(factor_g_per_kwh)) + 0.3 * residual
    else:
        share, point = features.base_share, features.base + residual
    step = jax.nn.softplus(FIRST_SPREAD + spread)
    below = -jnp.cumsum(step[:, :POINT], axis=1)[:, ::-1]
    above = jnp.cumsum(step[:, POINT:], axis=1)
    offset = jnp.concatenate([below, jnp.zeros_like(point)[:, None], above], axis=1)
    return Prediction(point[:, None] + offset, share)


def forecast_loss(
    prediction: Prediction, actual: Actual, factor_g_per_kwh: tuple[float, ...], config: LossConfig
) -> Float[Array, ""]:
    """Mean absolute percentage error, with the shares' error, the error of the daily shape, and the outer quantiles'
    pinball loss (the last two of logarithms).

    Hours that are not `valid` count nothing. The outer quantiles do not move the point forecast.
    """
    log_actual = jnp.log(jnp.maximum(actual.intensity_g_per_kwh, LOWEST_G_PER_KWH))
    point = prediction.log_quantiles[:, POINT]
    loss = jnp.abs(jnp.exp(point - log_actual) - 1)
    spread = prediction.log_quantiles - point[:, None]
    error = log_actual[:, None] - (jax.lax.stop_gradient(point)[:, None] + spread)
    level = jnp.array(QUANTILES)[None]
    loss += config.quantile * jnp.maximum(level * error, (level - 1) * error).sum(axis=1)
    loss += config.shape * _error_within_days(point - log_actual, actual.valid)
    if factor_g_per_kwh:
        total = jnp.maximum(actual.generation_mw, 0).sum(axis=1, keepdims=True)
        share = jnp.maximum(actual.generation_mw, 0) / jnp.maximum(total, 1.0)
        typical = jnp.exp(log_actual.mean())
        matter = jnp.abs(jnp.array(factor_g_per_kwh) / typical - 1) + 0.2  # An error matters as it moves the intensity.
        loss += config.share * (jnp.abs(prediction.share - share) * matter[None]).sum(axis=1)
    return jnp.where(actual.valid, loss, 0).sum() / jnp.maximum(actual.valid.sum(), 1)


def _error_within_days(error: Float[Array, " H"], valid: Bool[Array, " H"]) -> Float[Array, " H"]:
    """Absolute error about the mean error of the same day's valid hours."""
    by_day, counted = error.reshape(-1, DAY_H), valid.reshape(-1, DAY_H)
    mean = jnp.where(counted, by_day, 0).sum(axis=1, keepdims=True) / jnp.maximum(counted.sum(axis=1, keepdims=True), 1)
    return jnp.abs(by_day - mean).reshape(-1)


def predict(
    network, factor_g_per_kwh: tuple[float, ...], state: TransformerState, window: Window
) -> Float[Array, "H quantiles"]:
    """Quantiles (g/kWh) of the ensemble: the members' mean in logarithms, quantile by quantile."""
    features = features_of(window, state.scales)

    def member(params):
        outputs = network.apply(params, features.history, features.future)
        return read_out(outputs, features, factor_g_per_kwh).log_quantiles

    return jnp.exp(jax.vmap(member)(state.params).mean(axis=0))
