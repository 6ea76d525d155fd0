"""Random search: the baseline that every searcher must beat."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from cenas_jax.search.base import Candidates, Searcher, draw_without_replacement
from cenas_jax.spaces.base import SearchSpace


class RandomState(NamedTuple):
    """`evaluated[i]`: architecture `i` (or an isomorph) was evaluated."""

    evaluated: Bool[Array, " size"]


class RandomInfo(NamedTuple):
    overflow: Int[Array, ""]


def random_search(space: SearchSpace, *, isomorphs_differ: bool = False) -> Searcher:
    """Uniform draws without replacement from the whole space; candidates are evaluated in the order they come.

    `isomorphs_differ=True` lets an architecture be drawn whose isomorph was evaluated.
    """
    taken = TakenMask(space, isomorphs_differ)

    def ask(key, state, n, pending_codes, pending_valid):
        occupied = taken.mark(state.evaluated, pending_codes, pending_valid)
        positions, valid = taken.draw(key, ~taken.spread(occupied), n)
        return space.codes(positions), valid

    def rank(key, state, candidates: Candidates, n: int):
        return first_valid(candidates.valid, n)

    def tell(state, candidates: Candidates, results):
        evaluated = taken.mark(state.evaluated, candidates.codes, candidates.valid)
        return RandomState(evaluated), RandomInfo(jnp.zeros((), jnp.int32))

    return Searcher(lambda key: RandomState(taken.empty()), lambda state: state, ask, rank, tell)


class TakenMask:
    """Which architectures of a tabular space are taken, isomorphs included: a bit for every class's representative."""

    def __init__(self, space: SearchSpace, isomorphs_differ: bool):
        self.space = space
        identity = isomorphs_differ or bool((space.isomorph == np.arange(space.size)).all())
        self.representative = None if identity else jnp.asarray(space.isomorph)

    def empty(self) -> Bool[Array, " size"]:
        return jnp.zeros(self.space.size, bool)

    def mark(self, mask, codes, valid) -> Bool[Array, " size"]:
        """Rows that are not `valid` mark nothing."""
        index = self.space.index(codes)
        if self.representative is not None:
            index = self.representative[index]
        return mask.at[jnp.where(valid, index, self.space.size)].set(True, mode="drop")

    def spread(self, mask) -> Bool[Array, " size"]:
        """From representatives to all architectures of their classes."""
        return mask if self.representative is None else mask[self.representative]

    def draw(self, key, mask, n: int) -> tuple[Int[Array, " n"], Bool[Array, " n"]]:
        """`n` distinct positions where `mask` is True, uniformly, and no two of one class.

        Twice as many are drawn and later ones of a class dropped, so fewer than `n` can be valid though more are left.
        """
        if self.representative is None:
            return draw_without_replacement(key, mask, n)
        positions, valid = draw_without_replacement(key, mask, 2 * n)
        group = self.representative[positions]
        rows = jnp.arange(2 * n)
        earliest = jnp.full(self.space.size, 2 * n).at[jnp.where(valid, group, self.space.size)].min(rows, mode="drop")
        rows, kept = first_valid(valid & (earliest[group] == rows), n)
        return positions[rows], kept


def first_valid(valid: Bool[Array, " c"], n: int) -> tuple[Int[Array, " n"], Bool[Array, " n"]]:
    """The rows of the first `n` valid ones, in order."""
    place = jnp.where(valid, jnp.cumsum(valid, dtype=jnp.int32) - 1, n)
    rows = jnp.zeros(n, jnp.int32).at[place].set(jnp.arange(valid.shape[0], dtype=jnp.int32), mode="drop")
    return rows, jnp.arange(n) < valid.sum()
