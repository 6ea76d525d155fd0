"""Training by PPO in pure JAX: an update is rollout -> advantages -> scan(epochs) of scan(minibatches).

An update plays whole episodes, each with a task of its own, so no environment is carried from one update to the next:
the state is the weights, the optimiser's and the inputs' moments, and the number of the update. Draws depend on the
root key and that number alone.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, Key

from cenas_jax.allocation.agent import Agent, AgentParams, View, seen
from cenas_jax.allocation.environment import Environment
from cenas_jax.allocation.ppo.advantages import beside_replicas, generalised_advantages
from cenas_jax.allocation.ppo.losses import LossTerms, ppo_loss


@dataclass(frozen=True)
class PPOConfig:
    """Sizes; they decide shapes."""

    environments: int = 32
    """Episodes an update, side by side."""
    replicas: int = 1
    """Episodes of the same task and the same draws of the search. Their mean advantage at an interval is taken from
    each one's, as tasks differ far more than actions do (GRPO, Shao et al. 2024, beside a critic)."""
    steps: int = 80
    """Intervals of an episode at most; it must be over by then, or counts as cut off there."""
    epochs: int = 4
    minibatches: int = 4
    bootstrap_truncated: bool = False
    """True: an episode that its last interval ends would go on in truth, and the value says how much it is worth.
    False: that is the end of the task, as observations tell how much time is left."""

    def __post_init__(self):
        if self.environments % self.replicas:
            raise ValueError(f"PPOConfig: {self.environments} environments are no multiple of {self.replicas} replicas")
        if self.environments * self.steps % self.minibatches:
            raise ValueError(
                f"PPOConfig: {self.environments} environments x {self.steps} steps must be a multiple of the "
                f"{self.minibatches} minibatches"
            )


class Hyperparameters(NamedTuple):
    """Traced, so that a sweep over them is a `vmap`."""

    learning_rate: Any = 3e-4
    last_update: Any = jnp.inf
    """The learning rate and the weight of the entropy fall linearly to 0 until there."""
    discount: Any = 1.0
    decay: Any = 0.95
    """GAE's lambda."""
    clip: Any = 0.2
    entropy: Any = 0.01
    value: Any = 0.5
    """Weights of the entropy and of the value's error in the loss."""
    largest_gradient: Any = 0.5
    """Norm that gradients are scaled down to."""


class PPOState(NamedTuple):
    step: Int[Array, ""]
    """Updates done."""
    params: AgentParams
    optimiser: Any


class Metrics(NamedTuple):
    """Of one update; scalars."""

    episode_reward: Float[Array, ""]
    """Mean sum of rewards of an episode, of the actions drawn."""
    episode_steps: Float[Array, ""]
    terms: LossTerms
    """Means over epochs and minibatches."""


class PPO(NamedTuple):
    """Pure functions under `jit` and `vmap` (over keys: seeds; over hyper-parameters: a sweep)."""

    init: Callable[[Key[Array, ""]], PPOState]
    update: Callable[[PPOState, Key[Array, ""], Hyperparameters], tuple[PPOState, Metrics]]
    """`(state, root_key, hyperparameters) -> (state, metrics)`."""


class Rollout(NamedTuple):
    """One episode, a row an interval; rows after its end are not valid."""

    view: View
    action: Array
    log_prob: Float[Array, " T"]
    value: Float[Array, " T"]
    next_value: Float[Array, " T"]
    reward: Float[Array, " T"]
    terminated: Bool[Array, " T"]
    truncated: Bool[Array, " T"]
    valid: Bool[Array, " T"]


