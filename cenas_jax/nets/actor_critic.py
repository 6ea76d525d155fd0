"""The allocation policy's network: an actor and a critic, side by side on the same inputs."""

from dataclasses import dataclass

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from cenas_jax.nets.base import Network


@dataclass(frozen=True)
class ActorCriticConfig:
    width: int = 64
    """Of the hidden layers."""
    layers: int = 2


def actor_critic(config: ActorCriticConfig, outputs: int) -> Network:
    """`apply(params, inputs[n]) -> (actor[outputs], value)`. The first policy hardly depends on the inputs."""
    module = _ActorCritic(config, outputs)

    def init(key, inputs: Float[Array, " n"]):
        return module.init(key, inputs)

    def apply(params, inputs: Float[Array, " n"], key=None):
        return module.apply(params, inputs)

    return Network(init, apply)


class _ActorCritic(nn.Module):
    config: ActorCriticConfig
    outputs: int

    @nn.compact
    def __call__(self, inputs):
        actor = self._head(inputs, self.outputs, 0.01)
        value = self._head(inputs, 1, 1.0)
        return actor, jnp.squeeze(value, -1)

    def _head(self, hidden, size: int, scale: float):
        """Scales of the orthogonal weights as in Andrychowicz et al. (ICLR 2021): small for the last of the actor."""
        for _ in range(self.config.layers):
            hidden = nn.tanh(nn.Dense(self.config.width, kernel_init=nn.initializers.orthogonal(2**0.5))(hidden))
        return nn.Dense(size, kernel_init=nn.initializers.orthogonal(scale))(hidden)
