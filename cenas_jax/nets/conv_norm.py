"""A convolution and its normalisation: the weights as a Flax module, the computation as a function.

The weights are handed out, so that a branch can compute with them: Flax's modules cannot be called in one.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from cenas_jax.nets.base import Network
from cenas_jax.nets.operations import Mode, Statistics, chosen_statistics, convolution, normalise, updated

he_normal = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
depthwise_he_normal = nn.initializers.variance_scaling(2.0, "fan_in", "normal")
"""Of kernels each of whose channels reads one."""


def unused_statistics(features: int | tuple[int, ...]) -> Statistics:
    """Mean 0, variance 1: before the first batch, and where a branch normalises nothing."""
    return Statistics(jnp.zeros(features, jnp.float32), jnp.ones(features, jnp.float32))


class ConvNorm(nn.Module):
    """Weights and running statistics; without a kernel where `shape` is None."""

    shape: tuple[int, int, int, int] | None
    features: int
    affine: bool = True
    depthwise: bool = False

    def setup(self):
        if self.shape is not None:
            draw = depthwise_he_normal if self.depthwise else he_normal
            self.kernel = self.param("kernel", draw, self.shape, jnp.float32)
        if self.affine:
            self.scale = self.param("scale", nn.initializers.ones, (self.features,), jnp.float32)
            self.shift = self.param("shift", nn.initializers.zeros, (self.features,), jnp.float32)
        self.running = self.variable("statistics", "running", lambda: unused_statistics(self.features))

    def arrays(self):
        affine = (self.scale, self.shift) if self.affine else ()
        return None if self.shape is None else self.kernel, affine, self.running.value

    def keep(self, batch: Statistics, count, momentum, used=True):
        self.running.value = updated(self.running.value, batch, count, momentum, used)


def conv_norm(x, arrays, mode: Mode, stride: int = 1, *, channels=None, side=None):
    """Convolution and normalisation; the statistics that normalised.

    Where `channels` is an array, only so many leading ones are there; where `side` is, only a square of so many pixels
    in the top left corner: zeros are beyond them, which count in no statistics.
    """
    kernel, affine, running = arrays
    y = x if kernel is None else convolution(x, kernel.astype(x.dtype), stride)
    inside = _corner(y, side) if isinstance(side, jax.Array) else None
    statistics = chosen_statistics(mode, running, y, inside)
    y = leading(normalise(y, statistics, *affine), channels)
    return y if inside is None else jnp.where(inside, y, 0), statistics


def leading(y, channels):
    """The leading channels; the others are cut off, or zero where the number is an array."""
    if isinstance(channels, jax.Array):
        there = jnp.arange(y.shape[-1]) < channels
        return jnp.where(there.reshape((1,) * (y.ndim - 1) + there.shape), y, 0)
    return y[..., :channels]


def _corner(y, side) -> Bool[Array, "1 h w 1"]:
    rows, columns = (jnp.arange(size) < side for size in y.shape[1:3])
    return rows[None, :, None, None] & columns[None, None, :, None]


def inherited(candidate: Network, variables, size: int):
    """A candidate's variables out of those of a supernet whose modules have the same names and more of everything.

    It gets the leading channels and blocks, and the centres of kernels. `size`: of images that the candidate takes.
    """
    channels = variables["params"]["stem"]["kernel"].shape[-2]
    images = jax.ShapeDtypeStruct((1, size, size, channels), jnp.float32)
    shapes = jax.eval_shape(candidate.init, jax.random.key(0), images)
    found = dict(jax.tree.leaves_with_path(variables))

    def own(path, shape):
        whole = found[path]
        kernel = range(whole.ndim - 4, whole.ndim - 2) if path[-1] == jax.tree_util.DictKey("kernel") else ()
        starts = [
            (all_of - some) // 2 if axis in kernel else 0
            for axis, (all_of, some) in enumerate(zip(whole.shape, shape.shape, strict=True))
        ]
        return whole[tuple(slice(start, start + some) for start, some in zip(starts, shape.shape, strict=True))]

    return jax.tree.map_with_path(own, shapes)
