"""Which screened candidates to evaluate first: by dominance among the estimates, or by corrected estimates."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from cenas_jax.pareto import area_above, dominance_counts, heights_above, non_dominated_mask, staircase
from cenas_jax.search.base import Candidates, shared_maximum

MAX_FRONT = 128
LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Of the quantiles that corrected estimates are given as: the gain is averaged over them."""
SHORTLIST = 64
"""Candidates, those that gain most by themselves, that a greedy batch is picked from; more where it is large."""


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


def first_front(
    objectives: Float[Array, "e m"], valid: Bool[Array, " e"]
) -> tuple[Float[Array, "f m"], Bool[Array, " f"]]:
    """The non-dominated rows first, cut to 128, which is more than a two-objective front of a tabular space holds."""
    on_front = non_dominated_mask(objectives, valid)
    rows = jnp.argsort(~on_front, stable=True)[:MAX_FRONT]
    short = max(MAX_FRONT - valid.shape[0], 0)
    return jnp.pad(objectives[rows], ((0, short), (0, 0))), jnp.pad(on_front[rows], (0, short))


def by_hypervolume_gain(
    predicted: Float[Array, "q c 2"],
    valid: Bool[Array, " c"],
    front: Float[Array, "f 2"],
    front_valid: Bool[Array, " f"],
    reference_point: Float[Array, " 2"],
    n: int,
) -> tuple[Int[Array, " n"], Bool[Array, " n"]]:
    """The greedy batch: each pick has the greatest expected hypervolume gain over the evaluated front and the earlier
    picks (Emmerich, Deutz & Klinkenberg 2011; as a batch Daulton, Balandat & Bakshy 2020).

    The expectation is the mean over `predicted`, quantiles at evenly spread rising levels, an odd number `q`, the
    middle one the median. All objectives take the same level: right where one of them is uncertain, as accuracy beside
    a known cost; two uncertain ones count as if they rose together. A pick counts as if its median were true. Only
    those that gain most by themselves, the greater of `2 n` and 64, are looked at pick by pick, and of equal gains the
    one that gains more by itself is picked. Candidates that are not `valid` come last.
    """
    stairs = staircase(front, front_valid, reference_point, room=n + 1)
    place = jnp.arange(stairs.shape[0])[:, None]
    rows_of_front = shared_maximum(front_valid.sum())  # most of the rows are zeros
    levels, every = predicted.shape[0], jnp.ones_like(valid)
    boxes = jax.vmap(heights_above, (0, None, None))(predicted, every, reference_point)

    def expected_gain(boxes, stairs, rows):
        return area_above(boxes.reshape(-1, 2), stairs, rows).reshape(levels, -1).mean(axis=0)

    alone = jnp.where(valid, expected_gain(boxes, stairs, rows_of_front), -1.0)
    _, listed = jax.lax.top_k(alone, min(max(2 * n, SHORTLIST), valid.shape[0]))
    boxes, left = boxes[:, listed], valid[listed]

    def pick(carry, step):
        stairs, left = carry
        gain = expected_gain(boxes, stairs, rows_of_front + step)
        row = jnp.argmax(jnp.where(left, gain, -1.0))
        box = jnp.where(left[row], boxes[levels // 2, row], 0.0)
        above = (stairs[:, 0] >= box[0]).sum()
        lower = jnp.where(place == above, box, jnp.roll(stairs, 1, axis=0))
        stairs = jnp.where(place < above, stairs, lower)
        return (stairs, left.at[row].set(False)), (listed[row].astype(jnp.int32), left[row])

    _, (rows, real) = jax.lax.scan(pick, (stairs, left), jnp.arange(n))
    return rows, real
