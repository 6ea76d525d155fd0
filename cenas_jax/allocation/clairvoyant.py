"""What no policy can exceed: the work that a carbon budget affords to one who knows the true trace."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float


class ClairvoyantBound(NamedTuple):
    """A bound, not a policy: it knows every hour of the trace, loses no time to sampling, and never waits for a job."""

    slot_hours: Float[Array, " hours"]
    """Evaluation slots of each hour; fractions allowed."""
    evaluations: Float[Array, ""]
    hypervolume: Float[Array, ""]
    """Of the gain curve at so many evaluations, interpolated."""


def clairvoyant_bound(
    intensity_g_per_kwh: Float[Array, " hours"],
    slots: int,
    evaluation_power_w: Float[Array, ""],
    carbon_g: Float[Array, ""],
    mean_evaluation_h: Float[Array, ""],
    gain_curve: Float[Array, " evaluations"],
) -> ClairvoyantBound:
    """The exact optimum of the budgeted allocation under a mean gain curve.

    All evaluations are worth the same number of slot-hours, and more of them never lower the hypervolume, so the best
    allocation is the one of most slot-hours: the cheapest hours first, each with all slots, the last in part (a
    fractional knapsack, Dantzig 1957).

    Args:
        intensity_g_per_kwh: the true trace of the search's hours.
        evaluation_power_w: of one slot, PUE included. 0: evaluations emit nothing, and time alone is the limit.
        carbon_g: the budget for evaluations; inf: none.
        gain_curve: hypervolume after 0, 1, 2, ... evaluations, as a mean over searches; it must not fall.
    """
    emissions_g = intensity_g_per_kwh * evaluation_power_w / 1000  # of one slot for the hour
    order = jnp.argsort(emissions_g, stable=True)
    before = jnp.concatenate([jnp.zeros(1), jnp.cumsum(slots * emissions_g[order])[:-1]])
    left = jnp.maximum(carbon_g - before, 0)
    in_order = jnp.clip(left / jnp.maximum(emissions_g[order], 1e-12), 0, slots)
    slot_hours = jnp.zeros_like(emissions_g).at[order].set(in_order)
    evaluations = slot_hours.sum() / mean_evaluation_h
    hypervolume = jnp.interp(evaluations, jnp.arange(gain_curve.shape[0], dtype=jnp.float32), gain_curve)
    return ClairvoyantBound(slot_hours, evaluations, hypervolume)
