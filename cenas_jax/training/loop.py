"""Training a candidate or a supernet to its end: chunks, checkpoints between them, an exact resume, failures told."""

import itertools
import os
from collections.abc import Callable, Iterator
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
    data: ImageArrays | Callable[[int], Iterator[ImageArrays]],
    choice: Any = (),
    *,
    start: TrainState | None = None,
    checkpoints: str | Path | None = None,
    identity: dict[str, Any] | None = None,
    pause: Callable[[int], bool] = lambda step: False,
    progress: Callable[[int, ChunkInfo], None] = lambda step, info: None,
    memory_bytes: float | None = None,
) -> Trained:
    """Trains to the end of the config's steps, or until `pause(step)` after a chunk.

    A loss or gradient that is not finite, and a compiled chunk that needs more memory than there is, end the training
    with a `failure`, not an exception; the second before its first step. `ValueError` where a label is no class of the
    network.

    Args:
        data: a set that fits on the device; or a function that gives every chunk's images from the chunk of that number
            on, such as `lambda chunk: stream_folder(..., start=chunk)`, all of one shape. Of these only the first
            chunk's labels are checked before the first step; later ones fail the training.
        choice: what paths are drawn from (`training/paths.py`); nothing for a network of one architecture.
        start: the state to go on from in place of a new one; it is donated.
        checkpoints: a folder; the state is saved there after every chunk, and a training that finds one goes on from
            it, to the very weights of an uninterrupted one on the same kind of device. `ValueError` where it belongs
            to another training.
        identity: plain data that tells trainings apart (network, architecture), beside the config, the key and all
            that is read; `ValueError` where checkpoints are asked for without it.
        memory_bytes: of the device; by default what it says of itself, on a CPU the machine's.
    """
    stream = (lambda chunk: itertools.repeat(data)) if isinstance(data, ImageArrays) else data
    chunks = stream(0)
    first = next(chunks)
    state = program.init(key, first) if start is None else start
    highest, classes = int(first.labels.max()), num_classes(state.variables)
    if highest >= classes:
        raise ValueError(f"train: labels reach {highest}, but the network has {classes} classes: give it {highest + 1}")
    if checkpoints is not None:
        if not identity:
            raise ValueError("train: checkpoints need an identity, so that no other training goes on from them")
        whole = {
            **identity,
            "config": repr(config),
            "key": jax.random.key_data(key).tolist(),
            "read": digest((first, choice, state)),
        }
        state = latest(checkpoints, state, whole)
    failure = _too_large(program.train_chunk, (state, key, first, choice), memory_bytes)
    if failure is not None:
        return Trained(state, failure)
    chunk = int(state.step) // config.chunk_steps
    chunks = stream(chunk) if chunk else itertools.chain([first], chunks)
    del first  # or a stream's first images would stay on the device
    while int(state.step) < config.steps and not state.failed:
        state, info = program.train_chunk(state, key, next(chunks), choice)
        if checkpoints is not None:
            save(checkpoints, state, whole)
        progress(int(state.step), jax.device_get(info))
        if pause(int(state.step)):
            break
    failure = f"step {int(state.step)}: the loss or its gradient is not finite" if state.failed else None
    return Trained(state, failure)


def _too_large(train_chunk, arguments: tuple, memory_bytes: float | None) -> str | None:
    """Why the device cannot hold what a chunk needs, as its compiler counts it. The calls use what is compiled here."""
    device = next(iter(jax.tree.leaves(arguments[0])[0].devices()))
    try:
        needed = train_chunk.lower(*arguments).compile().memory_analysis()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return f"{device.platform}: the compiler found no way to fit the training into the memory"
    limit = _memory_bytes(device) if memory_bytes is None else memory_bytes
    if needed is None or limit is None:
        return None
    arrays = needed.argument_size_in_bytes + needed.output_size_in_bytes - needed.alias_size_in_bytes
    total = arrays + needed.temp_size_in_bytes + needed.generated_code_size_in_bytes
    if total <= limit:
        return None
    return f"{device.platform}: a chunk of steps needs {total / 2**30:.3g} GiB of memory, there are {limit / 2**30:.3g}"


def _memory_bytes(device) -> float | None:
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        return float(stats["bytes_limit"])
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")) if device.platform == "cpu" else None
