"""Operations on images `[n, height, width, channels]`, as the candidate networks of the search spaces use them.

XLA on a CPU runs the gradients of a convolution inside a loop or a branch many times slower than outside of it, and
training is a loop (a chunk of steps) over branches (an edge's operation). So they are written by hand there: as a
convolution with the reversed kernel, and as a product of matrices for every place of the kernel. On narrow images with
few channels, where its convolution itself is slow, all is one product, of rows of pixels with a banded matrix. A
convolution of each channel by itself is a sum of moved images, forwards too. Other devices keep XLA's own.
"""

import functools
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

Mode = Literal["train", "batch", "running"]
"""What a batch normalisation normalises by: the batch, and keep a running average (`train`); the batch, and keep
nothing (`batch`); the running average (`running`)."""

EPSILON = 1e-5
_LAYOUT = ("NHWC", "HWIO", "NHWC")
NARROW = 128
"""Values in a row of pixels up to which a banded matrix pays: a third of the row's pixels times the products, but large
ones. It always does for two pixels."""


def convolution(
    x: Float[Array, "n h w c"], kernel: Float[Array, "i j c f"], stride: int | tuple[int, int] = 1
) -> Float[Array, "n hs ws f"]:
    """A convolution without bias, with an odd kernel, padded by zeros so that stride 1 keeps the size.

    `stride`: of both axes, or of rows and of columns. `ValueError` where a side of the kernel is even."""
    if not all(length % 2 for length in kernel.shape[:2]):
        raise ValueError(f"convolution: a kernel of {kernel.shape[0]} x {kernel.shape[1]}: its sides must be odd")
    return _convolution(x, kernel, stride if isinstance(stride, tuple) else (stride, stride))


def depthwise_convolution(
    x: Float[Array, "n h w c"], kernel: Float[Array, "k k 1 c"], stride: int = 1, dilation: int = 1
) -> Float[Array, "n hs ws c"]:
    """Convolves each channel with a kernel of its own, padded as `convolution` is."""
    return _depthwise(x, kernel, stride, dilation)


def _margins(kernel: Array) -> tuple[int, int]:
    return (kernel.shape[0] - 1) // 2, (kernel.shape[1] - 1) // 2


def _plain(x: Array, kernel: Array, stride: tuple[int, int]) -> Array:
    padding = [(margin, margin) for margin in _margins(kernel)]
    return jax.lax.conv_general_dilated(x, kernel, stride, padding, dimension_numbers=_LAYOUT)


