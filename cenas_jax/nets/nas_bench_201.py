"""The networks of NAS-Bench-201 (Dong & Yang, ICLR 2020): one architecture's, or the supernet that shares weights.

A 3x3 stem, three stages of equal cells at C, 2C and 4C channels, a residual block of stride 2 before the second and
third stage, normalisation, global mean, linear layer. The cells of a stage are one scan over their weights.
"""

import functools
from dataclasses import dataclass

import flax.linen as nn
import jax.numpy as jnp

from cenas_jax.nets.base import Network, candidate_of, supernet_of
from cenas_jax.nets.conv_norm import ConvNorm, conv_norm, he_normal
from cenas_jax.nets.edges import KERNEL_SIZE, sum_of_edges
from cenas_jax.nets.operations import Mode, average_pool_2x2, check_halved_twice, convolution
from cenas_jax.spaces.nas_bench_201_cells import EDGES, OPERATIONS

STAGES = 3


@dataclass(frozen=True)
class NasBench201Config:
    """Size of the network. The benchmark's own has 16 channels, 5 cells a stage, and scale and shift (`affine`) after
    every normalisation; published supernets have none (Zhao et al., Few-shot NAS, ICML 2021)."""

    channels: int = 16
    cells: int = 5
    num_classes: int = 10
    affine: bool = True

    def __post_init__(self):
        if min(self.channels, self.cells, self.num_classes) < 1:
            raise ValueError(f"NasBench201Config: channels, cells and num_classes must be positive, got {self}")


def nas_bench_201_supernet(config: NasBench201Config) -> Network:
    """The network of every architecture: `codes[6]` are data, so all of them are one compilation.

    `init(key, images) -> variables` and `apply(variables, images, codes, mode, momentum=0.1) -> (logits, statistics)`.
    `images[n, height, width, channels]` are floats; height and width are halved twice, so `ValueError` where they are
    not multiples of 4. `mode` is as in `operations.Mode`, `logits[n, num_classes]` are float32. `statistics` are the
    variables' running ones after this batch: `variables | {"statistics": statistics}` goes on from there; but for mode
    `train` they are as they were.
    """
    example = jnp.zeros(len(EDGES), jnp.int32)
    return supernet_of(functools.partial(_Network, config, None), example, check_halved_twice)


def nas_bench_201_candidate(config: NasBench201Config, codes: tuple[int, ...]) -> Network:
    """The network of one architecture alone, which has its operations' weights and no others.

    As `nas_bench_201_supernet`, but `apply(variables, images, mode, momentum=0.1)`.
    """
    if len(codes) != len(EDGES) or not all(0 <= code < len(OPERATIONS) for code in codes):
        raise ValueError(f"NAS-Bench-201 codes are six integers 0 .. 4, not {codes}")
    return candidate_of(functools.partial(_Network, config, codes), check_halved_twice)


def nas_bench_201_inherited(variables, codes: tuple[int, ...]):
    """The variables of a candidate, from those of a supernet: its operations' weights and statistics."""
    unused = {
        _name(edge, operation)
        for edge, code in zip(EDGES, codes, strict=True)
        for operation in KERNEL_SIZE
        if operation != code
    }

    def stage(modules):
        return {name: weights for name, weights in modules.items() if name not in unused}

    return {
        kind: {name: stage(part) if name.startswith("stage") else part for name, part in collection.items()}
        for kind, collection in variables.items()
    }


def _name(edge: tuple[int, int], operation: int) -> str:
    return f"edge_{edge[0]}_{edge[1]}_{OPERATIONS[operation]}"


class _Network(nn.Module):
    config: NasBench201Config
    fixed: tuple[int, ...] | None
    mode: Mode

    @nn.compact
    def __call__(self, images, codes, momentum):
        config = self.config
        x = self._conv_norm(images, "stem", config.channels, 3, momentum)
        for stage in range(STAGES):
            width = config.channels * 2**stage
            if stage:
                x = self._reduction(x, f"reduction_{stage}", width, momentum)
            cells = nn.scan(
                _Cell,
                variable_axes={"params": 0, "statistics": 0},
                split_rngs={"params": True},
                in_axes=(nn.broadcast, nn.broadcast),  # pyright: ignore[reportArgumentType]
                length=config.cells,
            )
            x, _ = cells(config, width, self.fixed, self.mode, name=f"stage_{stage}")(x, codes, momentum)
        x = nn.relu(self._conv_norm(x, "last", x.shape[-1], 0, momentum))
        return nn.Dense(config.num_classes, name="head")(x.mean(axis=(1, 2), dtype=jnp.float32))

    def _conv_norm(self, x, name: str, features: int, kernel_size: int, momentum, stride: int = 1):
        shape = (kernel_size, kernel_size, x.shape[-1], features) if kernel_size else None
        module = ConvNorm(shape, features, self.config.affine, name=name)
        y, statistics = conv_norm(x, module.arrays(), self.mode, stride)
        if self.mode == "train":
            module.keep(statistics, y.size // features, momentum)
        return y

    def _reduction(self, x, name: str, features: int, momentum):
        """Two 3x3 convolutions, the first of stride 2; on the shortcut 2x2 means and a bare 1x1 convolution."""
        y = self._conv_norm(nn.relu(x), f"{name}_a", features, 3, momentum, stride=2)
        y = self._conv_norm(nn.relu(y), f"{name}_b", features, 3, momentum)
        kernel = self.param(f"{name}_shortcut", he_normal, (1, 1, x.shape[-1], features), jnp.float32)
        return y + convolution(average_pool_2x2(x), kernel.astype(x.dtype))


class _Cell(nn.Module):
    config: NasBench201Config
    width: int
    fixed: tuple[int, ...] | None
    mode: Mode

    @nn.compact
    def __call__(self, x, codes, momentum):
        nodes = [x]
        for node in range(1, 1 + max(target for _, target in EDGES)):
            incoming = [(edge, source) for edge, (source, target) in enumerate(EDGES) if target == node]
            nodes.append(self._node(nodes, incoming, codes, momentum))
        return nodes[-1], None

    def _node(self, nodes, incoming, codes, momentum):
        edges = [edge for edge, _ in incoming]
        everything = tuple(range(len(OPERATIONS)))
        choices = tuple(everything if self.fixed is None else (self.fixed[edge],) for edge in edges)
        modules = [self._modules(edge, own) for edge, own in zip(edges, choices, strict=True)]
        arrays = [{code: module.arrays() for code, module in own.items()} for own in modules]
        weights = [{code: (kernel, affine) for code, (kernel, affine, _) in own.items()} for own in arrays]
        running = [{code: statistics for code, (_, _, statistics) in own.items()} for own in arrays]
        xs = [nodes[source] for _, source in incoming]
        chosen = (codes if self.fixed is None else jnp.asarray(self.fixed))[jnp.asarray(edges)]
        y, found = sum_of_edges(chosen, xs, weights, running, choices, self.mode)
        if self.mode == "train":
            for code, statistics, own in zip(chosen, found, modules, strict=True):
                for choice, module in own.items():
                    module.keep(statistics, y.size // self.width, momentum, used=code == choice)
        return y

    def _modules(self, edge: int, choices: tuple[int, ...]) -> dict[int, ConvNorm]:
        return {
            code: ConvNorm(
                (size, size, self.width, self.width), self.width, self.config.affine, name=_name(EDGES[edge], code)
            )
            for code, size in KERNEL_SIZE.items()
            if code in choices
        }
