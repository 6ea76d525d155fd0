"""Search spaces: what an architecture is. `space(name)` gives one by name, `tabular_space` and `large_space` make new
ones.

Names load on first use: the host-only modules of this folder can be imported without starting jax.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cenas_jax.spaces.base import SearchSpace, tabular_space, with_distinct_isomorphs
    from cenas_jax.spaces.large import LargeSpace, large_space

__all__ = [
    "SPACES",
    "LargeSpace",
    "SearchSpace",
    "large_space",
    "space",
    "tabular_space",
    "with_distinct_isomorphs",
]

SPACES = {
    "nas-bench-201": "nas_bench_201",
    "nas-bench-101": "nas_bench_101",
    "darts": "darts",
    "nasnet": "nasnet",
    "mobile": "mobile",
}
"""Known spaces: the name for `space`, and the module whose function of the same name builds it. All but the first are
large ones."""


def space(name: str) -> Any:
    """The search space of that name with its default options: a `SearchSpace` (tabular) or a `LargeSpace`.

    `ValueError` lists the known ones. What needs a table refuses a large space: it has no `size`.
    """
    if name not in SPACES:
        raise ValueError(f"search space {name!r} is unknown: choose from {', '.join(SPACES)}")
    module = importlib.import_module(f"cenas_jax.spaces.{SPACES[name]}")
    return getattr(module, SPACES[name])()


def __getattr__(name: str) -> Any:
    homes = {"LargeSpace": "large", "large_space": "large"}
    homes |= dict.fromkeys(("SearchSpace", "tabular_space", "with_distinct_isomorphs"), "base")
    if name not in homes:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"cenas_jax.spaces.{homes[name]}"), name)
