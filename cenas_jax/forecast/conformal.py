"""Adaptive conformal prediction: intervals whose coverage is kept right by the outcomes, as they become known.

Every column of a forecast but the median is moved to `median * exp(-+ margin * width)`. Widths are the forecaster's own
(of its quantiles, in logarithms) or, for a point forecast, those of its errors on a calibration set. Each lead day and
column has a margin, which starts at the split-conformal value of the calibration set (Vovk et al. 2005; Romano et al.
2019) and then follows the outcomes: after each day of outcomes its logarithm moves by a step times (share of the hours
that were missed - the share that should be). That is adaptive conformal inference (Gibbs and Candes, NeurIPS 2021) on
the margin in place of the level: the quantile tracker of Angelopoulos, Candes and Tibshirani (NeurIPS 2023). However
the series behaves, the missed share over n days of a pair of columns differs from the nominal one by no more than
(change of both log margins) / ((pair step + side step) * n), but for limits on the margins.

A low and a high column form a pair. Most of the step acts on the misses of both together: coverage asks for their sum
alone, and one sum is tracked with less noise than two parts.
"""

import functools
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from cenas_jax.forecast.base import POINT, QUANTILES
from cenas_jax.forecast.grid import DAY_H

OUTER = tuple(column for column in range(len(QUANTILES)) if column != POINT)
"""The columns that have a margin, lowest level first; column i and column -1 - i are a pair."""
SIGN = np.array([-1.0 if QUANTILES[column] < 0.5 else 1.0 for column in OUTER], np.float32)
MISS_SHARE = np.array([min(QUANTILES[column], 1 - QUANTILES[column]) for column in OUTER], np.float32)
"""Share of the outcomes that should lie beyond each column."""
FEWEST_ISSUES = 20
SMALLEST_WIDTH = 1e-4
SMALLEST_SHARE = 0.3
"""A width is at least this share of the median absolute error: a forecast may be biased, its interval still opens."""
MOST_LOG_MARGIN = 5.0


@dataclass(frozen=True)
class ConformalConfig:
    """Steps of the logarithm of a margin after one day's outcomes; both 0: split conformal, which never moves.

    The defaults were chosen on January to June 2021 of CISO, DE and PJM: repeat-yesterday, weekly average, ridge
    regression and source forecast then cover 88 to 92 % on every lead day.
    """

    pair_step: float = 0.5
    """On the mean of the misses below and above."""
    side_step: float = 0.1
    """On the column's own misses."""


class ConformalState(NamedTuple):
    log_margin: Float[Array, "days columns"]
    """For each lead day and column of `OUTER`."""
    width: Float[Array, "H columns"]
    """Least widths (logarithms): the errors' quantiles for a point forecaster, next to nothing for others."""


@jax.jit
def calibrate(table: Float[Array, "n H Q"], actual: Float[Array, "n H"], valid: Bool[Array, "n H"]) -> ConformalState:
    """The state after a calibration set: forecasts (g/kWh) of `n` issues whose outcomes are all known by now.

    The forecaster should not have learnt from these outcomes, or the intervals start too narrow. Hours that are not
    valid, or have no forecast (NaN), count nothing. `ValueError` for fewer than `FEWEST_ISSUES` issues.
    """
    if table.shape[0] < FEWEST_ISSUES:
        raise ValueError(f"calibrate: {table.shape[0]} issues are too few: give {FEWEST_ISSUES} or more")
    known = valid & jnp.isfinite(table).all(axis=-1)
    error = jnp.log(jnp.where(known, actual, 1.0)) - jnp.log(jnp.where(known, table[..., POINT], 1.0))
    error = jnp.where(known, error, jnp.nan)
    point_forecast = jnp.where(known, jnp.ptp(table, axis=-1), 0).max() == 0
    levels = jnp.array([QUANTILES[column] for column in OUTER])
    of_errors = jnp.nanquantile(error, levels, axis=0).T * SIGN[None]
    of_errors = jnp.maximum(_zero_for_nan(of_errors), SMALLEST_SHARE * _zero_for_nan(jnp.nanmedian(jnp.abs(error))))
    width = jnp.maximum(jnp.where(point_forecast, of_errors, 0), SMALLEST_WIDTH)
    score = error[..., None] * SIGN[None, None] / jnp.maximum(_own_width(table), width[None])
    by_day = score.reshape(score.shape[0], -1, DAY_H, len(OUTER))
    margin = jnp.stack(
        [jnp.nanquantile(by_day[..., i], 1 - share, axis=(0, 2)) for i, share in enumerate(MISS_SHARE)], axis=1
    )
    return ConformalState(jnp.log(jnp.clip(_one_for_nan(margin), *np.exp([-MOST_LOG_MARGIN, MOST_LOG_MARGIN]))), width)


