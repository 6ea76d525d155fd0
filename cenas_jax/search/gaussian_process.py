"""A small Gaussian process that corrects a supernet's estimates with the evaluations made so far.

A supernet filters bad architectures but hardly orders good ones (Kendall tau about 0 inside the true top 1,000 of
NAS-Bench-201). What it says is a feature here, beside the architecture itself:

    k(a, b) = exp(-(|x_a - x_b|^2 / 2 + (e_a - e_b)^2 + w |o_a - o_b|^2) / (2 l^2)) + noise

with `x` the architecture (`features_of`), `e` its standardised estimate, and `o` those of the other objectives: what an
architecture costs may tell of its accuracy, too. The length `l`, the relevance `w` of the others, 0 or 1, and the noise
are chosen on a grid by marginal likelihood, the amplitude in closed form (Rasmussen & Williams 2006, sections 2.2, 2.7
and 5.4.1). Accuracies crowd below a ceiling and have a long tail of failures, so the process models
`-log(1 + (best - target) / s)` with `s` the median distance from the best. Tried and worse on NAS-Bench-201: targets as
they are, a linear term in the estimate, a second length for it, clipped targets.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from cenas_jax.search.base import at_smallest_size, shared_maximum
from cenas_jax.spaces.base import SearchSpace

LENGTHS = (1.0, 1.5, 2.0, 3.0, 4.0)
"""Of the kernel; two architectures that differ on one edge are sqrt(2) apart, or 1 where nothing is counted."""
NOISES = (1e-3, 1e-2, 1e-1)
"""Variances, relative to the amplitude."""
RELEVANCES = (0.0, 1.0)
"""Of the other objectives' estimates."""
SMALLEST_SPREAD = 1e-6
"""Standard deviation, over the mean, below which values count as equal: it would be the rounding of their mean."""
MOST_ROWS = 48
"""Evaluations, the first of all, by which the three are chosen: the grid costs thirty factorisations, the fit one."""
FEWEST_ESTIMATES = 2
"""Of evaluated architectures, below which there is no spread to standardise estimates by."""


class Correction(NamedTuple):
    """A fitted process. Its rows are those it was fitted on; those that taught nothing have no weight."""

    taught: Bool[Array, " n"]
    weights: Float[Array, " n"]
    estimates: Float[Array, "n m"]  # standardised, times the root of their relevance; 0 where unknown
    length: Float[Array, ""]
    noise: Float[Array, ""]  # variance, relative to the amplitude
    amplitude: Float[Array, ""]
    best: Float[Array, ""]
    scale: Float[Array, ""]
    mean: Float[Array, ""]  # of the warped targets
    deviation: Float[Array, ""]
    estimate_mean: Float[Array, " m"]
    estimate_scale: Float[Array, " m"]  # root of the relevance, over the standard deviation
    told: Bool[Array, ""]  # enough rows had an estimate of the objective itself
    exact: Bool[Array, ""]
    """Every known estimate of the objective is its target (a cost from a table): there is nothing to correct."""


def features_of(space: SearchSpace) -> Callable[[Int[Array, "n d"]], Float[Array, "n f"]]:
    """`codes[n, d] -> features[n, f]`: indicators of the choices, and where all entries have the same ones (edges of a
    cell, each with one of its operations) how many took each."""
    if len(set(space.choice_names)) > 1:
        return space.one_hot
    indicators = np.eye(sum(space.num_choices), dtype=np.float32)
    counts = np.tile(np.eye(space.num_choices[0], dtype=np.float32), (len(space.num_choices), 1))
    as_counted = np.concatenate([indicators, counts], axis=1)  # one product: small whole numbers, so exact
    return lambda codes: space.one_hot(codes) @ as_counted


