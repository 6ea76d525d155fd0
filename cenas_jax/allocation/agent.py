"""The learned policy: a network that sees an observation and answers with a distribution over evaluation slots.

One set of weights serves any number of slots, grid and budget: what it sees has no scale, and its actions are shares of
the slots beside what the budget affords. It starts from greedy plans (`policies.greedy_slots`) and learns which
to follow and where to leave them (residual policy learning, Silver et al. 2018): they take most of the benefit of
carbon awareness, and what is left is too little to be found from nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import distrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from cenas_jax.allocation.environment import Observation
from cenas_jax.allocation.policies import DAY_H, DIMINISHING, Policy, greedy_slots
from cenas_jax.nets import ActorCriticConfig, actor_critic

SMALLEST_SHARE, LARGEST_SHARE = 1e-3, 0.8
"""Bounds of the affordable share as an agent sees it; near 1 a logit would hold an untrained agent fast."""
PLAN_BOUNDS = 0.02, 0.98
"""Bounds of a plan's share that a continuous action starts from."""
GREEDY_PLANS = (DIMINISHING, 0.2, 0.0)
"""`diminishing` of the greedy plans an agent sees beside the heuristic's. A continuous action starts from the first."""
PLANS = len(GREEDY_PLANS) + 1
PLAN_WEIGHTS = (0.8, 0.1, 0.1)
"""How probable an untrained agent is to follow each of the greedy plans in an hour. What it tries are their answers:
slots drawn around one plan would mostly be evaluations in hours that no plan would pay for."""
PLAN_DISTANCE = 16.0
"""Unit in which the distance of a share from a plan is measured: an eighth of the slots is worth 2."""
INPUTS, SPLIT_FEATURES = 17 + DAY_H + PLANS, 6 + PLANS


@dataclass(frozen=True)
class AgentConfig:
    """What a learned policy is; saved beside its weights."""

    action: Literal["discrete", "continuous"] = "discrete"
    """discrete: a categorical over 0..slots. continuous: a normal of the share's logit, rounded to slots."""
    anchor: float = 2.0
    """How firmly an untrained agent holds to the greedy plans; 0: not at all. A continuous one only starts from one."""
    network: ActorCriticConfig = field(default_factory=ActorCriticConfig)


class View(NamedTuple):
    """What an agent makes of an observation before any weight."""

    inputs: Float[Array, " inputs"]
    affordable_share: Float[Array, ""]
    plans: Float[Array, " plans"]
    """Shares of the slots that evaluate now under the greedy plans, and under the heuristic."""


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
    view: Callable[[Observation], View]
    evaluate: Callable[[AgentParams, View], tuple[Any, Float[Array, ""]]]
    """`(params, view) -> (distrax distribution of actions, value)`."""
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

    def view(observation) -> View:
        later = _ahead(observation)[1:]
        plan = jax.vmap(greedy_slots, (None, 0, None, None))  # one program for all of them
        greedy = plan(slots, jnp.array(GREEDY_PLANS), observation, later) / slots
        plans = jnp.append(greedy, 1 - observation.relative_intensity)
        return View(inputs_of(observation, plans), observation.affordable_share, plans)

    def evaluate(params, view: View):
        actor, value = network.apply(params.weights, normalised(params.scaling, view.inputs))
        if discrete:
            features = split_features(view, slots)
            near = jnp.log(jnp.asarray(PLAN_WEIGHTS))[None] - config.anchor * features[:, -PLANS:-1]
            start = jax.nn.logsumexp(near, axis=1) if config.anchor > 0 else 0.0
            return distrax.Categorical(logits=features @ actor + start), value
        if config.anchor > 0:
            return distrax.Normal(_logit(view.plans[0], *PLAN_BOUNDS) + actor[0], jnp.exp(actor[1] - 0.5)), value
        start = _logit(view.affordable_share, SMALLEST_SHARE, LARGEST_SHARE)
        return distrax.Normal(start + actor[0], jnp.exp(actor[1] - 0.5)), value

    def evaluation_slots(action, key=None):
        if discrete:
            return action.astype(jnp.int32)
        up = 0.5 if key is None else jax.random.uniform(key)
        return jnp.floor(slots * jax.nn.sigmoid(action) + up).astype(jnp.int32)

    return Agent(init, view, evaluate, evaluation_slots)


def agent_policy(agent: Agent, *, sample: bool = False) -> Policy:
    """The agent as a policy: its most likely action, or one drawn. The policy's params are `AgentParams`."""

    def act(key, params, observation):
        distribution, _ = agent.evaluate(params, agent.view(observation))
        if not sample:
            return agent.evaluation_slots(distribution.mode()), params
        key_action, key_round = jax.random.split(key)
        return agent.evaluation_slots(distribution.sample(seed=key_action), key_round), params

    return Policy(init=lambda params: params, act=act)


def inputs_of(observation: Observation, plans: Float[Array, " plans"]) -> Float[Array, " inputs"]:
    """The observation as a vector: its scalars, this hour's place among the next 24 h, the plans, and these hours."""
    ahead = _ahead(observation)
    width = observation.highest_ratio - observation.lowest_ratio
    now = observation.lowest_ratio + observation.relative_intensity * width
    ratio = observation.lowest_ratio + ahead * width
    scalars = [
        observation.remaining_time_share,
        jnp.log1p(observation.remaining_h),
        observation.remaining_carbon_share,
        jnp.log(jnp.maximum(observation.affordable_share, SMALLEST_SHARE)),
        observation.sampling_cost,
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
    return jnp.concatenate([jnp.stack(scalars), plans, ratio])


def _ahead(observation: Observation) -> Float[Array, " 24"]:
    """Relative intensity of the next 24 h, the present one first: as forecast, or as the same hours of yesterday where
    there is no forecast. `ValueError` where neither reaches over 24 h.
    """
    forecast, past = observation.relative_forecast, observation.relative_past
    if forecast.shape[0] >= DAY_H:
        return forecast[:DAY_H]
    if forecast.shape[0] or past.shape[0] < DAY_H:
        reach = forecast.shape[0] or past.shape[0]
        raise ValueError(
            f"a learned policy looks {DAY_H} h ahead: give a window or forecast of as many hours, not {reach}"
        )
    return past[-DAY_H:]


def split_features(view: View, slots: int) -> Float[Array, "splits features"]:
    """What tells the splits 0..slots apart: their share, their size beside what the budget affords, and their distance
    from the plans."""
    split = jnp.arange(slots + 1.0)
    share = split / slots
    affordable = jnp.log((split + 0.5) / (view.affordable_share * slots + 0.5))
    columns = jnp.stack([share, share**2, jnp.sqrt(share), 1.0 * (split == 0), affordable, affordable**2], axis=1)
    distance = PLAN_DISTANCE * jnp.abs(share[:, None] - view.plans[None])
    return jnp.concatenate([columns, distance], axis=1)


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


def _logit(share, lowest: float, highest: float):
    share = jnp.clip(share, lowest, highest)
    return jnp.log(share) - jnp.log1p(-share)
