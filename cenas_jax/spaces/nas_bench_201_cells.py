"""NAS-Bench-201 on the host: canonical order, official strings, isomorphism classes, parameters, multiply-adds.

Sources: Dong & Yang, NAS-Bench-201 (ICLR 2020); Dong et al., NATS-Bench (TPAMI 2021), whose topology space it is.
NumPy only, so that tables can be checked without starting an accelerator.
"""

import functools
import itertools
import random
import re

import numpy as np
from jaxtyping import Int32, Int64, Integer

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
"""Names of the codes 0 .. 4."""
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
"""(source node, target node) of the six entries; node 0 is the cell's input, node 3 its output."""
COMPUTE_RANK = (0, 1, 3, 4, 2)
"""Rank of each code by compute: none, skip, average pooling, 1x1 and 3x3 convolution (what LaMOO's SVM sees)."""
SIZE = len(OPERATIONS) ** len(EDGES)

_NONE, _SKIP, _CONV_1X1, _CONV_3X3 = 0, 1, 2, 3
_ARCHITECTURE = re.compile(
    r"\+".join(r"\|" + "".join(rf"(\w+)~{source}\|" for source in range(node)) for node in (1, 2, 3))
)


@functools.cache
def canonical_order() -> Int32[np.ndarray, " size"]:
    """`order[index]`: position of an architecture in the lexicographic product of the codes over the six edges.

    NATS-Bench enumerates that product and shuffles it with seed 88; its shuffled index is the canonical one.
    """
    order = list(range(SIZE))
    random.Random(88).shuffle(order)
    return np.asarray(order, np.int32)


@functools.cache
def canonical_codes() -> Int32[np.ndarray, "size 6"]:
    """Codes of all 15,625 architectures in canonical order."""
    product = np.asarray(list(itertools.product(range(len(OPERATIONS)), repeat=len(EDGES))), np.int32)
    return product[canonical_order()]


@functools.cache
def canonical_strings() -> tuple[str, ...]:
    """Official strings of all 15,625 architectures in canonical order."""
    return tuple(to_string(codes) for codes in canonical_codes())


def to_string(codes: np.ndarray) -> str:
    """Codes `[6]` to the official string, for example `|avg_pool_3x3~0|+|none~0|none~1|+|none~0|none~1|none~2|`."""
    if np.shape(codes) != (len(EDGES),) or np.any(np.asarray(codes) < 0) or np.any(np.asarray(codes) > 4):
        raise ValueError(f"NAS-Bench-201 codes are six integers 0 .. 4, not {np.asarray(codes).tolist()}")
    nodes = [
        "|" + "".join(f"{OPERATIONS[code]}~{s}|" for code, (s, t) in zip(codes, EDGES, strict=True) if t == node)
        for node in (1, 2, 3)
    ]
    return "+".join(nodes)


def from_string(text: str) -> np.ndarray:
    """The official string to codes `int32[6]`; `ValueError` says what is wrong with a malformed one."""
    match = _ARCHITECTURE.fullmatch(text)
    if match is None:
        raise ValueError(f"architecture {text!r} is malformed: write it like |op~0|+|op~0|op~1|+|op~0|op~1|op~2|")
    for name in match.groups():
        if name not in OPERATIONS:
            raise ValueError(f"architecture {text!r}: operation {name!r} is none of {', '.join(OPERATIONS)}")
    return np.asarray([OPERATIONS.index(name) for name in match.groups()], np.int32)


@functools.cache
def isomorphism_classes() -> Int32[np.ndarray, " size"]:
    """Lowest canonical index of each architecture's isomorphism class; 6,466 classes.

    The rule of NAS-Bench-201's unique strings: two cells are one class if their expressions are equal once skip
    connections are followed, sums are sorted, and an operation on a bare zero is zero. Zeroes stay in the sums, so a
    few cells that compute the same function (`x + 0` and `x`) remain different classes, as in the published count.
    """
    expressions = [_output_expression(tuple(codes)) for codes in canonical_codes().tolist()]
    lowest: dict[str, int] = {}
    for index, expression in enumerate(expressions):
        lowest.setdefault(expression, index)
    return np.asarray([lowest[expression] for expression in expressions], np.int32)


