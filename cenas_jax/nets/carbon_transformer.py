"""The time-series transformer of the carbon forecaster: patches of hours as tokens, one output row an hour.

Each hour goes through a small shared network first; hours are then joined to patches (Nie et al., PatchTST, ICLR 2023),
patches of the history and of the horizon attend to each other, and every hour of the horizon is read out from its
patch's token together with its own inputs.
"""

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cenas_jax.nets.base import Network


@dataclass(frozen=True)
class CarbonTransformerConfig:
    width: int = 32
    """Of a token."""
    heads: int = 4
    layers: int = 1
    hour_width: int = 12
    """Of an hour within its patch."""
    hidden: int = 32
    """Of the networks of single hours."""
    history_patch_h: int = 24
    horizon_patch_h: int = 12
    dropout: float = 0.3
    direct: bool = False
    """Adds a linear map of the history's first column to the first output of every hour."""

    def __post_init__(self):
        if self.width % self.heads:
            raise ValueError(f"width {self.width} must be a multiple of heads {self.heads}")


def carbon_transformer(config: CarbonTransformerConfig, outputs: int) -> Network:
    """`apply(params, history[T, F], horizon[H, G], key=None) -> [H, outputs]`; T and H are multiples of the patches."""
    module = _CarbonTransformer(config, outputs)

    def init(key, history: Float[Array, "T F"], horizon: Float[Array, "H G"]):
        return module.init(key, history, horizon, train=False)

    def apply(params, history: Float[Array, "T F"], horizon: Float[Array, "H G"], key=None):
        rngs = None if key is None else {"dropout": key}
        return module.apply(params, history, horizon, train=key is not None, rngs=rngs)

    return Network(init, apply)


class _CarbonTransformer(nn.Module):
    config: CarbonTransformerConfig
    outputs: int

    @nn.compact
    def __call__(self, history, horizon, *, train: bool):
        config = self.config
        dropout = nn.Dropout(config.dropout, deterministic=not train)
        past = nn.gelu(nn.Dense(config.hour_width)(history))
        hours = nn.gelu(nn.Dense(config.hidden)(horizon))
        hours = nn.gelu(nn.Dense(config.hour_width)(hours))
        tokens = jnp.concatenate(
            [
                nn.Dense(config.width)(past.reshape(-1, config.history_patch_h * config.hour_width)),
                nn.Dense(config.width)(hours.reshape(-1, config.horizon_patch_h * config.hour_width)),
            ]
        )
        tokens += self.param("position", nn.initializers.normal(0.1), tokens.shape)
        for _ in range(config.layers):
            tokens += dropout(_attention(config, nn.LayerNorm()(tokens)))
            tokens += dropout(nn.Dense(config.width)(nn.gelu(nn.Dense(2 * config.width)(nn.LayerNorm()(tokens)))))
        ahead = nn.LayerNorm()(tokens[-horizon.shape[0] // config.horizon_patch_h :])
        context = nn.Dense(config.horizon_patch_h * config.hour_width)(ahead).reshape(horizon.shape[0], -1)
        out = jnp.concatenate([horizon, hours, context], axis=1)
        for _ in range(2):
            out = dropout(nn.gelu(nn.Dense(config.hidden)(out)))
        small = nn.initializers.variance_scaling(0.01, "fan_in", "normal")  # The first forecast is nearly the base.
        out = nn.Dense(self.outputs, kernel_init=small)(out)
        if config.direct:
            out = out.at[:, 0].add(nn.Dense(horizon.shape[0], kernel_init=nn.initializers.zeros)(history[:, 0]))
        return out


def _attention(config: CarbonTransformerConfig, tokens):
    """Full self-attention; by hand, as it is three lines and half as dear as Flax's for so few tokens."""
    by_head = (tokens.shape[0], config.heads, config.width // config.heads)
    query, key, value = (nn.Dense(config.width)(tokens).reshape(by_head) for _ in range(3))
    weight = jax.nn.softmax(jnp.einsum("ihd,jhd->hij", query, key) / by_head[-1] ** 0.5, axis=-1)
    return nn.Dense(config.width)(jnp.einsum("hij,jhd->ihd", weight, value).reshape(tokens.shape))
