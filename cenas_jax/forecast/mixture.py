"""Online combination: a forecaster and others beside it, weighted by their errors, as these become known.

Every expert has a weight for each lead day, which falls exponentially with its recent errors: the exponentially
weighted average forecaster (Vovk 1990; Cesa-Bianchi and Lugosi, Prediction, Learning, and Games, 2006, chapter 2) with
old errors fading (section 2.11). Experts are averaged in logarithms. An expert that has no forecast for an hour sleeps:
the others share its weight, and it is taken to err as their mixture did (Freund et al., STOC 1997). What is left of
the mixture's mean error at each hour ahead is taken off, shrunk towards nothing while few outcomes are known.

Outcomes are used once they are over, as in `conformal`: nothing of a forecast depends on what comes after its issue.
"""

import functools
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from cenas_jax.forecast.base import POINT
from cenas_jax.forecast.grid import DAY_H


@dataclass(frozen=True)
class MixtureConfig:
    """The defaults were chosen on July 2020 to June 2021, for the transformer and `forecast.experts`: the prior by CISO
    and DE, the others by these and PJM."""

    prior: tuple[float, ...] = (0.5, 0.2, 0.2, 0.1)
    """Weights of the experts before any outcome, the main forecaster first; above 0."""
    rate: float = 1.0
    """Fall of a log weight by a day's mean absolute error of 1 (in logarithms)."""
    keep: float = 0.98
    """Share of the past losses that a day keeps."""
    level_keep: float = 0.97
    """Share of the past mean error, of every hour ahead, that a day keeps."""
    level_days: float = 60.0
    """The mean error is shrunk as by so many days without one; infinite: it is not corrected."""

    def __post_init__(self):
        if not self.prior or min(self.prior) <= 0:
            raise ValueError(f"MixtureConfig: prior weights must be above 0, got {self.prior}")
        if self.rate < 0 or self.level_days < 0:
            raise ValueError(f"MixtureConfig: rate {self.rate} and level_days {self.level_days} must be at least 0")
        if not (0 <= self.keep <= 1 and 0 <= self.level_keep <= 1):
            raise ValueError(f"MixtureConfig: keep {self.keep} and level_keep {self.level_keep} are shares, 0 to 1")


class MixtureState(NamedTuple):
    loss: Float[Array, "days experts"]
    """Fading sums over days of the mean absolute error (logarithms) of each lead day."""
    error: Float[Array, " H"]
    """Fading sums of the mixture's own error (logarithm of forecast / outcome) at each hour ahead."""
    count: Float[Array, " H"]
    """Fading number of days in `error`."""


