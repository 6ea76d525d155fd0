"""Every Flax module, behind `Network(init, apply)`: nothing outside this folder sees Flax."""

from cenas_jax.nets.actor_critic import ActorCriticConfig, actor_critic
from cenas_jax.nets.base import Network
from cenas_jax.nets.carbon_transformer import CarbonTransformerConfig, carbon_transformer
from cenas_jax.nets.darts import DartsNetworkConfig, darts_candidate, darts_inherited, darts_supernet
from cenas_jax.nets.mobile import MobileConfig, mobile_candidate, mobile_inherited, mobile_supernet
from cenas_jax.nets.nas_bench_101 import (
    NasBench101Config,
    nas_bench_101_candidate,
    nas_bench_101_inherited,
    nas_bench_101_supernet,
)
from cenas_jax.nets.nas_bench_201 import (
    NasBench201Config,
    nas_bench_201_candidate,
    nas_bench_201_inherited,
    nas_bench_201_supernet,
)
from cenas_jax.nets.nasnet import nasnet_candidate, nasnet_inherited, nasnet_supernet

__all__ = [
    "ActorCriticConfig",
    "CarbonTransformerConfig",
    "DartsNetworkConfig",
    "MobileConfig",
    "NasBench101Config",
    "NasBench201Config",
    "Network",
    "actor_critic",
    "carbon_transformer",
    "darts_candidate",
    "darts_inherited",
    "darts_supernet",
    "mobile_candidate",
    "mobile_inherited",
    "mobile_supernet",
    "nas_bench_101_candidate",
    "nas_bench_101_inherited",
    "nas_bench_101_supernet",
    "nas_bench_201_candidate",
    "nas_bench_201_inherited",
    "nas_bench_201_supernet",
    "nasnet_candidate",
    "nasnet_inherited",
    "nasnet_supernet",
]