@jax.jit
def apply_margins(state: ConformalState, quantiles: Float[Array, "H Q"]) -> Float[Array, "H Q"]:
    """The calibrated quantiles (g/kWh) of one forecast: the median as it was, columns ascending, NaN where it was."""
    day = jnp.arange(quantiles.shape[0]) // DAY_H
    offset = jnp.maximum(_own_width(quantiles), state.width) * jnp.exp(state.log_margin)[day]
    # From the median outwards, a column is never nearer than the one before.
    below = jax.lax.cummax(offset[:, :POINT], axis=1, reverse=True)
    above = jax.lax.cummax(offset[:, POINT:], axis=1)
    factor = jnp.concatenate([jnp.exp(-below), jnp.ones_like(below[:, :1]), jnp.exp(above)], axis=1)
    return quantiles[:, POINT, None] * factor


@functools.partial(jax.jit, static_argnames=("config", "every_h"))
def observe(
    state: ConformalState,
    issued: Float[Array, "H Q"],
    actual: Float[Array, " H"],
    known: Bool[Array, " H"],
    config: ConformalConfig = ConformalConfig(),  # noqa: B008 (frozen)
    *,
    every_h: int = DAY_H,
) -> ConformalState:
    """The state after outcomes. `issued` are calibrated quantiles as they were issued; only lead days with a `known`
    hour change, so that each day can be told once it is over, row by row from different issues.

    Args:
        every_h: hours between two issues; with more than one a day, each moves the margins by so much less.
    """
    known &= jnp.isfinite(issued).all(axis=-1)
    columns = issued[:, jnp.array(OUTER)]
    missed = jnp.where(SIGN[None] > 0, actual[:, None] > columns, actual[:, None] < columns) & known[:, None]
    hours = known.reshape(-1, DAY_H).sum(axis=1)[:, None]
    share = missed.reshape(-1, DAY_H, len(OUTER)).sum(axis=1) / jnp.maximum(hours, 1)
    excess = jnp.where(hours > 0, share - MISS_SHARE[None], 0)
    move = config.side_step * excess + config.pair_step * (excess + excess[:, ::-1]) / 2
    log_margin = state.log_margin + move * (every_h / DAY_H)
    return state._replace(log_margin=jnp.clip(log_margin, -MOST_LOG_MARGIN, MOST_LOG_MARGIN))


@functools.partial(jax.jit, static_argnames=("config", "every_h"))
def adapt(
    state: ConformalState,
    table: Float[Array, "n H Q"],
    actual: Float[Array, "n H"],
    valid: Bool[Array, "n H"],
    config: ConformalConfig = ConformalConfig(),  # noqa: B008 (frozen)
    *,
    every_h: int = DAY_H,
) -> Float[Array, "n H Q"]:
    """The table, issue by issue calibrated by the outcomes that were known when the forecast was issued.

    Issues are `every_h` hours apart, in order. The outcome of lead day k (from 0) of issue i is known at issue
    i + ceil(24 (k + 1) / every_h). Outcomes that are not valid are never seen.
    """
    hours = jnp.arange(table.shape[1])
    delay = -(-DAY_H * (hours // DAY_H + 1) // every_h)

    def issue(carry, number):
        state, calibrated = carry
        issues = number - delay  # whose outcome became known last, hour by hour; negative: none yet
        known = valid[issues, hours] & (issues >= 0)
        state = observe(state, calibrated[issues, hours], actual[issues, hours], known, config, every_h=every_h)
        return (state, calibrated.at[number].set(apply_margins(state, table[number]))), None

    start = (state, jnp.full_like(table, jnp.nan))
    (_, calibrated), _ = jax.lax.scan(issue, start, jnp.arange(table.shape[0]))
    return calibrated


def _own_width(table):
    """Distance of each column of `OUTER` from the median, in logarithms, at least 0."""
    log_table = jnp.log(table)
    distance = log_table[..., jnp.array(OUTER)] - log_table[..., POINT, None]
    return jnp.maximum(distance * SIGN.reshape((1,) * (table.ndim - 1) + (-1,)), 0)


def _zero_for_nan(values):
    return jnp.where(jnp.isnan(values), 0, values)


def _one_for_nan(values):
    return jnp.where(jnp.isnan(values), 1, values)
