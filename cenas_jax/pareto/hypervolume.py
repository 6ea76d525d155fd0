"""Exact hypervolume (maximisation): the volume that a set of points dominates above a reference point.

Every function subtracts the reference point first and then only adds non-negative terms, which keeps float32 accurate.
A row counts only where it is strictly above the reference in every objective; rows that are invalid or hold a NaN
(failed evaluations) add nothing. No objective may be plus infinity. Duplicates and dominated rows are fine, and the
empty set has hypervolume 0.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int


def heights_above(
    objectives: Float[Array, "n m"], valid: Bool[Array, " n"], reference_point: Float[Array, " m"]
) -> Float[Array, "n m"]:
    """Height above the reference, at least 0; all zeros where a row does not count."""
    counts = valid & ~jnp.any(jnp.isnan(objectives), axis=1)
    return jnp.where(counts[:, None], jnp.maximum(objectives - reference_point[None, :], 0.0), 0.0)


def hypervolume(
    objectives: Float[Array, "n m"], valid: Bool[Array, " n"], reference_point: Float[Array, " m"]
) -> Float[Array, ""]:
    """Exact hypervolume of the valid rows for m = 1, 2 or 3 (maximisation), in the product of the objectives' units.

    Time O(n log n) for m = 2. For m = 3 O(n^2): the sum over slabs of the third objective of the area that the points
    reaching the slab dominate; meant for n up to a few hundred.

    Raises:
        ValueError: any other number of objectives; `hypervolume_host` takes four and more.
    """
    objective_count = objectives.shape[1]
    if objective_count == 1:
        return jnp.max(heights_above(objectives, valid, reference_point), initial=0.0)
    if objective_count == 2:
        return grouped_hypervolume_2d(objectives, valid[None, :], reference_point)[0]
    if objective_count == 3:
        heights = heights_above(objectives, valid, reference_point)[:, 2]
        tops = jnp.sort(heights, descending=True)
        thicknesses = tops - jnp.append(tops[1:], 0.0)
        # A row without height (invalid, NaN, below the reference) reaches only slabs of no thickness.
        reaches = (heights[None, :] >= tops[:, None]) & (heights > 0.0)[None, :]
        areas = grouped_hypervolume_2d(objectives[:, :2], reaches, reference_point[:2])
        return jnp.sum(areas * thicknesses)
    raise ValueError(f"hypervolume takes 1 to 3 objectives, got {objective_count}: use hypervolume_host for 4 and more")


@jax.jit  # called outside a jitted program, a scan would compile anew each time
def grouped_hypervolume_2d(
    objectives: Float[Array, "n 2"], membership: Bool[Array, "g n"], reference_point: Float[Array, " 2"]
) -> Float[Array, " g"]:
    """Exact two-objective hypervolume of g subsets of the same rows (maximisation), e.g. the nodes of a search tree.

    `membership[g, i]` is True where row i is real and in subset g; subsets may overlap or be empty (0).
    One sort for all subsets, then O(n g): going down the first objective, a subset's best second objective so far is
    the height of its staircase, and each rise of it adds a strip as wide as the current first objective.
    """
    gains = heights_above(objectives, jnp.any(membership, axis=0), reference_point)
    order = jnp.argsort(gains[:, 0], descending=True)
    widths = gains[order, 0]
    heights = jnp.where(membership.T[order], gains[order, 1][:, None], 0.0)

    def add_strip(carry, row):
        best, area = carry
        width, height = row
        raised = jnp.maximum(best, height)
        return (raised, area + width * (raised - best)), None

    nothing = jnp.zeros(membership.shape[0], gains.dtype)
    (_, area), _ = jax.lax.scan(add_strip, (nothing, nothing), (widths, heights), unroll=4)
    return area


@jax.jit
def hypervolume_improvement(
    candidates: Float[Array, "c 2"],
    objectives: Float[Array, "n 2"],
    valid: Bool[Array, " n"],
    reference_point: Float[Array, " 2"],
) -> Float[Array, " c"]:
    """Exact gain in two-objective hypervolume from adding each candidate alone to the valid rows (maximisation).

    A candidate that a valid row weakly dominates, that is not above the reference, or that holds a NaN gains 0.
    One sort, then O(c n): the staircase of the rows cuts the plane into columns, and the gain is the part of the
    candidate's box above the staircase, column by column.
    """
    boxes = heights_above(candidates, jnp.ones(candidates.shape[0], bool), reference_point)
    return area_above(boxes, staircase(objectives, valid, reference_point))


def staircase(
    objectives: Float[Array, "n 2"], valid: Bool[Array, " n"], reference_point: Float[Array, " 2"], room: int = 1
) -> Float[Array, "n+{room} 2"]:
    """Heights of the valid rows above the reference, by falling first objective; then `room` rows of zeros, at least
    one: it closes the last column. Rows that do not count are zeros too."""
    gains = heights_above(objectives, valid, reference_point)
    return jnp.append(gains[jnp.argsort(gains[:, 0], descending=True)], jnp.zeros((room, 2), gains.dtype), axis=0)


def area_above(
    boxes: Float[Array, "c 2"], stairs: Float[Array, "n 2"], rows: Int[Array, ""] | None = None
) -> Float[Array, " c"]:
    """The part of each box `[0, width] x [0, height]` above a `staircase`, whose rows from `rows` on (None: none) are
    zeros and not looked at, but for the first."""
    unroll = 4
    box_widths, box_heights = boxes.T
    stairs = jnp.pad(stairs, ((0, -stairs.shape[0] % unroll), (0, 0)))  # a row of zeros more changes nothing

    def add_columns(i, carry):
        gain, level, right = carry
        for left, height in jax.lax.dynamic_slice(stairs, (unroll * i, 0), (unroll, 2)):
            width = jnp.maximum(jnp.minimum(box_widths, right) - left, 0.0)
            gain = gain + width * jnp.maximum(box_heights - level, 0.0)
            level, right = jnp.maximum(level, height), left
        return gain, level, right

    start = (jnp.zeros_like(box_widths), jnp.zeros((), boxes.dtype), jnp.full((), jnp.inf, boxes.dtype))
    steps = stairs.shape[0] // unroll if rows is None else rows // unroll + 1  # the first row of zeros is in
    return jax.lax.fori_loop(0, steps, add_columns, start)[0]


def hypervolume_host(
    objectives: Float[np.ndarray, "n m"] | Float[Array, "n m"],
    reference_point: Float[np.ndarray, " m"] | Float[Array, " m"],
) -> float:
    """Exact hypervolume for any number of objectives (maximisation), on the host in float64; not traceable.

    Every row is real: drop invalid rows before the call.

    Raises:
        ImportError: the optional package `moocore` is not installed.
    """
    try:
        import moocore
    except ImportError as error:
        raise ImportError("hypervolume_host needs moocore: pip install cenas-jax[moocore]") from error
    points, reference = np.asarray(objectives, np.float64), np.asarray(reference_point, np.float64)
    above = points[np.all(points > reference[None, :], axis=1)]
    return float(moocore.hypervolume(above, ref=reference, maximise=True))