def no_correction(rows: int, objectives: int) -> Correction:
    """Of a process that has learnt nothing, with so many rows, and estimates of so many objectives."""
    zero, one, none, nowhere = jnp.zeros(()), jnp.ones(()), jnp.zeros(rows), jnp.zeros(objectives)
    return Correction(
        taught=none > 0,
        weights=none,
        estimates=jnp.zeros((rows, objectives)),
        length=one,
        noise=one,
        amplitude=zero,
        best=zero,
        scale=one,
        mean=zero,
        deviation=one,
        estimate_mean=nowhere,
        estimate_scale=nowhere,
        told=zero > 0,
        exact=zero > 0,
    )


def by_first_rows(correction: Correction, rows: int) -> Correction:
    """The same with its first rows alone; the others must have taught nothing."""
    by_row = ("taught", "weights", "estimates")
    return correction._replace(**{name: getattr(correction, name)[:rows] for name in by_row})


def fit_correction(
    features: Float[Array, "n f"],
    estimates: Float[Array, "n m"],
    target: Float[Array, " n"],
    valid: Bool[Array, " n"],
) -> Correction:
    """Learns `target`, which is maximised, from architectures and their estimates: its own in the first column, those
    of other objectives in the rest.

    Rows that are not `valid`, or whose target is NaN, teach nothing; those after the last valid one cost little. A NaN
    estimate counts as an average one.
    """
    valid = valid & ~jnp.isnan(target)
    best = jnp.where(valid.any(), jnp.where(valid, target, -jnp.inf).max(), 0)
    scale = _median_distance(best - target, valid)
    warped = -jnp.log1p(jnp.where(valid, best - target, 0) / scale)
    mean, deviation = _moments(warped, valid)
    y = jnp.where(valid, (warped - mean) / deviation, 0)
    known = valid[:, None] & ~jnp.isnan(estimates)
    estimate_mean, estimate_deviation = jax.vmap(_moments, in_axes=1)(estimates, known)
    e = jnp.where(known, _standardised(estimates, estimate_mean, 1 / estimate_deviation), 0)

    own, own_known = estimates[:, 0], known[:, 0]
    close = jnp.abs(own - target) <= 1e-5 * jnp.abs(target)
    exact = own_known.any() & jnp.where(own_known, close, True).all()
    lengths, noises, relevances = (jnp.asarray(menu, y.dtype) for menu in (LENGTHS, NOISES, RELEVANCES))

    def choose():  # what has the greatest evidence
        rows = jnp.argsort(~valid, stable=True)[:MOST_ROWS]
        x, e_x, y_x, valid_x = features[rows], e[rows], y[rows], valid[rows]
        distance, beside = _squared_distance(x, e_x[:, :1], x, e_x[:, :1]), _apart(e_x[:, 1:], e_x[:, 1:])
        count = jnp.maximum(valid_x.sum(), 1)

        def evidence(gram, noise):
            solved, factor = _solve(gram, y_x, valid_x, noise)
            amplitude = _amplitude(y_x, solved, valid_x)
            value = -0.5 * count * jnp.log(amplitude) - jnp.where(valid_x, jnp.log(jnp.diag(factor)), 0).sum()
            return jnp.where(jnp.isfinite(value), value, -jnp.inf)

        def of_kernel(kernel):
            length, relevance = kernel
            gram = _gram(distance + relevance * beside, valid_x, length)
            return jax.lax.map(lambda noise: evidence(gram, noise), noises)

        kernels = jnp.tile(lengths, len(RELEVANCES)), jnp.repeat(relevances, len(LENGTHS))
        best = jnp.argmax(jax.lax.map(of_kernel, kernels))
        length, relevance = (menu[best // len(NOISES)] for menu in kernels)
        return length, noises[best % len(NOISES)], relevance

    # A cost from a table needs no correction; in most batches of searches the cost is exact in all.
    needed = shared_maximum((~exact).astype(jnp.int32)) > 0
    length, noise, relevance = jax.lax.cond(needed, choose, lambda: (lengths[0], noises[0], relevances[0]))
    scales = jnp.where(jnp.arange(estimates.shape[1]) == 0, 1.0, jnp.sqrt(relevance)) / estimate_deviation
    e = jnp.where(known, _standardised(estimates, estimate_mean, scales), 0)

    def solve(size: int):  # by the first rows, which hold all that are valid
        x, e_x, valid_x = features[:size], e[:size], valid[:size]
        gram = _gram(_squared_distance(x, e_x, x, e_x), valid_x, length)
        solved, _ = _solve(gram, y[:size], valid_x, noise)
        return jnp.pad(solved, (0, y.shape[0] - size))

    last = jnp.max(jnp.where(valid, jnp.arange(y.shape[0]) + 1, 0), initial=0)
    solved = jax.lax.cond(needed, lambda: at_smallest_size(last, y.shape[0], solve), lambda: jnp.zeros_like(y))
    return Correction(
        taught=valid,
        weights=solved,
        estimates=e,
        length=length,
        noise=noise,
        amplitude=_amplitude(y, solved, valid),
        best=best,
        scale=scale,
        mean=mean,
        deviation=deviation,
        estimate_mean=estimate_mean,
        estimate_scale=scales,
        told=own_known.sum() >= FEWEST_ESTIMATES,
        exact=exact,
    )


def posterior_quantiles(
    correction: Correction,
    features: Float[Array, "n f"],
    query_features: Float[Array, "c f"],
    query: Float[Array, "c m"],
    levels: tuple[float, ...],
) -> Float[Array, "q c"]:
    """Quantiles of the noise-free target at the query architectures, in its unit, at each of the `levels`, in (0, 1).

    `features` are the rows of the fit, `query` the estimates of the query architectures, in the fit's columns. A NaN
    estimate counts as an average one. Where the correction is `exact`, the estimate is the answer at every level, also
    where it is NaN. The median is 0 where nothing was learnt.
    """
    taught, rows, length = correction.taught, correction.estimates, correction.length

    def learnt():
        e = _standardised(query, correction.estimate_mean, correction.estimate_scale)
        distance = _squared_distance(query_features, e, features, rows)
        likeness = jnp.where(taught, jnp.exp(-distance / (2 * length**2)), 0)
        gram = _gram(_squared_distance(features, rows, features, rows), taught, length)
        factor = _factor(gram, taught, correction.noise)  # the fit's; to keep it would be capacity^2 numbers a search
        explained = jnp.square(jax.scipy.linalg.solve_triangular(factor, likeness.T, lower=True)).sum(axis=0)
        centre = likeness @ correction.weights
        deviation = jnp.sqrt(correction.amplitude * jnp.maximum(1 - explained, 0))

        def quantile(z):
            warped = correction.mean + correction.deviation * (centre + z * deviation)
            return correction.best - correction.scale * jnp.expm1(-warped)

        return jax.vmap(quantile)(jax.scipy.special.ndtri(jnp.asarray(levels)))

    own = query[:, 0].astype(correction.best.dtype)  # the target's
    as_known = jnp.broadcast_to(own, (len(levels), *own.shape))
    needed = shared_maximum((~correction.exact).astype(jnp.int32)) > 0
    return jnp.where(correction.exact, as_known, jax.lax.cond(needed, learnt, lambda: as_known))


def _standardised(estimates, mean, scale):
    return jnp.nan_to_num((estimates - mean[None]) * scale[None], nan=0.0)


def _squared_distance(x, e_x, z, e_z):
    # Features are small whole numbers, of which products are exact at any precision; estimates are not.
    features = (x**2).sum(axis=1)[:, None] + (z**2).sum(axis=1)[None, :] - 2 * x @ z.T
    return features / 2 + _apart(e_x, e_z)


def _apart(e, z):  # column by column: a sum over so short an axis takes XLA several times as long on a CPU
    columns = zip(e.T, z.T, strict=True)
    return sum(((a[:, None] - b[None, :]) ** 2 for a, b in columns), start=jnp.zeros((len(e), len(z)), e.dtype))


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
    spread = variance > (SMALLEST_SPREAD * mean) ** 2
    return mean, jnp.where(spread, jnp.sqrt(jnp.where(spread, variance, 1)), 1.0)
