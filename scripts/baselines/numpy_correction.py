"""Corrected estimates and the greedy batch in NumPy and SciPy, by the rules of `cenas_jax.search.gaussian_process` and
`cenas_jax.search.ranking`. Float64; only what is needed is computed: a process of exact costs is never fitted, and what
cannot gain is left out of later picks.
"""

import itertools
import math
from functools import cached_property

import numpy as np
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.special import ndtri

LENGTHS, NOISES, RELEVANCES = (1.0, 1.5, 2.0, 3.0, 4.0), (1e-3, 1e-2, 1e-1), (0.0, 1.0)
MOST_ROWS, FEWEST_ESTIMATES, SMALLEST_SPREAD = 48, 2, 1e-6
LEVELS, SHORTLIST = (0.1, 0.3, 0.5, 0.7, 0.9), 64


class Correction:
    """A Gaussian process of one objective, fitted on evaluated architectures."""

    def __init__(self, features: np.ndarray, estimates: np.ndarray, target: np.ndarray):
        """Rows `[n, f]`, `[n, m]` (the objective's own first, NaN where unknown), `[n]` (maximised, finite)."""
        self.features, self.best = features, target.max() if len(target) else 0.0
        self.scale = _median_distance(self.best - target)
        warped = -np.log1p((self.best - target) / self.scale)
        self.mean, self.deviation = _moments(warped)
        self.y = (warped - self.mean) / self.deviation
        self.moments = [_moments(column[~np.isnan(column)]) for column in estimates.T]
        self.e = self._standardised(estimates)
        own = estimates[:, 0]
        known = ~np.isnan(own)
        self.told = known.sum() >= FEWEST_ESTIMATES
        close = np.abs(own - target)[known] <= 1e-5 * np.abs(target)[known]
        self.exact = bool(known.any() and close.all())

    def posterior_quantiles(self, features: np.ndarray, estimates: np.ndarray) -> np.ndarray:
        """`[levels, c]`, in the target's unit, of architectures `[c, f]` with estimates `[c, m]` (NaN: unknown)."""
        own = estimates[:, 0]
        shape = len(LEVELS), len(own)
        if self.exact:
            return np.broadcast_to(own, shape)
        if not len(self.y):
            return np.zeros(shape)
        (length, relevance), weights, factor = self.fitted
        distance = _squared_distance(features, self._standardised(estimates), self.features, self.e, relevance)
        likeness = _kernel(distance, length)
        explained = (solve_triangular(factor, likeness.T, lower=True, check_finite=False) ** 2).sum(axis=0)
        amplitude = max(self.y @ weights / len(self.y), 1e-12)
        deviations = ndtri(LEVELS)[:, None] * np.sqrt(amplitude * np.maximum(1 - explained, 0))
        warped = self.mean + self.deviation * (likeness @ weights + deviations)
        return self.best - self.scale * np.expm1(-warped)

    @cached_property
    def fitted(self) -> tuple[tuple[float, float], np.ndarray, np.ndarray]:
        """Length and relevance of the greatest evidence, the weights of the rows, and their Cholesky factor."""
        length, relevance, noise = self._choose()
        gram = _kernel(_squared_distance(self.features, self.e, self.features, self.e, relevance), length)
        return (length, relevance), *_solve(gram, noise, self.y)

    def _choose(self) -> tuple[float, float, float]:
        x, e, y = self.features[:MOST_ROWS], self.e[:MOST_ROWS], self.y[:MOST_ROWS]
        best = (-math.inf, 0.0, 0.0, 0.0)
        distances = {relevance: _squared_distance(x, e, x, e, relevance) for relevance in RELEVANCES}
        for relevance, length in itertools.product(RELEVANCES, LENGTHS):
            gram = _kernel(distances[relevance], length)
            for noise in NOISES:
                weights, factor = _solve(gram, noise, y)
                amplitude = max(y @ weights / len(y), 1e-12)
                value = -0.5 * len(y) * math.log(amplitude) - np.log(np.diagonal(factor)).sum()
                if value > best[0]:
                    best = value, length, relevance, noise
        return best[1:]

    def _standardised(self, estimates: np.ndarray) -> np.ndarray:
        mean, deviation = np.array(self.moments).T
        return np.nan_to_num((estimates - mean) / deviation, nan=0.0)


