"""NAS-Bench-101 (Ying et al., ICML 2019) as a search space: graphs of at most 7 vertices and 9 edges."""

import functools
import itertools
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from cenas_jax.spaces.large import LargeSpace, large_space, least_row
from cenas_jax.spaces.nas_bench_101_graphs import EDGES, INNER, MAX_EDGES, OPERATIONS, VERTICES, from_string, to_string

STACKS = 3
_CONV_1X1, _CONV_3X3 = 1, 2
_SOURCES, _TARGETS = (np.asarray(ends, np.int32) for ends in zip(*EDGES, strict=True))


@dataclass(frozen=True)
class NasBench101Config:
    """Size of the network: the benchmark's own by default."""

    channels: int = 128
    """Of the stem and the first stack; every stack doubles them."""
    modules: int = 3
    """In each of three stacks."""
    num_classes: int = 10
    image_size: int = 32
    """Height and width, a multiple of 4."""

    def __post_init__(self) -> None:
        if min(self.channels, self.modules, self.num_classes) < 1:
            raise ValueError(f"NasBench101Config: channels, modules and num_classes must be positive, got {self}")
        if self.image_size < 4 or self.image_size % 4:
            raise ValueError(f"image_size {self.image_size}: give a positive multiple of 4 (it is halved twice)")


@functools.cache
def nas_bench_101(config: NasBench101Config | None = None) -> LargeSpace:
    """The graphs of NAS-Bench-101: 26 entries, which edges there are and what the inner vertices do; 423,624 classes.

    Valid: a path joins input and output, and at most 9 edges are on such paths; what is on none is pruned and computes
    nothing, so that it may be anything. `features` are the codes (operations by compute). `canonical` prunes, and
    renames inner vertices; `nas_bench_101_graphs.canonical_hash` is the same on the host. Names are the records'.
    Parameters and multiply-adds are of the benchmark's network, exact in its rule of channels: those of the output are
    divided among the vertices that lead to it, others have as many as the widest that they lead to.
    """
    config = config or NasBench101Config()

    def features(codes: Int[Array, "n d"]) -> Float[Array, "n f"]:
        return codes.astype(jnp.float32)

    choices = tuple((f"no-{source}-{target}", f"{source}-{target}") for source, target in EDGES)
    return large_space(
        "nas-bench-101",
        choices + (OPERATIONS,) * INNER,
        features=features,
        parameters=functools.partial(_count, config, True),
        multiply_adds=functools.partial(_count, config, False),
        holds=_holds,
        canonical=_canonical,
        to_string=to_string,
        from_string=from_string,
    )


def pruned(codes: Int[Array, "n d"]) -> tuple[Bool[Array, "n v v"], Bool[Array, "n v"]]:
    """The edges on paths from input to output, as a matrix, and the vertices on them."""
    matrix = jnp.zeros((codes.shape[0], VERTICES, VERTICES), bool)
    matrix = matrix.at[:, _SOURCES, _TARGETS].set(codes[:, : len(EDGES)] == 1)
    ahead, behind = [jnp.ones(codes.shape[0], bool)], [jnp.ones(codes.shape[0], bool)]
    for vertex in range(1, VERTICES):
        ahead.append((jnp.stack(ahead, 1) & matrix[:, :vertex, vertex]).any(axis=1))
    for vertex in reversed(range(VERTICES - 1)):
        behind.insert(0, (jnp.stack(behind, 1) & matrix[:, vertex, vertex + 1 :]).any(axis=1))
    used = jnp.stack(ahead, 1) & jnp.stack(behind, 1)
    return matrix & used[:, :, None] & used[:, None, :], used


def _holds(codes: Int[Array, "n d"]) -> Bool[Array, " n"]:
    matrix, used = pruned(codes)
    return used[:, 0] & (matrix.sum(axis=(1, 2)) <= MAX_EDGES)


def _canonical(codes: Int[Array, "n d"]) -> Int[Array, "n d"]:
    """The least codes that a renaming of the inner vertices gives the pruned graph."""
    matrix, used = pruned(codes)
    operations = jnp.where(used[:, 1:-1], codes[:, len(EDGES) :], 0)
    inner = np.asarray(list(itertools.permutations(range(INNER))))
    order = np.concatenate([np.zeros((len(inner), 1), int), inner + 1, np.full((len(inner), 1), VERTICES - 1)], axis=1)
    moved = matrix[:, order[:, :, None], order[:, None, :]]  # [n, p, v, v]
    upward = ~(moved & np.tril(np.ones((VERTICES, VERTICES), bool))[None, None]).any(axis=(2, 3))
    rows = jnp.concatenate([moved[:, :, _SOURCES, _TARGETS], operations[:, inner]], axis=2).astype(jnp.int32)
    return least_row(rows.swapaxes(0, 1), upward.T)


def vertex_channels(matrix: Bool[Array, "n v v"], outputs: int) -> list[Float[Array, " n"]]:
    """Of vertices 1 .. 6, in a module with so many of the output. Those of vertices not in use mean nothing."""
    to_output = matrix[:, 1:-1, -1].astype(jnp.int32)
    share, left = jnp.divmod(outputs, jnp.maximum(to_output.sum(axis=1), 1))
    # What the division leaves goes to the first ones, a channel each.
    extra = jnp.cumsum(to_output, axis=1) <= left[:, None]
    channels = [jnp.full(matrix.shape[0], outputs, jnp.float32)]
    for vertex in reversed(range(1, VERTICES - 1)):
        direct = (share + extra[:, vertex - 1]).astype(jnp.float32)
        read = matrix[:, vertex, vertex + 1 : -1]  # by inner vertices, whose channels are known by now
        widest = jnp.max(jnp.stack(channels[:-1], axis=1), axis=1, where=read, initial=0) if len(channels) > 1 else 0.0
        channels.insert(0, jnp.where(matrix[:, vertex, -1], direct, widest))
    return channels


def _count(config: NasBench101Config, norms: bool, codes: Int[Array, "n d"]) -> Float[Array, " n"]:
    """Parameters (with normalisations), or multiply-adds (without, times pixels)."""
    matrix, used = pruned(codes)
    per_channel = 2.0 * norms
    side = 1 if norms else config.image_size
    last = config.channels * 2 ** (STACKS - 1)
    total = jnp.full(codes.shape[0], (27 + per_channel) * config.channels * side**2 + (last + 1) * config.num_classes)
    for stack in range(STACKS):
        width = config.channels * 2**stack
        pixels = 1 if norms else (side // 2**stack) ** 2
        channels = vertex_channels(matrix, width)
        inner = projected = jnp.zeros(codes.shape[0], jnp.float32)
        for vertex in range(1, VERTICES):
            # A 1x1 convolution brings the module's input to the width of each vertex that reads it.
            projected += jnp.where(matrix[:, 0, vertex], channels[vertex - 1], 0)
        for vertex in range(1, VERTICES - 1):
            own, operation = channels[vertex - 1], codes[:, len(EDGES) + vertex - 1]
            kernel = jnp.where(operation == _CONV_3X3, 9, 1)
            cost = kernel * own**2 + per_channel * own
            inner += jnp.where(used[:, vertex] & (operation >= _CONV_1X1), cost, 0)
        first = width // 2 if stack else width
        inputs = first + (config.modules - 1) * width
        total += pixels * (config.modules * (inner + per_channel * projected) + inputs * projected)
    return total.astype(jnp.float32)
