"""LaMOO's partition in NumPy, scikit-learn and moocore, by the rules of `cenas_jax.search.lamoo.tree` (defaults).

Children by label, so that SVMs are fitted only on the path to the chosen leaf. All in float64, except that the whole
space is scored in float32. Scoring 15,625 architectures by `SVC.decision_function` costs 20 ms (poly) or 44 ms (rbf) at
200 samples, by a kernel matrix 1.1 or 6.4 ms, by the monomials of the polynomial kernel 0.3 ms (measured on one thread
of a server): the faster ones are used here.
"""

import itertools
import math
from dataclasses import dataclass
from typing import NamedTuple

import moocore
import numpy as np
from sklearn.svm import SVC


@dataclass(frozen=True)
class PartitionConfig:
    """As `TreeConfig` and `SVMConfig`."""

    depth: int = 3
    min_samples: int = 10
    exploration: float = 0.1
    kernel: str = "poly"
    degree: int = 4
    penalty: float = 1.0
    scoring: str = "tuned"
    """`plain`: the space is scored by scikit-learn's `decision_function`; `tuned`: faster, as described above."""


def dominance_counts(objectives: np.ndarray) -> np.ndarray:
    """How many rows strictly dominate each row: those no worse in all objectives, less its duplicates and itself."""
    no_worse = np.ones((len(objectives), len(objectives)), bool)
    for column in objectives.T:
        no_worse &= column[:, None] <= column[None, :]
    _, group, sizes = np.unique(objectives, axis=0, return_inverse=True, return_counts=True)
    return np.count_nonzero(no_worse, axis=1) - sizes[group]


def hypervolume(objectives: np.ndarray, reference_point: np.ndarray) -> float:
    return float(moocore.hypervolume(objectives, ref=reference_point, maximise=True))


class Split(NamedTuple):
    """One constraint of a region: the samples of a node, their labels, and which half the path takes."""

    rows: np.ndarray
    good: np.ndarray
    takes_good: bool


class Leaf(NamedTuple):
    place: int  # in heap order among `2**depth`; an early leaf stands at its leftmost descendant
    rows: np.ndarray
    path: tuple[Split, ...]


def partition(objectives: np.ndarray, reference_point: np.ndarray, config: PartitionConfig) -> Leaf:
    """The leaf with the highest upper confidence bound; children by label, so that no SVM is needed here."""
    leaves = [Leaf(0, np.arange(len(objectives)), ())]
    for _ in range(config.depth):
        leaves = [child for leaf in leaves for child in _children(leaf, objectives, config)]
    weight = config.exploration * hypervolume(objectives, reference_point)

    def bound(leaf: Leaf) -> float:
        if not len(leaf.rows):
            return -math.inf
        parent = len(leaf.path[-1].rows) if leaf.path else 1
        bonus = 2 * weight * math.sqrt(2 * math.log(parent) / len(leaf.rows))
        return hypervolume(objectives[leaf.rows], reference_point) + bonus

    return max(leaves, key=bound)


def _children(leaf: Leaf, objectives: np.ndarray, config: PartitionConfig) -> list[Leaf]:
    if len(leaf.rows) <= config.min_samples:
        return [leaf._replace(place=2 * leaf.place)]
    order = np.argsort(dominance_counts(objectives[leaf.rows]), kind="stable")
    good = np.zeros(len(leaf.rows), bool)
    good[order[: (len(order) + 1) // 2]] = True
    return [
        Leaf(2 * leaf.place + side, leaf.rows[half], (*leaf.path, Split(leaf.rows, good, side == 0)))
        for side, half in enumerate((good, ~good))
    ]


class RegionScorer:
    """Fits the SVMs of a path and tells how many of its constraints, root first, each architecture satisfies."""

    def __init__(self, features: np.ndarray, config: PartitionConfig):
        if config.kernel not in ("poly", "rbf"):
            raise ValueError(f"kernel {config.kernel!r} is unknown: choose poly or rbf")
        if config.scoring not in ("tuned", "plain"):
            raise ValueError(f"scoring {config.scoring!r} is unknown: choose tuned or plain")
        self.features, self.config = features, config
        self.features32 = features.astype(np.float32)
        self.squares32 = (self.features32**2).sum(axis=1)
        if config.kernel == "poly":
            count = features.shape[1]
            factors = np.array(list(itertools.combinations_with_replacement(range(count), config.degree)))
            multiplicity = [
                math.factorial(config.degree) / math.prod(map(math.factorial, np.bincount(row))) for row in factors
            ]
            self.monomials32 = (np.prod(features[:, factors], axis=-1) * np.sqrt(multiplicity)).astype(np.float32)

    def depth(self, path: tuple[Split, ...], evaluated: np.ndarray) -> np.ndarray:
        """`int[size]`: `len(path)` inside the region. `evaluated` are the indices of the path's samples."""
        machines = [self._fit(evaluated[split.rows], split.good) for split in path]
        depth = np.zeros(len(self.features), int)
        inside = np.arange(len(depth))
        for split, machine in zip(path, machines, strict=True):
            if self.config.scoring == "plain":
                decision = machine.decision_function(self.features[inside])
            elif self.config.kernel == "poly":  # all rows are faster than a copy of some
                decision = self._poly_decision(machine, evaluated[split.rows])[inside]
            else:
                decision = self._rbf_decision(machine, inside)
            inside = inside[(decision > 0) == split.takes_good]
            depth[inside] += 1
        return depth

    def _fit(self, index: np.ndarray, good: np.ndarray) -> SVC:
        x = self.features[index]
        variance = x.var()
        gamma = 1 / (x.shape[1] * variance) if variance > 0 else 1.0
        config = self.config
        machine = SVC(kernel=config.kernel, degree=config.degree, gamma=gamma, C=config.penalty)  # pyright: ignore[reportArgumentType]
        return machine.fit(x, good)

    def _poly_decision(self, machine: SVC, samples: np.ndarray) -> np.ndarray:
        weights = machine.dual_coef_[0] @ self.monomials32[samples[machine.support_]]
        return (
            self.monomials32 @ (machine.gamma**self.config.degree * weights).astype(np.float32) + machine.intercept_[0]
        )

    def _rbf_decision(self, machine: SVC, rows: np.ndarray) -> np.ndarray:
        support = machine.support_vectors_.astype(np.float32)
        exponent = self.features32[rows] @ (2 * machine.gamma * support.T)
        exponent -= machine.gamma * self.squares32[rows, None]
        exponent -= machine.gamma * (support**2).sum(axis=1)
        return np.exp(exponent, out=exponent) @ machine.dual_coef_[0].astype(np.float32) + machine.intercept_[0]