def ppo(environment: Environment, draw_task: Callable[[Key[Array, ""]], Any], agent: Agent, config: PPOConfig) -> PPO:
    """PPO of an agent in an environment.

    Args:
        draw_task: `(key) -> params` of the environment: the task of one episode.
    """
    adam = optax.scale_by_adam(eps=1e-5)

    def init(key) -> PPOState:
        params = agent.init(jax.random.fold_in(key, 0))
        return PPOState(jnp.zeros((), jnp.int32), params, adam.init(params.weights))

    def update(state: PPOState, key, hyper: Hyperparameters):
        key_task, key_act, key_learn = jax.random.split(jax.random.fold_in(jax.random.fold_in(key, 1), state.step), 3)
        tasks = jnp.repeat(jax.random.split(key_task, config.environments // config.replicas), config.replicas)
        acts = jax.random.split(key_act, config.environments)

        def play(task, act):
            return rollout(task, act, environment, draw_task, agent, state.params, config)

        played = jax.vmap(play)(tasks, acts)
        advantage = jax.vmap(generalised_advantages, (0, 0, 0, 0, 0, None, None))(
            played.reward,
            played.value,
            played.next_value,
            played.terminated,
            played.truncated,
            jnp.asarray(hyper.discount, jnp.float32),
            jnp.asarray(hyper.decay, jnp.float32),
        )
        target = advantage + played.value
        if config.replicas > 1:
            advantage = beside_replicas(advantage, played.valid, config.replicas)
        rows = jax.tree.map(
            lambda part: part.reshape(config.environments * config.steps, *part.shape[2:]),
            (played, advantage, target),
        )
        left = jnp.clip(1 - state.step / hyper.last_update, 0, 1)
        now = hyper._replace(learning_rate=hyper.learning_rate * left, entropy=hyper.entropy * left)
        weights, optimiser, terms = learn(state, key_learn, rows, now)
        params = AgentParams(weights, seen(state.params.scaling, rows[0].view.inputs, rows[0].valid))
        metrics = Metrics(
            jnp.where(played.valid, played.reward, 0).sum(axis=1).mean(),
            played.valid.sum(axis=1).mean(),
            jax.tree.map(jnp.mean, terms),
        )
        return PPOState(state.step + 1, params, optimiser), metrics

    def learn(state: PPOState, key, rows, hyper):
        def minibatch(carry, batch):
            weights, optimiser = carry
            gradient, terms = jax.grad(loss, has_aux=True)(weights, state.params.scaling, batch, hyper)
            scale = jnp.minimum(1.0, hyper.largest_gradient / jnp.maximum(optax.tree.norm(gradient), 1e-12))
            change, optimiser = adam.update(jax.tree.map(lambda part: part * scale, gradient), optimiser, weights)
            weights = jax.tree.map(lambda part, by: part - hyper.learning_rate * by, weights, change)
            return (weights, optimiser), terms

        def epoch(carry, number):
            count = config.environments * config.steps
            order = jax.random.permutation(jax.random.fold_in(key, number), count)
            shape = (config.minibatches, count // config.minibatches)
            batches = jax.tree.map(lambda part: part[order].reshape(*shape, *part.shape[1:]), rows)
            return jax.lax.scan(minibatch, carry, batches)

        carry = (state.params.weights, state.optimiser)
        (weights, optimiser), terms = jax.lax.scan(epoch, carry, jnp.arange(config.epochs))
        return weights, optimiser, terms

    def loss(weights, scaling, batch, hyper):
        played, advantage, target = batch

        def again(view, action):
            distribution, value = agent.evaluate(AgentParams(weights, scaling), view)
            return distribution.log_prob(action), value, distribution.entropy()

        log_prob, value, entropy = jax.vmap(again)(played.view, played.action)
        terms = ppo_loss(
            log_prob,
            played.log_prob,
            advantage,
            value,
            played.value,
            target,
            entropy,
            played.valid,
            jnp.asarray(hyper.clip, jnp.float32),
        )
        return terms.policy + hyper.value * terms.value - hyper.entropy * terms.entropy, terms

    return PPO(init, update)


def rollout(
    key, key_act, environment: Environment, draw_task, agent: Agent, params: AgentParams, config: PPOConfig
) -> Rollout:
    """One episode with a task drawn for it. `key`: of the task and of what happens in it; `key_act`: of the actions."""
    key_task, key_reset = jax.random.split(key)
    task = draw_task(key_task)
    state, observation = environment.reset(key_reset, task)

    def interval(carry, number):
        state, observation, valid = carry
        view = agent.view(observation)
        distribution, value = agent.evaluate(params, view)
        key_action, key_round = jax.random.split(jax.random.fold_in(key_act, number))
        action = distribution.sample(seed=key_action)
        state, step = environment.step(state, agent.evaluation_slots(action, key_round), task)
        over = step.terminated if config.bootstrap_truncated else step.terminated | step.truncated
        cut = (step.truncated | (number == config.steps - 1)) & ~over
        row = Rollout(
            view=view,
            action=action,
            log_prob=distribution.log_prob(action),
            value=value,
            next_value=value,  # of the next row, which is put there below
            reward=jnp.where(valid, step.reward, 0.0),
            terminated=over,
            truncated=cut,
            valid=valid,
        )
        return (state, step.observation, valid & ~(over | cut)), row

    start = (state, observation, jnp.ones((), bool))
    (_, final, _), rows = jax.lax.scan(interval, start, jnp.arange(config.steps))
    _, last = agent.evaluate(params, agent.view(final))
    return rows._replace(next_value=jnp.append(rows.value[1:], last))
