"""A supernet: paths trained one a step, screening of thousands in one call, few-shot splits.

Single path: Guo et al. (ECCV 2020). Few-shot: Zhao et al. (ICML 2021): one entry's choices get a supernet each, which
inherits the weights and is trained on.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from cenas_jax.nets import Network
from cenas_jax.training.classifier import ChunkInfo, TrainingConfig, TrainState, classifier, compute_dtype, share_right
from cenas_jax.training.images import ImageArrays, standardised
from cenas_jax.training.paths import DrawPath, only, uniform_path

SCREENED = 512
"""Most images of a batch whose own statistics normalise it, where a path is screened."""


class Supernet(NamedTuple):
    """Compiled functions, as those of a `Classifier`, and `screen`."""

    init: Callable[..., TrainState]
    """`(key, data) -> state`."""
    apply: Callable[..., Float[Array, "n k"]]
    """`(variables, data, codes) -> logits[n, k]` of all images, by the running statistics."""
    train_chunk: Callable[..., tuple[TrainState, ChunkInfo]]
    """`(state, key, data, choice) -> (state, info)`: `chunk_steps` steps, each of a path that `draw_path` draws from
    `choice`. The state is donated: keep the new one."""
    screen: Callable[..., Float[Array, " n"]]
    """`(variables, codes[n, d], data, calibration=None) -> accuracy[n]` of every path, one after the other in one call.

    Running statistics are a mixture of all paths, so they are not used: batches of `data` are normalised by their own
    (nearly equal batches of at most `SCREENED`; less than a batch's number of images at the end is left out), or by
    those of the images in `calibration` on this very path. NaN where a logit is not finite."""
    restart: Callable[..., TrainState]
    """`(variables) -> state`: a new training from a copy of these variables."""


def supernet(
    network: Network,
    config: TrainingConfig,
    draw_path: DrawPath = uniform_path,
    optimiser: optax.GradientTransformation | None = None,
    devices: Sequence[Any] | None = None,
) -> Supernet:
    """A supernet of `network`, whose `apply(variables, images, codes, mode, momentum)` is as in
    `nets/nas_bench_201.py`; `optimiser` and `devices` as in `classifier`."""
    base = classifier(network, config, draw_path, optimiser, devices)
    dtype = compute_dtype(config)

    def screen(variables, codes: Int[Array, "n d"], data: ImageArrays, calibration: ImageArrays | None = None):
        images, labels = _batches(data, dtype)
        if calibration is not None:
            seen, _ = _batches(calibration, dtype)

        def path(codes):
            if calibration is None:
                logits = jax.lax.map(lambda some: network.apply(variables, some, codes, "batch")[0], images)
                return share_right(logits.reshape(-1, logits.shape[-1]), labels)

            def look(statistics, turn):
                number, some = turn
                known = variables | {"statistics": statistics}
                return network.apply(known, some, codes, "train", 1 / number)[1], None

            numbers = jnp.arange(1.0, 1 + seen.shape[0])
            statistics, _ = jax.lax.scan(look, variables["statistics"], (numbers, seen))
            known = variables | {"statistics": statistics}
            logits = jax.lax.map(lambda some: network.apply(known, some, codes, "running")[0], images)
            return share_right(logits.reshape(-1, logits.shape[-1]), labels)

        return jax.lax.map(path, codes)

    return Supernet(base.init, base.apply, base.train_chunk, jax.jit(screen), base.restart)


def _batches(data: ImageArrays, dtype) -> tuple[Array, Array]:
    """Nearly equal batches of standardised images `[batches, size, h, w, c]`, and the labels of their images."""
    count = data.labels.shape[0]
    batches = -(-count // SCREENED)
    size = count // batches
    images = standardised(data, data.images[: batches * size]).astype(dtype)
    return images.reshape(batches, size, *images.shape[1:]), data.labels[: batches * size]


class Part(NamedTuple):
    """One of the supernets that a few-shot split makes."""

    state: TrainState
    allowed: Bool[Array, "d c"]
    """Its choices, to be drawn from in its training."""


def split_supernet(net: Supernet, variables: Any, allowed: Bool[Array, "d c"], entry: int) -> list[Part]:
    """A supernet for every allowed choice of an entry, at the start of a training from the weights of the whole one."""
    choices = [choice for choice in range(allowed.shape[1]) if bool(allowed[entry, choice])]
    return [Part(net.restart(variables), only(allowed, entry, choice)) for choice in choices]


def screen_parts(
    net: Supernet, parts: list[Part], entry: int, codes: Int[Array, "n d"], *data: ImageArrays
) -> Float[Array, " n"]:
    """As `screen`, every path by the part that has its choice; NaN for a path that none has. On the host.

    Paths are padded to one size, so that all parts are screened by one compiled program: that costs up to as many
    times the work as the largest part's share is larger than the mean one.
    """
    homes = [jnp.flatnonzero(part.allowed[entry][codes[:, entry]]) for part in parts]
    size = max(len(home) for home in homes)
    found = jnp.full(len(codes), jnp.nan)
    for part, home in zip(parts, homes, strict=True):
        if len(home):
            padded = codes[jnp.pad(home, (0, size - len(home)))]
            found = found.at[home].set(net.screen(part.state.variables, padded, *data)[: len(home)])
    return found
