"""`cenas policy`: train an allocation policy, compare it with plain rules on other draws of the tasks, look at it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from cenas_jax.allocation import Observation, Policy, plain_params, plain_policy
from cenas_jax.allocation.agent import AgentConfig, agent, agent_policy
from cenas_jax.allocation.ppo import Hyperparameters, Metrics, PPOConfig, ppo
from cenas_jax.cluster.simulation import simulate
from cenas_jax.config import PolicyTrainOptions
from cenas_jax.runs.policy_tasks import HOURS, WINDOW_H, PolicyTasks, draw_task, task_environment, training_tasks
from cenas_jax.training.policy import train_policy
from cenas_jax.training.saved_policy import LearnedPolicy, save_policy

SLOTS = 8
CHUNK_UPDATES = 2
COMPARED = ("fixed-1", "fixed-2", "fixed-4", "vanilla", "heuristic", "threshold", "yesterday-greedy", "forecast-greedy")
"""What `evaluate` compares with."""
EVALUATION_SEED = 1_000_003
"""Tasks to evaluate on are drawn from this root, those to train on from the user's seed. Other synthetic benchmarks and
traces, windows and limits; but the grids and CIFAR-100 are the same, so this is a check of the training, no test."""


def train(
    options: PolicyTrainOptions,
    data: Path | None,
    out: Path,
    *,
    checkpoints: Path | None = None,
    progress: Callable[[int, Metrics], None] = lambda done, metrics: None,
) -> dict[str, Any]:
    """Trains a policy on `policy_tasks` and writes it to the new file `out`; returns what is to be told of it."""
    tasks = training_tasks(data, options.seed)
    environment = task_environment(SLOTS, options.reward)
    config = AgentConfig(action=options.action)
    sizes = PPOConfig(environments=options.environments, replicas=options.replicas, steps=HOURS)
    hyper = Hyperparameters(
        learning_rate=options.learning_rate, entropy=options.entropy, decay=options.decay, last_update=options.updates
    )
    history: list[dict[str, float]] = []

    def note(done: int, metrics: Metrics) -> None:
        reward = np.asarray(metrics.episode_reward, float)
        history.append({"update": done, "episode_reward": round(float(reward.mean()), 5)})
        progress(done, metrics)

    info = {
        "trained_on": list(tasks.sources),
        "real_data": data is not None,
        "reward": options.reward,
        "slots": SLOTS,
        "updates": options.updates,
        "seed": options.seed,
    }
    state = train_policy(
        jax.random.key(options.seed),
        ppo(environment, draw_task(tasks), agent(config, SLOTS), sizes),
        hyper,
        updates=options.updates,
        chunk_updates=CHUNK_UPDATES,
        checkpoints=checkpoints,
        identity={**info, "action": options.action, "environments": options.environments, "replicas": options.replicas},
        progress=note,
    )
    updates = int(state.step)  # whole chunks
    info |= {"updates": updates, "episodes": updates * options.environments}
    save_policy(out, LearnedPolicy(config, state.params, {**info, "history": history}))
    return {"policy": str(out), "action": options.action, **info}


class Comparison(NamedTuple):
    """Of one policy over the tasks."""

    hypervolume_share: Float[np.ndarray, " tasks"]
    evaluations: Float[np.ndarray, " tasks"]
    emissions_g: Float[np.ndarray, " tasks"]


def compare(learned: LearnedPolicy, tasks: PolicyTasks, count: int, seed: int) -> dict[str, Comparison]:
    """`learned` and plain rules on the same `count` tasks with the same draws of the search."""
    keys = jax.random.split(jax.random.fold_in(jax.random.key(EVALUATION_SEED), seed), count)
    plain, results = episodes(plain_policy(SLOTS), tasks), {}
    for name in COMPARED:
        results[name] = plain(keys, plain_params(name, SLOTS))
    results["learned"] = episodes(agent_policy(agent(learned.config, SLOTS)), tasks)(keys, learned.params)
    return {name: Comparison(*(np.asarray(part, float) for part in parts)) for name, parts in results.items()}


def episodes(policy: Policy, tasks: PolicyTasks) -> Callable[..., tuple]:
    """`(keys, policy_params) -> (hypervolume share, evaluations, gCO2eq)` of one episode a key; jitted."""
    environment, draw = task_environment(SLOTS), draw_task(tasks)

    def episode(key, policy_params):
        key_task, key_search = jax.random.split(key)
        result = simulate(key_search, environment, policy, draw(key_task), policy_params, HOURS)
        return result.history.hypervolume_share[-1], result.count, result.ledger.emissions_g.sum()

    return jax.jit(jax.vmap(episode, (0, None)))


class Decisions(NamedTuple):
    """What a policy decides over a day, `[affordable shares, hours]`: evaluation slots."""

    hours: Float[np.ndarray, " 24"]
    intensity_ratio: Float[np.ndarray, " 24"]
    """Of the day's mean."""
    affordable_share: Float[np.ndarray, " shares"]
    slots: Float[np.ndarray, "shares 24"]


def decisions(learned: LearnedPolicy, slots: int) -> Decisions:
    """The policy's answers half-way through a search of 80 h, by what the remaining budget affords, over a day (a sine)
    that recurs unchanged."""
    policy = agent_policy(agent(learned.config, slots))
    hours, shares = np.arange(24.0), np.linspace(0.02, 1.0, 50, dtype=np.float32)
    ratio = jnp.asarray(1 - 0.4 * np.sin(2 * np.pi * (hours - 6) / 24), jnp.float32)

    def act(share, hour):
        low, high = ratio.min(), ratio.max()
        relative = (jnp.roll(ratio, -hour) - low) / (high - low)  # from this hour on, and so it was yesterday
        before = jnp.roll(ratio, 1)[hour]
        observation = Observation(
            remaining_h=jnp.float32(HOURS / 2),
            remaining_time_share=jnp.float32(0.5),
            remaining_carbon_share=jnp.float32(0.5),
            affordable_share=share,
            sampling_cost=jnp.float32(0.0),
            relative_intensity=relative[0],
            relative_forecast=jnp.zeros(0),
            relative_past=relative[:WINDOW_H],
            lowest_ratio=low,
            highest_ratio=high,
            intensity_change=ratio[hour] / before - 1,
            log_hypervolume=jnp.float32(0.2),
            recent_gain=jnp.float32(0.0),
            log_evaluations=jnp.log1p(10 + share * slots * HOURS / 2),
            queue_fill=jnp.float32(1.0),
            half_finished_share=jnp.float32(0.0),
            supernet_share=jnp.float32(1.0),
        )
        return policy.act(jax.random.key(0), learned.params, observation)[0]

    chosen = jax.jit(jax.vmap(jax.vmap(act, (None, 0)), (0, None)))(shares, np.arange(24))
    return Decisions(*(np.asarray(part, float) for part in (hours, ratio, shares, chosen)))
