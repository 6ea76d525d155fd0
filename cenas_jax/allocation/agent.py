"""The learned policy: a network that sees an observation and answers with a distribution over evaluation slots.

One set of weights serves any number of slots, grid and budget: what it sees has no scale, and its actions are shares of
the slots beside what the budget affords.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import distrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from cenas_jax.allocation.environment import Observation
from cenas_jax.allocation.policies import DAY_H, Policy
from cenas_jax.nets import ActorCriticConfig, actor_critic

SMALLEST_SHARE, LARGEST_SHARE = 1e-3, 0.8
"""Bounds of the affordable share as an agent sees it; near 1 a logit would hold an untrained agent fast."""
INPUTS, SPLIT_FEATURES = 16 + DAY_H, 6


@dataclass(frozen=True)
class AgentConfig:
    """What a learned policy is; saved beside its weights."""

    action: Literal["discrete", "continuous"] = "discrete"
    """discrete: a categorical over 0..slots. continuous: a normal of the share's logit, rounded to slots."""
    network: ActorCriticConfig = field(default_factory=ActorCriticConfig)


class Scaling(NamedTuple):
    """Running moments of the inputs, by which they are normalised."""

    count: Float[Array, ""]
    mean: Float[Array, " inputs"]
    squares: Float[Array, " inputs"]
    """Sum of squared deviations from the mean."""


class AgentParams(NamedTuple):
    weights: Any
    scaling: Scaling


class Agent(NamedTuple):
    """Pure functions under `jit` and `vmap`; what `ppo` trains."""

    init: Callable[[Key[Array, ""]], AgentParams]
    evaluate: Callable[[AgentParams, Observation], tuple[Any, Float[Array, ""]]]
    """`(params, observation) -> (distrax distribution of actions, value)`."""
    evaluation_slots: Callable[..., Int[Array, ""]]
    """`(action, key=None) -> slots that evaluate`. With a key a share between two splits is one or the other by chance,
    so that what an action is worth has no plateaus to be stuck on; without, the nearest."""


def agent(config: AgentConfig, slots: int) -> Agent:
    """An agent for `slots` slots. Its weights do not depend on their number."""
    discrete = config.action == "discrete"
    network = actor_critic(config.network, SPLIT_FEATURES if discrete else 2)

    def init(key) -> AgentParams:
        inputs = jnp.zeros(INPUTS)
        return AgentParams(network.init(key, inputs), Scaling(jnp.zeros(()), inputs, inputs))

    def evaluate(params, observation):
        inputs = normalised(params.scaling, inputs_of(observation))
        actor, value = network.apply(params.weights, inputs)
        if discrete:
            return distrax.Categorical(logits=split_features(observation, slots) @ actor), value
        return distrax.Normal(_logit(observation.affordable_share) + actor[0], jnp.exp(actor[1] - 0.5)), value

    def evaluation_slots(action, key=None):
        if discrete:
            return action.astype(jnp.int32)
        up = 0.5 if key is None else jax.random.uniform(key)
        return jnp.floor(slots * jax.nn.sigmoid(action) + up).astype(jnp.int32)

    return Agent(init, evaluate, evaluation_slots)


def agent_policy(agent: Agent, *, sample: bool = False) -> Policy:
    """The agent as a policy: its most likely action, or one drawn. The policy's params are `AgentParams`."""

    def act(key, params, observation):
        distribution, _ = agent.evaluate(params, observation)
        if not sample:
            return agent.evaluation_slots(distribution.mode()), params
        key_action, key_round = jax.random.split(key)
        return agent.evaluation_slots(distribution.sample(seed=key_action), key_round), params

    return Policy(init=lambda params: params, act=act)


def inputs_of(observation: Observation) -> Float[Array, " inputs"]:
    """The observation as a vector: its scalars, this hour's place among the next 24 h, and these hours.

    Hours ahead are as forecast, or as the same hours of yesterday where there is no forecast. `ValueError` where
    neither reaches over 24 h.
    """
    ahead = observation.relative_forecast if observation.relative_forecast.shape[0] else observation.relative_past
    if ahead.shape[0] < DAY_H:
        raise ValueError(
            f"a learned policy looks {DAY_H} h ahead: give a window or forecast of as many hours, not {ahead.shape[0]}"
        )
    ahead = ahead[:DAY_H] if observation.relative_forecast.shape[0] else ahead[-DAY_H:]
    width = observation.highest_ratio - observation.lowest_ratio
    now = observation.lowest_ratio + observation.relative_intensity * width
    ratio = observation.lowest_ratio + ahead * width
    scalars = [
        observation.remaining_time_share,
        jnp.log1p(observation.remaining_h),
        observation.remaining_carbon_share,
        jnp.log(jnp.maximum(observation.affordable_share, SMALLEST_SHARE)),
        observation.relative_intensity,
        now,
        observation.lowest_ratio,
        observation.highest_ratio,
        (ratio < now).mean(),
        observation.intensity_change,
        observation.log_hypervolume,
        observation.recent_gain,
        observation.log_evaluations,
        observation.queue_fill,
        observation.half_finished_share,
        observation.supernet_share,
    ]
    return jnp.concatenate([jnp.stack(scalars), ratio])


def split_features(observation: Observation, slots: int) -> Float[Array, "splits features"]:
    """What tells the splits 0..slots apart: their share, and their size beside what the budget affords."""
    split = jnp.arange(slots + 1.0)
    share = split / slots
    affordable = jnp.log((split + 0.5) / (observation.affordable_share * slots + 0.5))
    columns = [share, share**2, jnp.sqrt(share), split == 0, affordable, affordable**2]
    return jnp.stack([column * 1.0 for column in columns], axis=1)


def normalised(scaling: Scaling, inputs: Float[Array, " inputs"]) -> Float[Array, " inputs"]:
    """Inputs in standard deviations from their mean, at most 10; as they are until something was seen."""
    variance = jnp.where(scaling.count > 0, scaling.squares / jnp.maximum(scaling.count, 1), 1.0)
    return jnp.clip((inputs - scaling.mean) / jnp.sqrt(variance + 1e-4), -10, 10)


def seen(scaling: Scaling, inputs: Float[Array, "n inputs"], valid: Bool[Array, " n"]) -> Scaling:
    """The moments after these inputs too; rows that are not valid count nothing (Chan et al. 1983)."""
    weight = (valid * 1.0)[:, None]
    count = weight.sum()
    mean = (inputs * weight).sum(axis=0) / jnp.maximum(count, 1)
    squares = ((inputs - mean[None]) ** 2 * weight).sum(axis=0)
    total = scaling.count + count
    change = mean - scaling.mean
    share = count / jnp.maximum(total, 1)
    return Scaling(total, scaling.mean + change * share, scaling.squares + squares + change**2 * scaling.count * share)


def _logit(share):
    share = jnp.clip(share, SMALLEST_SHARE, LARGEST_SHARE)
    return jnp.log(share) - jnp.log1p(-share)
