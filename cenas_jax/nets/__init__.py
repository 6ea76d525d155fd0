"""Every Flax module, behind `Network(init, apply)`: nothing outside this folder sees Flax."""

from cenas_jax.nets.base import Network
from cenas_jax.nets.carbon_transformer import CarbonTransformerConfig, carbon_transformer

__all__ = ["CarbonTransformerConfig", "Network", "carbon_transformer"]
