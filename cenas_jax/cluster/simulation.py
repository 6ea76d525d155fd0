"""Whole searches on the simulated cluster: one is a `lax.scan` over carbon intervals, many are one `vmap`."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from cenas_jax.allocation.environment import Environment
from cenas_jax.allocation.policies import Policy
from cenas_jax.carbon.ledger import Ledger
from cenas_jax.cluster.state import IntervalInfo


class SimulationResult(NamedTuple):
    """A finished search; under `vmap` every array has a leading axis of searches."""

    history: IntervalInfo
    """One row an interval."""
    reward: Float[Array, "*batch intervals"]
    evaluated: Int[Array, "*batch capacity"]
    """Index of every evaluated architecture, in order; meaningless from `count` on."""
    count: Int[Array, "*batch"]
    hypervolume: Float[Array, "*batch"]
    ledger: Ledger
    overflow: Int[Array, "*batch"]
    """Evaluations beyond the capacity: anything but 0 is an error, see `check_overflow`."""


def simulate(
    key: Key[Array, ""],
    environment: Environment,
    policy: Policy,
    params: Any,
    policy_params: Any,
    intervals: int,
) -> SimulationResult:
    """One search of `intervals` hours, or until a budget ends it; `params` are the environment's.

    Pure: `jit` it, and `vmap` it over any argument.

    The draws of interval t depend on `key` and t alone.
    """
    state, observation = environment.reset(key, params)

    def interval(carry, t):
        state, observation, policy_state = carry
        key_act = jax.random.fold_in(jax.random.fold_in(key, t), 4)
        evaluation_slots, policy_state = policy.act(key_act, policy_state, observation)
        state, time_step = environment.step(state, evaluation_slots, params)
        return (state, time_step.observation, policy_state), (time_step.info, time_step.reward)

    start = (state, observation, policy.init(policy_params))
    (state, _, _), (history, reward) = jax.lax.scan(interval, start, jnp.arange(intervals))
    return SimulationResult(
        history, reward, state.evaluated, state.count, state.hypervolume, state.ledger, history.overflow.sum()
    )


def check_overflow(overflow: Int[Array | np.ndarray, "*batch"], capacity: int) -> None:
    """`ValueError` where one of the `overflow` of searches says that it evaluated more than its capacity: its
    result would be wrong."""
    lost = int(overflow.max())
    if lost > 0:
        raise ValueError(
            f"a search evaluated {lost} architectures more than its capacity of {capacity}: raise the capacity "
            "(--capacity), or lower the hours or the slots"
        )
