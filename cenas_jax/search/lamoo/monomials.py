"""Sums over the monomials of a polynomial kernel, without the matrix of all monomials of all rows.

A monomial is one of the first half of the features times one of the others. So the monomials of a degree are, for
every split of the degree between the halves, all products of two short lists, and a polynomial on a grid is a few
products of small matrices; so is its transpose, the sums of all monomials over weighted points of the grid.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

SUMS_GAIN, ROWS_OF_A_GRID = 5, 128
"""The sums over a grid are worth it where they are this many times fewer than the entries that they stand for, and
where the last of their products, of the grid, are no more than those of this many rows."""


class _Halves(NamedTuple):
    first: np.ndarray  # exponents [p, half] of all monomials up to the degree, by rising degree
    second: np.ndarray
    splits: tuple[tuple[slice, slice], ...]
    """Of the degree: a monomial is the product of any of these of the first and of the second half."""


def exponents(features: int, degree: int) -> np.ndarray:
    """The exponents `[monomials, features]` of all monomials of a degree, in the order of all functions here."""
    if features < 2:
        return np.full((1 if features or not degree else 0, features), degree)
    halves = _halves(features, degree)
    pairs = [pair for i, j in halves.splits for pair in itertools.product(halves.first[i], halves.second[j])]
    return np.array([np.concatenate(pair) for pair in pairs])


def _halves(features: int, degree: int) -> _Halves:
    half = features // 2
    first, second = ([exponents(count, total) for total in range(degree + 1)] for count in (half, features - half))
    ends = [np.cumsum([0, *map(len, part)]) for part in (first, second)]
    parts = [[slice(*pair) for pair in itertools.pairwise(end)] for end in ends]
    splits = tuple((parts[0][total], parts[1][degree - total]) for total in range(degree + 1))
    return _Halves(np.concatenate(first), np.concatenate(second), splits)


def multiplicities(exponents: np.ndarray) -> np.ndarray:
    """How often each monomial stands in the power of the sum of the features: `degree! / (e_1! e_2! ...)`."""
    return np.array([math.factorial(sum(row)) / math.prod(map(math.factorial, row)) for row in exponents])


def monomials(x: Float[Array, "n f"], degree: int) -> Float[Array, "p n"]:
    """All monomials of a degree of every row of x."""
    features = x.shape[1]
    if features < 2:
        return x.T**degree
    halves = _halves(features, degree)
    u, v = _products(x[:, : features // 2], halves.first), _products(x[:, features // 2 :], halves.second)
    blocks = [(u[i][:, None] * v[j][None, :]).reshape(-1, x.shape[0]) for i, j in halves.splits]
    return jnp.concatenate(blocks)


def _products(x: Float[Array, "n f"], exponents: np.ndarray) -> Float[Array, "p n"]:
    powers = [jnp.ones_like(x.T)]
    for _ in range(int(exponents.max())):
        powers.append(powers[-1] * x.T)
    return jnp.prod(jnp.stack(powers)[exponents, np.arange(x.shape[1])], axis=1)


def cells_of(x: Float[Array, "n f"], values: Sequence[np.ndarray]) -> Int[Array, " n"]:
    """The place of every row in the grid of all combinations of the features' `values`, the first feature slowest.

    Where two values of a feature are equal, the place of the first; rows that are no combination have no true place.
    """
    known, weight = np.full((len(values), max(map(len, values))), np.nan, np.float32), 1
    weights = np.zeros(known.shape, np.int32)
    for feature in reversed(range(len(values))):
        distinct, first = np.unique(np.asarray(values[feature], np.float32), return_index=True)
        known[feature, first], weights[feature, first] = distinct, weight * first
        weight *= len(values[feature])
    return jnp.where(x[:, :, None] == known[None], weights[None], 0).sum((1, 2))


class _Grid(NamedTuple):
    """All combinations of the values of each half of the features, and their monomials of each half up to a degree."""

    halves: _Halves
    first: Float[Array, "cells p"]
    second: Float[Array, "cells p"]
    first_is_shorter: tuple[bool, ...]
    """For every split: which of its two lists of monomials."""


def _grid(values: Sequence[np.ndarray], degree: int) -> _Grid:
    halves, half = _halves(len(values), degree), len(values) // 2

    def on(of: Sequence[np.ndarray], exponents: np.ndarray) -> Array:
        x = np.stack([axis.ravel() for axis in np.meshgrid(*of, indexing="ij")], axis=1)
        return jnp.asarray(np.prod(x[:, None, :] ** exponents[None], axis=2), jnp.float32)

    shorter = tuple(i.stop - i.start <= j.stop - j.start for i, j in halves.splits)
    return _Grid(halves, on(values[:half], halves.first), on(values[half:], halves.second), shorter)


def polynomial_on_grid(values: Sequence[np.ndarray], degree: int) -> Callable:
    """`coefficients[p] -> [cells]`: the polynomial of all monomials of a degree at all combinations of the `values`.

    Two features or more, the first the slowest. Of every split, the products with the longer of the two lists are
    summed first: with six features of five values and degree 4 a ninth of the multiplications of the matrix of all
    monomials.
    """
    grid = _grid(values, degree)

    def everywhere(coefficients):
        lefts, rights, start = [], [], 0
        for (i, j), first_is_shorter in zip(grid.halves.splits, grid.first_is_shorter, strict=True):
            u, v = grid.first[:, i], grid.second[:, j]
            block = coefficients[start : start + u.shape[1] * v.shape[1]].reshape(u.shape[1], v.shape[1])
            start += block.size
            lefts.append(u if first_is_shorter else u @ block)
            rights.append(v @ block.T if first_is_shorter else v)
        return (jnp.concatenate(lefts, axis=1) @ jnp.concatenate(rights, axis=1).T).ravel()

    return everywhere


def scatter_on_grid(values: Sequence[np.ndarray], degree: int) -> Callable | None:
    """`x[n, f] -> (c[n] -> sum_i c_i m_i m_i^T)` of the monomials m of rows that are combinations of the `values`.

    An entry is a weighted sum of a monomial of twice the degree, and many entries share theirs: six features and degree
    4 have 15,876 entries of 1,287 sums. Of every split, the rows of equal longer half are summed first, with the
    shorter list. None where that is no gain: few monomials or many values.
    """
    rows, twice = exponents(len(values), degree), exponents(len(values), 2 * degree)
    half = len(values) // 2
    cells = [math.prod(map(len, part)) for part in (values[:half], values[half:])]
    if len(rows) ** 2 < max(SUMS_GAIN * len(twice), max(cells) * len(twice) / ROWS_OF_A_GRID):
        return None
    grid = _grid(values, 2 * degree)
    position = {tuple(row): place for place, row in enumerate(twice)}
    places = np.array([[position[tuple(row + other)] for other in rows] for row in rows])
    shorter = [np.zeros(len(part), bool) for part in grid.halves[:2]]
    for split, first_is_shorter in zip(grid.halves.splits, grid.first_is_shorter, strict=True):
        side = 0 if first_is_shorter else 1
        shorter[side][split[side]] = True

    def scatter(x):
        first, second = cells_of(x[:, :half], values[:half]), cells_of(x[:, half:], values[half:])
        u, v = grid.first[:, shorter[0]][first], grid.second[:, shorter[1]][second]

        def of(c):
            by_second = jnp.zeros((cells[1], u.shape[1]), c.dtype).at[second].add(c[:, None] * u)
            by_first = jnp.zeros((cells[0], v.shape[1]), c.dtype).at[first].add(c[:, None] * v)
            sums = []
            for (i, j), first_is_shorter in zip(grid.halves.splits, grid.first_is_shorter, strict=True):
                if first_is_shorter:
                    start = shorter[0][: i.start].sum()
                    sums.append(by_second[:, start : start + i.stop - i.start].T @ grid.second[:, j])
                else:
                    start = shorter[1][: j.start].sum()
                    sums.append(grid.first[:, i].T @ by_first[:, start : start + j.stop - j.start])
            return jnp.concatenate([block.ravel() for block in sums])[places]

        return of

    return scatter
