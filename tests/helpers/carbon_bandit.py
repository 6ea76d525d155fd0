"""A carbon bandit: an hour's slots earn the square root of their share and pay for its intensity. The best is known."""

import jax
import jax.numpy as jnp

from cenas_jax.allocation import Environment, Observation, TimeStep

SLOTS, HOURS, PRICE = 8, 16, 0.8


def worth(evaluation_slots, ratio):
    share = evaluation_slots / SLOTS
    return jnp.sqrt(share) - PRICE * ratio * share


def best(ratio):
    """The best that an hour of this intensity (over the mean) can earn."""
    return jnp.max(worth(jnp.arange(SLOTS + 1.0), ratio))


@jax.jit
def observe(ratio, hour) -> Observation:
    zero = jnp.zeros(())
    return Observation(
        remaining_h=jnp.asarray(HOURS - hour, jnp.float32),
        remaining_time_share=1 - hour / HOURS,
        remaining_carbon_share=zero + 1,
        affordable_share=zero + 1,
        sampling_cost=zero,
        relative_intensity=(ratio - 0.5) / 1.5,
        relative_forecast=jnp.zeros(0),
        relative_past=jnp.full(24, 0.5),
        lowest_ratio=zero + 0.5,
        highest_ratio=zero + 2,
        intensity_change=zero,
        log_hypervolume=zero,
        recent_gain=zero,
        log_evaluations=zero,
        queue_fill=zero,
        half_finished_share=zero,
        supernet_share=zero + 1,
    )


def carbon_bandit() -> Environment:
    """State: (key, hour, intensity ratio), drawn anew every hour from 0.5..2. `params` are ignored."""

    def ratio_at(key, hour):
        return jax.random.uniform(jax.random.fold_in(key, hour), minval=0.5, maxval=2.0)

    def reset(key, params):
        ratio = ratio_at(key, 0)
        return (key, jnp.zeros((), jnp.int32), ratio), observe(ratio, 0)

    def step(state, evaluation_slots, params):
        key, hour, ratio = state
        reward = worth(evaluation_slots, ratio)
        hour, regret = hour + 1, best(ratio) - reward
        ratio = ratio_at(key, hour)
        no = jnp.zeros((), bool)
        return (key, hour, ratio), TimeStep(observe(ratio, hour), reward, no, hour >= HOURS, regret)

    return Environment(SLOTS, reset, step)
