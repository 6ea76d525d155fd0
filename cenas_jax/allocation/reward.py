"""Rewards of one carbon interval."""

from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float

RewardName = Literal["budgeted", "paper"]
REGRET_FLOOR = 1e-3
"""Regret at which a search counts as done: what is gained below it is hardly worth anything."""


def budgeted_reward(gain_share: Float[Array, ""], regret: Float[Array, ""]) -> Float[Array, ""]:
    """Fall of the log-regret in an interval: ln of the regret before it over the regret after it, floored.

    What a search under a hard budget is for; the budget itself ends the episode. Growth of the log-hypervolume would be
    nearly all in the first few evaluations: from a share of .99 on, what is left of it is .01.

    Args:
        gain_share: what the hypervolume has gained, as a share of the table's maximum; without a gain it is exactly 0.
        regret: the share that is missing after the interval.
    """
    return jnp.log1p(gain_share / (regret + REGRET_FLOOR))


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
