"""Spaces of a normal and a reduction cell, as DARTS and NASNet have them: the factory that they share.

A cell has nodes in order, each the sum of two operations on two of the outputs before it (the cell's inputs 0 and 1,
earlier nodes). Codes of a node: which pair of sources (in lexicographic order), the operation on its first, and that on
its second. Entries: the normal cell's nodes, the reduction cell's; where the size is free, cells and channels.
"""

import itertools
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from cenas_jax.spaces.cell_costs import BY_COMPUTE, NetworkCosts, network_costs
from cenas_jax.spaces.genotypes import genotype_text, parse_genotype
from cenas_jax.spaces.large import LargeSpace, large_space, least_row

_INPUTS = 2


def cell_space(
    name: str,
    operations: tuple[str, ...],
    nodes: int,
    *,
    twice: bool,
    cells: tuple[int, ...],
    channels: tuple[int, ...],
    free_size: bool,
    num_classes: int,
    image_size: int,
) -> LargeSpace:
    """The space of cells with `nodes` nodes each. `twice`: a node may read one source with both of its operations.

    `cells` and `channels`, rising, are two more entries where `free_size`; else the first of each is the network's.
    `features`: for every possible edge of both cells the compute rank of its operation (1, 2, ...; summed where there
    are two; 0: no edge), then cells and channels as codes. `canonical` renames a cell's nodes: its output is their
    concatenation, whose order the next weights absorb.
    """
    pairs = node_pairs(nodes, twice)
    labels = [tuple(f"{first},{second}" for first, second in pairs[node]) for node in range(nodes)]
    choices = [label for node in labels for label in (node, operations, operations)] * 2
    sizes = {"cells": cells, "channels": channels} if free_size else {}
    choices += [tuple(map(str, values)) for values in sizes.values()]
    body = 2 * nodes * 3
    read = node_reader(pairs)
    rank = np.asarray([1 + sorted(operations, key=BY_COMPUTE.index).index(operation) for operation in operations])
    offset = np.cumsum([0, *(node + _INPUTS for node in range(nodes))])

    def features(codes: Int[Array, "n d"]) -> Float[Array, "n f"]:
        sources, chosen = read(codes)
        edge = sources + offset[None, None, :-1, None]
        is_edge = edge[..., None] == np.arange(offset[-1])[None, None, None, None]
        per_edge = (
            jnp.where(is_edge, jnp.asarray(rank)[chosen][..., None], 0).sum(axis=(2, 3)).reshape(codes.shape[0], -1)
        )
        return jnp.concatenate([per_edge, codes[:, body:]], axis=1).astype(jnp.float32)

    def to_string(codes: np.ndarray) -> str:
        codes = np.asarray(codes)
        if codes.shape != (len(choices),) or any(not 0 <= c < len(n) for c, n in zip(codes, choices, strict=True)):
            raise ValueError(f"codes of space {name!r} are {len(choices)} integers within their choices, not {codes}")
        entries, edges = codes[:body].reshape(2, nodes, 3).tolist(), ([], [])
        for cell, found in zip(entries, edges, strict=True):
            for node, (pair, first, second) in enumerate(cell):
                found += zip((operations[first], operations[second]), pairs[node][pair], strict=True)
        named = {size: values[code] for (size, values), code in zip(sizes.items(), codes[body:], strict=True)}
        return genotype_text(*edges, named)

    def from_string(text: str) -> np.ndarray:
        *edges, named = parse_genotype(text, nodes, operations, tuple(sizes))
        codes = []
        ends = [cell[2 * node : 2 * node + 2] for cell in edges for node in range(nodes)]
        for place, edge in enumerate(ends):
            node = place % nodes
            first, second = sorted(edge, key=lambda end: end[1])
            pair = first[1], second[1]
            if pair not in pairs[node]:
                raise ValueError(f"genotype {text!r}: node {node + _INPUTS} reads source {pair[0]} twice")
            codes += [pairs[node].index(pair), operations.index(first[0]), operations.index(second[0])]
        for size, values in sizes.items():
            if named[size] not in values:
                raise ValueError(f"genotype {text!r}: {size} {named[size]} is none of {', '.join(map(str, values))}")
            codes.append(values.index(named[size]))
        return np.asarray(codes, np.int32)

    costs = [network_costs(operations, nodes, n, c, num_classes, image_size) for n in cells for c in channels]
    return large_space(
        name,
        tuple(choices),
        features=features,
        parameters=_counter(costs, 0, read, body, len(channels)),
        multiply_adds=_counter(costs, 1, read, body, len(channels)),
        canonical=_canonical(pairs, read, body),
        to_string=to_string,
        from_string=from_string,
    )


