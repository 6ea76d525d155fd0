"""Training of image classifiers, candidates and supernets alike: a chunk of steps is one compiled program.

What a step draws (images, augmentation, path) depends on the key and the number of the step alone, so a training may
pause after any chunk, and what goes on from there ends with the weights of an uninterrupted one.
"""

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int, Key

from cenas_jax.choices import check_choices
from cenas_jax.nets import Network
from cenas_jax.training.images import AugmentationConfig, ImageArrays, augmented, mixed, standardised
from cenas_jax.training.paths import DrawPath, no_path


@dataclass(frozen=True)
class TrainingConfig:
    """How a classifier is trained: by default SGD with Nesterov momentum, the learning rate falling by a cosine."""

    steps: int = 2000
    """Of the whole training; the learning rate's schedule ends there."""
    chunk_steps: int = 50
    """Steps of one call of `train_chunk`, after each of which a training may pause."""
    batch: int = 64
    optimiser: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = 0.1
    """At its highest, after the warm-up."""
    last_learning_rate: float = 0.0
    warm_up_steps: int = 0
    momentum: float = 0.9
    weight_decay: float = 5e-4
    """Of all weights in every step, scales and those off a supernet's path included."""
    clip_norm: float = 5.0
    """Of the gradient of all weights together."""
    label_smoothing: float = 0.0
    average: float = 0.0
    """Share that a step keeps of the running average of weights and statistics; 0: there is none."""
    bfloat16: bool = False
    """Compute in bfloat16; weights, statistics, logits and losses stay float32."""
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    auxiliary_weight: float = 0.0
    """Of the loss of the auxiliary head, which is added where it is not 0; for networks that have one."""
    drop_path: float = 0.0
    """Probability of dropping an operation's output, an image at a time: at the end, rising from 0 with the steps. For
    networks of cells, whose `apply` takes it."""

    def __post_init__(self):
        check_choices(self)
        if min(self.steps, self.chunk_steps, self.batch) < 1 or self.steps % self.chunk_steps:
            raise ValueError(
                "TrainingConfig: give positive steps, chunk_steps and batch, and steps in whole chunks, not "
                f"{self.steps}, {self.chunk_steps} and {self.batch}"
            )
        if not 0 <= self.warm_up_steps < self.steps:
            raise ValueError(f"TrainingConfig: warm_up_steps must be in [0, {self.steps}), got {self.warm_up_steps}")
        for name in ("momentum", "label_smoothing", "average", "drop_path"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"TrainingConfig: {name} must be in [0, 1), got {getattr(self, name)}")
        for name in ("learning_rate", "last_learning_rate", "weight_decay", "auxiliary_weight"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"TrainingConfig: {name} must be finite and not negative, got {getattr(self, name)}")
        if not self.clip_norm > 0:
            raise ValueError(f"TrainingConfig: clip_norm must be positive, got {self.clip_norm}")


class TrainState(NamedTuple):
    """Everything a training needs to go on."""

    step: Int[Array, ""]
    variables: Any
    optimiser: Any
    average: Any
    """Of the variables; `()` without one."""
    failed: Bool[Array, ""]
    """A loss, gradient or new weight was not finite: nothing has changed since, and `step` is the one that failed."""


class ChunkInfo(NamedTuple):
    """Of every step of a chunk, before its update; of a failed training's steps, what was found at its last weights."""

    loss: Float[Array, " steps"]
    """With the weighted one of an auxiliary head."""
    accuracy: Float[Array, " steps"]
    """Share of right answers; by the larger part of the label where images are mixed."""
    failed: Bool[Array, " steps"]


class Classifier(NamedTuple):
    """Compiled functions of a network and a config. `data` are `ImageArrays`, `choice` is what paths are drawn from."""

    init: Callable[..., TrainState]
    """`(key, data) -> state`."""
    apply: Callable[..., Float[Array, "n k"]]
    """`(variables, data, *codes) -> logits[n, k]` of all images, by the running statistics."""
    train_chunk: Callable[..., tuple[TrainState, ChunkInfo]]
    """`(state, key, data, choice=()) -> (state, info)`: `chunk_steps` steps. The state is donated: keep the new one."""
    accuracy: Callable[..., Float[Array, ""]]
    """`(variables, data, *codes) -> share` of right answers by the running statistics; NaN where logits are not
    finite or a label is no class of the network."""
    restart: Callable[..., TrainState]
    """`(variables) -> state`: a new training from a copy of these variables."""


def _check_recipe(network: Network, config: TrainingConfig) -> None:
    taken = inspect.signature(network.apply).parameters
    for option, argument in (("auxiliary_weight", "auxiliary"), ("drop_path", "drop")):
        if getattr(config, option) and argument not in taken:
            raise ValueError(f"{option} {getattr(config, option)}: this network takes no such part; only cells' do")


