"""Networks of normal and reduction cells, as DARTS (Liu et al., ICLR 2019) has them: what those of all spaces share.

What they are made of is in `spaces/cell_costs.py`. The equal cells of a stage are one scan over their weights; the
first ones of a stage differ from them in what they read. A network of free size is the largest one: of every width the
leading channels are in use, and the others are zero; cells beyond the number hand on what they were given.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from cenas_jax.nets.base import Network
from cenas_jax.nets.cell_operations import (
    Part,
    halving,
    in_use,
    is_identity,
    operation_parts,
    plain,
    whole,
)
from cenas_jax.nets.conv_norm import unused_statistics
from cenas_jax.nets.operations import (
    Mode,
    Statistics,
    check_halved_twice,
    chosen_statistics,
    normalise,
    updated,
)
from cenas_jax.spaces.cell_costs import reduction_cells

INPUTS = 2
Edge = tuple[int, ...]
"""Source and target in a cell, of which 0 and 1 are its inputs; then 1 for a second one of the same operation."""
Fixed = tuple[tuple[Edge, str], ...]
"""A cell's edges with their operations."""


@dataclass(frozen=True)
class CellNetworkConfig:
    """Size of the network (of one of free size: the largest), and what its normalisations are."""

    nodes: int
    cells: int
    channels: int
    num_classes: int
    affine: bool
    pool_norm: bool = False
    auxiliary: bool = False


class Size(NamedTuple):
    """How much of a network of free size is in use."""

    stages: Int[Array, "3"]
    """Cells, as `stage_lengths` has them."""
    channels: Int[Array, ""]


class Given(NamedTuple):
    """What all cells of a kind and a width are given beside their inputs."""

    path: Any
    """The architecture, as the supernet's cell reads it; None in a candidate."""
    leading: Int[Array, ""] | None
    """Channels in use; None where all are."""
    momentum: Float[Array, ""] | float
    drop: Float[Array, ""] | float | None = None
    """Probability of an operation's output to be dropped; None: there is nothing to draw."""


class Group(NamedTuple):
    """A cell, or the equal cells that are one scan."""

    place: int
    """Of the first cell in the network."""
    length: int | None
    """Cells of the scan; None for a cell that is none."""
    stage: int
    index: int
    """Of the first cell in its stage; the second and third stage begin with the cell that reduces."""
    after_reduction: bool

    @property
    def reduces(self) -> bool:
        return self.stage > 0 and self.index == 0


def stage_lengths(cells: int) -> tuple[int, int, int]:
    """Cells of the three stages, each with the reduction that it begins with."""
    first, second = reduction_cells(cells)
    return first, second - first, cells - second


def cell_groups(cells: int, equal_from: int = INPUTS) -> list[Group]:
    """The cells in order. Those before `equal_from` read the stem, which has another width than cells have."""
    starts = (0, *reduction_cells(cells))
    ends, place, groups = (*starts[1:], cells), 0, []
    while place < cells:
        stage = sum(place >= start for start in starts) - 1
        after = place - 1 in starts[1:]
        equal = place >= equal_from and place not in starts[1:] and not after
        length = ends[stage] - place if equal else None
        groups.append(Group(place, length, stage, place - starts[stage], after))
        place += length or 1
    return groups


def supernet(
    config: CellNetworkConfig,
    cell: "type[Cell]",
    read: Callable[[Int[Array, " d"]], tuple[Any, Size | None]],
    entries: int,
) -> Network:
    """The network whose `apply(variables, images, codes, mode, momentum=0.1)` takes the architecture as data.

    In mode `train` it takes two things more. With `key` and `drop`, what an operation other than the identity puts out
    is zero for an image with probability `drop`, and else divided by the rest (Larsson et al., FractalNet, ICLR 2017;
    as DARTS trains). With `auxiliary=True` the logits are a pair, those of the network and of its auxiliary head;
    `ValueError` where it has none.

    Args:
        cell: its `sums` read the path.
        read: of the codes, the path of both kinds of cells (arrays of leading axis 2) and the size, None where fixed.
        entries: of the codes.
    """
    return _network(config, cell, None, read, jnp.zeros(entries, jnp.int32))


