"""Training a candidate or a supernet to its end: chunks, checkpoints between them, an exact resume, failures told."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Key

from cenas_jax.training.checkpoints import digest, latest, save
from cenas_jax.training.classifier import ChunkInfo, Classifier, TrainingConfig, TrainState, num_classes
from cenas_jax.training.images import ImageArrays
from cenas_jax.training.supernet import Supernet


class Trained(NamedTuple):
    state: TrainState
    failure: str | None
    """Why the training is worth nothing, in one line; its weights are the last sound ones."""

    @property
    def variables(self) -> Any:
        """The running average where there is one, else the last weights."""
        return self.state.average or self.state.variables


def train(
    key: Key[Array, ""],
    program: Classifier | Supernet,
    config: TrainingConfig,
    data: ImageArrays,
    choice: Any = (),
    *,
    start: TrainState | None = None,
    checkpoints: str | Path | None = None,
    identity: dict[str, Any] | None = None,
    pause: Callable[[int], bool] = lambda step: False,
    progress: Callable[[int, ChunkInfo], None] = lambda step, info: None,
) -> Trained:
    """Trains to the end of the config's steps, or until `pause(step)` after a chunk.

    A loss or gradient that is not finite ends the training with a `failure`, not an exception. `ValueError` where a
    label is no class of the network.

    Args:
        choice: what paths are drawn from (`training/paths.py`); nothing for a network of one architecture.
        start: the state to go on from in place of a new one; it is donated.
        checkpoints: a folder; the state is saved there after every chunk, and a training that finds one goes on from
            it, to the very weights of an uninterrupted one on the same kind of device. `ValueError` where it belongs
            to another training.
        identity: plain data that tells trainings apart (network, architecture), beside the config, the key and all
            that is read; `ValueError` where checkpoints are asked for without it.
    """
    state = program.init(key, data) if start is None else start
    highest, classes = int(data.labels.max()), num_classes(state.variables)
    if highest >= classes:
        raise ValueError(f"train: labels reach {highest}, but the network has {classes} classes: give it {highest + 1}")
    if checkpoints is not None:
        if not identity:
            raise ValueError("train: checkpoints need an identity, so that no other training goes on from them")
        whole = {
            **identity,
            "config": repr(config),
            "key": jax.random.key_data(key).tolist(),
            "read": digest((data, choice, state)),
        }
        state = latest(checkpoints, state, whole)
    while int(state.step) < config.steps and not state.failed:
        state, info = program.train_chunk(state, key, data, choice)
        if checkpoints is not None:
            save(checkpoints, state, whole)
        progress(int(state.step), jax.device_get(info))
        if pause(int(state.step)):
            break
    failure = f"step {int(state.step)}: the loss or its gradient is not finite" if state.failed else None
    return Trained(state, failure)
