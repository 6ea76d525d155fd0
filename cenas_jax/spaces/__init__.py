"""Search spaces: what an architecture is. `space(name)` gives one by name, `tabular_space` makes a new one.

Names load on first use: the host-only modules of this folder can be imported without starting jax.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cenas_jax.spaces.base import SearchSpace, tabular_space, with_distinct_isomorphs

__all__ = ["SPACES", "SearchSpace", "space", "tabular_space", "with_distinct_isomorphs"]

SPACES = {"nas-bench-201": "nas_bench_201"}
"""Known spaces: the name for `space`, and the module whose function of the same name builds it."""


def space(name: str) -> "SearchSpace":
    """The search space of that name; `ValueError` lists the known ones."""
    if name not in SPACES:
        raise ValueError(f"search space {name!r} is unknown: choose from {', '.join(SPACES)}")
    module = importlib.import_module(f"cenas_jax.spaces.{SPACES[name]}")
    return getattr(module, SPACES[name])()


def __getattr__(name: str) -> Any:
    if name not in ("SearchSpace", "tabular_space", "with_distinct_isomorphs"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("cenas_jax.spaces.base"), name)