def candidate(config: CellNetworkConfig, fixed: tuple[Fixed, Fixed]) -> Network:
    """As `supernet`, of a normal and a reduction cell alone: `apply(variables, images, mode, momentum=0.1)`."""
    network = _network(config, Cell, fixed, lambda codes: (None, None), None)

    def apply(variables, images, mode: Mode, momentum=0.1, key=None, drop=0.0, auxiliary=False):
        return network.apply(variables, images, None, mode, momentum, key, drop, auxiliary)

    return Network(network.init, apply)


def _network(config: CellNetworkConfig, cell: "type[Cell]", fixed, read: Callable, example) -> Network:
    def init(key, images: Float[Array, "n h w c"]):
        _check_size(config, images)
        return _Network(config, cell, fixed, "running").init(key, images, *read(example), 0.1, None)

    def apply(
        variables,
        images: Float[Array, "n h w c"],
        codes: Int[Array, " d"] | None,
        mode: Mode,
        momentum=0.1,
        key: Key[Array, ""] | None = None,
        drop: Float[Array, ""] | float = 0.0,
        auxiliary: bool = False,
    ):
        _check_size(config, images)
        if mode != "train" and (auxiliary or key is not None):
            raise ValueError(f"mode {mode!r}: paths are dropped and the auxiliary head is read in mode 'train' alone")
        if auxiliary and not config.auxiliary:
            raise ValueError("the network has no auxiliary head: give its config auxiliary=True")
        how = momentum, None if key is None else drop
        module, rngs = _Network(config, cell, fixed, mode, auxiliary), {} if key is None else {"paths": key}
        logits, changed = module.apply(variables, images, *read(codes), *how, mutable=["statistics"], rngs=rngs)
        return logits, changed["statistics"]

    return Network(init, apply)


def _check_size(config: CellNetworkConfig, images) -> None:
    check_halved_twice(images)
    height, width = images.shape[1:3]
    if config.auxiliary and (height, width) != (32, 32):
        raise ValueError(f"images of {height} x {width}: the auxiliary head is one for images of 32 x 32")


def edge_name(edge: Edge, operation: str) -> str:
    return "_".join(("edge", *map(str, edge), operation))


def dropped(key: Key[Array, ""], y: Float[Array, "n h w c"], drop: Float[Array, ""] | float):
    """Zero for an image with probability `drop`; what is left is scaled so that the mean stays."""
    kept = jax.random.bernoulli(key, 1 - drop, (y.shape[0], 1, 1, 1))
    return y * jnp.where(kept, 1 / (1 - drop), 0.0).astype(y.dtype)


class Norm(nn.Module):
    """The weights of a part and of its normalisation, or of `rows` such parts. They are handed out, so that a branch
    can compute with them: Flax's modules cannot be called in one."""

    kernels: tuple[tuple[int, ...], ...]
    features: int
    affine: bool
    rows: tuple[int, ...] = ()

    def setup(self):
        rows, features = self.rows, (*self.rows, self.features)

        def he_normal(shape):  # of depthwise kernels, each of whose channels reads one, by what that reads
            fan = "fan_in" if shape[-2] == 1 else "fan_out"
            return nn.initializers.variance_scaling(2.0, fan, "normal", batch_axis=range(len(rows)))

        self.weights = [
            self.param(f"kernel_{place}", he_normal(shape), (*rows, *shape)) for place, shape in enumerate(self.kernels)
        ]
        if self.affine:
            self.scale = self.param("scale", nn.initializers.ones, features)
            self.shift = self.param("shift", nn.initializers.zeros, features)
        self.running = self.variable("statistics", "running", lambda: unused_statistics(features))

    def arrays(self, rows=None):
        """Weights, scale and shift, running statistics; of these rows, of others than there are as of the last."""
        found = self.weights, (self.scale, self.shift) if self.affine else (), self.running.value
        return found if rows is None else _gathered(found, rows)

    def keep(self, batch: Statistics, count: int, momentum, used: Bool[Array, "*c"] | bool = True, rows=None):
        """What `updated` says, of these rows; others than there are have no effect."""
        running = self.running.value
        if rows is None:
            self.running.value = updated(running, batch, count, momentum, used)
            return
        new = updated(_gathered(running, rows), batch, count, momentum, used)
        self.running.value = jax.tree.map(lambda old, own: old.at[rows].set(own, mode="drop"), running, new)