def _output_expression(codes: tuple[int, ...]) -> str:
    terms: list[list[str]] = [[], [], [], []]
    nodes = ["0"]
    for code, (source, target) in zip(codes, EDGES, strict=True):
        if target == len(nodes) + 1:
            nodes.append("+".join(sorted(terms[len(nodes)])))
        incoming = nodes[source]
        if code == _NONE or incoming == "#":
            terms[target].append("#")
        elif code == _SKIP:
            terms[target].append(incoming)
        else:
            terms[target].append(f"({incoming})@{OPERATIONS[code]}")
    return "+".join(sorted(terms[3]))


def params(
    codes: Integer[np.ndarray, "n 6"], channels: int = 16, cells_per_stage: int = 5, num_classes: int = 10
) -> Int64[np.ndarray, " n"]:
    """Exact number of trained parameters of each network.

    Network: 3x3 stem convolution, three stages of `cells_per_stage` cells at C, 2C and 4C channels, a residual block
    of stride 2 before the second and third stage, batch normalisation, global pooling, linear layer with bias.
    Convolutions have no bias; every batch normalisation has a scale and a shift. Operations whose result the cell
    does not use are counted too: they are built.
    """
    width = _stage_widths(channels, cells_per_stage, num_classes)
    conv_1x1 = cells_per_stage * sum(c * c + 2 * c for c in width)
    conv_3x3 = cells_per_stage * sum(9 * c * c + 2 * c for c in width)
    stem = 9 * 3 * channels + 2 * channels
    # Two 3x3 convolutions, each with batch normalisation, and a bare 1x1 convolution on the shortcut.
    blocks = sum(9 * (c // 2) * c + 2 * c + 9 * c * c + 2 * c + (c // 2) * c for c in width[1:])
    head = 2 * width[2] + width[2] * num_classes + num_classes
    return _total(codes, stem + blocks + head, conv_1x1, conv_3x3)


def macs(
    codes: Integer[np.ndarray, "n 6"],
    channels: int = 16,
    cells_per_stage: int = 5,
    num_classes: int = 10,
    image_size: int = 32,
) -> Int64[np.ndarray, " n"]:
    """Exact multiply-adds of one forward pass of the network of `params` over one image.

    Convolutions and the linear layer (its bias counted as one more input) are counted; normalisation, activation and
    pooling are not. `image_size` must be a multiple of 4.
    """
    if image_size < 4 or image_size % 4:
        raise ValueError(f"image_size {image_size}: give a positive multiple of 4 (it is halved twice)")
    width = _stage_widths(channels, cells_per_stage, num_classes)
    pixels = tuple((image_size // shrink) ** 2 for shrink in (1, 2, 4))
    conv_1x1 = cells_per_stage * sum(c * c * p for c, p in zip(width, pixels, strict=True))
    stem = 9 * 3 * channels * pixels[0]
    blocks = sum((9 * (c // 2) * c + 9 * c * c + (c // 2) * c) * p for c, p in zip(width[1:], pixels[1:], strict=True))
    head = width[2] * num_classes + num_classes
    return _total(codes, stem + blocks + head, conv_1x1, 9 * conv_1x1)


def _stage_widths(channels: int, cells_per_stage: int, num_classes: int) -> tuple[int, int, int]:
    for option, value in (("channels", channels), ("cells_per_stage", cells_per_stage), ("num_classes", num_classes)):
        if value < 1:
            raise ValueError(f"{option} {value}: give a positive integer")
    return channels, 2 * channels, 4 * channels


def _total(codes: Integer[np.ndarray, "n 6"], fixed: int, conv_1x1: int, conv_3x3: int) -> Int64[np.ndarray, " n"]:
    count_1x1 = np.sum(codes == _CONV_1X1, axis=1, dtype=np.int64)
    count_3x3 = np.sum(codes == _CONV_3X3, axis=1, dtype=np.int64)
    return np.asarray(fixed + conv_1x1 * count_1x1 + conv_3x3 * count_3x3, np.int64)