def by_gain(predicted: np.ndarray, objectives: np.ndarray, reference_point: np.ndarray, n: int) -> np.ndarray:
    """Rows of `predicted[levels, c, 2]` in the order of the greedy batch, at most `n`: each has the greatest mean gain
    in hypervolume over `objectives[e, 2]` and the medians of the earlier ones; of equal ones, and of those that gain
    nothing, the first of the short list."""
    boxes = np.maximum(predicted - reference_point, 0)
    front = _front(np.maximum(objectives - reference_point, 0))
    listed = np.argsort(-_gains(boxes, front), kind="stable")[: max(2 * n, SHORTLIST)]
    left, picked = listed, []
    while len(picked) < n and len(left):
        gain = _gains(boxes[:, left], front)
        # A gain only falls as the front grows: what has none is done with.
        left, gain = left[gain > 0], gain[gain > 0]
        if not len(left):
            break
        best = np.argmax(gain)
        picked.append(left[best])
        front = _front(np.concatenate([front, boxes[len(boxes) // 2, left[best], None]]))
        left = np.delete(left, best)
    rest = listed[~np.isin(listed, picked)][: n - len(picked)]
    return np.concatenate([np.array(picked, int), rest])


def _gains(boxes: np.ndarray, front: np.ndarray) -> np.ndarray:
    """`[c]`: mean area of the boxes `[levels, c, 2]` above the staircase, column by column from the right; `front` as
    `_front` gives it."""
    edges = np.concatenate([[np.inf], front[:, 0], [0.0]])
    heights = np.concatenate([[0.0], front[:, 1]])
    widths = np.minimum(boxes[..., :1], edges[:-1]) - edges[1:]
    return (np.maximum(widths, 0) * np.maximum(boxes[..., 1:] - heights, 0)).sum(axis=-1).mean(axis=0)


def _front(points: np.ndarray) -> np.ndarray:
    """The non-dominated ones, by falling first and so rising second objective."""
    points = points[np.lexsort((-points[:, 1], -points[:, 0]))]
    highest_before = np.concatenate([[0.0], np.maximum.accumulate(points[:, 1])[:-1]]) if len(points) else points[:, 1]
    return points[points[:, 1] > highest_before]


def _squared_distance(x, e_x, z, e_z, relevance: float) -> np.ndarray:
    norms = (x**2).sum(axis=1)[:, None] + (z**2).sum(axis=1)
    distance = (norms - 2 * x @ z.T) / 2 + (e_x[:, :1] - e_z[:, 0]) ** 2
    return distance + relevance * ((e_x[:, None, 1:] - e_z[:, 1:]) ** 2).sum(axis=-1) if relevance else distance


def own_first(estimates: np.ndarray, own: int) -> np.ndarray:
    """The columns `[n, m]` with that of objective `own` in front."""
    return np.roll(estimates, -own, axis=1)


def _kernel(distance: np.ndarray, length: float) -> np.ndarray:
    exponent = distance * (-0.5 / length**2)
    return np.exp(exponent, out=exponent)


def _solve(gram: np.ndarray, noise: float, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights, and the Cholesky factor."""
    noisy = gram.copy()
    noisy[np.diag_indices_from(noisy)] += noise
    factor = cho_factor(noisy, lower=True, overwrite_a=True, check_finite=False)
    return cho_solve(factor, y, check_finite=False), factor[0]


def _median_distance(distance: np.ndarray) -> float:
    if not len(distance):
        return 1.0
    return float(np.median(distance)) or float(np.mean(distance)) or 1.0


def _moments(values: np.ndarray) -> tuple[float, float]:
    if not len(values):
        return 0.0, 1.0
    mean, deviation = float(values.mean()), float(values.std())
    return mean, deviation if deviation > SMALLEST_SPREAD * abs(mean) else 1.0