def _gathered(arrays, rows):
    return jax.tree.map(lambda array: array.at[rows].get(mode="clip"), arrays)


def computed(x, part: Part, arrays, stride: int, mode: Mode, leading=None):
    """A part with its normalisation, zero where channels are not in use; the statistics that normalised."""
    weights, affine, running = arrays
    y = part.compute(x, [kernel.astype(x.dtype) for kernel in weights], stride)
    statistics = chosen_statistics(mode, running, y)
    if leading is not None:
        used, (scale, shift) = in_use(y.shape[-1], leading), affine or (1.0, 0.0)
        affine = jnp.where(used, scale, 0.0), jnp.where(used, shift, 0.0)
    return normalise(y, statistics, *affine), statistics


class _Network(nn.Module):
    config: CellNetworkConfig
    cell: "type[Cell]"
    fixed: tuple[Fixed, Fixed] | None
    mode: Mode
    auxiliary: bool = False

    @nn.compact
    def __call__(self, images, path, size: Size | None, momentum, drop):
        config = self.config
        stem = plain(3, images.shape[-1], 3 * config.channels, active=False)
        x = _single(self, "stem", images, stem, Given(None, None if size is None else 3 * size.channels, momentum))
        if size is not None:  # as wide as what cells put out: after a stage of one cell the next one reads the stem
            x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, (config.nodes - 3) * config.channels)))
        carry, auxiliary = (x, x), None
        for group in cell_groups(config.cells, INPUTS if size is None else 0):
            times = 2**group.stage
            own = jax.tree.map(lambda kinds, reduces=group.reduces: kinds[int(reduces)], path)
            given = Given(own, None if size is None else size.channels * times, momentum, drop)
            fixed = self.fixed[group.reduces] if self.fixed else ()
            how = config, config.channels * times, group.reduces, group.after_reduction, self.mode, fixed
            if group.length is None:
                carry, _ = self.cell(*how, name=f"cell_{group.place}")(carry, given, None)
            else:
                numbers = group.index + jnp.arange(group.length)
                used = None if size is None else numbers < size.stages[group.stage]
                cells = nn.scan(
                    self.cell,
                    variable_axes={"params": 0, "statistics": 0},
                    split_rngs={"params": True, "paths": True},
                    in_axes=(nn.broadcast, 0),  # pyright: ignore[reportArgumentType]
                    length=group.length,
                )
                carry, _ = cells(*how, name=f"cell_{group.place}")(carry, given, used)
            if group.stage == 2 and group.reduces and (self.auxiliary or config.auxiliary and self.is_initializing()):
                auxiliary = self._auxiliary_head(carry[1], momentum)
        logits = nn.Dense(config.num_classes, name="head")(carry[1].mean(axis=(1, 2), dtype=jnp.float32))
        return (logits, auxiliary) if self.auxiliary else logits

    def _auxiliary_head(self, x, momentum):
        """DARTS' for CIFAR, at two thirds of the cells, of an image of 8 x 8 pixels."""
        given, x = Given(None, None, momentum), nn.relu(x)
        means = [x[:, i : i + 5, j : j + 5].mean(axis=(1, 2)) for i in (0, 3) for j in (0, 3)]
        x = jnp.stack(means, axis=1).reshape(x.shape[0], 2, 2, x.shape[-1])
        x = _single(self, "auxiliary_first", x, plain(1, x.shape[-1], 128, active=False), given)
        x = _single(self, "auxiliary_second", x, whole(2, 128, 768), given)
        return nn.Dense(self.config.num_classes, name="auxiliary_head")(nn.relu(x)[:, 0, 0].astype(jnp.float32))


