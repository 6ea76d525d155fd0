"""Rewards of one carbon interval."""

from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float

RewardName = Literal["budgeted", "paper"]


def budgeted_reward(hypervolume: Float[Array, ""], previous: Float[Array, ""]) -> Float[Array, ""]:
    """Growth of the log-hypervolume: what a search under a hard budget is for. The budget itself ends the episode."""
    return jnp.log(jnp.maximum(hypervolume, 1e-12)) - jnp.log(jnp.maximum(previous, 1e-12))


def paper_reward(
    gain_share: Float[Array, ""],
    remaining_time_share: Float[Array, ""],
    emissions_g: Float[Array, ""],
    highest_emissions_g: Float[Array, ""],
    evaluations: Float[Array, ""],
) -> Float[Array, ""]:
    """The reward of CE-NAS: hypervolume gain, weighted towards early hours, less carbon, plus new evaluations.

    `20 gain (0.8 tau + 0.8) - 2 emissions / highest + 0.05 n`, with `gain_share` in units of the table's maximum
    hypervolume, `tau` the remaining share of the time, and `highest_emissions_g` what all slots would emit in an hour
    at the trace's highest intensity.
    """
    carbon = 2 * emissions_g / jnp.maximum(highest_emissions_g, 1e-12)
    return 20 * gain_share * (0.8 * remaining_time_share + 0.8) - carbon + 0.05 * evaluations
