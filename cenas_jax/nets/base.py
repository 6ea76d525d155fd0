"""The seam between Flax and the rest."""

from collections.abc import Callable
from typing import Any, NamedTuple


class Network(NamedTuple):
    """`init(key, *inputs) -> params` and `apply(params, *inputs, key=None) -> outputs`; a key switches dropout on."""

    init: Callable[..., Any]
    apply: Callable[..., Any]
