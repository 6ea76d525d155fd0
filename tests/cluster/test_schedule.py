"""One interval on the evaluation slots: by hand, against a heap, and against energy added up directly."""

import heapq

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cenas_jax.cluster.schedule import list_schedule, stop_time_s

SLOTS, JOBS = 4, 9
schedule = jax.jit(list_schedule, static_argnums=2)
stop = jax.jit(stop_time_s)


def test_jobs_by_hand():
    remaining_s = jnp.asarray([100.0, 50.0, 7.0, 30.0, 10.0])
    valid = jnp.asarray([True, True, False, True, True])
    # Slot 0: job 0 until 100. Slot 1: job 1 until 50, job 3 until 80, job 4 until 90.
    start_s, busy_s = schedule(remaining_s, valid, 3, jnp.asarray(2))
    assert start_s.tolist() == [0, 0, np.inf, 50, 80]
    assert busy_s.tolist() == [100, 90, 0]


def test_without_a_slot_nothing_starts():
    start_s, busy_s = schedule(jnp.ones(3), jnp.ones(3, bool), 2, jnp.asarray(0))
    assert np.isinf(start_s).all() and busy_s.tolist() == [0, 0]


durations = st.lists(st.floats(1, 5000, width=32), min_size=JOBS, max_size=JOBS)


@settings(deadline=None, max_examples=150)
@given(durations, st.lists(st.booleans(), min_size=JOBS, max_size=JOBS), st.integers(0, SLOTS))
def test_schedule_against_a_heap(remaining_s, valid, evaluation_slots):
    start_s, busy_s = schedule(
        jnp.asarray(remaining_s, jnp.float32), jnp.asarray(valid), SLOTS, jnp.asarray(evaluation_slots)
    )
    free = [0.0] * evaluation_slots
    for job in range(JOBS):
        if not valid[job] or not free:
            assert np.isinf(start_s[job])
            continue
        first = heapq.heappop(free)
        assert float(start_s[job]) == pytest.approx(first, rel=1e-5)
        heapq.heappush(free, first + remaining_s[job])
    np.testing.assert_allclose(np.sort(busy_s), np.sort(free + [0.0] * (SLOTS - evaluation_slots)), rtol=1e-5)


def used_kwh(t, busy_s, busy_w, idle_w):
    return (np.minimum(busy_s, t) * busy_w + np.maximum(t - busy_s, 0) * idle_w).sum() / 3.6e6


def test_stop_by_hand():
    # 1 kW until 1800 s, then 100 W: 0.5 kWh in the first half hour, 0.05 kWh in the second.
    one_slot = jnp.asarray([1800.0]), jnp.asarray([1000.0]), jnp.asarray([100.0]), jnp.asarray(3600.0)
    for left_kwh, end_s in ((0.25, 900.0), (0.5, 1800.0), (0.525, 2700.0), (0.55, 3600.0), (9.0, 3600.0), (0.0, 0.0)):
        assert float(stop(*one_slot, jnp.asarray(left_kwh))) == pytest.approx(end_s, rel=1e-5)
    assert float(stop(*one_slot, jnp.asarray(jnp.inf))) == 3600
    assert float(stop(*one_slot[:3], jnp.asarray(0.0), jnp.asarray(1.0))) == 0


watts = st.lists(st.sampled_from([0.0, 40.0, 300.0, 1000.0]), min_size=SLOTS, max_size=SLOTS)


@settings(deadline=None, max_examples=150)
@given(
    st.lists(st.floats(0, 6000, width=32), min_size=SLOTS, max_size=SLOTS),
    watts,
    watts,
    st.floats(0, 3600, width=32),
    st.floats(0, 4, width=32),
)
def test_stop_against_energy_added_up(busy_s, busy_w, idle_w, horizon_s, left_kwh):
    arrays = [np.asarray(values, np.float64) for values in (busy_s, busy_w, idle_w)]
    end_s = float(stop(*(jnp.asarray(a, jnp.float32) for a in arrays), jnp.float32(horizon_s), jnp.float32(left_kwh)))
    assert 0 <= end_s <= horizon_s
    assert used_kwh(end_s, *arrays) <= left_kwh + 1e-6 * (1 + left_kwh)
    if end_s < horizon_s - 0.01:  # not a second longer would do, where power is drawn at all
        assert used_kwh(end_s + 0.5, *arrays) >= left_kwh - 1e-6 * (1 + left_kwh)


def test_what_no_budget_cuts_ends_at_the_horizon_to_the_bit():
    """A second less would read as the end of the budget."""
    busy_s = jax.random.uniform(jax.random.key(0), (2000, SLOTS), maxval=4000.0)
    power_w, idle_w = jnp.full(SLOTS, 300.0), jnp.full(SLOTS, 50.0)
    for horizon_s in (3600.0, 1234.567):
        end_s = jax.vmap(stop, (0, None, None, None, None))(
            busy_s, power_w, idle_w, jnp.float32(horizon_s), jnp.float32(jnp.inf)
        )
        assert (end_s == jnp.float32(horizon_s)).all()