def start(experts: int, hours: int) -> MixtureState:
    """The state before any outcome; `hours` ahead are whole days."""
    return MixtureState(jnp.zeros((hours // DAY_H, experts)), jnp.zeros(hours), jnp.zeros(hours))


@functools.partial(jax.jit, static_argnames="config")
def weights(
    state: MixtureState,
    there: Bool[Array, "experts H"],
    config: MixtureConfig = MixtureConfig(),  # noqa: B008 (frozen)
) -> Float[Array, "experts H"]:
    """The experts' weights at each hour ahead, 0 where they are not `there`, with sum 1 (NaN where none is)."""
    log_weight = jnp.log(jnp.array(config.prior))[None] - config.rate * state.loss
    return jax.nn.softmax(jnp.repeat(log_weight.T, DAY_H, axis=1), axis=0, where=there)


@functools.partial(jax.jit, static_argnames="config")
def mix(
    state: MixtureState,
    experts: Float[Array, "experts H"],
    config: MixtureConfig = MixtureConfig(),  # noqa: B008
) -> Float[Array, " H"]:
    """The weighted mean of the experts' log forecasts, before its level is corrected; NaN where no expert has one."""
    there = jnp.isfinite(experts)
    mixed = (weights(state, there, config) * jnp.where(there, experts, 0)).sum(axis=0)
    return jnp.where(there.any(axis=0), mixed, jnp.nan)


def corrected(
    state: MixtureState,
    mixed: Float[Array, " H"],
    config: MixtureConfig = MixtureConfig(),  # noqa: B008
) -> Float[Array, " H"]:
    """The mixture (log) less what is left of its mean error."""
    return mixed - state.error / (state.count + config.level_days)


@functools.partial(jax.jit, static_argnames=("config", "every_h"))
def observe(
    state: MixtureState,
    experts: Float[Array, "experts H"],
    mixed: Float[Array, " H"],
    actual: Float[Array, " H"],
    known: Bool[Array, " H"],
    config: MixtureConfig = MixtureConfig(),  # noqa: B008 (frozen)
    *,
    every_h: int = DAY_H,
) -> MixtureState:
    """The state after outcomes `actual` (g/kWh) of log forecasts and their `mix` as it was then. Only lead days and
    hours that are `known` change, so that each day can be told once it is over.

    Args:
        every_h: hours between two issues; with more than one a day, each counts by so much less.
    """
    known &= jnp.isfinite(mixed)
    log_actual = jnp.log(jnp.where(known, actual, 1.0))
    taken = jnp.where(jnp.isfinite(experts), experts, mixed[None])
    missed = jnp.where(known, jnp.abs(taken - log_actual[None]), 0).reshape(len(experts), -1, DAY_H).sum(axis=2).T
    hours = known.reshape(-1, DAY_H).sum(axis=1)[:, None]
    step = every_h / DAY_H
    loss = config.keep**step * state.loss + step * missed / jnp.maximum(hours, 1)
    keep = config.level_keep**step
    return MixtureState(
        loss=jnp.where(hours > 0, loss, state.loss),
        error=jnp.where(known, keep * state.error + step * (mixed - log_actual), state.error),
        count=jnp.where(known, keep * state.count + step, state.count),
    )


@functools.partial(jax.jit, static_argnames=("config", "every_h"))
def combine(
    table: Float[Array, "n H Q"],
    others: Float[Array, "m n H"],
    actual: Float[Array, "n H"],
    valid: Bool[Array, "n H"],
    config: MixtureConfig = MixtureConfig(),  # noqa: B008 (frozen)
    *,
    every_h: int = DAY_H,
) -> tuple[Float[Array, "n H Q"], MixtureState]:
    """The table (g/kWh), issue by issue moved to the mixture of its median and of the `others`' point forecasts (NaN:
    none), by the outcomes that were known when the forecast was issued, and the states `[n, ...]` that say so. All
    quantiles move by the median's factor.

    Issues are in order and `every_h` hours apart, or more. The outcome of lead day k (from 0) of issue i is known at
    issue i + ceil(24 (k + 1) / every_h). Outcomes that are not valid are never seen; NaN stays NaN.
    `ValueError` where the config has other than 1 + m prior weights.
    """
    if len(config.prior) != 1 + len(others):
        raise ValueError(f"combine: {len(config.prior)} prior weights do not fit {1 + len(others)} experts")
    experts = jnp.log(jnp.concatenate([table[None, ..., POINT], others]))
    hours = jnp.arange(table.shape[1])
    delay = -(-DAY_H * (hours // DAY_H + 1) // every_h)

    def issue(carry, number):
        state, mixtures = carry
        issues = number - delay  # whose outcome became known last, hour by hour; negative: none yet
        known = valid[issues, hours] & (issues >= 0)
        then = experts[:, issues, hours], mixtures[issues, hours], actual[issues, hours]
        state = observe(state, *then, known, config, every_h=every_h)
        mixed = mix(state, experts[:, number], config)
        factor = jnp.exp(corrected(state, mixed, config) - experts[0, number])
        return (state, mixtures.at[number].set(mixed)), (factor, state)

    first = start(len(experts), table.shape[1]), jnp.full(table.shape[:2], jnp.nan)
    _, (factor, states) = jax.lax.scan(issue, first, jnp.arange(table.shape[0]))
    return table * factor[..., None], states
