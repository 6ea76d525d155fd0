"""Networks of the space `nasnet`: one architecture's, or the supernet that shares weights, of every size at once."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from cenas_jax.nets.base import Network, check_codes
from cenas_jax.nets.cell_operations import in_use, operation_parts
from cenas_jax.nets.cells import (
    INPUTS,
    Cell,
    CellNetworkConfig,
    Edge,
    Fixed,
    Given,
    Group,
    Size,
    candidate,
    cell_groups,
    dropped,
    edge_name,
    stage_lengths,
    supernet,
)
from cenas_jax.spaces.cells import node_pairs, node_reader
from cenas_jax.spaces.nasnet import NODES, OPERATIONS, NasNetConfig, nasnet

# By source, so that those that read the cell's inputs come first: in a reduction cell only they have a skip's weights.
_EDGES: tuple[Edge, ...] = tuple(
    (source, node, *twin)
    for source in range(INPUTS + NODES - 1)
    for node in range(max(source + 1, INPUTS), INPUTS + NODES)
    for twin in ((), (1,))
)
"""A cell's possible edges, each as the first or the second of a node with this source and operation."""
_FROM_INPUTS = 2 * INPUTS * NODES
_ROWS = np.asarray(
    [
        [_EDGES.index((source, node)) if source < node else -1 for node in range(INPUTS, INPUTS + NODES)]
        for source in range(INPUTS + NODES - 1)
    ]
)
_read = node_reader(node_pairs(NODES, twice=True))


def nasnet_supernet(config: NasNetConfig) -> Network:
    """The network of every architecture and size: `codes[32]` are data, so all of them are one compilation.

    `init(key, images) -> variables` and `apply(variables, images, codes, mode, momentum=0.1) -> (logits, statistics)`,
    all as `darts_supernet` has them. It has the weights of the largest network. A smaller one uses the leading
    channels and, of each stage, the leading cells; what it does not use gets no gradient and keeps its statistics.
    `ValueError` where a stage is nothing but its reduction in some sizes only: they have no network in common.
    """
    stages = np.asarray([stage_lengths(cells) for cells in config.cells])
    if len(np.unique(stages[:, 1:] > 1, axis=0)) > 1:
        raise ValueError(f"NasNetConfig: cells {config.cells}: give 5 or more, so that no stage is without a cell")

    def read(codes: Int[Array, " 32"]):
        sources, chosen = (entries[0].astype(jnp.int32) for entries in _read(codes[None]))
        return (sources, chosen), Size(jnp.asarray(stages)[codes[-2]], jnp.asarray(config.channels)[codes[-1]])

    return supernet(_sized(config, config.cells[-1], config.channels[-1]), _SupernetCell, read, 6 * NODES + 2)


def nasnet_candidate(config: NasNetConfig, codes: tuple[int, ...]) -> Network:
    """The network of one architecture alone, which has its operations' weights and no others, in its own size.

    As `nasnet_supernet`, but `apply(variables, images, mode, momentum=0.1)`.
    """
    fixed, cells, channels = _fixed(config, codes)
    return candidate(_sized(config, cells, channels), fixed)


def nasnet_inherited(config: NasNetConfig, variables, codes: tuple[int, ...]):
    """The variables of a candidate, from those of a supernet: its operations' weights and statistics."""
    fixed, cells, _ = _fixed(config, codes)
    image = config.image_size, config.image_size, variables["params"]["stem"]["kernel_0"].shape[2]
    shapes = jax.eval_shape(nasnet_candidate(config, codes).init, jax.random.key(0), jnp.zeros((1, *image)))
    homes = {  # of every cell of a stage: the supernet's name, and the place in its scan
        (group.stage, group.index + number): (f"cell_{group.place}", () if group.length is None else (number,))
        for group in cell_groups(config.cells[-1], equal_from=0)
        for number in range(group.length or 1)
    }
    rows = [
        {
            f"{edge_name(edge, operation)}_{part}": (f"{operation}_{part}", (_EDGES.index(edge),))
            for edge, operation in kind
            for part in range(2)
        }
        for kind in fixed
    ]

    def one_cell(group: Group, place: int, wanted, collection):
        home, at = homes[group.stage, group.index + place - group.place]

        def unit(name: str, shapes):
            whole, row = rows[group.reduces].get(name, (name, ()))
            reads_cell = (name == "first" and place >= 2) or (name == "second" and place >= 1)
            cut = functools.partial(_leading, reads_cell=reads_cell, stacked=group.length is not None)
            return jax.tree.map(lambda shape, leaf: cut(shape, leaf[at + row]), shapes, collection[home][whole])

        return {name: unit(name, shapes) for name, shapes in wanted.items()}

    def one_kind(wanted, collection):
        found = {}
        for name in wanted:
            if not name.startswith("cell"):
                cut = functools.partial(_leading, reads_cell=name in ("head", "auxiliary_first"))
                found[name] = jax.tree.map(cut, wanted[name], collection[name])
        for group in cell_groups(cells):
            name = f"cell_{group.place}"
            own = [
                one_cell(group, group.place + number, wanted[name], collection) for number in range(group.length or 1)
            ]
            found[name] = own[0] if group.length is None else jax.tree.map(lambda *each: jnp.stack(each), *own)
        return found

    return {kind: one_kind(wanted, variables[kind]) for kind, wanted in shapes.items()}