def _single(module, name: str, x, part: Part, given: Given, used: Bool[Array, ""] | bool = True):
    """A part that is always there."""
    features = sum(shape[-1] for shape in part.kernels)
    norm = Norm(part.kernels, features, module.config.affine, name=name)
    y, statistics = computed(x, part, norm.arrays(), 1, module.mode, given.leading)
    if module.mode == "train":
        if given.leading is not None:
            used = used & in_use(features, given.leading)
        norm.keep(statistics, y.size // features, given.momentum, used)
    return y


class Cell(nn.Module):
    """A candidate's. A supernet's has `sums` of its own."""

    config: CellNetworkConfig
    width: int
    reduces: bool
    after_reduction: bool
    mode: Mode
    fixed: Fixed = ()

    @nn.compact
    def __call__(self, carry, given: Given, used):
        """`used`: whether the network has this cell; None where it always has."""
        before, last = carry
        shape, present = (before.shape[-1], self.width), True if used is None else used
        first = halving(*shape, given.leading) if self.after_reduction else plain(1, *shape)
        second = plain(1, last.shape[-1], self.width)
        inputs = [
            _single(self, "first", before, first, given, present),
            _single(self, "second", last, second, given, present),
        ]
        new = last, jnp.concatenate(self.sums(inputs, given, present), axis=-1)
        return (new if used is None else jax.tree.map(lambda x, y: jnp.where(used, x, y), new, carry)), None

    def sums(self, inputs: list, given: Given, used) -> list:
        """What every node puts out."""
        states = list(inputs)
        for node in range(INPUTS, INPUTS + self.config.nodes):
            found = [self._edge(*choice, states, given) for choice in self.fixed if choice[0][1] == node]
            states.append(sum(found[1:], start=found[0]))
        return states[INPUTS:]

    def _edge(self, edge: Edge, operation: str, states, given: Given):
        stride = self.stride(edge)
        parts = operation_parts(operation, self.width, stride, self.config.pool_norm)
        norms = self.norms(edge_name(edge, operation), parts)
        y, statistics = self.branch(parts, stride)(states[edge[0]], [norm.arrays() for norm in norms])
        if self.mode == "train":
            for norm, batch in zip(norms, statistics, strict=False):
                norm.keep(batch, y.size // self.width, given.momentum)
        if given.drop is None or is_identity(operation, stride):
            return y
        return dropped(self.make_rng("paths"), y, given.drop)

    def stride(self, edge: Edge) -> int:
        return 2 if self.reduces and edge[0] < INPUTS else 1

    def norms(self, name: str, parts: list[Part] | Callable, rows: tuple[int, ...] = ()) -> list[Norm]:
        return [
            Norm(part.kernels, self.width, part.affine and self.config.affine, rows, name=f"{name}_{place}")
            for place, part in enumerate(parts if isinstance(parts, list) else ())
        ]

    def branch(self, parts: list[Part] | Callable, stride: int, leading=None) -> Callable:
        """`(x, arrays of every part) -> (y, statistics)`, the latter of as many parts as any operation has."""
        unused = unused_statistics(self.width)

        def run(x, arrays):
            if not isinstance(parts, list):
                return parts(x), (unused, unused)
            statistics = []
            for place, (part, weights) in enumerate(zip(parts, arrays, strict=True)):
                x, own = computed(x, part, weights, 1 if place else stride, self.mode, leading)
                statistics.append(own)
            return x, (*statistics, *[unused] * (2 - len(statistics)))

        return run
