"""The networks of NAS-Bench-101 (Ying et al., ICML 2019): one graph's, or the supernet that shares weights.

A 3x3 stem, three stacks of equal modules at C, 2C and 4C channels, a 2x2 max-pool before the second and third, global
mean, linear layer. A module's vertices add up what leads to them, cut to their channels, and its output concatenates
them; the input is brought to the width of each vertex that reads it by a 1x1 convolution, and added to the
concatenation where it leads to the output. The equal modules of a stack are one scan over their weights.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from cenas_jax.nets.base import Network, candidate_of, supernet_of
from cenas_jax.nets.conv_norm import ConvNorm, conv_norm, inherited, leading, unused_statistics
from cenas_jax.nets.operations import Mode, check_halved_twice, max_pool, max_pool_2x2
from cenas_jax.spaces.nas_bench_101 import STACKS, NasBench101Config, pruned, vertex_channels
from cenas_jax.spaces.nas_bench_101_graphs import EDGES, INNER, VERTICES, from_string, to_string

_POOL = 0
_OPERATIONS = (_POOL, 1, 3)
"""Kernel sizes of the space's operations, in their order."""
_PROJECTION = (1,)


def nas_bench_101_supernet(config: NasBench101Config) -> Network:
    """The network of every valid graph: `codes[26]` (of space `nas-bench-101`) are data, so all of them are one
    compilation.

    `init(key, images) -> variables` and `apply(variables, images, codes, mode, momentum=0.1) -> (logits, statistics)`,
    all as `nas_bench_201_supernet` has them; images may be of another size than the config's. A vertex has the leading
    channels of weights for the module's whole width; those beyond are zero, and their statistics stay as they were.
    Graphs with more edges than are valid are computed too; a module is zero where no path joins input and output.
    """
    example = jnp.zeros(len(EDGES) + INNER, jnp.int32)
    return supernet_of(functools.partial(_Network, config, None), example, check_halved_twice)


def nas_bench_101_candidate(config: NasBench101Config, codes: tuple[int, ...]) -> Network:
    """The network of one graph alone, which has the weights of its pruned graph and no others.

    As `nas_bench_101_supernet`, but `apply(variables, images, mode, momentum=0.1)`. `ValueError` where the codes are
    no valid graph.
    """
    return candidate_of(functools.partial(_Network, config, _fixed(config, codes)), check_halved_twice)


def nas_bench_101_inherited(config: NasBench101Config, variables, codes: tuple[int, ...]):
    """The variables of a candidate, from those of a supernet: its vertices' weights and statistics."""
    return inherited(nas_bench_101_candidate(config, codes), variables, config.image_size)


class _Graph(NamedTuple):
    """A pruned graph in one stack: arrays in a supernet, nested tuples of numbers in a candidate."""

    edges: Any
    """[7, 7]: 1 from source to target."""
    operations: Any
    """[5]: of the inner vertices; 0 not in use, 1 .. 3 the space's."""
    channels: Any
    """[6]: of all vertices but the input."""


def _graph(codes: Int[Array, " 26"], width: int) -> _Graph:
    matrix, used = pruned(codes[None])
    operations = jnp.where(used[0, 1:-1], 1 + codes[len(EDGES) :], 0)
    channels = jnp.concatenate(vertex_channels(matrix, width)).astype(jnp.int32)
    return _Graph(matrix[0].astype(jnp.int32), operations, channels)


def _fixed(config: NasBench101Config, codes: tuple[int, ...]) -> tuple[_Graph, ...]:
    def numbers(values):
        return tuple(map(numbers, values)) if isinstance(values, list) else values

    checked = jnp.asarray(from_string(to_string(np.asarray(codes))))
    stacks = (_graph(checked, config.channels * 2**stack) for stack in range(STACKS))
    return tuple(jax.tree.map(lambda leaf: numbers(leaf.tolist()), graph) for graph in stacks)


