"""Strict Pareto dominance (maximisation).

Row j dominates row i when it is at least as good in every objective and better in at least one, so duplicates do not
dominate each other. The dominance number of CE-NAS's queue (arXiv 2406.01414) and of LaMOO's labels (Zhao et al., ICLR
2022) is the number of rows that dominate a row.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def _comparable(objectives: Float[Array, "n m"], valid: Bool[Array, " n"]) -> Bool[Array, " n"]:
    """Rows that take part: real, and measured in every objective."""
    return valid & ~jnp.any(jnp.isnan(objectives), axis=1)


@jax.jit  # called outside a jitted program, the scan would compile anew each time
def dominance_counts(
    objectives: Float[Array, "n m"], valid: Bool[Array, " n"], group: Int[Array, " n"] | None = None
) -> Int[Array, " n"]:
    """How many valid rows strictly dominate each row (maximisation).

    Args:
        objectives: one row per architecture; a row with a NaN (a failed evaluation) is treated as invalid.
        valid: True = real row. Invalid rows dominate nothing and get `n`, more than any valid row can have (at most
            n - 1), so an ascending sort puts them last.
        group: optional label per row; only rows of the same group dominate each other (the nodes of one tree level).

    Returns:
        int32 counts, 0 on the Pareto front.

    Time O(n^2 m), memory O(n m): one pass over the rivals, each compared with all rows at once, objective by objective.
    (XLA on CPU writes the n x n comparisons of a plain broadcast to memory: 2 to 12 times slower.)
    """
    comparable = _comparable(objectives, valid)
    # A row of minus infinities is better than nothing, so the loop needs no mask.
    rivals = jnp.where(comparable[:, None], objectives, -jnp.inf)
    columns = list(rivals.T)

    def add_rival(counts, rival):
        values, rival_group = rival
        no_worse, better = True, False
        for value, column in zip(values, columns, strict=True):
            no_worse &= value >= column
            better |= value > column
        dominates = no_worse & better
        if group is not None:
            dominates = dominates & (rival_group == group)
        return counts + dominates, None

    row_count = objectives.shape[0]
    counts, _ = jax.lax.scan(add_rival, jnp.zeros(row_count, jnp.int32), (rivals, group), unroll=8)
    return jnp.where(comparable, counts, row_count)


def non_dominated_mask(objectives: Float[Array, "n m"], valid: Bool[Array, " n"]) -> Bool[Array, " n"]:
    """The Pareto front: valid rows that no valid row strictly dominates (maximisation).

    Every duplicate of a front point is in. Invalid rows and rows with a NaN are never in. Costs one `dominance_counts`.
    """
    return _comparable(objectives, valid) & (dominance_counts(objectives, valid) == 0)
