"""A supernet: paths trained one a step, screening of thousands in one call, few-shot splits.

Single path: Guo et al. (ECCV 2020). Few-shot: Zhao et al. (ICML 2021): one entry's choices get a supernet each, which
inherits the weights and is trained on; or two groups of them do, by how well their gradients agree (Hu et al., ICLR
2022).
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, Key

from cenas_jax.nets import Network
from cenas_jax.training.classifier import (
    ChunkInfo,
    TrainingConfig,
    TrainState,
    batch_rows,
    classifier,
    compute_dtype,
    share_right,
)
from cenas_jax.training.gradient_matching import gradient_similarity, minimum_cut
from cenas_jax.training.images import ImageArrays, standardised
from cenas_jax.training.paths import DrawPath, only, uniform_path

SCREENED = 512
"""Most images of a batch whose own statistics normalise it, where a path is screened."""


class Supernet(NamedTuple):
    """Compiled functions, as those of a `Classifier`, `screen` and `gradient_similarity`."""

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
    gradient_similarity: Callable[..., Float[Array, "c c"]]
    """`(key, variables, data, allowed[d, c], codes[n, d], entry) -> similarity[c, c]` of an entry's choices, as in
    `training/gradient_matching.py`, over the paths `codes` and as many batches that `key` draws; NaN for choices that
    are not allowed."""
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

    def similarity(key: Key[Array, ""], variables, data: ImageArrays, allowed, codes, entry):
        rows = batch_rows(key, 0, data.labels.shape[0], codes.shape[0], config.batch)
        found = gradient_similarity(network, variables, data, rows, codes, entry, allowed.shape[1], dtype)
        return jnp.where(allowed[entry][:, None] & allowed[entry][None, :], found, jnp.nan)

    return Supernet(base.init, base.apply, base.train_chunk, jax.jit(screen), jax.jit(similarity), base.restart)


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


def split_by_gradients(
    net: Supernet,
    variables: Any,
    data: ImageArrays,
    allowed: Bool[Array, "d c"],
    key: Key[Array, ""],
    *,
    paths: int = 100,
) -> list[Part]:
    """Two supernets, each of half of one entry's choices: the entry and halves whose gradients agree least.

    Of every entry with two allowed choices or more, the choices' gradients are compared on the same `paths` random
    paths, each on a batch of its own, and parted where they agree least on average; that takes as long as entries x
    choices x `paths` steps of training. Train the supernet for a while first; a part may be split again, with its own
    variables and `allowed`. Parts inherit the weights (Hu et al. draw them anew after the last split). `ValueError`
    where no entry has two choices, or the gradients are not finite.
    """
    key_paths, key_batches = jax.random.split(key)
    codes = jax.vmap(lambda step: uniform_path(key_paths, step, allowed)[0])(jnp.arange(paths))
    known = np.asarray(allowed)
    cuts = []
    for entry in np.flatnonzero(known.sum(axis=1) > 1).tolist():
        similarity = np.asarray(net.gradient_similarity(key_batches, variables, data, allowed, codes, entry))
        if not np.isfinite(similarity[known[entry]][:, known[entry]]).all():
            raise ValueError(f"split_by_gradients: entry {entry}'s gradients are not finite: train the supernet anew")
        half, across = minimum_cut(similarity, known[entry])
        cuts.append((across, entry, half))
    if not cuts:
        raise ValueError("split_by_gradients: no entry has two allowed choices: give a larger part of the space")
    _, entry, half = min(cuts, key=lambda cut: cut[0])
    halves = half, known[entry] & ~half
    return [Part(net.restart(variables), allowed.at[entry].set(group)) for group in halves]


def screen_parts(net: Supernet, parts: list[Part], codes: Int[Array, "n d"], *data: ImageArrays) -> Float[Array, " n"]:
    """As `screen`, every path by the part that has all of its choices; NaN for a path that none has. On the host.

    Paths are padded to one size, so that all parts are screened by one compiled program: that costs up to as many
    times the work as the largest part's share is larger than the mean one.
    """
    entries = jnp.arange(codes.shape[1])[None, :]
    homes = [jnp.flatnonzero(part.allowed[entries, codes].all(axis=1)) for part in parts]
    size = max(len(home) for home in homes)
    found = jnp.full(len(codes), jnp.nan)
    for part, home in zip(parts, homes, strict=True):
        if len(home):
            padded = codes[jnp.pad(home, (0, size - len(home)))]
            found = found.at[home].set(net.screen(part.state.variables, padded, *data)[: len(home)])
    return found
