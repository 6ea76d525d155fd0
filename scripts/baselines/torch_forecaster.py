"""The carbon transformer in PyTorch, layer for layer: the rival of scripts/bench_forecast.py."""

import math
from typing import Any

import torch
from torch import nn

from cenas_jax.nets import CarbonTransformerConfig


class TorchCarbonTransformer(nn.Module):
    """`forward(history[B, T, F], horizon[B, H, G]) -> [B, H, outputs]`."""

    def __init__(self, config: CarbonTransformerConfig, history_columns: int, columns: int, outputs: int, tokens: int):
        super().__init__()
        if config.direct:
            raise ValueError("the PyTorch model has no direct path: compare configs without one")
        self.config, width = config, config.width
        self.past = nn.Linear(history_columns, config.hour_width)
        self.hour = nn.ModuleList([nn.Linear(columns, config.hidden), nn.Linear(config.hidden, config.hour_width)])
        self.past_patch = nn.Linear(config.history_patch_h * config.hour_width, width)
        self.ahead_patch = nn.Linear(config.horizon_patch_h * config.hour_width, width)
        self.position = nn.Parameter(0.1 * torch.randn(tokens, width))
        self.parts = [_Block(config) for _ in range(config.layers)]
        self.blocks = nn.ModuleList(self.parts)
        self.last = nn.LayerNorm(width, eps=1e-6)
        self.context = nn.Linear(width, config.horizon_patch_h * config.hour_width)
        merged = columns + 2 * config.hour_width
        self.read = nn.ModuleList([nn.Linear(merged, config.hidden), nn.Linear(config.hidden, config.hidden)])
        self.out = nn.Linear(config.hidden, outputs)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, history, horizon):
        config, batch, hours = self.config, horizon.shape[0], horizon.shape[1]
        own = _gelu(self.hour[1](_gelu(self.hour[0](horizon))))
        past = _gelu(self.past(history)).reshape(batch, -1, config.history_patch_h * config.hour_width)
        ahead = own.reshape(batch, -1, config.horizon_patch_h * config.hour_width)
        tokens = torch.cat([self.past_patch(past), self.ahead_patch(ahead)], dim=1) + self.position
        for block in self.blocks:
            tokens = block(tokens, self.dropout)
        context = self.context(self.last(tokens[:, -(hours // config.horizon_patch_h) :])).reshape(batch, hours, -1)
        out = torch.cat([horizon, own, context], dim=-1)
        for layer in self.read:
            out = self.dropout(_gelu(layer(out)))
        return self.out(out)


class _Block(nn.Module):
    def __init__(self, config: CarbonTransformerConfig):
        super().__init__()
        width, self.heads = config.width, config.heads
        self.norms = nn.ModuleList([nn.LayerNorm(width, eps=1e-6) for _ in range(2)])
        self.query, self.key, self.value, self.merge = (nn.Linear(width, width) for _ in range(4))
        self.wide, self.narrow = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, tokens, dropout):
        batch, count, width = tokens.shape
        normed = self.norms[0](tokens)
        by_head = (batch, count, self.heads, width // self.heads)
        layers = (self.query, self.key, self.value)
        query, key, value = (layer(normed).reshape(by_head).transpose(1, 2) for layer in layers)
        weight = torch.softmax(query @ key.transpose(-1, -2) / math.sqrt(width // self.heads), dim=-1)
        tokens = tokens + dropout(self.merge((weight @ value).transpose(1, 2).reshape(batch, count, width)))
        return tokens + dropout(self.narrow(_gelu(self.wide(self.norms[1](tokens)))))


def _gelu(values):
    return nn.functional.gelu(values, approximate="tanh")


def copy_weights(model: TorchCarbonTransformer, params: dict) -> None:
    """Copies the Flax parameters of one network, in the order in which Flax numbers its layers."""
    block_layers = [[*block_parts(block)] for block in model.parts]
    dense = [
        model.past,
        *model.hour,
        model.past_patch,
        model.ahead_patch,
        *(layer for block in block_layers for layer in block),
        model.context,
        *model.read,
        model.out,
    ]
    norms: list[Any] = [norm for block in model.parts for norm in block.norms] + [model.last]
    named = params["params"]
    if len(dense) != sum(name.startswith("Dense") for name in named):
        raise ValueError("the Flax network has other layers")
    with torch.no_grad():
        for number, layer in enumerate(dense):
            layer.weight.copy_(torch.tensor(named[f"Dense_{number}"]["kernel"].T))
            layer.bias.copy_(torch.tensor(named[f"Dense_{number}"]["bias"]))
        for number, norm in enumerate(norms):
            norm.weight.copy_(torch.tensor(named[f"LayerNorm_{number}"]["scale"]))
            norm.bias.copy_(torch.tensor(named[f"LayerNorm_{number}"]["bias"]))
        model.position.copy_(torch.tensor(named["position"]))


def block_parts(block: _Block):
    # Flax names an outer layer before the inner one that it is applied to.
    return block.query, block.key, block.value, block.merge, block.narrow, block.wide
