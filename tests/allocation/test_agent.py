"""The learned policy: any number of slots, inputs and their moments, what is refused."""

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


@pytest.mark.parametrize("action", ["discrete", "continuous"])
def test_one_set_of_weights_serves_any_number_of_slots(action):
    params = jax.jit(agent(AgentConfig(action=action), 8).init)(jax.random.key(0))
    for slots in (1, 4, 16, 64):
        other = agent(AgentConfig(action=action), slots)
        keys = jax.random.split(jax.random.key(1), 200)
        act = agent_policy(other, sample=True).act
        drawn, _ = jax.jit(jax.vmap(act, (0, None, None)))(keys, params, observe(jnp.float32(1.0), 3))
        assert drawn.dtype == jnp.int32 and 0 <= drawn.min() and drawn.max() <= slots
        likely, state = jax.jit(agent_policy(other).act)(keys[0], params, observe(jnp.float32(1.0), 3))
        assert 0 <= likely <= slots
        chex.assert_trees_all_equal(state, params)


def test_inputs_are_finite_and_the_forecast_takes_the_place_of_yesterday():
    yesterday = observe(jnp.float32(1.0), 3)._replace(relative_past=jnp.linspace(0, 1, 30))
    view = agent(AgentConfig(), 8).view
    inputs = view(yesterday).inputs
    assert inputs.shape == (INPUTS,) and jnp.isfinite(inputs).all()
    np.testing.assert_allclose(inputs[-24:], 0.5 + jnp.linspace(0, 1, 30)[-24:] * 1.5, rtol=1e-5)
    forecast = yesterday._replace(relative_forecast=jnp.linspace(1, 0, 48))
    np.testing.assert_allclose(view(forecast).inputs[-24:], 0.5 + jnp.linspace(1, 0, 48)[:24] * 1.5, rtol=1e-5)
    np.testing.assert_array_equal(view(forecast).inputs[:9], inputs[:9])


def test_an_untrained_agent_follows_the_greedy_plan():
    """And sees the hours ahead as yesterday had them, the present one aside."""
    past = jnp.concatenate([jnp.full(8, 0.2), jnp.full(16, 0.9)])
    for share, now in ((0.1, 0.0), (0.3, 0.0), (0.3, 1.0), (0.9, 0.0)):
        seen_now = observe(jnp.float32(1.0), 3)._replace(
            relative_past=past, relative_intensity=jnp.float32(now), affordable_share=jnp.float32(share)
        )
        params = plain_params("yesterday-greedy", 8, diminishing=0.3)
        greedy, _ = plain_policy(8).act(jax.random.key(0), params, seen_now)
        for action in ("discrete", "continuous"):
            untrained = agent(AgentConfig(action=action), 8)
            slots, _ = agent_policy(untrained).act(None, untrained.init(jax.random.key(1)), seen_now)
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
        scaling = seen(scaling, jnp.asarray(values[part]), jnp.asarray(valid[part]))
    kept = values[valid]
    assert float(scaling.count) == len(kept)
    np.testing.assert_allclose(scaling.mean, kept.mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(scaling.squares, kept.var(axis=0) * len(kept), rtol=1e-3)
    shifted = (kept[0] - kept.mean(axis=0)) / kept.std(axis=0)
    np.testing.assert_allclose(normalised(scaling, jnp.asarray(kept[0])), shifted, rtol=1e-2, atol=1e-3)