def _banded(x: Array, kernel: Array, stride: tuple[int, int]) -> Array:
    """Rows of pixels, those under the kernel side by side, times a matrix that has the kernel for every column; whole
    images times one that has it for every place; or pixels times the kernel where it is a single place."""
    count, height, width, _ = x.shape
    if kernel.shape[:2] == (1, 1):
        seen = x[:, :: stride[0], :: stride[1]]
        return _product(_rows(seen), kernel[0, 0]).reshape(*seen.shape[:3], -1)
    size, features, (above, _) = kernel.shape[:2], kernel.shape[3], _margins(kernel)
    rows, columns = (1 + (full - 1) // step for full, step in zip((height, width), stride, strict=True))
    # Whole images have nothing to be copied, and of two rows it is fewer products too. Of four it is a third more, and
    # the matrix is larger, so that it takes many images to be worth its making.
    if height <= 2 or (height <= 4 and count >= x[0].size):
        places = [part for row in _seen_by(kernel, height, stride[0], 0) for part in _seen_by(row, width, stride[1], 1)]
        matrix = jnp.stack(places, axis=3).reshape(x[0].size, -1)
        return _product(x.reshape(count, -1), matrix).reshape(count, rows, columns, features)
    matrix = jnp.stack(_seen_by(kernel, width, stride[1], 1), axis=3).reshape(-1, columns * features)
    padded = jnp.pad(x.reshape(count, height, -1), ((0, 0), (above, above), (0, 0)))
    seen = [padded[:, i : i + (rows - 1) * stride[0] + 1 : stride[0]] for i in range(size[0])]
    seen = jnp.concatenate(seen, axis=-1).reshape(count * rows, -1)
    return _product(seen, matrix).reshape(count, rows, columns, features)


def _seen_by(kernel: Array, full: int, stride: int, axis: int) -> list[Array]:
    """For every place of the kernel along an image's `full` pixels: the kernel's value at each of them, 0 beyond it."""
    margin = (kernel.shape[axis] - 1) // 2
    padded = jnp.pad(kernel, [(full, full) if each == axis else (0, 0) for each in range(kernel.ndim)])
    starts = range(full + margin, margin, -stride)
    return [jax.lax.slice_in_dim(padded, start, start + full, axis=axis) for start in starts]


@jax.custom_vjp
def _product(rows: Float[Array, "n i"], matrix: Float[Array, "i o"]) -> Float[Array, "n o"]:
    return rows @ matrix


def _transposed_product(rows: Float[Array, "n i"], others: Float[Array, "n o"]) -> Float[Array, "i o"]:
    """`rows.T @ others`, with the transposed rows laid out first: XLA on a CPU takes up to four times as long where it
    folds the transposition into the product."""
    return jax.lax.optimization_barrier(rows.T) @ others


_product.defvjp(
    lambda rows, matrix: (rows @ matrix, (rows, matrix)),
    lambda saved, cotangent: (cotangent @ saved[1].T, _transposed_product(saved[0], cotangent)),
)


def _is_narrow(x: Array) -> bool:
    return x.shape[2] <= 2 or x.shape[2] * x.shape[3] <= NARROW


def _forward(x, kernel, stride):
    def by_hand(x, kernel):
        return (_banded if _is_narrow(x) else _plain)(x, kernel, stride)

    return jax.lax.platform_dependent(x, kernel, cpu=by_hand, default=lambda x, kernel: _plain(x, kernel, stride))


_convolution = jax.custom_vjp(_forward, nondiff_argnums=(2,))


def _backward(stride, saved, cotangent):
    def by_xla(x, kernel, cotangent):
        return jax.vjp(lambda x, kernel: _plain(x, kernel, stride), x, kernel)[1](cotangent)

    def by_hand(x, kernel, cotangent):
        if _is_narrow(x):
            return jax.vjp(lambda x, kernel: _banded(x, kernel, stride), x, kernel)[1](cotangent)
        # The input's: a convolution of the cotangent, its strides filled up by zeros, with the reversed kernel.
        filled = [(0, 0, step - 1) for step in stride]
        spread = jax.lax.pad(cotangent, jnp.zeros((), x.dtype), ((0, 0, 0), *filled, (0, 0, 0)))
        axes = zip(kernel.shape[:2], _margins(kernel), x.shape[1:3], spread.shape[1:3], strict=True)
        padding = [(size - 1 - margin, full - short + margin) for size, margin, full, short in axes]
        reverse = kernel[::-1, ::-1].swapaxes(2, 3)
        by_x = jax.lax.conv_general_dilated(spread, reverse, (1, 1), padding, dimension_numbers=_LAYOUT)
        # The kernel's: a product for every place of it, as to copy all of the moved images side by side takes longer.
        moved = jnp.stack([_rows(image).T @ _rows(cotangent) for image in _windows(x, kernel.shape[:2], stride)])
        return by_x, moved.reshape(kernel.shape)

    return jax.lax.platform_dependent(*saved, cotangent, cpu=by_hand, default=by_xla)


_convolution.defvjp(lambda x, kernel, stride: (_forward(x, kernel, stride), (x, kernel)), _backward)


def _plain_depthwise(x: Array, kernel: Array, stride: int, dilation: int) -> Array:
    margin = dilation * (kernel.shape[0] - 1) // 2
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        [(margin, margin)] * 2,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=_LAYOUT,
        feature_group_count=x.shape[-1],
    )


def _moved_depthwise(x: Array, kernel: Array, stride: int, dilation: int) -> Array:
    """The moved images, each times its place of the kernel: a single loop over the pixels."""
    places = kernel.reshape(-1, x.shape[-1])
    windows = _windows(x, (kernel.shape[0], kernel.shape[1]), (stride, stride), dilation=dilation)
    return functools.reduce(jnp.add, [w * place[None, None, None, :] for w, place in zip(windows, places, strict=True)])


