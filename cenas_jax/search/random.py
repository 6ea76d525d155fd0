"""Random search: the baseline that every searcher must beat."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from cenas_jax.search.base import Candidates, Searcher, first_valid, isomorphism_classes
from cenas_jax.spaces.base import SearchSpace


class RandomState(NamedTuple):
    evaluated: Bool[Array, " classes"]


class RandomInfo(NamedTuple):
    overflow: Int[Array, ""]


def random_search(space: SearchSpace) -> Searcher:
    """Uniform draws without replacement from the whole space; candidates are evaluated in the order they come."""
    classes = isomorphism_classes(space)

    def ask(key, state, n, pending_codes, pending_valid):
        taken = classes.mark(state.evaluated, pending_codes, pending_valid)
        index, valid = classes.draw(key, ~classes.spread(taken), n)
        return space.codes(index), valid

    def rank(key, state, candidates: Candidates, n: int):
        return first_valid(candidates.valid, n)

    def tell(state, candidates: Candidates, results):
        evaluated = classes.mark(state.evaluated, candidates.codes, candidates.valid)
        return RandomState(evaluated), RandomInfo(jnp.zeros((), jnp.int32))

    return Searcher(lambda key: RandomState(classes.none()), lambda state: state, ask, rank, tell)
