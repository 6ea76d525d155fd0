"""Sums over monomials of a polynomial kernel, faster than by the matrix of all monomials of all rows.

A monomial is one of the first half of the features times one of the others. So the monomials of a degree are, for
every split of the degree between the halves, all products of two short lists: what is summed over them is a few small
products of matrices.
"""

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

MOMENTS_GAIN = 5
"""Fewer sums by this factor are worth small products of matrices, which run several times slower than large ones."""


def exponents(features: int, degree: int) -> np.ndarray:
    """The exponents `[monomials, features]` of all monomials of a degree."""
    combinations = itertools.combinations_with_replacement(range(features), degree)
    return np.array([[row.count(feature) for feature in range(features)] for row in combinations])


def multiplicities(exponents: np.ndarray) -> np.ndarray:
    """How often each monomial stands in the power of the sum of the features: `degree! / (e_1! e_2! ...)`."""
    return np.array([math.factorial(sum(row)) / math.prod(map(math.factorial, row)) for row in exponents])


def monomials(x: Float[Array, "n f"], exponents: np.ndarray) -> Float[Array, "n p"]:
    """The product of powers of the columns of x, for every row of `exponents`."""
    powers = [jnp.ones_like(x.T)]
    for _ in range(int(exponents.max())):
        powers.append(powers[-1] * x.T)
    return jnp.prod(jnp.stack(powers)[exponents, np.arange(x.shape[1])], axis=1).T


class _Split(NamedTuple):
    """The monomials of one split of the degree: all products of these of the first and of the second half."""

    first: slice
    second: slice
    swapped: bool
    """The second half's are fewer. The fewer ones come first in the order of the products."""


class _Halves(NamedTuple):
    first: np.ndarray  # exponents [p, half] of all monomials up to the degree
    second: np.ndarray
    splits: tuple[_Split, ...]
    position: dict[tuple[int, ...], int]
    """Of every monomial of the degree, in the order of splits and products."""


def _halves(num_features: int, degree: int) -> _Halves:
    half = num_features // 2
    first, second = (
        np.concatenate([exponents(features, total) for total in range(degree + 1)])
        for features in (half, num_features - half)
    )
    splits, position = [], {}
    for total in range(degree + 1):
        parts = np.flatnonzero(first.sum(1) == total), np.flatnonzero(second.sum(1) == degree - total)
        swapped = len(parts[0]) > len(parts[1])
        for pair in itertools.product(*(reversed(parts) if swapped else parts)):
            i, j = reversed(pair) if swapped else pair
            position[(*first[i], *second[j])] = len(position)
        first_slice, second_slice = (slice(part[0], part[-1] + 1) for part in parts)
        splits.append(_Split(first_slice, second_slice, swapped))
    return _Halves(first, second, tuple(splits), position)


def scatter_by_moments(num_features: int, degree: int) -> Callable | None:
    """`x[n, f] -> (c[n] -> sum_i c_i phi_i phi_i^T)` of the kernel's columns phi; None where that is no gain.

    An entry is a weighted sum of a monomial of twice the degree, and many entries share theirs: six features and degree
    4 have 15,876 entries of 1,287 moments.
    """
    rows = exponents(num_features, degree)
    moments = math.comb(num_features + 2 * degree - 1, 2 * degree)
    if num_features < 2 or len(rows) ** 2 < MOMENTS_GAIN * moments:
        return None
    halves = _halves(num_features, 2 * degree)
    places = np.array([[halves.position[tuple(row + other)] for other in rows] for row in rows])
    root = np.sqrt(multiplicities(rows))

    def scatter(x):
        u, v = monomials(x[:, : num_features // 2], halves.first), monomials(x[:, num_features // 2 :], halves.second)
        # A product is quickest on a CPU with the smaller factor, weighted, on the left.
        pairs = [(v[:, j], u[:, i]) if swapped else (u[:, i], v[:, j]) for i, j, swapped in halves.splits]

        def of(c):
            sums = [((left.T * c[None, :]) @ right).ravel() for left, right in pairs]
            return jnp.concatenate(sums)[places] * jnp.asarray(np.outer(root, root), c.dtype)

        return of

    return scatter


def polynomial_on_grid(values: list[np.ndarray], degree: int) -> Callable:
    """`weights[r] -> phi(x) . weights` of the kernel's columns phi, for all combinations x of the features' `values`.

    In lexicographic order, the first feature slowest. Of every split, the products with the longer of the two lists are
    summed first, so that what is left is a product of two narrow matrices: with six features of five values and degree
    4 a ninth of the multiplications of the matrix of all monomials.
    """
    half = len(values) // 2
    halves = _halves(len(values), degree)
    rows = exponents(len(values), degree)
    root = np.sqrt(multiplicities(rows))
    order = np.argsort([halves.position[tuple(row)] for row in rows])

    def grid(of: list[np.ndarray]) -> Array:
        return jnp.asarray(np.stack([axis.ravel() for axis in np.meshgrid(*of, indexing="ij")], axis=1))

    u, v = monomials(grid(values[:half]), halves.first), monomials(grid(values[half:]), halves.second)

    def everywhere(weights):
        weights = (weights * jnp.asarray(root, weights.dtype))[order]
        lefts, rights, start = [], [], 0
        for i, j, swapped in halves.splits:
            shape = u[:, i].shape[1], v[:, j].shape[1]
            block = weights[start : start + shape[0] * shape[1]]
            start += shape[0] * shape[1]
            if swapped:
                lefts.append(u[:, i] @ block.reshape(shape[::-1]).T)
                rights.append(v[:, j])
            else:
                lefts.append(u[:, i])
                rights.append(v[:, j] @ block.reshape(shape).T)
        return (jnp.concatenate(lefts, axis=1) @ jnp.concatenate(rights, axis=1).T).ravel()

    return everywhere