def _forward_depthwise(x, kernel, stride, dilation):
    how = {"stride": stride, "dilation": dilation}
    by_hand, by_xla = (functools.partial(form, **how) for form in (_moved_depthwise, _plain_depthwise))
    return jax.lax.platform_dependent(x, kernel, cpu=by_hand, default=by_xla)


_depthwise = jax.custom_vjp(_forward_depthwise, nondiff_argnums=(2, 3))


def _backward_depthwise(stride, dilation, saved, cotangent):
    def by_xla(x, kernel, cotangent):
        return jax.vjp(lambda x, kernel: _plain_depthwise(x, kernel, stride, dilation), x, kernel)[1](cotangent)

    def by_hand(x, kernel, cotangent):
        # The cotangent, its strides filled up by zeros to the input's size, with the reversed kernel.
        rest = [
            (0, full - 1 - (short - 1) * stride, stride - 1)
            for full, short in zip(x.shape, cotangent.shape, strict=True)
        ]
        spread = jax.lax.pad(cotangent, jnp.zeros((), x.dtype), ((0, 0, 0), *rest[1:3], (0, 0, 0)))
        by_x = _moved_depthwise(spread, kernel[::-1, ::-1], 1, dilation)
        windows = _windows(x, (kernel.shape[0], kernel.shape[1]), (stride, stride), dilation=dilation)
        return by_x, jnp.stack([(w * cotangent).sum(axis=(0, 1, 2)) for w in windows]).reshape(kernel.shape)

    return jax.lax.platform_dependent(*saved, cotangent, cpu=by_hand, default=by_xla)


_depthwise.defvjp(
    lambda x, kernel, stride, dilation: (_forward_depthwise(x, kernel, stride, dilation), (x, kernel)),
    _backward_depthwise,
)


def _rows(x: Float[Array, "n h w c"]) -> Float[Array, "nhw c"]:
    return x.reshape(-1, x.shape[-1])


