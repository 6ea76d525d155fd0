"""The sum of a cell's edges, each of which computes one of NAS-Bench-201's operations: which one may be data.

XLA's conditional has one set of outputs for all its branches, and differentiating one makes all that any branch saves
an output of every branch: zeros and copies of images and weights. So the gradient is written by hand, and keeps an
edge's values before they are normalised, and nothing else. The sum goes through the branches, each of which adds to it,
so that no operation's output is written only to be read once.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from cenas_jax.nets.conv_norm import unused_statistics
from cenas_jax.nets.operations import (
    EPSILON,
    Mode,
    Statistics,
    as_rows,
    average_pool_3x3,
    channel_sums,
    chosen_statistics,
    convolution,
    in_rows,
    normalise,
)
from cenas_jax.spaces.nas_bench_201_cells import OPERATIONS

KERNEL_SIZE = {OPERATIONS.index("nor_conv_1x1"): 1, OPERATIONS.index("nor_conv_3x3"): 3}
"""Of the operations that have weights, by their codes."""
_PLAIN: dict[int, Callable[[Array], Array]] = {
    OPERATIONS.index("none"): jnp.zeros_like,
    OPERATIONS.index("skip_connect"): lambda x: x,
    OPERATIONS.index("avg_pool_3x3"): average_pool_3x3,
}


def sum_of_edges(
    codes: Int[Array, " e"],
    xs: Sequence[Float[Array, "n h w c"]],
    weights: Sequence[dict[int, Any]],
    running: Sequence[dict[int, Statistics]],
    choices: tuple[tuple[int, ...], ...],
    mode: Mode,
) -> tuple[Float[Array, "n h w c"], tuple[Statistics, ...]]:
    """The sum of the edges' operations on `xs`, one of them an edge, and the statistics that normalised each (mean 0
    and variance 1 where none did). No gradient goes through these, nor by the `running` ones.

    `choices` are the codes that an edge may have: all five in increasing order, or the only one, whose code is not
    read. `weights`, a kernel and `(scale, shift)` or `()`, and `running` are those of the choices that have any, by
    their codes.
    """
    # Where no edge has a choice there is no conditional, and JAX's own gradient is the faster one.
    fixed = all(len(of) == 1 for of in choices)
    arguments = choices, mode, codes, tuple(xs), tuple(weights), jax.lax.stop_gradient(tuple(running))
    found: Any = _summed(*arguments) if fixed else _sum(*arguments)
    return found[0], jax.lax.stop_gradient(found[1])


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _sum(choices, mode, codes, xs, weights, running):
    total, statistics, _ = _summed(choices, mode, codes, xs, weights, running)
    return total, statistics


def _summed(choices, mode, codes, xs, weights, running):
    total, every, zs = None, [], []
    for of, code, *inputs in zip(choices, codes, xs, weights, running, strict=True):
        branches = [functools.partial(_added, mode, choice) for choice in of]
        total, statistics, z = _chosen(code, branches, total, *inputs)
        every.append(statistics)
        zs.append(z)
    return total, tuple(every), tuple(zs)


def _forward(choices, mode, codes, xs, weights, running):
    total, statistics, zs = _summed(choices, mode, codes, xs, weights, running)
    return (total, statistics), (codes, xs, weights, zs, statistics)


def _backward(choices, mode, saved, cotangents):
    codes, *inputs = saved
    by_x, by_weights = [], []
    for of, code, *of_edge in zip(choices, codes, *inputs, strict=True):
        branches = [functools.partial(_edge_back, mode, choice) for choice in of]
        back = _chosen(code, branches, cotangents[0], *of_edge)
        by_x.append(back[0])
        by_weights.append(back[1])
    return None, tuple(by_x), tuple(by_weights), None


_sum.defvjp(_forward, _backward)


def _chosen(code, branches, *inputs) -> Any:
    return branches[0](*inputs) if len(branches) == 1 else jax.lax.switch(code, branches, *inputs)


def _linear(x, kernel):
    return convolution(jax.nn.relu(x), kernel.astype(x.dtype))


def _added(mode: Mode, choice: int, total, x, weights, running):
    """`total` (None: nothing) and the edge's values, what normalised them, and the values before that."""
    if choice in _PLAIN:
        y, z, statistics = _PLAIN[choice](x), jnp.zeros_like(x), unused_statistics(x.shape[-1])
    else:
        kernel, affine = weights[choice]
        z = _linear(x, kernel)
        statistics = chosen_statistics(mode, running[choice], z)
        y = normalise(z, statistics, *affine)
    return y if total is None else total + y, statistics, z


def _edge_back(mode: Mode, choice: int, cotangent, x, weights, z, statistics):
    """By `x`, and by the weights of all choices."""
    nothing = jax.tree.map(jnp.zeros_like, weights)
    if choice in _PLAIN:
        return jax.vjp(_PLAIN[choice], x)[1](cotangent)[0], nothing
    kernel, affine = weights[choice]
    columns = z.shape[2]
    # Of y = scale * u + shift, u = (z - mean) / deviation: both move with z where they are the batch's own.
    inverse = jax.lax.rsqrt(statistics.variance + EPSILON)
    g, u = (as_rows(values.astype(jnp.float32)) for values in (cotangent, z))
    u = (u - in_rows(statistics.mean, columns)) * in_rows(inverse, columns)
    by_shift, by_scale = channel_sums(g, columns), channel_sums(g * u, columns)
    if mode != "running":
        pixels = z.size // z.shape[-1]
        g = g - in_rows(by_shift / pixels, columns) - u * in_rows(by_scale / pixels, columns)
    g = g * in_rows(inverse * (affine[0] if affine else 1.0), columns)
    by_x, by_kernel = jax.vjp(_linear, x, kernel)[1](g.reshape(z.shape).astype(z.dtype))
    return by_x, nothing | {choice: (by_kernel, (by_scale, by_shift)[: len(affine)])}
