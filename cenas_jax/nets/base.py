"""The seam between Flax and the rest."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import numpy as np
from jaxtyping import Array, Float, Int

from cenas_jax.nets.operations import Mode


class Network(NamedTuple):
    """`init(key, *inputs) -> params` and `apply(params, *inputs, key=None) -> outputs`; a key switches dropout on.

    Networks of architectures have variables (`params` and `statistics`) and more inputs than images, as their
    docstrings say.
    """

    init: Callable[..., Any]
    apply: Callable[..., Any]


def supernet_of(
    module: Callable[[Mode], nn.Module],
    example: Int[Array, " d"] | None,
    check: Callable[[Array], None] = lambda images: None,
) -> Network:
    """`apply(variables, images, codes, mode, momentum=0.1) -> (logits, statistics)` of a module in each mode.

    Args:
        example: codes to begin with; None where the module does not read them.
        check: raises for images that do not fit.
    """

    def init(key, images: Float[Array, "n h w c"]):
        check(images)
        return module("running").init(key, images, example, 0.1)

    def apply(variables, images: Float[Array, "n h w c"], codes: Int[Array, " d"] | None, mode: Mode, momentum=0.1):
        check(images)
        if example is not None and (codes is None or codes.shape != example.shape):
            raise ValueError(f"apply: codes are an array of {example.shape[0]} integers, not {codes}")
        logits, changed = module(mode).apply(variables, images, codes, momentum, mutable=["statistics"])
        return logits, changed["statistics"]

    return Network(init, apply)


def candidate_of(module: Callable[[Mode], nn.Module], check: Callable[[Array], None] = lambda images: None) -> Network:
    """As `supernet_of`, of a module that does not read codes: `apply(variables, images, mode, momentum=0.1)`."""
    network = supernet_of(module, None, check)

    def apply(variables, images, mode: Mode, momentum=0.1):
        return network.apply(variables, images, None, mode, momentum)

    return Network(network.init, apply)


def check_codes(space: str, num_choices: tuple[int, ...], codes: tuple[int, ...]) -> None:
    """`ValueError` where they are no architecture's."""
    found, counts = np.asarray(codes), np.asarray(num_choices)
    if found.shape != counts.shape or not np.all((found >= 0) & (found < counts)):
        raise ValueError(f"codes of space {space!r} are {len(counts)} integers within their choices, not {codes}")