def _windows(
    x, size: tuple[int, int], stride: tuple[int, int], beyond: float = 0.0, dilation: int = 1
) -> list[Float[Array, "n hs ws c"]]:
    """The image moved to every place of the kernel, row by row; `beyond` its border as given."""
    margins = [(dilation * (length - 1) // 2,) * 2 for length in size]
    height, width = (1 + (full - 1) // step for full, step in zip(x.shape[1:3], stride, strict=True))
    padded = jnp.pad(x, ((0, 0), *margins, (0, 0)), constant_values=beyond)
    down, right = (range(0, dilation * length, dilation) for length in size)
    rows = [padded[:, i : i + (height - 1) * stride[0] + 1 : stride[0]] for i in down]
    return [row[:, :, j : j + (width - 1) * stride[1] + 1 : stride[1]] for row in rows for j in right]


def average_pool_3x3(x: Float[Array, "n h w c"], stride: int = 1) -> Float[Array, "n hs ws c"]:
    """The mean of each pixel's neighbourhood; what lies beyond the border is not counted."""
    # Sums of moved images: XLA on a CPU does not vectorise a window reduction.
    window = (3, 3), (stride, stride)
    count = functools.reduce(jnp.add, _windows(jnp.ones((1, *x.shape[1:3], 1), x.dtype), *window))
    return functools.reduce(jnp.add, _windows(x, *window)) / count


def max_pool(x: Float[Array, "n h w c"], size: int = 3, stride: int = 1) -> Float[Array, "n hs ws c"]:
    """The highest of each pixel's neighbourhood of `size` x `size`, which is odd."""
    if size == 3:
        return functools.reduce(jnp.maximum, _windows(x, (3, 3), (stride, stride), -jnp.inf))
    # Of rows, then of columns: half as much or less to compare.
    rows = functools.reduce(jnp.maximum, _windows(x, (size, 1), (stride, 1), -jnp.inf))
    return functools.reduce(jnp.maximum, _windows(rows, (1, size), (1, stride), -jnp.inf))


def average_pool_2x2(x: Float[Array, "n h w c"]) -> Float[Array, "n hs ws c"]:
    """Halves the image: means of 2 x 2 pixels. An odd last row or column is dropped."""
    return _squares(x).mean(axis=(2, 4))


def max_pool_2x2(x: Float[Array, "n h w c"]) -> Float[Array, "n hs ws c"]:
    """Halves the image: the highest of 2 x 2 pixels. An odd last row or column is dropped."""
    return _squares(x).max(axis=(2, 4))


def _squares(x: Float[Array, "n h w c"]) -> Float[Array, "n hs 2 ws 2 c"]:
    n, height, width, channels = x.shape
    even = x[:, : height - height % 2, : width - width % 2]
    return even.reshape(n, height // 2, 2, width // 2, 2, channels)


def check_halved_twice(images: Float[Array, "n h w c"]) -> None:
    """`ValueError` where height or width is no multiple of 4."""
    _, height, width, _ = images.shape
    if height % 4 or width % 4:
        raise ValueError(f"images of {height} x {width}: give multiples of 4 (they are halved twice)")


class Statistics(NamedTuple):
    """Mean and variance of the channels of a batch normalisation's inputs."""

    mean: Float[Array, " c"]
    variance: Float[Array, " c"]


def as_rows(x: Float[Array, "n h w c"]) -> Float[Array, "nh wc"]:
    """A row of pixels a row: XLA on a CPU vectorises along the last axis alone, which is short where channels are
    few."""
    return x.reshape(-1, x.shape[2] * x.shape[3])


def in_rows(channels: Float[Array, " c"], columns: int) -> Float[Array, "1 wc"]:
    """To be broadcast over `as_rows`."""
    return jnp.tile(channels, columns)[None, :]


def channel_sums(rows: Float[Array, "nh wc"], columns: int) -> Float[Array, " c"]:
    """Of `as_rows`."""
    return rows.sum(axis=0).reshape(columns, -1).sum(axis=0)


def batch_statistics(x: Float[Array, "n h w c"], inside: Bool[Array, "1 h w 1"] | None = None) -> Statistics:
    """Over images and pixels (those `inside`), in float32; the variance divides by their number. First derivatives are
    exact; second ones are not."""
    x = x.astype(jnp.float32)
    pixels = x.size // x.shape[-1] if inside is None else x.shape[0] * inside.sum()
    columns = x.shape[2]

    def mean_of(rows):
        counted = rows if inside is None else as_rows(jnp.where(inside, rows.reshape(x.shape), 0))
        return channel_sums(counted, columns) / pixels

    rows = as_rows(x)
    mean = mean_of(rows)
    # The variance is least about the mean, so that no gradient goes through it there.
    about = rows - in_rows(jax.lax.stop_gradient(mean), columns)
    return Statistics(mean, mean_of(about**2))


def chosen_statistics(mode: str, running: Statistics, x: Float[Array, "n h w c"], inside=None) -> Statistics:
    """What normalises in this mode; `ValueError` where there is no such mode."""
    if mode not in get_args(Mode):
        raise ValueError(f"mode {mode!r} is none of {', '.join(get_args(Mode))}")
    return running if mode == "running" else batch_statistics(x, inside)


def normalise(x: Float[Array, "n h w c"], statistics: Statistics, scale=None, shift=None) -> Float[Array, "n h w c"]:
    """`scale * (x - mean) / sqrt(variance + 1e-5) + shift`, computed as one product and one sum, in float32."""
    factor = jax.lax.rsqrt(statistics.variance + EPSILON) * (1.0 if scale is None else scale)
    offset = (0.0 if shift is None else shift) - statistics.mean * factor
    return (x.astype(jnp.float32) * factor[None, None, None, :] + offset[None, None, None, :]).astype(x.dtype)


def updated(
    running: Statistics,
    batch: Statistics,
    count: Int[Array, ""] | int,
    momentum: Float[Array, ""] | float,
    used: Bool[Array, "*c"] | bool = True,
) -> Statistics:
    """The running statistics after a batch of `count` values a channel; as they were where it was not `used` (the
    batch, or a channel of it).

    `momentum` is the share of the new batch: 0.1 in training as PyTorch has it; 1/k for the k-th batch of a plain
    mean. The variance is the unbiased one.
    """
    unbiased = Statistics(batch.mean, batch.variance * (count / jnp.maximum(count - 1, 1)))
    # Chosen, not weighted by 0: what was not used need not be finite.
    return jax.tree.map(lambda old, new: jnp.where(used, old + momentum * (new - old), old), running, unbiased)
