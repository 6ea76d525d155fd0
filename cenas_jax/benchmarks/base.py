"""The tabular benchmark: what every architecture of a space scores, is estimated to score, and costs to find out."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32

from cenas_jax.pareto import hypervolume, hypervolume_host, non_dominated_mask
from cenas_jax.spaces.base import SearchSpace, with_representatives


class BenchmarkTable(NamedTuple):
    """The arrays of a benchmark, a pytree; row = the space's index. Objectives are maximised."""

    objectives: Float[Array, "N m"]
    """float32, finite. Minimised quantities (latency, energy, size) are negated, here and nowhere else."""
    estimates: Float[Array, "N m"]
    """float32: what screening sees: the accuracy's estimate, and exact costs. NaN = this architecture has no estimate:
    a ranking must place it last."""
    train_time_s: Float[Array, " N"]
    """float32: seconds one slot needs to evaluate the architecture (training included)."""
    estimate_time_s: Float[Array, ""]
    """float32: seconds one slot needs for one estimate."""
    supernet_time_s: Float[Array, ""]
    """float32: slot-seconds of training before the first estimate; 0 where the estimate needs none."""
    reference_point: Float[Array, " m"]
    """float32: of the hypervolume, in the objectives' (maximised) sense."""
    max_hypervolume: Float[Array, ""]
    """float32: of the whole table."""


class Benchmark(NamedTuple):
    """A space with its table, and the words a report needs."""

    space: SearchSpace
    table: BenchmarkTable
    objective_names: tuple[str, ...]
    units: tuple[str, ...]
    """Unit of each objective."""
    estimate_name: str
    source: str
    """Where the numbers come from, in one line; says "synthetic" for generated ones."""
    synthetic: bool


def cheapest_isomorphs(space: SearchSpace, costs: Float[np.ndarray, "N c"]) -> SearchSpace:
    """The space with the cheapest member of every isomorphism class as its representative.

    Isomorphs compute the same function, but a device runs them as they are written: on HW-NAS-Bench the first of each
    class hold 95.9 % of the hypervolume, the cheapest 99.9 %. Costs are known before an evaluation, as objectives
    (negated); several count in standard deviations. Without one, representatives stay as they are.
    """
    deviation = costs.std(axis=0, keepdims=True)
    return with_representatives(space, (costs / np.where(deviation > 0, deviation, 1)).sum(axis=1))


def benchmark_table(
    *,
    objectives: Float[np.ndarray, "N m"],
    estimates: Float[np.ndarray, "N m"],
    train_time_s: Float[np.ndarray, " N"],
    estimate_time_s: float,
    supernet_time_s: float,
    reference_point: Float[np.ndarray, " m"],
) -> BenchmarkTable:
    """Check the columns (objectives already maximised), store them as float32, measure the whole table's hypervolume.

    `ValueError` names the first row with an objective that is not finite, a time that is not positive, or a reference
    point that no architecture exceeds. Estimates may be NaN.
    """
    _refuse_rows(~np.all(np.isfinite(objectives), axis=1), "an objective is not finite")
    _refuse_rows(np.any(np.isinf(estimates), axis=1), "an estimate is infinite")
    _refuse_rows(~(np.isfinite(train_time_s) & (train_time_s > 0)), "the training time is not positive")
    if not (estimate_time_s > 0 and supernet_time_s >= 0):
        raise ValueError(
            f"benchmark table: estimate_time_s {estimate_time_s} must be positive, "
            f"supernet_time_s {supernet_time_s} not negative"
        )
    rows = np.asarray(objectives, np.float32)
    reference = np.asarray(reference_point, np.float32)
    best = max_hypervolume(rows, reference)
    if best <= 0:
        raise ValueError(
            f"benchmark table: no row exceeds the reference point {reference.tolist()} (objectives are maximised): "
            "lower it"
        )
    return BenchmarkTable(
        objectives=jnp.asarray(rows),
        estimates=jnp.asarray(estimates, jnp.float32),
        train_time_s=jnp.asarray(train_time_s, jnp.float32),
        estimate_time_s=jnp.asarray(estimate_time_s, jnp.float32),
        supernet_time_s=jnp.asarray(supernet_time_s, jnp.float32),
        reference_point=jnp.asarray(reference),
        max_hypervolume=jnp.asarray(best, jnp.float32),
    )


def max_hypervolume(objectives: Float32[np.ndarray, "N m"], reference_point: Float32[np.ndarray, " m"]) -> float:
    """Exact hypervolume of a whole table (maximised, finite), any number of objectives; 4 and more need `moocore`."""
    m = objectives.shape[1]
    if m > 2:  # O(n^2) and more: only the front matters.
        front = non_dominated_mask(jnp.asarray(objectives), jnp.ones(len(objectives), bool))
        objectives = objectives[np.asarray(front)]
    if m > 3:
        return float(hypervolume_host(objectives, reference_point))
    everything = jnp.ones(len(objectives), bool)
    return float(hypervolume(jnp.asarray(objectives), everything, jnp.asarray(reference_point)))


def _refuse_rows(bad: np.ndarray, what: str) -> None:
    if bad.any():
        raise ValueError(f"benchmark table: {what} in {bad.sum()} of {len(bad)} rows, first at index {bad.argmax()}")
