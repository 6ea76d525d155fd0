"""Sums over monomials by halves against the matrix of all monomials of all rows."""

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
    region_depth_everywhere,
)
from cenas_jax.search.lamoo.monomials import exponents, multiplicities, scatter_by_moments
from cenas_jax.search.lamoo.svm import Landmarks
from cenas_jax.spaces import tabular_space


@pytest.mark.parametrize(("features", "degree"), [(1, 3), (6, 4), (4, 1)])
def test_multiplicities_add_up_to_the_power_of_the_number_of_features(features, degree):
    assert multiplicities(exponents(features, degree)).sum() == features**degree


@pytest.mark.parametrize(("features", "degree"), [(6, 4), (3, 4), (7, 3)])
def test_scatter_is_the_weighted_sum_of_outer_products(features, degree):
    random = np.random.default_rng(0)
    x, c = random.integers(0, 5, (40, features)).astype(np.float32), random.random(40).astype(np.float32)
    columns = make_kernel(SVMConfig(degree=degree), features).static(jnp.asarray(x))
    expected = np.einsum("n,ni,nj->ij", c, np.asarray(columns, float), np.asarray(columns, float))
    scatter = scatter_by_moments(features, degree)
    assert scatter is not None
    found = jax.jit(lambda x, c: scatter(x)(c))(x, c)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize(("features", "degree"), [(1, 4), (6, 1), (2, 2)])
def test_few_monomials_are_no_gain(features, degree):
    assert scatter_by_moments(features, degree) is None


@pytest.mark.parametrize("kernel", ["poly", "linear", "rbf"])
def test_a_region_of_the_whole_space_is_that_of_its_rows(kernel):
    """Entries with other numbers of choices, ordinals that do not rise, a shuffled order, paths of any length."""
    choices = (("a", "b", "c"), ("a", "b"), ("a", "b", "c", "d"), ("a", "b", "c"), ("a", "b"))
    ordinal = ((2.0, 0.0, 1.0), (0.0, 3.0), (0.0, 1.0, 5.0, 2.0), (1.0, -2.0, 0.5), (0.0, 1.0))
    order = np.random.default_rng(0).permutation(144)
    space = tabular_space("uneven", choices, ordinal=ordinal, order=order)
    codes = space.codes(jnp.arange(space.size))
    features = space.features(codes)
    machines = make_kernel(SVMConfig(kernel=kernel), 5)
    everywhere = jax.jit(region_depth_everywhere(machines, codes, features))
    static = machines.static(features)
    by_rows = jax.jit(lambda region: region_depth(machines, region, static))
    columns = 8 if kernel == "rbf" else static.shape[1]
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
