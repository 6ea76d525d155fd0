"""Proximal policy optimisation: generalised advantages, the clipped losses, and training as one compiled scan."""

from cenas_jax.allocation.ppo.advantages import generalised_advantages
from cenas_jax.allocation.ppo.losses import LossTerms, ppo_loss
from cenas_jax.allocation.ppo.train import PPO, Hyperparameters, Metrics, PPOConfig, PPOState, ppo

__all__ = [
    "PPO",
    "Hyperparameters",
    "LossTerms",
    "Metrics",
    "PPOConfig",
    "PPOState",
    "generalised_advantages",
    "ppo",
    "ppo_loss",
]
