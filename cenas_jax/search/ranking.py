"""Which screened candidates to evaluate first: by dominance among the estimates, or by corrected estimates."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from cenas_jax.pareto import dominance_counts, hypervolume_improvement, non_dominated_mask
from cenas_jax.search.base import Candidates

MAX_FRONT = 128


def by_dominance(candidates: Candidates, n: int) -> tuple[Int[Array, " n"], Bool[Array, " n"]]:
    """CE-NAS's queue order: ascending dominance number of the estimates; ties, the better last objective first.

    The last objective is by convention a cost, whose estimate is exact, so ties go to what is surely good.
    Candidates without an estimate (NaN) come after all others. Returns `(rows, valid)`, best first.
    """
    estimates, valid = candidates.estimates, candidates.valid
    counts = dominance_counts(estimates, valid)  # a NaN estimate counts as the worst
    last = jnp.where(jnp.isnan(estimates[:, -1]), jnp.finfo(estimates.dtype).min, estimates[:, -1])
    counts = jnp.where(valid, counts, valid.shape[0] + 1)
    # Only the n best are sorted: those below the count of the n-th best, then the best of those at it.
    at_most = jnp.cumsum(jnp.zeros(valid.shape[0] + 2, jnp.int32).at[counts].add(1))
    n_th = (at_most < n).sum()
    _, rows = jax.lax.top_k(jnp.where(counts < n_th, jnp.inf, jnp.where(counts == n_th, last, -jnp.inf)), n)
    rows = rows[jnp.lexsort((rows, -last[rows], counts[rows]))]
    return rows, candidates.valid[rows]


def by_hypervolume_gain(
    predicted: Float[Array, "c 2"],
    valid: Bool[Array, " c"],
    evaluated: Float[Array, "e 2"],
    evaluated_valid: Bool[Array, " e"],
    reference_point: Float[Array, " 2"],
    n: int,
) -> tuple[Int[Array, " n"], Bool[Array, " n"]]:
    """The greedy batch: each pick has the greatest hypervolume gain over the evaluated front and the earlier picks.

    A pick counts as if its `predicted` objectives were true. Candidates that are not `valid` come last. The front is
    cut to its first 128 points, more than a two-objective front of a tabular space holds.
    """
    on_front = non_dominated_mask(evaluated, evaluated_valid)
    size = min(MAX_FRONT, evaluated.shape[0])
    kept = jnp.argsort(~on_front, stable=True)[:size]
    front = jnp.concatenate([evaluated[kept], jnp.zeros((n, 2), evaluated.dtype)])
    front_valid = jnp.concatenate([on_front[kept], jnp.zeros(n, bool)])

    def pick(carry, step):
        front, front_valid, left = carry
        gain = hypervolume_improvement(predicted, front, front_valid, reference_point)
        row = jnp.argmax(jnp.where(left, gain, -1.0))
        front = front.at[size + step].set(predicted[row])
        front_valid = front_valid.at[size + step].set(left[row])
        return (front, front_valid, left.at[row].set(False)), (row.astype(jnp.int32), left[row])

    _, (rows, real) = jax.lax.scan(pick, (front, front_valid, valid), jnp.arange(n))
    return rows, real
