"""Training an allocation policy: chunks of PPO updates, checkpoints between them, an exact resume."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from cenas_jax.allocation.ppo import PPO, Hyperparameters, Metrics, PPOState
from cenas_jax.training.checkpoints import latest, save


def train_policy(
    key: Key[Array, ""],
    learner: PPO,
    hyper: Hyperparameters,
    *,
    updates: int,
    chunk_updates: int = 10,
    checkpoints: str | Path | None = None,
    identity: dict[str, Any] | None = None,
    progress: Callable[[int, Metrics], None] = lambda done, metrics: None,
) -> PPOState:
    """Trains for `updates` updates, rounded up to whole chunks; a chunk is one jitted scan.

    Args:
        checkpoints: a folder; the state is saved there after every chunk, and a training that finds one goes on from
            it, to the very bits of an uninterrupted one. `ValueError` where it belongs to another training.
        identity: plain data that tells trainings apart (agent, sizes, tasks), beside the key and the hyper-parameters;
            `ValueError` where checkpoints are asked for without it.
        progress: called after a chunk with the updates done and their metrics, `[chunk_updates]` each.
    """
    if checkpoints is not None and not identity:
        raise ValueError("train_policy: checkpoints need an identity, so that no other training goes on from them")
    hyper = jax.tree.map(jnp.float32, hyper)
    start, chunk = _program(learner, chunk_updates)
    state = start(key)
    whole = {
        **(identity or {}),
        "key": jax.random.key_data(key).tolist(),
        "hyperparameters": [float(value) for value in hyper],
        "chunk_updates": chunk_updates,
    }
    if checkpoints is not None:
        state = latest(checkpoints, state, whole)
    while int(state.step) < updates:
        state, metrics = chunk(state, key, hyper)
        if checkpoints is not None:
            save(checkpoints, state, whole)
        progress(int(state.step), jax.device_get(metrics))
    return state


@functools.lru_cache
def _program(learner: PPO, chunk_updates: int):
    """The compiled start and chunk of a training, one a learner."""

    @jax.jit
    def chunk(state, key, hyper):
        return jax.lax.scan(lambda state, _: learner.update(state, key, hyper), state, None, length=chunk_updates)

    return jax.jit(learner.init), chunk
