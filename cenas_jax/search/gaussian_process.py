"""A small Gaussian process that corrects a supernet's estimates with the evaluations made so far.

A supernet filters bad architectures but hardly orders good ones (Kendall tau about 0 inside the true top 1,000 of
NAS-Bench-201). What it says is a feature here, beside the architecture itself:

    k(a, b) = exp(-(|one_hot(a) - one_hot(b)|^2 + (e_a - e_b)^2) / (2 l^2)) + noise

with `e` the standardised estimate. The length `l` and the noise are chosen on a grid by marginal likelihood, the
amplitude in closed form (Rasmussen & Williams 2006, sections 2.2, 2.7 and 5.4.1). Accuracies crowd below a ceiling and
have a long tail of failures, so the process models `-log(1 + (best - target) / s)` with `s` the median distance from
the best. Tried and worse on NAS-Bench-201: targets as they are, a linear term in the estimate, a second length for it,
clipped targets.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from cenas_jax.search.base import shared_maximum

LENGTHS = (1.0, 1.5, 2.0, 3.0, 4.0)
"""Of the kernel; two architectures that differ on one edge are sqrt(2) apart."""
NOISES = (1e-3, 1e-2, 1e-1)
"""Variances, relative to the amplitude."""
MOST_ROWS = 48
"""Evaluations, the first of all, by which the pair is chosen: the grid costs fifteen factorisations, the fit one."""
FEWEST_ESTIMATES = 2
"""Of evaluated architectures, below which there is no spread to standardise estimates by."""


class Correction(NamedTuple):
    """A fitted process. Its rows are those it was fitted on; those that taught nothing have no weight."""

    taught: Bool[Array, " n"]
    weights: Float[Array, " n"]
    estimate: Float[Array, " n"]  # standardised; 0 where unknown
    length: Float[Array, ""]
    noise: Float[Array, ""]  # variance, relative to the amplitude
    amplitude: Float[Array, ""]
    best: Float[Array, ""]
    scale: Float[Array, ""]
    mean: Float[Array, ""]  # of the warped targets
    deviation: Float[Array, ""]
    estimate_mean: Float[Array, ""]
    estimate_deviation: Float[Array, ""]
    told: Bool[Array, ""]  # enough rows had an estimate
    exact: Bool[Array, ""]
    """Every known estimate is its target (a cost from a table), and needs no correction."""


def no_correction(rows: int) -> Correction:
    """Of a process that has learnt nothing, with so many rows."""
    zero, one, none = jnp.zeros(()), jnp.ones(()), jnp.zeros(rows)
    return Correction(none > 0, none, none, one, one, zero, zero, one, zero, one, zero, one, none.any(), none.any())


def resized(correction: Correction, rows: int) -> Correction:
    """The same with so many rows: added ones teach nothing, and dropped ones must not have."""

    def fitted(values):
        return jnp.pad(values[:rows], (0, max(rows - values.shape[0], 0)))

    by_row = ("taught", "weights", "estimate")
    return correction._replace(**{name: fitted(getattr(correction, name)) for name in by_row})


def fit_correction(
    one_hot: Float[Array, "n h"],
    estimate: Float[Array, " n"],
    target: Float[Array, " n"],
    valid: Bool[Array, " n"],
) -> Correction:
    """Learns `target`, which is maximised, from architectures and their estimates.

    Rows that are not `valid`, or whose target is NaN, teach nothing. A NaN estimate counts as an average one.
    """
    valid = valid & ~jnp.isnan(target)
    best = jnp.where(valid.any(), jnp.where(valid, target, -jnp.inf).max(), 0)
    scale = _median_distance(best - target, valid)
    warped = -jnp.log1p(jnp.where(valid, best - target, 0) / scale)
    mean, deviation = _moments(warped, valid)
    y = jnp.where(valid, (warped - mean) / deviation, 0)
    known = valid & ~jnp.isnan(estimate)
    estimate_mean, estimate_deviation = _moments(estimate, known)
    e = jnp.where(known, (estimate - estimate_mean) / estimate_deviation, 0)

    close = jnp.abs(estimate - target) <= 1e-5 * jnp.abs(target)
    exact = known.any() & jnp.where(known, close, True).all()
    lengths, noises = jnp.asarray(LENGTHS, y.dtype), jnp.asarray(NOISES, y.dtype)

    def choose():  # the pair of the greatest evidence
        rows = jnp.argsort(~valid, stable=True)[:MOST_ROWS]
        x, e_x, y_x, valid_x = one_hot[rows], e[rows], y[rows], valid[rows]
        distance = _squared_distance(x, e_x, x, e_x)
        count = jnp.maximum(valid_x.sum(), 1)

        def evidence(gram, noise):
            weights, factor = _solve(gram, y_x, valid_x, noise)
            amplitude = _amplitude(y_x, weights, valid_x)
            value = -0.5 * count * jnp.log(amplitude) - jnp.where(valid_x, jnp.log(jnp.diag(factor)), 0).sum()
            return jnp.where(jnp.isfinite(value), value, -jnp.inf)

        def of_length(length):
            gram = _gram(distance, valid_x, length)
            return jax.lax.map(lambda noise: evidence(gram, noise), noises)

        best = jnp.argmax(jax.lax.map(of_length, lengths))
        return lengths[best // len(NOISES)], noises[best % len(NOISES)]

    # A cost from a table needs no correction, and no choice; in most batches of searches the cost is exact in all.
    needed = shared_maximum((~exact).astype(jnp.int32)) > 0
    first = lengths[0], noises[0]
    chosen = jax.lax.cond(needed, choose, lambda: first)
    length, noise = jax.tree.map(functools.partial(jnp.where, exact), first, chosen)
    weights, _ = _solve(_gram(_squared_distance(one_hot, e, one_hot, e), valid, length), y, valid, noise)
    amplitude = _amplitude(y, weights, valid)
    moments = mean, deviation, estimate_mean, estimate_deviation
    told = known.sum() >= FEWEST_ESTIMATES
    return Correction(valid, weights, e, length, noise, amplitude, best, scale, *moments, told, exact)


def posterior_quantiles(
    correction: Correction,
    one_hot: Float[Array, "n h"],
    query_one_hot: Float[Array, "c h"],
    query: Float[Array, " c"],
    levels: tuple[float, ...],
) -> Float[Array, "q c"]:
    """Quantiles of the noise-free target at the query architectures, in its unit, at each of the `levels`, in (0, 1).

    `one_hot` are the rows of the fit, `query` the estimates of the query architectures. A NaN estimate counts as an
    average one. Where the correction is `exact`, estimates that are known are the answer at every level, and the median
    is where they are not. The median is 0 where nothing was learnt.
    """
    e = jnp.nan_to_num((query - correction.estimate_mean) / correction.estimate_deviation, nan=0.0)
    distance = _squared_distance(query_one_hot, e, one_hot, correction.estimate)
    taught, rows, length = correction.taught, correction.estimate, correction.length
    likeness = jnp.where(taught, jnp.exp(-distance / (2 * length**2)), 0)

    def spread():
        gram = _gram(_squared_distance(one_hot, rows, one_hot, rows), taught, length)
        factor = _factor(gram, taught, correction.noise)  # the fit's; to keep it would be capacity^2 numbers a search
        explained = jnp.square(jax.scipy.linalg.solve_triangular(factor, likeness.T, lower=True)).sum(axis=0)
        return jnp.sqrt(correction.amplitude * jnp.maximum(1 - explained, 0))

    needed = shared_maximum((~correction.exact).astype(jnp.int32)) > 0
    deviation = jnp.where(correction.exact, 0, jax.lax.cond(needed, spread, lambda: jnp.zeros_like(e)))
    centre = likeness @ correction.weights

    def quantile(z):
        warped = correction.mean + correction.deviation * (centre + z * deviation)
        value = correction.best - correction.scale * jnp.expm1(-warped)
        return jnp.where(correction.exact & ~jnp.isnan(query), query, value)

    return jax.vmap(quantile)(jax.scipy.special.ndtri(jnp.asarray(levels)))


def _squared_distance(x, e_x, z, e_z):
    mismatches = z[0].sum() - x @ z.T  # each is worth 2 between one-hot vectors
    return 2 * mismatches + (e_x[:, None] - e_z[None, :]) ** 2


def _gram(distance, valid, length):
    return jnp.where(valid[:, None] & valid[None, :], jnp.exp(-distance / (2 * length**2)), 0)


def _solve(gram, y, valid, noise):
    """Weights, and the Cholesky factor of the kernel matrix."""
    factor = _factor(gram, valid, noise)
    return jax.scipy.linalg.cho_solve((factor, True), y), factor


def _factor(gram, valid, noise):
    """Lower; rows that are not valid stand alone."""
    return jnp.linalg.cholesky(gram + jnp.diag(jnp.where(valid, noise, 1.0)))


def _amplitude(y, weights, valid):
    """Of the greatest evidence."""
    return jnp.maximum(y @ weights / jnp.maximum(valid.sum(), 1), 1e-12)


def _median_distance(distance, valid):
    """The median of the valid entries; their mean where it is 0, and 1 where that is 0 too."""
    count = valid.sum()
    in_order = jnp.sort(jnp.where(valid, distance, jnp.inf))
    median = (in_order[jnp.maximum(count - 1, 0) // 2] + in_order[count // 2]) / 2
    mean = jnp.where(valid, distance, 0).sum() / jnp.maximum(count, 1)
    spread = jnp.where((median > 0) & jnp.isfinite(median), median, mean)
    return jnp.where(spread > 0, spread, 1.0)


def _moments(values, valid):
    """Mean and standard deviation of the valid entries; 0 and 1 where there are none, or no spread."""
    count = jnp.maximum(valid.sum(), 1)
    mean = jnp.where(valid, values, 0).sum() / count
    variance = jnp.where(valid, (values - mean) ** 2, 0).sum() / count
    return mean, jnp.where(variance > 0, jnp.sqrt(jnp.where(variance > 0, variance, 1)), 1.0)
