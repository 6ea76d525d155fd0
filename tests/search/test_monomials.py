"""Sums over monomials by halves against the matrix of all monomials of all rows."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cenas_jax.search.lamoo import (
    SVM,
    LamooConfig,
    Region,
    SVMConfig,
    lamoo_search,
    make_kernel,
    region_depth,
    space_kernel,
)
from cenas_jax.search.lamoo.monomials import cells_of, exponents, monomials, multiplicities, scatter_on_grid
from cenas_jax.search.lamoo.svm import Landmarks
from cenas_jax.spaces import tabular_space


@pytest.mark.parametrize(("features", "degree"), [(1, 3), (6, 4), (4, 1)])
def test_multiplicities_add_up_to_the_power_of_the_number_of_features(features, degree):
    assert multiplicities(exponents(features, degree)).sum() == features**degree


@pytest.mark.parametrize(("features", "degree"), [(1, 3), (2, 1), (6, 4), (5, 3)])
def test_monomials_are_products_of_powers(features, degree):
    powers = exponents(features, degree)
    assert len({tuple(row) for row in powers}) == len(powers) == math.comb(features + degree - 1, degree)
    assert (powers.sum(axis=1) == degree).all()
    x = np.random.default_rng(0).normal(size=(20, features)).astype(np.float32)
    expected = np.prod(x[None].astype(float) ** powers[:, None], axis=2)
    np.testing.assert_allclose(monomials(jnp.asarray(x), degree), expected, rtol=1e-5, atol=1e-6)


UNEVEN = [
    np.array(values) for values in ([2.0, 0.0, 1.0], [0.0, 3.0, 3.0], [0.5, -1.0, 5.0, 2.0], [1.0, 0.0], [0.0, 1.0])
]


@pytest.mark.parametrize(("values", "degree"), [([np.arange(5.0)] * 6, 4), (UNEVEN, 4), ([np.arange(4.0)] * 4, 4)])
def test_scatter_is_the_weighted_sum_of_outer_products(values, degree):
    random = np.random.default_rng(0)
    x = np.stack([random.choice(column, 40) for column in values], axis=1).astype(np.float32)
    c = random.random(40).astype(np.float32)
    rows = np.prod(x[:, None].astype(float) ** exponents(len(values), degree)[None], axis=2)
    expected = np.einsum("n,ni,nj->ij", c, rows, rows)
    scatter = scatter_on_grid(values, degree)
    assert scatter is not None
    found = jax.jit(lambda x, c: scatter(x)(c))(x, c)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


def test_cells_are_places_in_the_grid():
    x = np.stack([axis.ravel() for axis in np.meshgrid(*UNEVEN, indexing="ij")], axis=1).astype(np.float32)
    cells = np.asarray(cells_of(jnp.asarray(x), UNEVEN))
    np.testing.assert_array_equal(x[cells], x)
    assert len(set(cells.tolist())) == len(cells) * 2 // 3  # one value stands twice


@pytest.mark.parametrize(
    ("values", "degree"), [([np.arange(9.0)], 4), ([np.arange(5.0)] * 6, 1), ([np.arange(40.0)] * 3, 2)]
)
def test_many_cells_or_few_monomials_are_no_gain(values, degree):
    assert scatter_on_grid(values, degree) is None


@pytest.mark.parametrize("kernel", ["poly", "linear", "rbf"])
def test_a_region_of_the_whole_space_is_that_of_its_rows(kernel):
    """Entries with other numbers of choices, ordinals that do not rise, a shuffled order, paths of any length."""
    choices = (("a", "b", "c"), ("a", "b"), ("a", "b", "c", "d"), ("a", "b", "c"), ("a", "b"))
    ordinal = ((2.0, 0.0, 1.0), (0.0, 3.0), (0.0, 1.0, 5.0, 2.0), (1.0, -2.0, 0.5), (0.0, 1.0))
    order = np.random.default_rng(0).permutation(144)
    space = tabular_space("uneven", choices, ordinal=ordinal, order=order)
    codes = space.codes(jnp.arange(space.size))
    features = space.features(codes)
    _, everywhere = space_kernel(SVMConfig(kernel=kernel), codes, features)
    machines = make_kernel(SVMConfig(kernel=kernel), 5)
    everywhere, by_rows = jax.jit(everywhere), jax.jit(lambda region: region_depth(machines, region, features))
    columns = {"rbf": 8, "linear": 5, "poly": len(exponents(5, 4))}[kernel]
    seen = set()
    for seed in range(5):
        random = np.random.default_rng(seed)
        landmarks = Landmarks(jnp.zeros((3, 0, 0)), jnp.zeros(3))
        if kernel == "rbf":
            landmarks = Landmarks(jnp.asarray(random.random((3, columns, 5)), jnp.float32), jnp.ones(3))
        weights = jnp.asarray(random.standard_normal((3, columns)), jnp.float32)
        bias = jnp.asarray(0.1 * random.standard_normal(3), jnp.float32)
        sides = jnp.asarray(random.random((2, 3)) < 0.7)
        region = Region(SVM(weights, bias, landmarks), sides[0], sides[1])
        found = np.asarray(everywhere(region))
        assert np.mean(found == np.asarray(by_rows(region))) > 0.99
        seen |= set(found.tolist())
    assert len(seen) > 1


def test_a_searcher_may_be_made_inside_of_a_compiled_function():
    space = tabular_space("small", (("a", "b", "c"),) * 3)

    def drawn(key):
        searcher = lamoo_search(space, jnp.zeros(2), LamooConfig(capacity=8, choice="random"))
        nothing = jnp.zeros((0, 3), jnp.int32), jnp.zeros(0, bool)
        return searcher.ask(key, searcher.fit(searcher.init(key)), 4, *nothing)[1]

    assert bool(jax.jit(drawn)(jax.random.key(0)).all())
