"""The sum of a cell's edges and its gradient, against JAX's own gradient of the operations written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import jit_convolutions

from cenas_jax.nets.edges import KERNEL_SIZE, sum_of_edges
from cenas_jax.nets.operations import Statistics
from cenas_jax.spaces.nas_bench_201_cells import OPERATIONS

CHANNELS, CODES = 3, tuple(range(len(OPERATIONS)))


def draw(*shape: int, seed: int = 0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def inputs(edges: int, affine: bool = True):
    xs = [draw(5, 8, 8, CHANNELS, seed=edge) for edge in range(edges)]
    weights = [
        {
            code: (
                draw(size, size, CHANNELS, CHANNELS, seed=10 * edge + code),
                (draw(CHANNELS, seed=3), draw(CHANNELS, seed=4)) if affine else (),
            )
            for code, size in KERNEL_SIZE.items()
        }
        for edge in range(edges)
    ]
    running = [{code: Statistics(draw(CHANNELS, seed=5), draw(CHANNELS, seed=6) ** 2) for code in KERNEL_SIZE}] * edges
    return xs, weights, running


def written_out(code: int, x, weights, running, mode):
    name = OPERATIONS[code]
    if name == "none":
        return 0 * x
    if name == "skip_connect":
        return x
    if name == "avg_pool_3x3":
        window = (1, 3, 3, 1), (1, 1, 1, 1), "SAME"
        return jax.lax.reduce_window(x, 0.0, jax.lax.add, *window) / jax.lax.reduce_window(
            jnp.ones_like(x), 0.0, jax.lax.add, *window
        )
    kernel, affine = weights[code]
    z = jax.lax.conv_general_dilated(jax.nn.relu(x), kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    mean, variance = running[code] if mode == "running" else (z.mean(axis=(0, 1, 2)), z.var(axis=(0, 1, 2)))
    scale, shift = affine or (jnp.ones(CHANNELS), jnp.zeros(CHANNELS))
    channels = (None, None, None, slice(None))
    return scale[channels] * (z - mean[channels]) / jnp.sqrt(variance[channels] + 1e-5) + shift[channels]


@pytest.mark.parametrize("mode", ["train", "batch", "running"])
@pytest.mark.parametrize("affine", [True, False], ids=["affine", "bare"])
def test_sum_and_gradient_are_those_of_the_operations_written_out(mode, affine):
    xs, weights, running = inputs(3, affine)
    direction = draw(5, 8, 8, CHANNELS, seed=9)

    @jit_convolutions
    def ours(codes, xs, weights):
        def loss(xs, weights):
            total, _ = sum_of_edges(codes, xs, weights, running, (CODES,) * 3, mode)
            return (total * direction).sum(), total

        return jax.grad(loss, argnums=(0, 1), has_aux=True)(xs, weights)

    def theirs(codes, xs, weights):
        def loss(xs, weights):
            total = sum(written_out(*edge, mode) for edge in zip(codes, xs, weights, running, strict=True))
            return (total * direction).sum(), total

        return jax.grad(loss, argnums=(0, 1), has_aux=True)(xs, weights)

    for codes in [(0, 1, 2), (3, 4, 3), (2, 3, 0), (0, 0, 0)]:
        found, expected = ours(jnp.asarray(codes), xs, weights), theirs(codes, xs, weights)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-4), found, expected)
    assert ours._cache_size() == 1


def test_an_edge_of_one_choice_needs_no_other_weights_and_is_the_chosen_one():
    xs, weights, running = inputs(2)
    codes = (3, 2)
    own = [{code: edge[code]} for code, edge in zip(codes, weights, strict=True)]
    own_running = [{code: edge[code]} for code, edge in zip(codes, running, strict=True)]
    alone, statistics = sum_of_edges(jnp.zeros(2, int), xs, own, own_running, tuple((c,) for c in codes), "batch")
    among, same = sum_of_edges(jnp.asarray(codes), xs, weights, running, (CODES,) * 2, "batch")
    np.testing.assert_allclose(alone, among, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), statistics, same)


def test_bfloat16_is_summed_and_differentiated_as_such():
    xs, weights, running = inputs(2)
    low = [x.astype(jnp.bfloat16) for x in xs]

    def loss(xs, weights):
        total, _ = sum_of_edges(jnp.asarray([3, 2]), xs, weights, running, (CODES,) * 2, "train")
        return total.astype(jnp.float32).var(axis=0).sum(), total.dtype

    (by_x, by_weights), dtype = jax.grad(loss, argnums=(0, 1), has_aux=True)(low, weights)
    (exact, _), _ = jax.grad(loss, argnums=(0, 1), has_aux=True)(xs, weights)
    assert dtype == jnp.bfloat16
    assert by_x[0].dtype == jnp.bfloat16
    assert by_weights[0][3][0].dtype == jnp.float32
    assert np.corrcoef(np.float32(by_x[0]).ravel(), exact[0].ravel())[0, 1] > 0.99
