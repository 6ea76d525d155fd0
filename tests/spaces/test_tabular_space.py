"""The tabular space factory: round trips, uniform draws and mutations, refusals."""

import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cenas_jax.spaces import space, tabular_space, with_distinct_isomorphs
from cenas_jax.spaces.base import with_representatives

SMALL = tabular_space("small", (("skip", "conv", "pool"), ("none",), ("a", "b")))
num_choices_lists = st.lists(st.integers(1, 5), min_size=1, max_size=5).filter(lambda counts: max(counts) > 1)


def make(counts, **options):
    return tabular_space("made", tuple(tuple(f"c{i}" for i in range(count)) for count in counts), **options)


def test_a_space_is_a_few_lines():
    assert SMALL.size == 6
    assert SMALL.num_choices == (3, 1, 2)
    assert SMALL.to_string(np.array([1, 0, 1])) == "conv|none|b"
    np.testing.assert_array_equal(SMALL.from_string("pool|none|a"), [2, 0, 0])
    # Lexicographic: entry 0 slowest, so (1, 0, 1) is 1 * 2 + 1 = 3.
    np.testing.assert_array_equal(SMALL.index(jnp.array([[1, 0, 1]])), [3])
    np.testing.assert_array_equal(SMALL.features(jnp.array([[2, 0, 1]])), [[2.0, 0.0, 1.0]])
    np.testing.assert_array_equal(SMALL.one_hot(jnp.array([[2, 0, 1]])), [[0, 0, 1, 1, 0, 1]])
    np.testing.assert_array_equal(SMALL.isomorph, np.arange(6))


@settings(deadline=None, max_examples=8)
@given(counts=num_choices_lists, seed=st.integers(0, 2**31 - 1))
def test_index_and_codes_are_inverse_in_any_order(counts, seed):
    size = int(np.prod(counts))
    order = np.random.default_rng(seed).permutation(size)
    made = make(counts, order=order)
    product = np.array(list(itertools.product(*(range(count) for count in counts))), np.int32)
    codes = made.codes(jnp.arange(size))
    np.testing.assert_array_equal(codes, product[order])
    np.testing.assert_array_equal(made.index(codes), np.arange(size))
    assert np.all(made.is_valid(codes))
    np.testing.assert_array_equal(made.from_string(made.to_string(product[0])), product[0])


@settings(deadline=None, max_examples=8)
@given(counts=num_choices_lists, seed=st.integers(0, 2**31 - 1))
def test_mutation_changes_exactly_one_entry(counts, seed):
    made = make(counts)
    codes = made.sample(jax.random.key(seed), 64)
    mutated = made.mutate(jax.random.key(seed + 1), codes)
    assert np.all(made.is_valid(codes)) and np.all(made.is_valid(mutated))
    np.testing.assert_array_equal(np.sum(np.asarray(codes != mutated), axis=1), 1)
    assert codes.dtype == mutated.dtype == jnp.int32


def test_draws_and_mutations_are_uniform():
    n = 60_000
    counts = np.bincount(np.asarray(SMALL.index(SMALL.sample(jax.random.key(0), n))), minlength=6)
    # Standard error of one cell's share: sqrt(1/6 * 5/6 / n) = 0.0015; five of them.
    np.testing.assert_allclose(counts / n, 1 / 6, atol=5 * 0.0015)
    mutated = SMALL.mutate(jax.random.key(1), jnp.zeros((n, 3), jnp.int32))
    shares = np.bincount(np.asarray(SMALL.index(mutated)), minlength=6) / n
    # From (0, 0, 0): entries 0 and 2 equally often, entry 0 to 1 or 2 equally often, entry 1 never.
    np.testing.assert_allclose(shares, [0, 0.5, 0.25, 0, 0.25, 0], atol=5 * 0.0021)


def test_rows_out_of_range():
    codes = jnp.array([[0, 0, 0], [3, 0, 0], [0, -1, 0]])
    np.testing.assert_array_equal(SMALL.is_valid(codes), [True, False, False])
    np.testing.assert_array_equal(SMALL.index(codes), [0, 6, 6])
    np.testing.assert_array_equal(SMALL.codes(jnp.array([-1, 6])), SMALL.codes(jnp.array([0, 5])))


def test_jit_vmap_and_loop_agree():
    keys = jax.random.split(jax.random.key(3), 4)
    codes = SMALL.sample(jax.random.key(4), 5)
    batched = jax.jit(jax.vmap(SMALL.mutate, in_axes=(0, None)))(keys, codes)
    np.testing.assert_array_equal(batched, np.stack([SMALL.mutate(key, codes) for key in keys]))
    np.testing.assert_array_equal(jax.jit(SMALL.index)(codes), SMALL.index(codes))


def test_float32_and_int32_also_under_x64():
    with jax.enable_x64(True):
        codes = SMALL.sample(jax.random.key(0), 3)
        outputs = (codes, SMALL.mutate(jax.random.key(1), codes), SMALL.index(codes), SMALL.codes(SMALL.index(codes)))
        assert all(output.dtype == jnp.int32 for output in outputs)
        assert SMALL.features(codes).dtype == SMALL.one_hot(codes).dtype == jnp.float32


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (((),), {}, "entry 0: give one or more different choices"),
        ((("a", "a"),), {}, "entry 0: give one or more different choices"),
        ((("a", "b"), ("a|b", "c")), {}, "entry 1: a choice's name must be non-empty, without '|'"),
        ((("a",),), {}, "1 architectures; a tabular space has 2 .. 16777216"),
        ((), {}, "0 architectures"),
        ((("a", "b", "c", "d", "e"),) * 20, {}, "95367431640625 architectures"),
        ((("a", "b"),), {"ordinal": ((1.0,),)}, "`ordinal` must give one number for every choice"),
        ((("a", "b"),), {"order": np.array([0, 0])}, "`order` must be a permutation of 0 .. 1"),
        ((("a", "b"),), {"isomorph": np.array([1, 1])}, "`isomorph` must hold"),
        ((("a", "b", "c"),), {"isomorph": np.array([0, 0, 1])}, "`isomorph` must hold"),
    ],
)
def test_malformed_spaces_are_refused(arguments, options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        tabular_space("bad", arguments, **options)


@pytest.mark.parametrize(
    ("text", "message"),
    [("conv|none", "2 choices, but space 'small' has 3 entries"), ("conv|none|c", "entry 2: 'c' is none of a, b")],
)
def test_malformed_names_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        SMALL.from_string(text)


def test_unknown_space():
    with pytest.raises(ValueError, match="search space 'nas-bench-2' is unknown: choose from nas-bench-201"):
        space("nas-bench-2")


def test_the_preferred_member_represents_its_class():
    space = tabular_space("t", (("a", "b"), ("x", "y", "z")), isomorph=np.array([0, 1, 0, 1, 4, 0]))
    elected = with_representatives(space, np.array([1.0, 5.0, 3.0, 5.0, -9.0, 3.0]))
    np.testing.assert_array_equal(elected.isomorph, [2, 1, 2, 1, 4, 2])  # ties: the lowest index
    again = with_representatives(elected, np.array([9.0, 0.0, 1.0, 1.0, 0.0, 1.0]))
    np.testing.assert_array_equal(again.isomorph, [0, 3, 0, 3, 4, 0])
    np.testing.assert_array_equal(with_distinct_isomorphs(elected).isomorph, np.arange(6))
