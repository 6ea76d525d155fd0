"""A search against a table without a clock: ask, screen, rank, look up, tell. Compares searchers by evaluations."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from cenas_jax.benchmarks.base import BenchmarkTable
from cenas_jax.pareto import hypervolume
from cenas_jax.search.base import Candidates, Searcher, isomorphism_classes
from cenas_jax.spaces.base import SearchSpace


class TabularHistory(NamedTuple):
    """What was evaluated, in order, and the share of the table's hypervolume after the first design and each batch."""

    index: Int[Array, " evaluations"]
    valid: Bool[Array, " evaluations"]
    evaluations: Int[Array, " rounds"]
    hypervolume_share: Float[Array, " rounds"]
    overflow: Int[Array, ""]
    """Evaluations that the searcher had no room for and did not learn from: 0, or its capacity is too small."""


def tabular_search(
    key: Key[Array, ""],
    searcher: Searcher,
    space: SearchSpace,
    table: BenchmarkTable,
    *,
    initial: int = 10,
    batch: int = 8,
    rounds: int = 8,
    screened: int = 0,
) -> tuple[TabularHistory, Any]:
    """Evaluates `initial` random architectures, then `rounds` batches of `batch`; one program under `jit` and `vmap`.

    `screened = 0` evaluates what the searcher asks for, unseen; otherwise so many candidates are screened for every
    batch (their `estimates` looked up) and the searcher's ranking chooses. Returns the history and the final state.
    """
    total = initial + rounds * batch
    key_init, key_initial, key_rounds = (jax.random.fold_in(key, purpose) for purpose in range(3))
    nothing = jnp.zeros((0, len(space.num_choices)), jnp.int32), jnp.zeros(0, bool)

    def look_up(codes, valid):
        index = space.index(codes)
        return index, Candidates(codes, table.estimates[index], valid), table.objectives[index]

    first, first_valid = isomorphism_classes(space).draw(key_initial, jnp.ones(space.size, bool), initial)
    _, candidates, objectives = look_up(space.codes(first), first_valid)
    state, told = searcher.tell(searcher.init(key_init), candidates, objectives)

    def round_(carry, step):
        state, indices, valids, overflow = carry
        key_ask, key_rank = jax.random.split(jax.random.fold_in(key_rounds, step))
        state = searcher.fit(state)
        codes, valid = searcher.ask(key_ask, state, screened or batch, *nothing)
        index, candidates, objectives = look_up(codes, valid)
        if screened:
            rows, valid = searcher.rank(key_rank, state, candidates, batch)
            index, objectives = index[rows], objectives[rows]
            candidates = Candidates(codes[rows], candidates.estimates[rows], valid)
        state, info = searcher.tell(state, candidates, objectives)
        start = initial + step * batch
        indices = jax.lax.dynamic_update_slice(indices, index, (start,))
        valids = jax.lax.dynamic_update_slice(valids, valid, (start,))
        return (state, indices, valids, overflow + info.overflow), None

    indices = jnp.zeros(total, jnp.int32).at[:initial].set(first)
    valids = jnp.zeros(total, bool).at[:initial].set(first_valid)
    start = (state, indices, valids, told.overflow)
    (state, indices, valids, overflow), _ = jax.lax.scan(round_, start, jnp.arange(rounds))
    ends = initial + batch * jnp.arange(rounds + 1)

    def share(end):
        so_far = valids & (jnp.arange(total) < end)
        return hypervolume(table.objectives[indices], so_far, table.reference_point) / table.max_hypervolume

    return TabularHistory(indices, valids, ends, jax.lax.map(share, ends), overflow), state