EVALUATED = 256
"""Images that are evaluated at a time."""


def classifier(
    network: Network,
    config: TrainingConfig,
    draw_path: DrawPath = no_path,
    optimiser: optax.GradientTransformation | None = None,
    devices: Sequence[Any] | None = None,
) -> Classifier:
    """A classifier of `network`, whose `apply(variables, images, *path, mode)` is as in `nets/nas_bench_201.py`, and as
    in `nets/cells.py` where the config has an auxiliary head or drops paths (`ValueError` where the network cannot).

    Args:
        optimiser: replaces the config's, its schedule included; gradients are clipped before it.
        devices: share a training's batches, each taking as many images (`ValueError` where they do not divide the
            batch). State and data set are whole on every one; statistics are those of the whole batch.
    """
    mesh = None if devices is None else Mesh(np.asarray(devices), ("images",))
    if mesh is not None and config.batch % mesh.size:
        raise ValueError(f"classifier: a batch of {config.batch} cannot be shared by {mesh.size} devices alike")
    _check_recipe(network, config)
    clip = optax.clip_by_global_norm(config.clip_norm)
    # The config's own treat every weight alike, so they may see one vector; others may not.
    own = optax.flatten(optax.chain(clip, _optimiser(config)))
    optimise = own if optimiser is None else optax.chain(clip, optimiser)

    def restart(variables) -> TrainState:
        average = jax.tree.map(jnp.copy, variables) if config.average else ()
        optimiser = optimise.init(variables["params"])
        return TrainState(
            jnp.zeros((), jnp.int32), jax.tree.map(jnp.copy, variables), optimiser, average, jnp.array(False)
        )

    def init(key: Key[Array, ""], data: ImageArrays) -> TrainState:
        return restart(network.init(key, standardised(data, data.images[:1])))

    def train_chunk(state: TrainState, key: Key[Array, ""], data: ImageArrays, choice: Any = ()):
        key_rows, key_image, key_path = jax.random.split(key, 3)
        rows = batch_rows(key_rows, state.step, data.labels.shape[0], config.chunk_steps, config.batch)
        packing = _packing(state.variables)
        step = _step(network, config, draw_path, optimise, packing, num_classes(state.variables), mesh)
        packed, info = jax.lax.scan(
            lambda state, rows: step(state, rows, key_image, key_path, data, choice), _mapped(packing.pack, state), rows
        )
        return _mapped(packing.unpack, packed), info

    def logits(variables, data: ImageArrays, *codes):
        def some(images):
            values = standardised(data, images).astype(compute_dtype(config))
            return network.apply(variables, values, *codes, "running")[0]

        count = data.images.shape[0]
        size = min(EVALUATED, count)
        batches = -(-count // size)
        padded = jnp.pad(data.images, ((0, batches * size - count), (0, 0), (0, 0), (0, 0)))
        found = jax.lax.map(some, padded.reshape(batches, size, *padded.shape[1:]))
        return found.reshape(batches * size, -1)[:count]

    def accuracy(variables, data: ImageArrays, *codes):
        return share_right(logits(variables, data, *codes), data.labels)

    whole = None if mesh is None else NamedSharding(mesh, PartitionSpec())
    jit = functools.partial(jax.jit, **({} if whole is None else {"in_shardings": whole, "out_shardings": whole}))
    return Classifier(
        init=jit(init),
        apply=jit(logits),
        train_chunk=jit(train_chunk, donate_argnums=0),
        accuracy=jit(accuracy),
        restart=jit(restart),
    )


def share_right(logits: Float[Array, "n k"], labels: Int[Array, " n"]) -> Float[Array, ""]:
    """NaN where a logit is not finite, so that a network that diverged never looks like one that guesses, or a label is
    no class of the network."""
    right = (logits.argmax(axis=1) == labels).mean()
    return jnp.where(jnp.isfinite(logits).all() & _is_class(labels, logits.shape[1]).all(), right, jnp.nan)


def _is_class(labels: Int[Array, " n"], classes: int) -> Bool[Array, " n"]:
    return (labels >= 0) & (labels < classes)


def _optimiser(config: TrainingConfig) -> optax.GradientTransformation:
    rate = optax.warmup_cosine_decay_schedule(
        0.0 if config.warm_up_steps else config.learning_rate,
        config.learning_rate,
        config.warm_up_steps,
        config.steps,
        config.last_learning_rate,
    )
    if config.optimiser == "adamw":
        return optax.adamw(rate, weight_decay=config.weight_decay)
    return optax.chain(optax.add_decayed_weights(config.weight_decay), optax.sgd(rate, config.momentum, nesterov=True))


def compute_dtype(config: TrainingConfig):
    return jnp.bfloat16 if config.bfloat16 else jnp.float32


def batch_rows(key, step, count: int, steps: int, batch: int) -> Int[Array, "steps b"]:
    """The rows of the next steps' batches: every pass over the images is a permutation of its own, and they follow on.

    Where `steps` steps are one pass, that is each row once from any `step` that is a multiple of `steps`.
    """
    needed = steps * batch
    first = step * batch
    passes = first // count + jnp.arange(-(-needed // count) + 1)
    order = jax.vmap(lambda number: jax.random.permutation(jax.random.fold_in(key, number), count))(passes)
    rows = jax.lax.dynamic_slice(order.reshape(-1), (first % count,), (needed,))
    return rows.reshape(steps, batch)


class _Packing(NamedTuple):
    """Variables as one vector a collection: to update hundreds of small arrays takes longer than to compute them."""

    pack: Callable[[Any], dict[str, Float[Array, " n"]]]
    unpack: Callable[[dict[str, Float[Array, " n"]]], Any]


def _packing(variables) -> _Packing:
    unravel = {kind: ravel_pytree(collection)[1] for kind, collection in variables.items()}
    return _Packing(
        lambda trees: {kind: ravel_pytree(tree)[0] for kind, tree in trees.items()},
        lambda vectors: {kind: unravel[kind](vector) for kind, vector in vectors.items()},
    )


def _mapped(change: Callable, state: TrainState) -> TrainState:
    return state._replace(
        variables=change(state.variables), average=change(state.average) if state.average else state.average
    )


def _step(network, config: TrainingConfig, draw_path, optimise, packing: _Packing, classes: int, mesh: Mesh | None):
    """One step: `(state, rows[b], key_image, key_path, data, choice) -> (state, info)`, of packed states."""
    shared = None if mesh is None else NamedSharding(mesh, PartitionSpec("images"))

    asked = {"auxiliary": True} if config.auxiliary_weight else {}

    def loss_of(params, statistics, images, wanted, path, drop):
        variables = packing.unpack({"params": params, "statistics": statistics})
        values = images.astype(compute_dtype(config))
        logits, statistics = network.apply(variables, values, *path, "train", **asked, **drop)
        smooth = optax.smooth_labels(wanted, config.label_smoothing)
        packed = packing.pack({"statistics": statistics})["statistics"]
        if not asked:
            return optax.softmax_cross_entropy(logits, smooth).mean(), (logits, packed)
        loss, auxiliary = (optax.softmax_cross_entropy(head, smooth).mean() for head in logits)
        return loss + config.auxiliary_weight * auxiliary, (logits[0], packed)

    def updates_of(gradient, optimiser, params):
        gradient, params = (packing.unpack({"params": vector})["params"] for vector in (gradient, params))
        updates, optimiser = optimise.update(gradient, optimiser, params)
        return packing.pack({"params": updates})["params"], optimiser

    def step(state: TrainState, rows, key_image, key_path, data: ImageArrays, choice):
        count = 3 if config.drop_path else 2
        key_augment, key_mix, *key_drop = jax.random.split(jax.random.fold_in(key_image, state.step), count)
        images = augmented(key_augment, standardised(data, data.images[rows]), config.augmentation)
        params, statistics = state.variables["params"], state.variables["statistics"]
        labels = data.labels[rows]
        # A label that is no class of the network must not pass for a probability of nothing: it fails the training.
        wanted = jnp.where(_is_class(labels, classes)[:, None], jax.nn.one_hot(labels, classes), jnp.nan)
        images, wanted = mixed(key_mix, images, wanted, config.augmentation.mixup)
        if mesh is not None:
            images, wanted = jax.lax.with_sharding_constraint((images, wanted), shared)
        path = draw_path(key_path, state.step, choice)
        drop = {"key": key_drop[0], "drop": config.drop_path * state.step / config.steps} if key_drop else {}
        gradient_of = jax.value_and_grad(loss_of, has_aux=True)
        (loss, (logits, statistics)), gradient = gradient_of(params, statistics, images, wanted, path, drop)
        updates, optimiser = updates_of(gradient, state.optimiser, params)
        variables = {"params": params + updates, "statistics": statistics}
        average = optax.incremental_update(variables, state.average, 1 - config.average) if config.average else ()
        # A gradient whose norm overflows would be clipped to nothing.
        checked = (loss + jnp.vdot(gradient, gradient), *variables.values())
        sound = [jnp.isfinite(values).all() for values in checked]
        failed = state.failed | ~jnp.stack(sound).all()
        new = TrainState(state.step + 1, variables, optimiser, average, failed)
        kept = jax.tree.map(lambda after, before: jnp.where(failed, before, after), new, state)
        right = (logits.argmax(axis=1) == wanted.argmax(axis=1)).mean()
        return kept._replace(failed=failed), ChunkInfo(loss, right, failed)

    return step


def num_classes(variables) -> int:
    return variables["params"]["head"]["bias"].shape[0]
