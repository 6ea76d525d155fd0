"""The network of DARTS (Liu et al., ICLR 2019) for CIFAR: one genotype's, or the supernet that shares weights.

What it is made of is in `spaces/cell_costs.py`. The equal cells of a stage are one scan over their weights; the first
ones of a stage differ from them in what they read.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from cenas_jax.nets.base import Network
from cenas_jax.nets.operations import (
    Mode,
    Statistics,
    average_pool_3x3,
    batch_statistics,
    convolution,
    depthwise_convolution,
    max_pool_3x3,
    normalise,
    updated,
)
from cenas_jax.spaces.cell_costs import check_network, reduction_cells
from cenas_jax.spaces.cells import node_pairs
from cenas_jax.spaces.darts import NODES, OPERATIONS

INPUTS = 2
EDGES = tuple((source, node) for node in range(INPUTS, INPUTS + NODES) for source in range(node))
"""(source, target) of a cell's possible edges."""
_he_normal = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
_PAIRS = np.zeros((NODES, len(node_pairs(NODES, False)[-1]), 2), np.int32)
for _node, _pairs in enumerate(node_pairs(NODES, False)):
    _PAIRS[_node, : len(_pairs)] = _pairs


@dataclass(frozen=True)
class DartsNetworkConfig:
    """Size of the network: that which DARTS evaluates on CIFAR-10, but for its auxiliary head and dropped paths."""

    cells: int = 20
    channels: int = 36
    num_classes: int = 10
    affine: bool = True
    """Scale and shift after every normalisation."""
    pool_norm: bool = False
    """Pools are normalised, without scale and shift, as in DARTS' supernet."""

    def __post_init__(self):
        check_network(self.cells, self.channels, self.num_classes, 4)


def darts_supernet(config: DartsNetworkConfig) -> Network:
    """The network of every genotype: `codes[24]` (of space `darts`) are data, so all of them are one compilation.

    `init(key, images) -> variables` and `apply(variables, images, codes, mode, momentum=0.1) -> (logits, statistics)`,
    all as `nas_bench_201_supernet` has them.
    """
    return _network(config, None)


def darts_candidate(config: DartsNetworkConfig, codes: tuple[int, ...]) -> Network:
    """The network of one genotype alone, which has its operations' weights and no others.

    As `darts_supernet`, but `apply(variables, images, mode, momentum=0.1)`.
    """
    network = _network(config, _fixed(codes))
    return Network(network.init, lambda variables, images, *how: network.apply(variables, images, None, *how))


def darts_inherited(config: DartsNetworkConfig, variables, codes: tuple[int, ...]):
    """The variables of a candidate, from those of a supernet: its operations' weights and statistics."""
    fixed = _fixed(codes)

    def cell(name: str, modules):
        if not name.startswith("cell"):
            return modules
        chosen = fixed[int(name.split("_")[1]) in reduction_cells(config.cells)]
        own = {_name(edge, operation) for edge, operation in zip(EDGES, chosen, strict=True) if operation is not None}
        return {
            unit: weights
            for unit, weights in modules.items()
            if not unit.startswith("edge") or unit.rpartition("_")[0] in own
        }

    return {
        kind: {name: cell(name, part) for name, part in collection.items()} for kind, collection in variables.items()
    }


def edge_operations(codes: Int[Array, " 24"]) -> Int[Array, "2 edges"]:
    """For the normal and the reduction cell, what is on each edge: 0 nothing, 1 .. 7 an operation."""
    entries = codes.reshape(2, NODES, 3)
    sources = jnp.asarray(_PAIRS)[np.arange(NODES)[None], entries[..., 0]]  # [2, nodes, 2]
    offset = np.asarray([EDGES.index((0, INPUTS + node)) for node in range(NODES)])
    edges = (sources + offset[None, :, None]).reshape(2, -1)
    found = jnp.zeros((2, len(EDGES)), jnp.int32)
    return found.at[np.arange(2)[:, None], edges].set(1 + entries[..., 1:].reshape(2, -1))


Fixed = tuple[int | None, ...]
"""The operation of every edge, None where there is no edge."""


def _fixed(codes: tuple[int, ...]) -> tuple[Fixed, Fixed]:
    found = np.asarray(codes)
    pairs = [len(choices) for choices in node_pairs(NODES, False)] * 2
    counts = np.asarray([count for pair in pairs for count in (pair, len(OPERATIONS), len(OPERATIONS))])
    if found.shape != counts.shape or not np.all((found >= 0) & (found < counts)):
        raise ValueError(f"codes of space 'darts' are 24 integers within their choices, not {codes}")
    normal, reduction = np.asarray(edge_operations(jnp.asarray(found, jnp.int32))).tolist()
    return tuple(code - 1 if code else None for code in normal), tuple(code - 1 if code else None for code in reduction)


