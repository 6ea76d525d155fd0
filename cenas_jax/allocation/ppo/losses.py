"""PPO's losses (Schulman et al. 2017, equations 7 and 9), over the valid rows of a minibatch."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


class LossTerms(NamedTuple):
    policy: Float[Array, ""]
    value: Float[Array, ""]
    entropy: Float[Array, ""]
    approximate_kl: Float[Array, ""]
    """Of the old policy from the new one: mean of ratio - 1 - ln ratio."""
    clipped_share: Float[Array, ""]


def ppo_loss(
    log_prob: Float[Array, " n"],
    old_log_prob: Float[Array, " n"],
    advantage: Float[Array, " n"],
    value: Float[Array, " n"],
    old_value: Float[Array, " n"],
    target: Float[Array, " n"],
    entropy: Float[Array, " n"],
    valid: Bool[Array, " n"],
    clip: Float[Array, ""],
) -> LossTerms:
    """The clipped surrogate of normalised advantages, and the clipped squared error of the value; each to be minimised
    but the entropy."""
    weight = valid / jnp.maximum(valid.sum(), 1)
    mean = (weight * advantage).sum()
    deviation = jnp.sqrt((weight * (advantage - mean) ** 2).sum())
    advantage = (advantage - mean) / (deviation + 1e-8)
    log_ratio = jnp.where(valid, log_prob - old_log_prob, 0.0)
    ratio = jnp.exp(log_ratio)
    surrogate = jnp.minimum(ratio * advantage, jnp.clip(ratio, 1 - clip, 1 + clip) * advantage)
    near = old_value + jnp.clip(value - old_value, -clip, clip)
    error = jnp.maximum((value - target) ** 2, (near - target) ** 2)
    return LossTerms(
        policy=-(weight * surrogate).sum(),
        value=0.5 * (weight * error).sum(),
        entropy=(weight * entropy).sum(),
        approximate_kl=(weight * (ratio - 1 - log_ratio)).sum(),
        clipped_share=(weight * (jnp.abs(ratio - 1) > clip)).sum(),
    )
