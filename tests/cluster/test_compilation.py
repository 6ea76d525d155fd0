"""One compilation for all searches of a shape; a batch of searches equals the searches one by one."""

import jax
import numpy as np
from small_cluster import CONFIG, random_searches, search

SEARCHES = 64


def test_searches_that_differ_in_everything_compile_once():
    one = jax.jit(search)
    keys, params, policies = random_searches(21, 20)
    for i in range(20):
        one(*jax.tree.map(lambda array, i=i: array[i], (keys, params, policies)))
    assert one._cache_size() == 1
    many = jax.jit(jax.vmap(search))
    for seed in (22, 23):
        many(*random_searches(seed, 20))
    assert many._cache_size() == 1


def test_a_batch_equals_the_searches_one_by_one():
    keys, params, policies = random_searches(31, SEARCHES)
    together = jax.device_get(jax.jit(jax.vmap(search))(keys, params, policies))
    one = jax.jit(search)
    different = 0
    for i in range(SEARCHES):
        alone = jax.device_get(one(*jax.tree.map(lambda array, i=i: array[i], (keys, params, policies))))
        member = jax.tree.map(lambda array, i=i: array[i], together)
        same = np.array_equal(alone.evaluated[: alone.count], member.evaluated[: member.count]) and np.array_equal(
            alone.history.evaluation_slots, member.history.evaluation_slots
        )
        different += not same
        if same:
            for a, b in zip(jax.tree.leaves(alone), jax.tree.leaves(member), strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    # Batched products and factorisations round otherwise, and an architecture on the very boundary of a region may
    # fall on the other side of it.
    print(f"{different} of {SEARCHES} searches differ")
    assert different <= 0.05 * SEARCHES
    assert CONFIG.slots == 4
