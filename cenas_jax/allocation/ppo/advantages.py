"""Generalised advantage estimation (Schulman et al., ICLR 2016, equation 16)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def generalised_advantages(
    reward: Float[Array, " T"],
    value: Float[Array, " T"],
    next_value: Float[Array, " T"],
    terminated: Bool[Array, " T"],
    truncated: Bool[Array, " T"],
    discount: Float[Array, ""],
    decay: Float[Array, ""],
) -> Float[Array, " T"]:
    """Advantages of the actions of one trajectory.

    Args:
        next_value: the value of what each step led to; after the last step of an episode, of its final observation.
        terminated: the episode ended there and nothing follows: `next_value` counts nothing.
        truncated: it was cut off there: `next_value` stands for what would have followed. Nothing is carried over the
            end of an episode either way.
        decay: GAE's lambda.
    """
    error = reward + discount * jnp.where(terminated, 0.0, next_value) - value
    keep = discount * decay * ~(terminated | truncated)

    def back(advantage, step):
        error, keep = step
        advantage = error + keep * advantage
        return advantage, advantage

    _, advantages = jax.lax.scan(back, jnp.zeros_like(error[0]), (error, keep), reverse=True)
    return advantages


def beside_replicas(
    advantage: Float[Array, "episodes T"], valid: Bool[Array, "episodes T"], replicas: int
) -> Float[Array, "episodes T"]:
    """Less their mean over the replicas that still run, `replicas` episodes in a row being of one task."""
    grouped, counts = (part.reshape(-1, replicas, part.shape[1]) for part in (advantage, valid))
    mean = jnp.where(counts, grouped, 0).sum(axis=1) / jnp.maximum(counts.sum(axis=1), 1)
    return (grouped - mean[:, None]).reshape(advantage.shape)
