"""The learned policy: any number of slots, inputs and their moments, what is refused."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from carbon_bandit import observe

from cenas_jax.allocation import plain_params, plain_policy
from cenas_jax.allocation.agent import (
    INPUTS,
    AgentConfig,
    Scaling,
    agent,
    agent_policy,
    normalised,
    seen,
)


@functools.cache
def untrained(action):
    return jax.jit(agent(AgentConfig(action=action), 8).init)(jax.random.key(1))


@functools.partial(jax.jit, static_argnums=(0, 1))
def drawn_and_likely(action, slots, keys, params, observation):
    other = agent(AgentConfig(action=action), slots)
    drawn, _ = jax.vmap(agent_policy(other, sample=True).act, (0, None, None))(keys, params, observation)
    return drawn, *agent_policy(other).act(keys[0], params, observation)


@pytest.mark.parametrize("action", ["discrete", "continuous"])
def test_one_set_of_weights_serves_any_number_of_slots(action):
    params, keys, seen_now = untrained(action), jax.random.split(jax.random.key(1), 200), observe(jnp.float32(1.0), 3)
    for slots in (1, 4, 16, 64):
        drawn, likely, state = jax.device_get(drawn_and_likely(action, slots, keys, params, seen_now))
        assert drawn.dtype == jnp.int32 and 0 <= drawn.min() and drawn.max() <= slots
        assert 0 <= likely <= slots
        chex.assert_trees_all_equal(state, params)


def test_inputs_are_finite_and_the_forecast_takes_the_place_of_yesterday():
    yesterday = observe(jnp.float32(1.0), 3)._replace(relative_past=jnp.asarray(np.linspace(0, 1, 30)))
    view = jax.jit(agent(AgentConfig(), 8).view)
    inputs = np.asarray(view(yesterday).inputs)
    assert inputs.shape == (INPUTS,) and np.isfinite(inputs).all()
    np.testing.assert_allclose(inputs[-24:], 0.5 + np.linspace(0, 1, 30)[-24:] * 1.5, rtol=1e-5)
    forecast = np.asarray(view(yesterday._replace(relative_forecast=jnp.asarray(np.linspace(1, 0, 48)))).inputs)
    np.testing.assert_allclose(forecast[-24:], 0.5 + np.linspace(1, 0, 48)[:24] * 1.5, rtol=1e-5)
    np.testing.assert_array_equal(forecast[:9], inputs[:9])


def test_an_untrained_agent_follows_the_greedy_plan():
    """And sees the hours ahead as yesterday had them, the present one aside."""
    past = jnp.asarray(np.repeat([0.2, 0.9], [8, 16]), jnp.float32)
    actions = ("discrete", "continuous")
    greedily = jax.jit(plain_policy(8).act)
    acts = {action: jax.jit(agent_policy(agent(AgentConfig(action=action), 8)).act) for action in actions}
    for share, now in ((0.1, 0.0), (0.3, 0.0), (0.3, 1.0), (0.9, 0.0)):
        seen_now = observe(jnp.float32(1.0), 3)._replace(
            relative_past=past, relative_intensity=jnp.float32(now), affordable_share=jnp.float32(share)
        )
        params = plain_params("yesterday-greedy", 8)
        greedy, _ = greedily(jax.random.key(0), params, seen_now)
        for action in actions:
            slots, _ = acts[action](None, untrained(action), seen_now)
            assert abs(int(slots) - int(greedy)) <= (action == "continuous"), (action, share, now)


def test_a_short_window_without_forecast_is_refused():
    with pytest.raises(ValueError, match="looks 24 h ahead: give a window or forecast of as many hours, not 12"):
        agent(AgentConfig(), 8).view(observe(jnp.float32(1.0), 3)._replace(relative_past=jnp.zeros(12)))


def test_moments_in_parts_are_those_of_the_whole():
    values = np.random.default_rng(0).normal(3, 2, (50, INPUTS)).astype(np.float32)
    valid = np.random.default_rng(1).random(50) < 0.6
    scaling = Scaling(jnp.zeros(()), jnp.zeros(INPUTS), jnp.zeros(INPUTS))
    np.testing.assert_array_equal(
        normalised(scaling, jnp.asarray(values[0])), np.clip(values[0], -10, 10) / (1.0001**0.5)
    )
    for part in (slice(0, 20), slice(20, 23), slice(23, 50)):
        scaling = jax.jit(seen)(scaling, values[part], valid[part])
    kept = values[valid]
    assert float(scaling.count) == len(kept)
    np.testing.assert_allclose(scaling.mean, kept.mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(scaling.squares, kept.var(axis=0) * len(kept), rtol=1e-3)
    shifted = (kept[0] - kept.mean(axis=0)) / kept.std(axis=0)
    np.testing.assert_allclose(normalised(scaling, jnp.asarray(kept[0])), shifted, rtol=1e-2, atol=1e-3)
