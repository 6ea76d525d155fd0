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
    state: Any
    """The last sound `TrainState`; None where the device could not hold one."""
    failure: str | None
    """Why the training is worth nothing, in one line."""

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

    A loss, gradient or new weight that is not finite, and a compiled chunk that needs more memory than there is, end
    the training with a `failure`, not an exception; the second before anything of the network is made. `ValueError`
    where a label is no class of the network, or a stream of chunks ends early.

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
    if not isinstance(data, ImageArrays) and not callable(data):
        raise ValueError("train: data must be on the device (to_device(images)), or a function that streams chunks")
    stream = (lambda chunk: itertools.repeat(data)) if isinstance(data, ImageArrays) else data
    chunks = stream(0)
    first = _next(chunks, 0)
    shapes = jax.eval_shape(program.init, key, first) if start is None else start
    _check_labels(first, num_classes(shapes.variables))
    if checkpoints is not None and not identity:
        raise ValueError("train: checkpoints need an identity, so that no other training goes on from them")
    failure = _too_large(program.train_chunk, (shapes, key, first, choice), memory_bytes)
    if failure is not None:
        return Trained(start, failure)
    try:
        state = program.init(key, first) if start is None else start
        if checkpoints is not None:
            whole = {
                **(identity or {}),
                "config": repr(config),
                "key": jax.random.key_data(key).tolist(),
                "read": digest((first, choice, state)),
            }
            state = latest(checkpoints, state, whole)
        chunk = int(state.step) // config.chunk_steps
        chunks = stream(chunk) if chunk else itertools.chain([first], chunks)
        del first  # or a stream's first images would stay on the device
        while int(state.step) < config.steps and not state.failed:
            state, info = program.train_chunk(state, key, _next(chunks, chunk), choice)
            if checkpoints is not None:
                save(checkpoints, state, whole)
            progress(int(state.step), jax.device_get(info))
            chunk += 1
            if pause(int(state.step)):
                break
    except jax.errors.JaxRuntimeError as error:  # what others hold of the memory is not asked before
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return Trained(None, f"{jax.default_backend()}: out of memory amid the training")
    failure = f"step {int(state.step)}: the loss, its gradient or the new weights are not finite"
    return Trained(state, failure if state.failed else None)


def _next(chunks: Iterator[ImageArrays], chunk: int) -> ImageArrays:
    images = next(chunks, None)
    if images is None:
        raise ValueError(f"train: the stream of images has no chunk {chunk}: give one for each of the config's chunks")
    return images


def _check_labels(data: ImageArrays, classes: int) -> None:
    if not len(data.labels) == len(data.images) > 0:
        raise ValueError(f"train: {len(data.images)} images and {len(data.labels)} labels: give one each, and some")
    lowest, highest = int(data.labels.min()), int(data.labels.max())
    if highest >= classes:
        raise ValueError(f"train: labels reach {highest}, but the network has {classes} classes: give it {highest + 1}")
    if lowest < 0:
        raise ValueError(f"train: label {lowest} is no class: number them from 0")


def _too_large(train_chunk, arguments: tuple, memory_bytes: float | None) -> str | None:
    """Why the device cannot hold what a chunk needs, as its compiler counts it. The calls use what is compiled here."""
    device = next(iter(arguments[2].images.devices()))
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
    if device.platform != "cpu":
        return None
    machine = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    container = Path("/sys/fs/cgroup/memory.max")  # "max" where there is no limit
    limit = container.read_text().strip() if container.is_file() else ""
    return min(machine, float(limit)) if limit.isdigit() else machine
