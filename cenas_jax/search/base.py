"""The contract of a searcher, and the draws that searchers share."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from cenas_jax.spaces.base import SearchSpace

SearcherState = Any
SMALLEST_SIZE = 32
"""Of `at_smallest_size`, which doubles it. Sizes closer together save padding, and cost as much more compilation."""


class Candidates(NamedTuple):
    """Architectures with what screening found: `estimates` are maximised; a NaN estimate ranks last."""

    codes: Int[Array, "c d"]
    estimates: Float[Array, "c m"]
    valid: Bool[Array, " c"]


class Searcher(NamedTuple):
    """Proposes architectures, ranks screened ones, learns from results. Pure functions under `jit` and `vmap`."""

    init: Callable[[Key[Array, ""]], SearcherState]
    """`(key) -> state`."""
    fit: Callable[[SearcherState], SearcherState]
    """`(state) -> state` that has learnt from all that was told; `ask` and `rank` go by the last fit. Free where
    there is no news since."""
    ask: Callable[..., tuple[Int[Array, "n d"], Bool[Array, " n"]]]
    """`(key, state, n, pending_codes[p, d], pending_valid[p]) -> (codes[n, d], valid[n])`: distinct architectures,
    of the current region where there is one, never an evaluated or a pending (queued, running) one. Where fewer than
    `n` are left in the whole space, the rest is not valid."""
    rank: Callable[..., tuple[Int[Array, " n"], Bool[Array, " n"]]]
    """`(key, state, candidates, n) -> (rows[n], valid[n])`: the rows of the `n` candidates to evaluate, best first."""
    tell: Callable[[SearcherState, Candidates, Float[Array, "c m"]], tuple[SearcherState, Any]]
    """`(state, candidates, objectives[c, m]) -> (state, info)`: records finished evaluations. NaN objectives mark a
    failed one, which is never proposed again; a NaN estimate, one that was never screened. `info.overflow` counts the
    rows beyond the capacity."""
    inform: Callable[[SearcherState, Float[Array, "n m"]], SearcherState] | None = None
    """`(state, estimates[n, m]) -> state`: what screening found of the architectures that were told, in the order they
    were told; NaN where unknown, rows beyond them mean nothing. None: the searcher has no use for it."""


def shared_maximum(value: Int[Array, ""]) -> Int[Array, ""]:
    """`value`, or under `vmap` the maximum over the batch, the same for every member.

    What it decides (a size that is large enough for everyone) must not change results. A branch taken on it stays a
    branch under `vmap`, where a branch on each member's own value would become a select that runs every side.
    """
    return _shared_maximum(value)


@jax.custom_batching.custom_vmap
def _shared_maximum(value):
    return value


@_shared_maximum.def_vmap
def _(axis_size, in_batched, value):
    return (_shared_maximum(value.max(axis=0)) if in_batched[0] else _shared_maximum(value)), False


def at_smallest_size(count: Int[Array, ""], capacity: int, compute: Callable[[int], Any]) -> Any:
    """`compute(size)` for the smallest of a few sizes, 32, 64, 128, ... up to `capacity`, that holds `count`.

    All results must have the same shapes. Under `vmap` the size is the one that every member of the batch needs, so
    what a search costs grows with what it has evaluated, not with its capacity.
    """
    doublings = (max(capacity - 1, 0) // SMALLEST_SIZE).bit_length()
    sizes = [*(SMALLEST_SIZE << times for times in range(doublings)), capacity]
    which = shared_maximum(jnp.searchsorted(jnp.asarray(sizes), count))
    return jax.lax.switch(which, [lambda size=size: compute(size) for size in sizes])


class Classes(NamedTuple):
    """The isomorphism classes of a tabular space, so that no search evaluates an isomorph of what it has evaluated."""

    none: Callable[[], Bool[Array, " classes"]]
    """`() -> mask` of no class."""
    mark: Callable[..., Bool[Array, " classes"]]
    """`(mask, codes[n, d], valid[n]) -> mask` with the classes of these architectures. Rows that are not `valid` mark
    nothing."""
    spread: Callable[[Bool[Array, " classes"]], Bool[Array, " size"]]
    """`mask -> ` all architectures of its classes."""
    highest: Callable[[Array], Array]
    """`values[size] -> values[classes]`: the highest of each class's members."""
    draw: Callable[..., tuple[Int[Array, " n"], Bool[Array, " n"]]]
    """`(key, mask[size], n) -> (index[n], valid[n])`: architectures are drawn uniformly, one after the other, where the
    mask is True, and those of a class that was drawn are left out; the representatives of the drawn classes are
    returned. Not `valid` once the classes are used up."""


