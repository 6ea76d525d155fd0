"""The operations' gradients and borders, against XLA's own convolution and by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cenas_jax.nets.operations import (
    Statistics,
    average_pool_2x2,
    average_pool_3x3,
    batch_statistics,
    chosen_statistics,
    convolution,
    depthwise_convolution,
    max_pool,
    normalise,
    updated,
)


def draw(*shape: int, seed: int = 0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


LAYOUT = ("NHWC", "HWIO", "NHWC")


def plain(x, kernel, stride, dilation=1):
    """By XLA; depthwise where the kernel reads one channel."""
    margin = [(dilation * (length // 2),) * 2 for length in kernel.shape[:2]]
    groups, dilated = x.shape[-1] // kernel.shape[2], (dilation, dilation)
    strides = stride if isinstance(stride, tuple) else (stride, stride)
    return jax.lax.conv_general_dilated(
        x, kernel, strides, margin, None, dilated, dimension_numbers=LAYOUT, feature_group_count=groups
    )


@pytest.mark.parametrize("size", [7, 8])
@pytest.mark.parametrize(("kernel_size", "stride", "dilation"), [(3, 1, 1), (3, 2, 1), (5, 2, 2), (7, 2, 1)])
def test_depthwise_convolutions_and_gradients_are_those_of_xla(size, kernel_size, stride, dilation):
    x, kernel = draw(3, size, size, 4), draw(kernel_size, kernel_size, 1, 4, seed=1)
    check_gradients(
        lambda x, kernel: depthwise_convolution(x, kernel, stride, dilation),
        lambda x, kernel: plain(x, kernel, stride, dilation),
        x,
        kernel,
    )


@pytest.mark.parametrize("size", [7, 8])
@pytest.mark.parametrize(
    ("kernel_size", "stride"), [((1, 1), 1), ((3, 3), 1), ((3, 3), 2), ((5, 5), 2), ((1, 7), (1, 2)), ((3, 1), (2, 1))]
)
@pytest.mark.parametrize("channels", [4, 20], ids=["narrow", "wide"])
def test_gradients_are_those_of_xla_inside_and_outside_of_a_loop(size, kernel_size, stride, channels):
    x, kernel = draw(3, size, size, channels), draw(*kernel_size, channels, 5, seed=1)
    check_gradients(
        lambda x, kernel: convolution(x, kernel, stride), lambda x, kernel: plain(x, kernel, stride), x, kernel
    )


@pytest.mark.parametrize(("size", "count"), [(1, 3), (2, 3), (3, 30), (4, 70)])
@pytest.mark.parametrize(("kernel_size", "stride"), [((3, 3), 1), ((3, 3), 2), ((5, 3), 1)])
def test_gradients_of_whole_small_images_are_those_of_xla(size, count, kernel_size, stride):
    x, kernel = draw(count, size, size, 3), draw(*kernel_size, 3, 5, seed=1)
    check_gradients(
        lambda x, kernel: convolution(x, kernel, stride), lambda x, kernel: plain(x, kernel, stride), x, kernel
    )


def check_gradients(own, xla, x, kernel):
    def gradients(function):
        return jax.value_and_grad(lambda x, kernel: jnp.sum(jnp.sin(function(x, kernel))), argnums=(0, 1))

    @jax.jit
    def found(x, kernel):
        _, looped = jax.lax.scan(lambda carry, _: (carry, gradients(own)(x, kernel)), 0, length=2)
        return gradients(own)(x, kernel), jax.tree.map(lambda leaf: leaf[1], looped)

    expected = jax.jit(gradients(xla))(x, kernel)
    for result in found(x, kernel):
        for one, other in zip(jax.tree.leaves(result), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def test_average_pooling_does_not_count_what_lies_beyond_the_border():
    x = jnp.arange(9.0).reshape(1, 3, 3, 1)
    pooled = average_pool_3x3(x)[0, :, :, 0]
    np.testing.assert_allclose(pooled[0, 0], (0 + 1 + 3 + 4) / 4)
    np.testing.assert_allclose(pooled[1, 1], 4)
    np.testing.assert_allclose(pooled[2, 1], (3 + 4 + 5 + 6 + 7 + 8) / 6)
    np.testing.assert_allclose(average_pool_2x2(x)[0, :, :, 0], [[2.0]])


def test_normalised_values_have_mean_0_and_variance_1():
    x = 3 + 2 * draw(4, 5, 5, 3)
    y = normalise(x, batch_statistics(x))
    np.testing.assert_allclose(y.mean(axis=(0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(y.var(axis=(0, 1, 2)), 1, atol=1e-4)


def test_running_statistics_are_the_mean_of_batches_with_momentum_one_over_k():
    batches, running = [draw(4, 3, 3, 2, seed=seed) + seed for seed in range(3)], None
    running = Statistics(jnp.zeros(2), jnp.ones(2))
    for k, batch in enumerate(batches, 1):
        running = updated(running, batch_statistics(batch), 36, jnp.float32(1 / k))
    np.testing.assert_allclose(running.mean, np.mean([b.mean(axis=(0, 1, 2)) for b in batches], axis=0), rtol=1e-5)
    variance = [np.var(b, axis=(0, 1, 2), ddof=1) for b in batches]
    np.testing.assert_allclose(running.variance, np.mean(variance, axis=0), rtol=1e-4)
    unchanged = updated(running, batch_statistics(batches[0]), 36, jnp.float32(0.1), jnp.array(False))
    np.testing.assert_array_equal(unchanged.mean, running.mean)


@pytest.mark.parametrize("stride", [1, 2])
def test_pools_and_depthwise_convolutions_by_hand(stride):
    x = draw(2, 6, 6, 3) - 5  # negative: a maximum must not see zeros beyond the border
    padded = np.pad(np.asarray(x), ((0, 0), (2, 2), (2, 2), (0, 0)), constant_values=np.nan)
    kernel = draw(3, 3, 1, 3, seed=1)
    found = average_pool_3x3(x, stride), max_pool(x, 3, stride), depthwise_convolution(x, kernel, stride, 2)
    found = *found, max_pool(x, 5, stride)
    for image, row, column in [(0, 0, 0), (1, 2, 1), (0, 6 // stride - 1, 1)]:
        i, j = row * stride, column * stride
        wide = padded[image, i : i + 5, j : j + 5]
        near = padded[image, i + 1 : i + 4, j + 1 : j + 4]
        np.testing.assert_allclose(found[0][image, row, column], np.nanmean(near, axis=(0, 1)), rtol=1e-5)
        np.testing.assert_array_equal(found[1][image, row, column], np.nanmax(near, axis=(0, 1)))
        np.testing.assert_array_equal(found[3][image, row, column], np.nanmax(wide, axis=(0, 1)))
        spread = np.nan_to_num(padded[image, i : i + 5 : 2, j : j + 5 : 2])
        expected = (spread * np.asarray(kernel)[:, :, 0]).sum(axis=(0, 1))
        np.testing.assert_allclose(found[2][image, row, column], expected, rtol=1e-4, atol=1e-5)


def test_what_was_not_used_leaves_running_statistics_as_they_were():
    running, batch = (
        Statistics(jnp.ones(2), jnp.ones(2)),
        Statistics(jnp.array([3.0, jnp.inf]), jnp.array([5.0, jnp.nan])),
    )
    found = updated(running, batch, 5, 0.1, jnp.array([True, False]))
    np.testing.assert_allclose(found.mean, [1.2, 1.0], rtol=1e-6)
    np.testing.assert_allclose(found.variance, [1 + 0.1 * (5 * 5 / 4 - 1), 1.0], rtol=1e-6)


def test_bfloat16_is_normalised_in_float32():
    """Scale and offset rounded by themselves would miss by up to 0.3 where the mean is 30 deviations away."""
    x = (30 + draw(64, 4, 4, 3)).astype(jnp.bfloat16)
    exact = x.astype(jnp.float32)
    found = normalise(x, batch_statistics(x))
    assert found.dtype == jnp.bfloat16
    expected = normalise(exact, batch_statistics(exact))
    np.testing.assert_allclose(found.astype(jnp.float32), expected, atol=0.02)


def test_modes_that_do_not_exist_are_refused():
    with pytest.raises(ValueError, match="mode 'eval' is none of train, batch, running"):
        chosen_statistics("eval", Statistics(jnp.zeros(3), jnp.ones(3)), draw(2, 4, 4, 3))
