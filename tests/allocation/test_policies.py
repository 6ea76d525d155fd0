"""Plain policies by hand, one by one and side by side under `vmap`."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cenas_jax.allocation import RULES, Observation, plain_params, plain_policy
from cenas_jax.allocation.policies import DIMINISHING
from cenas_jax.config import PolicyOptions

SLOTS = 8
KEY = jax.random.key(0)


def observation(*, arrays: dict | None = None, **values) -> Observation:
    arrays = arrays or {}
    scalars = {name: jnp.float32(values.get(name, 0.5)) for name in Observation._fields}
    return Observation(**(scalars | {"relative_forecast": jnp.zeros(0), "relative_past": jnp.full(24, 0.5)} | arrays))


def act(name: str, slots: int = SLOTS, seen: Observation | None = None, **options) -> int:
    params = plain_params(name, slots, **options)
    evaluation_slots, state = compiled(slots)(params, seen or observation())
    assert evaluation_slots.dtype == jnp.int32 and jax.tree.all(jax.tree.map(np.array_equal, state, params))
    return int(evaluation_slots)


@functools.cache
def compiled(slots: int):
    policy = plain_policy(slots)
    return jax.jit(lambda params, seen: policy.act(KEY, policy.init(params), seen))


@pytest.mark.parametrize(
    ("relative_intensity", "expected"),
    # 8 (1 - r), rounded, at least one slot each way: 8 -> 7, 6.8, 6, 4, 2.4, 0.8, 0 -> 1.
    [(0.0, 7), (0.15, 7), (0.25, 6), (0.5, 4), (0.7, 2), (0.9, 1), (1.0, 1)],
)
def test_heuristic(relative_intensity, expected):
    assert act("heuristic", seen=observation(relative_intensity=relative_intensity)) == expected


@pytest.mark.parametrize(("relative_intensity", "expected"), [(0.0, 7), (0.29, 7), (0.3, 1), (1.0, 1)])
def test_threshold(relative_intensity, expected):
    assert act("threshold", threshold=0.3, seen=observation(relative_intensity=relative_intensity)) == expected


@pytest.mark.parametrize(
    ("time", "carbon", "expected"), [(1, 1, 0), (0.21, 1, 0), (0.2, 1, 8), (1, 0.2, 8), (1, 0.21, 0), (0, 0, 8)]
)
def test_one_shot_keeps_a_reserve_of_the_scarcer(time, carbon, expected):
    seen = observation(remaining_time_share=time, remaining_carbon_share=carbon)
    assert act("one-shot", reserve_share=0.2, seen=seen) == expected


def test_fixed_and_vanilla():
    assert [act(f"fixed-{v}") for v in (0, 1, 5, 8)] == [0, 1, 5, 8]
    assert act("fixed", evaluation_slots=3) == 3
    assert act("vanilla") == SLOTS


@pytest.mark.parametrize("name", ["heuristic", "threshold"])
@pytest.mark.parametrize("relative_intensity", [0.0, 1.0])
def test_few_slots(name, relative_intensity):
    seen = observation(relative_intensity=relative_intensity)
    assert act(name, 1, seen) == 1  # a single slot evaluates: a search that only samples finds nothing
    assert act(name, 2, seen) == 1


def greedy(name="yesterday-greedy", *, now, later, slots=SLOTS, diminishing=0.0, **values) -> int:
    """Ratios of the coming hours to the window's mean, of a window between 0.5 and 1.5 times its mean."""
    field = "relative_past" if name == "yesterday-greedy" else "relative_forecast"
    after = (np.asarray(later) - 0.5).astype(np.float32)
    after = (
        after if name == "yesterday-greedy" else np.concatenate([[0.77], after])
    )  # the present is known, not guessed
    values = {
        "remaining_h": 100,
        "sampling_cost": 0,
        "lowest_ratio": 0.5,
        "highest_ratio": 1.5,
        "relative_intensity": now - 0.5,
        "supernet_share": 1,
    } | values
    seen = observation(arrays={field: jnp.asarray(after, jnp.float32)}, **values)
    return act(name, slots, seen, diminishing=diminishing)


DAY = [0.75] * 6 + [1.25] * 17  # the 23 hours after the present one


@pytest.mark.parametrize("name", ["yesterday-greedy", "forecast-greedy"])
def test_greedy_spends_in_the_cheapest_hours(name):
    """A day's share of the budget is 24 slot-hours at the mean; 6 hours at .75 with all slots but one cost 31.5."""
    assert greedy(name, now=0.5, later=DAY, affordable_share=1 / 8) == 7  # the cheapest of all; one slot samples
    assert greedy(name, now=1.0, later=DAY, affordable_share=1 / 8) == 0  # spent before the turn comes to it
    # 24 x 8 / 4 = 48 slot-hours: 31.5 for the six cheap hours leave 16.5, of which this hour takes 7.
    assert greedy(name, now=1.0, later=DAY, affordable_share=1 / 4) == 7
    # 36.6 slot-hours leave 5.1: five slots at a ratio of 1.
    assert greedy(name, now=1.0, later=DAY, affordable_share=36.6 / 192) == 5
    # 6 x 7 x .75 + 17 x 7 x 1.25 = 180.25 of 182.4 leave one slot at 1.5.
    assert greedy(name, now=1.5, later=DAY, affordable_share=0.95) == 1
    assert greedy(name, now=1.0, later=[1.0] * 23, affordable_share=1.0) == 7
    assert greedy(name, now=0.5, later=DAY, affordable_share=0.0) == 0


