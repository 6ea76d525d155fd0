"""One compilation for all searches of a shape; a batch of searches equals the searches one by one."""

import jax
import numpy as np
from small_cluster import random_searches, simulate_many, simulate_one

COMPARED = 64


def test_a_batch_equals_the_searches_one_by_one_and_all_compile_once():
    arguments = random_searches(31)
    together = jax.device_get(simulate_many(*arguments))
    different = 0
    for i in range(COMPARED):
        alone = jax.device_get(simulate_one(*jax.tree.map(lambda array, i=i: array[i], arguments)))
        member = jax.tree.map(lambda array, i=i: array[i], together)
        same = np.array_equal(alone.evaluated[: alone.count], member.evaluated[: member.count]) and np.array_equal(
            alone.history.evaluation_slots, member.history.evaluation_slots
        )
        different += not same
        if same:
            # The ledger's rounding errors (1e-7 of a total) are what is left of a cancellation.
            member = member._replace(ledger=member.ledger._replace(rounding=alone.ledger.rounding))
            for a, b in zip(jax.tree.leaves(alone), jax.tree.leaves(member), strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * max(1.0, np.abs(b).max()))
    # Batched matrix products and Cholesky factorisations of the SVMs round otherwise, and an architecture on the very
    # boundary of a region may fall on its other side.
    print(f"{different} of {COMPARED} searches differ")
    assert different <= 0.05 * COMPARED
    # Every search had its own seed, trace, budget, power and policy.
    simulate_many(*random_searches(32))
    assert [compiled._cache_size() for compiled in (simulate_one, simulate_many)] == [1, 1]  # pyright: ignore
