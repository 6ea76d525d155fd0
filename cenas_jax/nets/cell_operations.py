"""The operations of cells, as parts that are each followed by a normalisation. Counts are in `spaces/cell_costs.py`.

Where `leading` is given, so many leading channels are in use, and the others are zero.
"""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from cenas_jax.nets.operations import average_pool_3x3, convolution, depthwise_convolution, max_pool
from cenas_jax.spaces.cell_costs import BY_COMPUTE


class Part(NamedTuple):
    """A part of an operation: what it computes before its normalisation, from `kernels` of these shapes."""

    compute: Callable
    """`(x, kernels, stride) -> y`."""
    kernels: tuple[tuple[int, ...], ...]
    affine: bool = True


def plain(size: int, inputs: int, features: int, active: bool = True) -> Part:
    """A convolution, of rectified inputs where `active`."""

    def compute(x, kernels, stride):
        return convolution(nn.relu(x) if active else x, kernels[0], stride)

    return Part(compute, ((size, size, inputs, features),))


def whole(size: int, inputs: int, features: int) -> Part:
    """A convolution as large as the image, without padding."""

    def compute(x, kernels, stride):
        return jnp.einsum("nijc,ijcf->nf", nn.relu(x), kernels[0])[:, None, None, :]

    return Part(compute, ((size, size, inputs, features),))


def _crossed(size: int, channels: int, leading) -> Part:
    """A convolution along rows, then one along columns."""

    def compute(x, kernels, stride):
        along_rows, along_columns = kernels
        if leading is not None:  # no normalisation between them leaves out the other channels
            along_rows = jnp.where(in_use(channels, leading)[None, None, None, :], along_rows, 0)
        return convolution(convolution(nn.relu(x), along_rows, (1, stride)), along_columns, (stride, 1))

    return Part(compute, ((1, size, channels, channels), (size, 1, channels, channels)))


def _depthwise(size: int, channels: int, dilation: int = 1) -> Part:
    def compute(x, kernels, stride):
        return convolution(depthwise_convolution(nn.relu(x), kernels[0], stride, dilation), kernels[1])

    return Part(compute, ((size, size, 1, channels), (1, 1, channels, channels)))


def halving(inputs: int, features: int, leading=None) -> Part:
    """DARTS' factorised reduction: half of the channels from the even pixels, half from the odd ones."""

    def compute(x, kernels, stride):
        x = nn.relu(x)
        even, odd = convolution(x[:, ::2, ::2], kernels[0]), convolution(x[:, 1::2, 1::2], kernels[1])
        if leading is None:
            return jnp.concatenate((even, odd), axis=-1)
        # Each half's leading channels: those in use are the leading ones of both together.
        return jax.lax.dynamic_update_slice_in_dim(jnp.concatenate((even, odd), axis=-1), odd, leading // 2, axis=3)

    return Part(compute, ((1, 1, inputs, features // 2),) * 2)


def operation_parts(name: str, channels: int, stride: int, pool_norm: bool, leading=None) -> list[Part] | Callable:
    """Of an operation of `spaces/cell_costs.py`; `(x) -> y` where it has no weights and no normalisation."""
    kind, _, text = name.rpartition("_")
    size = int(text[0]) if text[0].isdigit() else 0
    match kind:
        case "skip":
            return [halving(channels, channels, leading)] if stride == 2 else lambda x: x
        case "sep_conv":
            return [_depthwise(size, channels)] * 2
        case "dil_conv":
            return [_depthwise(size, channels, 2)]
        case "conv":
            return [plain(size, channels, channels)]
        case "conv_1x3" | "conv_1x7":
            return [_crossed(int(kind[-1]), channels, leading)]
        case "max_pool":

            def pool(x):
                return max_pool(x, size, stride)

        case "avg_pool" if size == 3:

            def pool(x):
                return average_pool_3x3(x, stride)

        case _:
            raise ValueError(f"operation {name!r} is none of {', '.join(BY_COMPUTE)}")
    return [Part(lambda x, *_: pool(x), (), False)] if pool_norm else pool


def is_identity(operation: str, stride: int) -> bool:
    return operation == "skip_connect" and stride == 1


def in_use(channels: int, leading: Int[Array, ""] | None) -> Bool[Array, " c"]:
    return jnp.arange(channels) < (channels if leading is None else leading)