def _network(config: DartsNetworkConfig, fixed: tuple[Fixed, Fixed] | None) -> Network:
    def init(key, images: Float[Array, "n h w c"]):
        _check_size(images)
        edges = None if fixed else jnp.zeros((2, len(EDGES)), jnp.int32)
        return _Network(config, fixed, "running").init(key, images, edges, 0.1)

    def apply(variables, images: Float[Array, "n h w c"], codes: Int[Array, " 24"] | None, mode: Mode, momentum=0.1):
        _check_size(images)
        edges = None if codes is None else edge_operations(codes)
        logits, changed = _Network(config, fixed, mode).apply(
            variables, images, edges, momentum, mutable=["statistics"]
        )
        return logits, changed["statistics"]

    return Network(init, apply)


def _check_size(images) -> None:
    _, height, width, _ = images.shape
    if height % 4 or width % 4:
        raise ValueError(f"images of {height} x {width}: give multiples of 4 (they are halved twice)")


def _name(edge: tuple[int, int], operation: int) -> str:
    return f"edge_{edge[0]}_{edge[1]}_{OPERATIONS[operation]}"


class _Part(NamedTuple):
    """A part of an operation: what it computes before its normalisation, from `kernels` of these shapes."""

    compute: Callable
    """`(x, kernels, stride) -> y`."""
    kernels: tuple[tuple[int, ...], ...]
    affine: bool = True


def _plain(size: int, inputs: int, features: int, active: bool = True) -> _Part:
    def compute(x, kernels, stride):
        return convolution(nn.relu(x) if active else x, kernels[0], stride)

    return _Part(compute, ((size, size, inputs, features),))


def _depthwise(size: int, channels: int, dilation: int = 1) -> _Part:
    def compute(x, kernels, stride):
        return convolution(depthwise_convolution(nn.relu(x), kernels[0], stride, dilation), kernels[1])

    return _Part(compute, ((size, size, 1, channels), (1, 1, channels, channels)))


