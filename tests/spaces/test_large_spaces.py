"""What every large space promises: valid draws, mutations of one entry, names both ways, one compilation."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cenas_jax.spaces import SPACES, LargeSpace, large_space, space

LARGE = [name for name in SPACES if name != "nas-bench-201"]
N = 32
seeds = st.integers(0, 2**31 - 1)
every_space = pytest.mark.parametrize("name", LARGE)


@functools.cache
def compiled(name):
    """One program a space for all of its functions, so that these tests compile each once."""
    found = space(name)

    def everything(key):
        key_sample, key_mutate = jax.random.split(key)
        codes = found.sample(key_sample, N)
        mutated = found.mutate(key_mutate, codes)
        functions = ("is_valid", "features", "one_hot", "parameters", "multiply_adds", "canonical")
        return codes, mutated, found.is_valid(mutated), {f: getattr(found, f)(codes) for f in functions}

    return jax.jit(everything)


@every_space
@settings(deadline=None, max_examples=10)
@given(seed=seeds)
def test_draws_are_valid_and_mutations_change_one_entry(name, seed):
    codes, mutated, still_valid, found = compiled(name)(jax.random.key(seed))
    counts = np.asarray(space(name).num_choices)
    assert codes.dtype == mutated.dtype == found["canonical"].dtype == jnp.int32
    assert codes.shape == (N, len(counts)) and np.all((codes >= 0) & (np.asarray(codes) < counts))
    assert np.all(found["is_valid"]) and np.all(still_valid)
    np.testing.assert_array_equal(np.sum(np.asarray(codes != mutated), axis=1), 1)
    np.testing.assert_array_equal(found["one_hot"].sum(axis=1), len(counts))
    assert found["one_hot"].shape == (N, counts.sum())
    for output in ("features", "one_hot", "parameters", "multiply_adds"):
        assert found[output].dtype == jnp.float32 and np.all(np.isfinite(found[output]))
    assert np.all(found["parameters"] > 0) and np.all(found["multiply_adds"] > 0)
    assert compiled(name)._cache_size() == 1


@every_space
@settings(deadline=None, max_examples=10)
@given(seed=seeds)
def test_names_round_trip(name, seed):
    codes, found = np.asarray(compiled(name)(jax.random.key(seed))[0][0]), space(name)
    text = found.to_string(codes)
    back = found.from_string(text)
    assert back.dtype == np.int32
    np.testing.assert_array_equal(back, codes)
    assert found.to_string(back) == text


@every_space
def test_jit_vmap_and_loop_agree(name):
    keys = jax.random.split(jax.random.key(1), 3)
    batched = jax.jit(jax.vmap(compiled(name)))(keys)
    for place, key in enumerate(keys):
        own = jax.tree.map(lambda leaf, place=place: leaf[place], batched)
        for one, other in zip(jax.tree.leaves(own), jax.tree.leaves(compiled(name)(key)), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-6)


@every_space
def test_canonical_codes_are_their_own_and_compute_the_same(name):
    found = space(name)
    codes, _, _, of_codes = compiled(name)(jax.random.key(2))
    again = jax.jit(lambda codes: (found.canonical(codes), found.parameters(codes), found.is_valid(codes)))
    canonical, parameters, valid = again(of_codes["canonical"])
    np.testing.assert_array_equal(canonical, of_codes["canonical"])
    assert np.all(valid)
    if name != "nas-bench-101":  # whose rule of channels gives what a division leaves to the first vertices
        np.testing.assert_allclose(parameters, of_codes["parameters"], rtol=1e-6)


@every_space
def test_rows_out_of_range_are_not_valid(name):
    found = space(name)
    codes = found.sample(jax.random.key(3), 3)
    codes = codes.at[1, 0].set(-1).at[2, -1].set(found.num_choices[-1])
    np.testing.assert_array_equal(found.is_valid(codes), [True, False, False])


@every_space
def test_float32_and_int32_also_under_x64(name):
    with jax.enable_x64(True):
        codes, mutated, _, found = jax.eval_shape(lambda key: compiled(name).__wrapped__(key), jax.random.key(0))
        assert codes.dtype == mutated.dtype == found["canonical"].dtype == jnp.int32
        kinds = {found[output].dtype for output in ("features", "one_hot", "parameters", "multiply_adds")}
        assert kinds == {jnp.dtype("float32")}


@pytest.mark.parametrize("field", ["size", "index", "codes", "isomorph"])
def test_what_needs_a_table_is_refused(field):
    with pytest.raises(AttributeError, match=f"space 'mobile' is too large to enumerate: it has no `{field}`"):
        getattr(space("mobile"), field)
    with pytest.raises(AttributeError, match="has no attribute 'sizes'"):
        space("mobile").sizes  # noqa: B018


def small(**options) -> LargeSpace:
    def total(codes):
        return codes.sum(axis=1).astype(jnp.float32)

    def features(codes):
        return codes.astype(jnp.float32)

    choices = (("a", "b"), ("x", "y", "z"))
    return large_space("small", choices, features=features, parameters=total, multiply_adds=total, **options)


def test_constrained_draws_and_mutations_are_uniform_over_the_valid():
    made, n = small(holds=lambda codes: codes.sum(axis=1) != 1), 20_000
    valid = [(0, 0), (0, 2), (1, 1), (1, 2)]
    shares = [np.mean(np.all(np.asarray(made.sample(jax.random.key(0), n)) == row, axis=1)) for row in valid]
    # Standard error of a share: sqrt(1/4 * 3/4 / n) = 0.0031; five of them.
    np.testing.assert_allclose(shares, 0.25, atol=0.016)
    # From (0, 2): to (0, 0) and (1, 2), (0, 1) is not valid.
    mutated = np.asarray(made.mutate(jax.random.key(1), jnp.full((n, 2), jnp.array([[0, 2]], jnp.int32))))
    np.testing.assert_allclose(np.mean(np.all(mutated == (0, 0), axis=1)), 0.5, atol=0.018)
    np.testing.assert_allclose(np.mean(np.all(mutated == (1, 2), axis=1)), 0.5, atol=0.018)


def test_a_large_space_is_a_few_lines():
    made = small()
    assert made.to_string(np.array([1, 2])) == "b|z"
    np.testing.assert_array_equal(made.from_string("a|y"), [0, 1])
    np.testing.assert_array_equal(made.canonical(jnp.array([[1, 2]])), [[1, 2]])
    with pytest.raises(ValueError, match=re.escape("entry 1: 'w' is none of x, y, z")):
        made.from_string("a|w")
