"""The network of DARTS (Liu et al., ICLR 2019) for CIFAR: one genotype's, or the supernet that shares weights."""

import dataclasses
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from cenas_jax.nets.base import Network, check_codes
from cenas_jax.nets.cell_operations import is_identity, operation_parts
from cenas_jax.nets.cells import (
    INPUTS,
    Cell,
    CellNetworkConfig,
    Fixed,
    Given,
    candidate,
    dropped,
    edge_name,
    supernet,
)
from cenas_jax.spaces.cell_costs import check_network, reduction_cells
from cenas_jax.spaces.cells import node_pairs, node_reader
from cenas_jax.spaces.darts import NODES, OPERATIONS, darts

EDGES = tuple((source, node) for node in range(INPUTS, INPUTS + NODES) for source in range(node))
"""(source, target) of a cell's possible edges."""
_read = node_reader(node_pairs(NODES, twice=False))


@dataclass(frozen=True)
class DartsNetworkConfig:
    """Size of the network: that which DARTS evaluates on CIFAR-10, for which it is trained with `auxiliary` and dropped
    paths (`TrainingConfig`: `auxiliary_weight` 0.4, `drop_path` 0.2)."""

    cells: int = 20
    channels: int = 36
    num_classes: int = 10
    affine: bool = True
    """Scale and shift after every normalisation."""
    pool_norm: bool = False
    """Pools are normalised, without scale and shift, as in DARTS' supernet."""
    auxiliary: bool = False
    """A second head at two thirds of the cells, for the training alone: `parameters` of the space leave it out."""

    def __post_init__(self):
        check_network(self.cells, self.channels, self.num_classes, 4)


def darts_supernet(config: DartsNetworkConfig) -> Network:
    """The network of every genotype: `codes[24]` (of space `darts`) are data, so all of them are one compilation.

    `init(key, images) -> variables` and `apply(variables, images, codes, mode, momentum=0.1) -> (logits, statistics)`,
    all as `nas_bench_201_supernet` has them; in training with what `cells.supernet` says of dropped paths and the
    auxiliary head.
    """
    return supernet(_sized(config), _SupernetCell, lambda codes: (edge_operations(codes), None), 6 * NODES)


def darts_candidate(config: DartsNetworkConfig, codes: tuple[int, ...]) -> Network:
    """The network of one genotype alone, which has its operations' weights and no others.

    As `darts_supernet`, but `apply(variables, images, mode, momentum=0.1)`.
    """
    return candidate(_sized(config), _fixed(codes))


def darts_inherited(config: DartsNetworkConfig, variables, codes: tuple[int, ...]):
    """The variables of a candidate, from those of a supernet: its operations' weights and statistics."""
    fixed = _fixed(codes)

    def cell(name: str, modules):
        if not name.startswith("cell"):
            return modules
        own = {edge_name(*choice) for choice in fixed[int(name.split("_")[1]) in reduction_cells(config.cells)]}
        return {
            unit: weights
            for unit, weights in modules.items()
            if not unit.startswith("edge") or unit.rpartition("_")[0] in own
        }

    return {
        kind: {name: cell(name, part) for name, part in collection.items()} for kind, collection in variables.items()
    }


def edge_operations(codes: Int[Array, " 24"]) -> Int[Array, "2 edges"]:
    """For the normal and the reduction cell, what is on each edge: 0 nothing, 1 .. 7 an operation."""
    sources, chosen = (entries[0] for entries in _read(codes[None]))  # [2, nodes, 2]
    offset = np.asarray([EDGES.index((0, INPUTS + node)) for node in range(NODES)])
    edges = (sources + offset[None, :, None]).reshape(2, -1)
    found = jnp.zeros((2, len(EDGES)), jnp.int32)
    return found.at[np.arange(2)[:, None], edges].set(1 + chosen.reshape(2, -1))


def _fixed(codes: tuple[int, ...]) -> tuple[Fixed, Fixed]:
    check_codes("darts", darts().num_choices, codes)
    normal, reduction = (
        tuple((edge, OPERATIONS[code - 1]) for edge, code in zip(EDGES, found, strict=True) if code)
        for found in np.asarray(edge_operations(jnp.asarray(codes, jnp.int32))).tolist()
    )
    return normal, reduction


def _sized(config: DartsNetworkConfig) -> CellNetworkConfig:
    return CellNetworkConfig(NODES, **dataclasses.asdict(config))


class _SupernetCell(Cell):
    """Every edge is a branch by its operation."""

    def sums(self, inputs: list, given: Given, used) -> list:
        states = list(inputs)
        for node in range(INPUTS, INPUTS + NODES):
            found = [
                self._chosen(edge, states[edge[0]], given.path[place], given)
                for place, edge in enumerate(EDGES)
                if edge[1] == node
            ]
            states.append(sum(found[1:], start=found[0]))
        return states[INPUTS:]

    def _chosen(self, edge: tuple[int, int], x, code, given: Given):
        stride = self.stride(edge)
        nothing = self.branch(lambda x: jnp.zeros_like(x[:, ::stride, ::stride]), stride)
        branches, norms = [lambda x: nothing(x, [])], []
        for name in OPERATIONS:
            parts = operation_parts(name, self.width, stride, self.config.pool_norm)
            norms.append(self.norms(edge_name(edge, name), parts))
            run, arrays = self.branch(parts, stride), [norm.arrays() for norm in norms[-1]]
            branches.append(lambda x, run=run, arrays=arrays: run(x, arrays))
        y, statistics = jax.lax.switch(code, branches, x)
        if self.mode == "train":
            for operation, own in enumerate(norms):
                for norm, batch in zip(own, statistics, strict=False):
                    norm.keep(batch, y.size // self.width, given.momentum, used=code == operation + 1)
        if given.drop is not None:
            identities = [is_identity(name, stride) for name in ("", *OPERATIONS)]
            y = jnp.where(jnp.asarray(identities)[code], y, dropped(self.make_rng("paths"), y, given.drop))
        return y