def _halving(inputs: int, features: int) -> _Part:
    """DARTS' factorised reduction: half of the channels from the even pixels, half from the odd ones."""

    def compute(x, kernels, stride):
        x = nn.relu(x)
        halves = convolution(x[:, ::2, ::2], kernels[0]), convolution(x[:, 1::2, 1::2], kernels[1])
        return jnp.concatenate(halves, axis=-1)

    return _Part(compute, ((1, 1, inputs, features // 2),) * 2)


def _operation(operation: int, channels: int, stride: int, config: DartsNetworkConfig) -> list[_Part] | Callable:
    """Its parts, or `(x) -> y` where it has no weights and no normalisation."""
    name = OPERATIONS[operation]
    if name == "skip_connect":
        return [_halving(channels, channels)] if stride == 2 else lambda x: x
    if name.endswith("pool_3x3"):
        pool = max_pool_3x3 if name.startswith("max") else average_pool_3x3
        if config.pool_norm:
            return [_Part(lambda x, _, stride: pool(x, stride), (), False)]
        return lambda x: pool(x, stride)
    size = int(name[-1])
    return [_depthwise(size, channels)] * 2 if name.startswith("sep") else [_depthwise(size, channels, 2)]


class _Norm(nn.Module):
    """The weights of a part and of its normalisation. They are handed out, so that a branch can compute with them:
    Flax's modules cannot be called in one."""

    kernels: tuple[tuple[int, ...], ...]
    features: int
    affine: bool

    def setup(self):
        self.weights = [self.param(f"kernel_{place}", _he_normal, shape) for place, shape in enumerate(self.kernels)]
        if self.affine:
            self.scale = self.param("scale", nn.initializers.ones, (self.features,))
            self.shift = self.param("shift", nn.initializers.zeros, (self.features,))
        start = Statistics(jnp.zeros(self.features), jnp.ones(self.features))
        self.running = self.variable("statistics", "running", lambda: start)

    def arrays(self):
        return self.weights, (self.scale, self.shift) if self.affine else (), self.running.value

    def keep(self, batch: Statistics, count: int, momentum, used=True):
        self.running.value = updated(self.running.value, batch, count, momentum, used)


def _computed(x, part: _Part, arrays, stride: int, mode: Mode):
    """A part with its normalisation; the statistics that normalised."""
    weights, affine, running = arrays
    y = part.compute(x, [kernel.astype(x.dtype) for kernel in weights], stride)
    statistics = running if mode == "running" else batch_statistics(y)
    return normalise(y, statistics, *affine), statistics


class _Network(nn.Module):
    config: DartsNetworkConfig
    fixed: tuple[Fixed, Fixed] | None
    mode: Mode

    @nn.compact
    def __call__(self, images, edges, momentum):
        config, reductions = self.config, reduction_cells(self.config.cells)
        stem = _plain(3, images.shape[-1], 3 * config.channels, active=False)
        x = _single(self, "stem", images, stem, config, momentum)
        carry, width, place, after = (x, x), config.channels, 0, False
        while place < config.cells:
            reduces = place in reductions
            width *= 2 if reduces else 1
            how = config, width, reduces, after, self.fixed[reduces] if self.fixed else None, self.mode
            own = None if edges is None else edges[int(reduces)]
            equal = not (reduces or after) and carry[0].shape[-1] == carry[1].shape[-1] == NODES * width
            length = min(end for end in (*reductions, config.cells) if end > place) - place if equal else 1
            cell = _scanned(length) if equal else _Cell
            carry, _ = cell(*how, name=f"cell_{place}")(carry, own, momentum)
            place, after = place + length, reduces
        return nn.Dense(config.num_classes, name="head")(carry[1].mean(axis=(1, 2)).astype(jnp.float32))


def _single(module, name: str, x, part: _Part, config: DartsNetworkConfig, momentum, stride: int = 1):
    """A part that is always there."""
    features = sum(shape[-1] for shape in part.kernels)
    norm = _Norm(part.kernels, features, config.affine, name=name)
    y, statistics = _computed(x, part, norm.arrays(), stride, module.mode)
    if module.mode == "train":
        norm.keep(statistics, y.size // features, momentum)
    return y


class _Cell(nn.Module):
    config: DartsNetworkConfig
    width: int
    reduces: bool
    after_reduction: bool
    fixed: Fixed | None
    mode: Mode

    @nn.compact
    def __call__(self, carry, edges, momentum):
        before, last = carry
        shape = before.shape[-1], self.width
        first = _halving(*shape) if self.after_reduction else _plain(1, *shape)
        states = [
            _single(self, "first", before, first, self.config, momentum),
            _single(self, "second", last, _plain(1, last.shape[-1], self.width), self.config, momentum),
        ]
        for node in range(INPUTS, INPUTS + NODES):
            incoming = [(edge, source) for edge, (source, target) in enumerate(EDGES) if target == node]
            if self.fixed is not None:
                incoming = [(edge, source) for edge, source in incoming if self.fixed[edge] is not None]
            found = [self._edge(edge, states[source], edges, momentum) for edge, source in incoming]
            states.append(sum(found[1:], start=found[0]))
        return (last, jnp.concatenate(states[INPUTS:], axis=-1)), None

    def _edge(self, edge: int, x, edges, momentum):
        stride = 2 if self.reduces and EDGES[edge][0] < INPUTS else 1
        chosen = None if self.fixed is None else self.fixed[edge]
        norms, branches = {}, {}
        for operation in range(len(OPERATIONS)) if chosen is None else (chosen,):
            parts = _operation(operation, self.width, stride, self.config)
            norms[operation] = [
                _Norm(p.kernels, self.width, p.affine and self.config.affine, name=f"{name}_{place}")
                for name in (_name(EDGES[edge], operation),)
                for place, p in enumerate(parts if isinstance(parts, list) else ())
            ]
            branches[operation] = self._branch(parts, [norm.arrays() for norm in norms[operation]], stride)
        if chosen is None:
            nothing = self._branch(lambda x: jnp.zeros_like(x[:, ::stride, ::stride]), [], stride)
            y, statistics = jax.lax.switch(edges[edge], [nothing, *branches.values()], x)
        else:
            y, statistics = branches[chosen](x)
        if self.mode == "train":
            for operation, own in norms.items():
                used = chosen == operation if chosen is not None else edges[edge] == operation + 1
                for norm, batch in zip(own, statistics, strict=False):
                    norm.keep(batch, y.size // self.width, momentum, used)
        return y

    def _branch(self, parts: list[_Part] | Callable, arrays: list, stride: int) -> Callable:
        """`(x) -> (y, statistics)`, the latter of as many parts as any operation has."""
        unused = Statistics(jnp.zeros(self.width), jnp.ones(self.width))

        def run(x):
            if not isinstance(parts, list):
                return parts(x), (unused, unused)
            statistics = []
            for place, (part, weights) in enumerate(zip(parts, arrays, strict=True)):
                x, own = _computed(x, part, weights, 1 if place else stride, self.mode)
                statistics.append(own)
            return x, (*statistics, *[unused] * (2 - len(statistics)))

        return run


def _scanned(length: int):
    return nn.scan(
        _Cell,
        variable_axes={"params": 0, "statistics": 0},
        split_rngs={"params": True},
        in_axes=(nn.broadcast, nn.broadcast),  # pyright: ignore[reportArgumentType]
        length=length,
    )
