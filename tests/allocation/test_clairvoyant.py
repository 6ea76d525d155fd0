"""The clairvoyant bound: by hand, and against linear programming."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linprog

from cenas_jax.allocation.clairvoyant import clairvoyant_bound

CURVE = jnp.array([0.0, 4.0, 6.0, 7.0])


def test_by_hand():
    """500 W: an hour of a slot emits 50, 100, 200 g. 350 g: two slots at 50, two at 100, a quarter of one at 200."""
    bound = clairvoyant_bound(
        jnp.array([200.0, 400.0, 100.0]), 2, jnp.float32(500.0), jnp.float32(350.0), jnp.float32(2.0), CURVE
    )
    assert bound.slot_hours.tolist() == pytest.approx([2.0, 0.25, 2.0], rel=1e-5)
    assert float(bound.evaluations) == pytest.approx(2.125)
    assert float(bound.hypervolume) == pytest.approx(6.125)


def test_without_limit_or_without_emissions_time_alone_counts():
    for power, limit in ((500.0, np.inf), (0.0, 10.0)):
        bound = clairvoyant_bound(
            jnp.array([200.0, 0.0]), 3, jnp.float32(power), jnp.float32(limit), jnp.float32(1.0), CURVE
        )
        assert bound.slot_hours.tolist() == [3.0, 3.0] and float(bound.hypervolume) == 7.0  # the curve ends there


@pytest.mark.parametrize("seed", range(3))
def test_no_linear_program_does_more_work(seed):
    draw = np.random.default_rng(seed)
    intensity, slots, power, limit = draw.uniform(50, 600, 30), 8, 300.0, draw.uniform(500, 20_000)
    bound = clairvoyant_bound(
        jnp.asarray(intensity, jnp.float32), slots, jnp.float32(power), jnp.float32(limit), jnp.float32(1.0), CURVE
    )
    emissions_g = intensity * power / 1000
    most = linprog(-np.ones(30), A_ub=emissions_g[None], b_ub=[limit], bounds=(0, slots))
    assert float(bound.slot_hours.sum()) == pytest.approx(-most.fun, rel=1e-4)
    assert float(bound.slot_hours @ emissions_g) <= limit * (1 + 1e-4)
