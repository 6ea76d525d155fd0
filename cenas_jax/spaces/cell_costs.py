"""Exact parameters and multiply-adds of networks of normal and reduction cells, by operation. NumPy only.

The network is that of DARTS (Liu et al., ICLR 2019) for CIFAR: a 3x3 stem of three times the channels, cells that read
the outputs of the two before them, two of which (at one and two thirds) halve the image and double the channels,
global mean, linear layer. A cell first brings its inputs to its width by 1x1 convolutions (a factorised reduction
after a reduction cell); its output is the concatenation of all its nodes. Convolutions have no bias; each is followed
by a normalisation with scale and shift, but for the first half of depthwise-separable and of two-way ones.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int64

BY_COMPUTE = (
    "skip_connect",
    "max_pool_3x3",
    "avg_pool_3x3",
    "max_pool_5x5",
    "max_pool_7x7",
    "conv_1x1",
    "dil_conv_3x3",
    "dil_conv_5x5",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "sep_conv_7x7",
    "conv_1x3_3x1",
    "conv_3x3",
    "conv_1x7_7x1",
)
"""All operations, by compute at 32 channels (of pools, by window)."""


class NetworkCosts(NamedTuple):
    """Axis 0 holds parameters, then multiply-adds. A network costs `fixed`, and for every operation in its normal cell
    `normal` and in its reduction cell `reduction`: the sum over all cells of that kind."""

    fixed: Int64[np.ndarray, "2"]
    normal: Int64[np.ndarray, "2 operations"]
    reduction: Int64[np.ndarray, "2 2 operations"]
    """Axis 1: stride 1 (from a node of the cell), stride 2 (from one of its inputs)."""


def operation_cost(operation: str, channels: int, stride: int, pixels: int) -> tuple[int, int]:
    """Parameters and multiply-adds of an operation between as many channels, for `pixels` of its output."""
    kind, _, size = operation.rpartition("_")
    kernel, c = int(size[0]) if size[0].isdigit() else 0, channels
    before = 0  # weights of a convolution that strides along one axis, followed by that along the other
    match kind:
        case "max_pool" | "avg_pool":
            weights, norms = 0, 0
        case "skip":  # of stride 2, a factorised reduction: two 1x1 convolutions to half of the channels
            weights, norms = (c * c, 1) if stride == 2 else (0, 0)
        case "sep_conv":
            weights, norms = 2 * (kernel**2 * c + c * c), 2
        case "dil_conv":
            weights, norms = kernel**2 * c + c * c, 1
        case "conv":
            weights, norms = kernel**2 * c * c, 1
        case "conv_1x3" | "conv_1x7":
            weights, norms, before = kernel * c * c, 1, kernel * c * c
        case _:
            raise ValueError(f"operation {operation!r} is none of {', '.join(BY_COMPUTE)}")
    return weights + before + 2 * norms * c, (weights + stride * before) * pixels


def reduction_cells(cells: int) -> tuple[int, int]:
    """Which of the cells halve the image: those at one and two thirds."""
    return cells // 3, 2 * cells // 3


def network_costs(
    operations: tuple[str, ...], nodes: int, cells: int, channels: int, num_classes: int, image_size: int
) -> NetworkCosts:
    """`ValueError` for fewer than 3 cells, an odd number of channels, or an image that cannot be halved twice."""
    check_network(cells, channels, num_classes, image_size)
    width, pixels = channels, image_size**2
    before, last = 3 * channels, 3 * channels  # channels of the two outputs that a cell reads
    fixed = np.asarray([9 * 3 * last + 2 * last, 9 * 3 * last * pixels], np.int64)
    normal, reduction = np.zeros((2, len(operations)), np.int64), np.zeros((2, 2, len(operations)), np.int64)
    for cell in range(cells):
        reduces = cell in reduction_cells(cells)
        width *= 2 if reduces else 1
        fixed += [(before + last + 4) * width, (before + last) * width * pixels]
        pixels //= 4 if reduces else 1
        for place, operation in enumerate(operations):
            if reduces:
                for stride in (1, 2):
                    reduction[:, stride - 1, place] += operation_cost(operation, width, stride, pixels)
            else:
                normal[:, place] += operation_cost(operation, width, 1, pixels)
        before, last = last, nodes * width
    head = (last + 1) * num_classes
    return NetworkCosts(fixed + head, normal, reduction)


def check_network(cells: int, channels: int, num_classes: int, image_size: int) -> None:
    if cells < 3:
        raise ValueError(f"cells {cells}: give 3 or more (two of them halve the image)")
    if channels < 2 or channels % 2:
        raise ValueError(f"channels {channels}: give a positive even number (a factorised reduction halves them)")
    if num_classes < 1:
        raise ValueError(f"num_classes {num_classes}: give a positive integer")
    if image_size < 4 or image_size % 4:
        raise ValueError(f"image_size {image_size}: give a positive multiple of 4 (it is halved twice)")
