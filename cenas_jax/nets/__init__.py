"""Every Flax module, behind `Network(init, apply)`: nothing outside this folder sees Flax."""

from cenas_jax.nets.actor_critic import ActorCriticConfig, actor_critic
from cenas_jax.nets.base import Network
from cenas_jax.nets.carbon_transformer import CarbonTransformerConfig, carbon_transformer

__all__ = ["ActorCriticConfig", "CarbonTransformerConfig", "Network", "actor_critic", "carbon_transformer"]