def isomorphism_classes(space: SearchSpace) -> Classes:
    """The classes of the space; where every architecture is its own, at no cost."""
    representatives, members = np.unique(space.isomorph, return_inverse=True)
    count, representative, class_of = len(representatives), jnp.asarray(representatives), jnp.asarray(members)
    alone = count == space.size

    def mark(mask, codes, valid):
        index = space.index(codes)
        return mask.at[jnp.where(valid, index if alone else class_of[index], count)].set(True, mode="drop")

    def draw(key, mask, n: int):
        if alone:
            return draw_without_replacement(key, mask, n)
        # Classes in proportion to their members, without replacement (Efraimidis & Spirakis 2006).
        weight = jax.ops.segment_sum(mask.astype(jnp.float32), class_of, count)
        luck = jnp.log(jax.random.uniform(key, (count,), minval=1e-30))
        score = jnp.where(weight > 0, luck / jnp.maximum(weight, 1), -jnp.inf)
        score, drawn = jax.lax.top_k(jnp.pad(score, (0, max(n - count, 0)), constant_values=-jnp.inf), n)
        return representative[drawn].astype(jnp.int32), score > -jnp.inf

    return Classes(
        none=lambda: jnp.zeros(count, bool),
        mark=mark,
        spread=lambda mask: mask if alone else mask[class_of],
        highest=lambda values: values if alone else jax.ops.segment_max(values, class_of, count),
        draw=draw,
    )


def first_valid(valid: Bool[Array, " c"], n: int) -> tuple[Int[Array, " n"], Bool[Array, " n"]]:
    """The rows of the first `n` valid ones, in order."""
    place = jnp.where(valid, jnp.cumsum(valid, dtype=jnp.int32) - 1, n)
    rows = jnp.zeros(n, jnp.int32).at[place].set(jnp.arange(valid.shape[0], dtype=jnp.int32), mode="drop")
    return rows, jnp.arange(n) < valid.sum()


def random_ranks(key: Key[Array, ""], count: Int[Array, ""], n: int) -> Int[Array, " n"]:
    """The first `n` places of a pseudo-random permutation of `0 .. count - 1`; places from `count` on are meaningless.

    Swap-or-not (Hoang, Morris & Rogaway 2012): a keyed bijection of a domain of any, traced, size, evaluated where it
    is needed, so that drawing without replacement costs O(n) whatever `count` is.
    """
    rounds = 24
    words = jax.random.bits(key, (rounds, 2), jnp.uint32)
    size = jnp.maximum(count, 1).astype(jnp.uint32)

    def swap_or_not(place, word):
        shift, salt = word
        partner = shift + size - place  # modulo the size, without a division, which is slow
        partner = jnp.where(partner >= size, partner - size, partner)
        mixed = jnp.maximum(place, partner) ^ salt
        for multiplier in (0x7FEB352D, 0x846CA68B):  # an avalanche of the pair's larger member, the same for both
            mixed = (mixed ^ (mixed >> 16)) * jnp.uint32(multiplier)
        return jnp.where(mixed >> 31 == 1, partner, place), None

    start = jnp.arange(n, dtype=jnp.uint32) % size
    places, _ = jax.lax.scan(swap_or_not, start, (words[:, 0] % size, words[:, 1]), unroll=4)
    return places.astype(jnp.int32)


def draw_without_replacement(
    key: Key[Array, ""], mask: Bool[Array, " size"], n: int
) -> tuple[Int[Array, " n"], Bool[Array, " n"]]:
    """`n` distinct positions where `mask` is True, uniformly, with `valid[n]`: False once they are used up."""
    passed = jax.lax.associative_scan(jnp.add, mask.astype(jnp.int32))  # on CPU faster than `cumsum`
    ranks = random_ranks(key, passed[-1], n)
    positions = jnp.searchsorted(passed, ranks + 1, method="scan_unrolled").astype(jnp.int32)
    return jnp.minimum(positions, mask.shape[0] - 1), jnp.arange(n) < passed[-1]