def node_pairs(nodes: int, twice: bool) -> list[list[tuple[int, int]]]:
    """The pairs of sources that each node chooses from, in code order."""
    choose = itertools.combinations_with_replacement if twice else itertools.combinations
    return [list(choose(range(node + _INPUTS), 2)) for node in range(nodes)]


def node_reader(pairs: list[list[tuple[int, int]]]) -> Callable:
    """`read(codes[n, d]) -> (sources[n, 2, nodes, 2], operations[n, 2, nodes, 2])` of both cells' nodes."""
    nodes = len(pairs)
    table = np.zeros((nodes, len(pairs[-1]), 2), np.int32)
    for node, choices in enumerate(pairs):
        table[node, : len(choices)] = choices

    def read(codes: Int[Array, "n d"]) -> tuple[Int[Array, "n 2 nodes 2"], Int[Array, "n 2 nodes 2"]]:
        entries = codes[:, : 2 * nodes * 3].reshape(-1, 2, nodes, 3)
        return jnp.asarray(table)[np.arange(nodes)[None, None], entries[..., 0]], entries[..., 1:]

    return read


def _counter(costs: list[NetworkCosts], quantity: int, read: Callable, body: int, widths: int) -> Callable:
    """How many parameters (0) or multiply-adds (1) a network has, from the costs of every size."""
    fixed, normal, reduction = (
        np.asarray([part[quantity] for part in parts], np.float32) for parts in zip(*costs, strict=True)
    )

    def count(codes: Int[Array, "n d"]) -> Float[Array, " n"]:
        sources, chosen = read(codes)
        size = codes[:, body] * widths + codes[:, body + 1] if codes.shape[1] > body else jnp.zeros_like(codes[:, 0])
        at = size[:, None, None]
        strides = (sources[:, 1] < _INPUTS).astype(jnp.int32)
        in_normal = jnp.asarray(normal)[at, chosen[:, 0]].sum(axis=(1, 2))
        in_reduction = jnp.asarray(reduction)[at, strides, chosen[:, 1]].sum(axis=(1, 2))
        return jnp.asarray(fixed)[size] + in_normal + in_reduction

    return count


def _canonical(pairs: list[list[tuple[int, int]]], read: Callable, body: int) -> Callable:
    nodes = len(pairs)
    place = np.asarray(list(itertools.permutations(range(nodes))), np.int32)  # [p, node]: where each node goes
    renamed = np.concatenate([np.tile(np.arange(_INPUTS), (len(place), 1)), place + _INPUTS], axis=1)
    pair_of = np.zeros((nodes, nodes + _INPUTS, nodes + _INPUTS), np.int32)
    for node, choices in enumerate(pairs):
        for code, (first, second) in enumerate(choices):
            pair_of[node, first, second] = code

    def canonical(codes: Int[Array, "n d"]) -> Int[Array, "n d"]:
        sources, chosen = read(codes)
        moved = jnp.asarray(renamed)[:, sources]  # [p, n, 2, nodes, 2]
        chosen = jnp.broadcast_to(chosen[None], moved.shape)
        to = jnp.asarray(place)[:, None, None, :]
        valid = (moved < to[..., None] + _INPUTS).all(axis=(3, 4))
        first, second = moved[..., 0], moved[..., 1]
        turn = (first > second) | ((first == second) & (chosen[..., 0] > chosen[..., 1]))
        moved, chosen = (jnp.where(turn[..., None], ends[..., ::-1], ends) for ends in (moved, chosen))
        pair = jnp.asarray(pair_of)[to, moved[..., 0], moved[..., 1]]
        rows = jnp.concatenate([pair[..., None], chosen], axis=-1)
        rows = jnp.take_along_axis(rows, jnp.argsort(to, axis=-1)[..., None], axis=3)
        rows = rows.reshape(*rows.shape[:3], nodes * 3)
        least = [least_row(rows[:, :, cell], valid[:, :, cell]) for cell in range(2)]
        return jnp.concatenate([*least, codes[:, body:]], axis=1)

    return canonical
