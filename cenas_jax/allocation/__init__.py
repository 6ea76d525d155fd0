"""The allocation problem: how many slots evaluate in the next carbon interval, and rules that answer it."""

from cenas_jax.allocation.environment import Environment, Observation, TimeStep
from cenas_jax.allocation.policies import RULES, PlainParams, Policy, plain_params, plain_policy

__all__ = ["RULES", "Environment", "Observation", "PlainParams", "Policy", "TimeStep", "plain_params", "plain_policy"]
