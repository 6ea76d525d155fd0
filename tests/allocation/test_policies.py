"""Plain policies by hand, one by one and side by side under `vmap`."""

import jax
import jax.numpy as jnp
import pytest

from cenas_jax.allocation import RULES, Observation, plain_params, plain_policy

SLOTS = 8
KEY = jax.random.key(0)


def observation(**values) -> Observation:
    scalars = {name: jnp.float32(values.get(name, 0.5)) for name in Observation._fields}
    return Observation(**(scalars | {"relative_forecast": jnp.zeros(0)}))


def act(name: str, slots: int = SLOTS, seen: Observation | None = None, **options) -> int:
    policy, params = plain_policy(slots), plain_params(name, slots, **options)
    evaluation_slots, state = policy.act(KEY, policy.init(params), seen or observation())
    assert evaluation_slots.dtype == jnp.int32 and state == params
    return int(evaluation_slots)


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
        ("greedy", {}, r"policy 'greedy' is unknown: choose from vanilla, fixed-V, heuristic, threshold, one-shot"),
        ("fixed-", {}, r"policy 'fixed-' is unknown"),
        ("fixed-x", {}, r"policy 'fixed-x' is unknown.*V = 0..8"),
        ("fixed-9", {}, r"V must be 0..8 evaluation slots, got 9"),
        ("fixed", {}, r"V must be 0..8 evaluation slots, got None"),
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