def test_greedy_begins_an_hour_with_more_slots_where_an_hours_screening_costs_more():
    """Worth 1, .7, .49, .343, ... a slot. Work for the price of an hour's screening and v slots: 1, .85, .73, ... where
    screening costs nothing, so an hour starts with one slot; .5, .567, .548, ... where it costs one slot-hour, so with
    two; .333, .425, .438, .422, ... where it costs two, so with three.
    """
    for cost, slots in ((0.0, 1), (1.0, 2), (2.0, 3)):
        assert greedy(now=1.0, later=[1.0] * 23, affordable_share=1 / 8, diminishing=0.3, sampling_cost=cost) == slots
    # No more than what is left pays for, screening and slots.
    for left, slots in ((2.9, 0), (3.0, 1), (3.9, 1), (4.0, 2)):
        share = left / 192
        assert greedy(now=1.0, later=[1.0] * 23, affordable_share=share, diminishing=0.3, sampling_cost=2.0) == slots


def test_greedy_waits_for_cheap_hours_though_screening_costs_something():
    for cost in (0.0, 3.0, 6.0, 20.0):
        assert greedy(now=1.25, later=[0.75] * 23, affordable_share=14 / 800, sampling_cost=cost) == 0


def test_greedy_ends_with_the_time_and_knows_one_hour_without_forecast():
    assert greedy(now=1.25, later=[0.5] * 23, affordable_share=0.5, remaining_h=1) == 3  # 4 slot-hours at the mean
    assert greedy(now=1.25, later=[0.5] * 23, affordable_share=0.5, remaining_h=0) == 0
    seen = observation(
        affordable_share=0.5,
        sampling_cost=0,
        lowest_ratio=0.5,
        highest_ratio=1.5,
        remaining_h=9,
        relative_intensity=0.5,
        supernet_share=1,
    )
    assert act("forecast-greedy", seen=seen) == 4


def test_greedy_evaluates_nothing_before_the_supernet_is_trained():
    waiting = {"now": 0.5, "later": DAY, "affordable_share": 1 / 8, "supernet_share": 0.99}
    assert greedy(**waiting, remaining_time_share=0.6, remaining_carbon_share=0.6) == 0
    # But not for ever: it might be that there is not enough left to train it.
    assert greedy(**waiting, remaining_time_share=0.5, remaining_carbon_share=0.6) == 7
    assert greedy(**waiting, remaining_time_share=0.6, remaining_carbon_share=0.5) == 7


def test_the_command_line_has_the_rules_own_default():
    assert PolicyOptions().diminishing == DIMINISHING


def test_greedy_with_diminishing_work_spreads():
    """Worth 1, 1/2, 1/4, ... a slot: 24 slot-hours over 24 equal hours are one each; a flat price alone takes all."""
    assert greedy(now=1.0, later=[1.0] * 23, affordable_share=1 / 8, diminishing=0.5) == 1
    assert greedy(now=1.0, later=[1.0] * 23, affordable_share=1 / 8) == 7
    # At half the price a slot is worth as much per carbon as the one before it elsewhere: ties go to the earlier hour.
    assert greedy(now=0.5, later=[1.0] * 23, affordable_share=2 / 8, diminishing=0.5) == 4


def test_rules_side_by_side_under_vmap():
    names = ["vanilla", "fixed-2", "heuristic", "threshold", "one-shot"]
    policy = plain_policy(SLOTS)
    params = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(plain_params(name, SLOTS) for name in names))
    seen = observation(relative_intensity=0.25)
    together, state = jax.jit(jax.vmap(policy.act, (None, 0, None)))(KEY, params, seen)
    assert together.tolist() == [8, 2, 6, 7, 0] == [act(name, seen=seen) for name in names]
    assert jax.tree.map(lambda a, b: bool((a == b).all()), state, params) == jax.tree.map(lambda _: True, params)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "greedy",
            {},
            r"policy 'greedy' is unknown: choose from vanilla, fixed-V, heuristic, threshold, one-shot, yest",
        ),
        ("fixed-", {}, r"policy 'fixed-' is unknown"),
        ("fixed-x", {}, r"policy 'fixed-x' is unknown.*V = 0..8"),
        ("fixed-9", {}, r"V must be 0..8 evaluation slots, got 9"),
        ("fixed", {}, r"V must be 0..8 evaluation slots, got None"),
        ("yesterday-greedy", {"diminishing": -1.0}, r"diminishing -1.0 must lie in 0..1"),
        ("threshold", {"threshold": 1.2}, r"threshold 1.2 .* must lie in 0..1"),
        ("threshold", {"threshold": float("nan")}, r"threshold nan"),
        ("one-shot", {"reserve_share": -0.1}, r"reserve share -0.1 must lie in 0..1"),
    ],
)
def test_bad_policies_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        plain_params(name, SLOTS, **options)


def test_every_rule_has_a_name():
    names = {"fixed": "fixed-1"}
    assert [int(plain_params(names.get(name, name), SLOTS).rule) for name in RULES] == list(range(len(RULES)))