def _leading(wanted: jax.ShapeDtypeStruct, leaf: Array, reads_cell: bool, stacked: bool = False) -> Array:
    """The leading channels of one cell; of weights that read a cell's output, those of each of its nodes."""
    shape = wanted.shape[stacked:]
    if reads_cell and len(shape) > 1:
        nodes = leaf.reshape(*leaf.shape[:-2], NODES, -1, leaf.shape[-1])[..., : shape[-2] // NODES, :]
        leaf = nodes.reshape(*leaf.shape[:-2], -1, leaf.shape[-1])
    return leaf[tuple(map(slice, shape))]


def _fixed(config: NasNetConfig, codes: tuple[int, ...]) -> tuple[tuple[Fixed, Fixed], int, int]:
    """A candidate's edges, cells and channels."""
    check_codes("nasnet", nasnet(config).num_choices, codes)
    sources, chosen = (np.asarray(entries[0]) for entries in _read(jnp.asarray([codes], jnp.int32)))
    normal, reduction = (
        tuple((_EDGES[row], OPERATIONS[code]) for row, code in zip(np.ravel(_edges(*kind)), kind[1].flat, strict=True))
        for kind in zip(sources, chosen, strict=True)
    )
    return (normal, reduction), config.cells[codes[-2]], config.channels[codes[-1]]


def _edges(sources, chosen) -> Int[Array, "nodes 2"]:
    """Rows in `_EDGES` of every node's two edges, by their sources and operations."""
    twin = (sources[:, 0] == sources[:, 1]) & (chosen[:, 0] == chosen[:, 1])
    rows = jnp.asarray(_ROWS)[sources, np.arange(NODES)[:, None]]
    return rows + jnp.stack((jnp.zeros_like(twin), twin), axis=1)


def _sized(config: NasNetConfig, cells: int, channels: int) -> CellNetworkConfig:
    return CellNetworkConfig(NODES, cells, channels, config.num_classes, config.affine, auxiliary=config.auxiliary)


class _SupernetCell(Cell):
    """One branch by the operation, in a scan over both of every node's sources: a cell compiles as one edge does.

    Weights have a row for every edge; those of the edges that the architecture has are gathered for the scan.
    """

    def sums(self, inputs: list, given: Given, used) -> list:
        sources, chosen = (entries.reshape(-1) for entries in given.path)
        rows, strides = _edges(*given.path).reshape(-1), (2, 1) if self.reduces else (1,)
        branches, norms = [lambda x, y, arrays: self.branch(jnp.zeros_like, 1)(y, [])], []
        for stride in strides:
            for operation, name in enumerate(OPERATIONS):
                parts = operation_parts(name, self.width, stride, self.config.pool_norm, given.leading)
                if stride == strides[0]:  # the same weights for both strides, but that a skip has none of stride 1
                    norms.append(self.norms(name, parts, (_FROM_INPUTS if name == "skip_connect" else len(_EDGES),)))
                run = self.branch(parts, stride, given.leading)
                branches.append(
                    lambda x, y, arrays, run=run, operation=operation, stride=stride: run(
                        x if stride == 2 else y, arrays[operation]
                    )
                )
        both = jnp.stack(inputs)
        small = both[0, :, :: strides[0], :: strides[0]]

        def step(states, turn):
            node, source, code, arrays, identity, key = turn
            x = jax.lax.dynamic_index_in_dim(both, jnp.minimum(source, INPUTS - 1), keepdims=False)
            y = jax.lax.dynamic_index_in_dim(states, jnp.maximum(source - INPUTS, 0), keepdims=False)
            y = y if self.reduces else jnp.where(source < INPUTS, x, y)
            y, statistics = jax.lax.switch(code, branches, x, y, arrays)
            if given.drop is not None:
                y = jnp.where(identity, y, dropped(key, y, given.drop))
            y += jax.lax.dynamic_index_in_dim(states, node, keepdims=False)
            return jax.lax.dynamic_update_index_in_dim(states, y, node, 0), statistics

        codes = 1 + chosen + (len(OPERATIONS) * (sources >= INPUTS) if self.reduces else 0)
        arrays = [[norm.arrays(rows) for norm in own] for own in norms]
        identities = (chosen == OPERATIONS.index("skip_connect")) & (not self.reduces or sources >= INPUTS)
        keys = None if given.drop is None else jax.random.split(self.make_rng("paths"), 2 * NODES)
        turns = np.repeat(np.arange(NODES), 2), sources, jnp.where(used, codes, 0), arrays, identities, keys
        states, statistics = jax.lax.scan(step, jnp.zeros((NODES, *small.shape), small.dtype), turns)
        if self.mode == "train":
            channels = in_use(self.width, given.leading)[None, :]
            for operation, own in enumerate(norms):
                here = jnp.where(used & (chosen == operation), rows, len(_EDGES))  # others: a row that there is not
                for norm, batch in zip(own, statistics, strict=False):
                    norm.keep(batch, small.size // self.width, given.momentum, channels, here)
        return list(states)