class _Network(nn.Module):
    config: NasBench101Config
    fixed: tuple[_Graph, ...] | None
    mode: Mode

    @nn.compact
    def __call__(self, images, codes, momentum):
        config = self.config
        stem = ConvNorm((3, 3, images.shape[-1], config.channels), config.channels, name="stem")
        x, statistics = conv_norm(images, stem.arrays(), self.mode)
        if self.mode == "train":
            stem.keep(statistics, x.size // config.channels, momentum)
        x = nn.relu(x)
        for stack in range(STACKS):
            width = config.channels * 2**stack
            how = width, self.fixed[stack] if self.fixed else None, self.mode
            graph = None if self.fixed else _graph(codes, width)
            equal = config.modules
            if stack:  # The first module has half of the channels to read.
                x, _ = _Module(*how, name=f"stack_{stack}_first")(max_pool_2x2(x), graph, momentum)
                equal -= 1
            if equal:
                x, _ = _scanned(equal)(*how, name=f"stack_{stack}")(x, graph, momentum)
        return nn.Dense(config.num_classes, name="head")(x.mean(axis=(1, 2), dtype=jnp.float32))


def _scanned(length: int):
    return nn.scan(
        _Module,
        variable_axes={"params": 0, "statistics": 0},
        split_rngs={"params": True},
        in_axes=(nn.broadcast, nn.broadcast),  # pyright: ignore[reportArgumentType]
        length=length,
    )


class _Module(nn.Module):
    width: int
    fixed: _Graph | None
    mode: Mode

    @nn.compact
    def __call__(self, x, traced, momentum):
        graph: Any = self.fixed if traced is None else traced
        values: dict[int, Array] = {}
        for vertex in range(1, VERTICES - 1):
            code, channels = graph.operations[vertex - 1], graph.channels[vertex - 1]
            if _may_be(code):
                ends = ((y, graph.edges[source][vertex]) for source, y in values.items())
                read = [leading(y, channels * edge) for y, edge in ends if _may_be(edge)]
                read = self._sum(read, vertex, x, graph, momentum)
                values[vertex] = self._chosen(f"vertex_{vertex}", code, _OPERATIONS, read, channels, momentum)
        parts = [(y, graph.edges[v][-1], graph.channels[v - 1]) for v, y in values.items()]
        return self._sum(_concatenated(parts), VERTICES - 1, x, graph, momentum), None

    def _sum(self, terms: list[Array], vertex: int, x, graph: Any, momentum):
        """Of the terms, and of the projected input where it leads to the vertex."""
        edge, channels = graph.edges[0][vertex], graph.channels[vertex - 1]
        if _may_be(edge):
            terms = [*terms, self._chosen(f"projection_{vertex}", edge, _PROJECTION, x, channels, momentum)]
        return functools.reduce(jnp.add, terms)

    def _chosen(self, name: str, code, kernel_sizes: tuple[int, ...], x, channels, momentum):
        """What `code` says: nothing at 0, else the pool or a convolution with normalisation and ReLU."""
        features = self.width if self.fixed is None else channels
        modules = {
            own: ConvNorm((size, size, x.shape[-1], features), features, name=f"{name}_{size}x{size}")
            for own, size in enumerate(kernel_sizes, 1)
            if size != _POOL and (self.fixed is None or code == own)
        }
        arrays = {own: module.arrays() for own, module in modules.items()}

        def convolved(own: int, x):
            y, statistics = conv_norm(x, arrays[own], self.mode, channels=channels)
            return nn.relu(y), statistics

        unused = unused_statistics(features)
        branches: list[Callable] = [lambda x: (jnp.zeros((*x.shape[:3], features), x.dtype), unused)]
        for own, size in enumerate(kernel_sizes, 1):
            pooled = size == _POOL
            branches.append((lambda x: (max_pool(x), unused)) if pooled else functools.partial(convolved, own))
        y, statistics = branches[code](x) if self.fixed else jax.lax.switch(code, branches, x)
        if self.mode == "train":
            within = jnp.arange(features) < channels
            for own, module in modules.items():
                module.keep(statistics, y.size // features, momentum, used=within & (code == own))
        return y


def _may_be(code) -> bool:
    """Whether something is there, or only the data tell."""
    return not isinstance(code, int) or code > 0


def _concatenated(parts: list[tuple[Array, Any, Any]]) -> list[Array]:
    """The values with an edge to the output, one after the other: as terms of a sum in a supernet."""
    there = [(y, edge, channels) for y, edge, channels in parts if _may_be(edge)]
    if all(isinstance(edge, int) for _, edge, _ in there):
        return [jnp.concatenate([y for y, _, _ in there], axis=-1)] if there else []
    terms, place = [], 0
    for y, edge, channels in there:
        terms.append(jnp.roll(leading(y, channels * edge), place, axis=-1))  # What wraps round is zero.
        place += edge * channels
    return terms
