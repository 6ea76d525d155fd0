"""LaMOO's partition of a search space: a binary tree of SVMs over the evaluated architectures, and its best region.

A node with more than `min_samples` evaluated architectures and a depth below `depth` is split: its better half by
dominance number is "good", an SVM learns the boundary, and the halves become its children (Zhao et al. 2022, "Multi-
objective Optimization by Learning Space Partitions", sections 3.1 and 3.2). A leaf's value is the hypervolume of its
samples plus an exploration bonus; the SVMs on the path to the chosen leaf bound the *region*.

Three things keep this cheap. With children by label the tree needs no SVM at all, so only the (at most three) machines
on the chosen path are fitted, on 1, 1/2 and 1/4 of the samples. Everything of one level is one masked operation. And
labels, values and machines are computed at the smallest of a few sizes that holds the samples, not at the capacity.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from cenas_jax.choices import check_choices
from cenas_jax.pareto import dominance_counts, grouped_hypervolume_2d, hypervolume
from cenas_jax.search.base import at_smallest_size
from cenas_jax.search.lamoo.svm import SVM, Kernel, SVMConfig, make_kernel, svm_decision, svm_fit, svm_pad


@dataclass(frozen=True)
class TreeConfig:
    """Shape and rules of the partition."""

    depth: int = 3
    """Most splits on a path."""
    min_samples: int = 10
    """A node splits when it holds more samples than this."""
    selection: Literal["leaf", "descent", "greedy"] = "leaf"
    """The leaf with the best upper confidence bound, the descent to the better child at every split, or the leaf with
    the greatest hypervolume."""
    children: Literal["label", "prediction"] = "label"
    """Samples go to the half they were labelled with (as published), or to the side of the boundary they lie on."""
    exploration: float = 0.1
    """Cp of the bound `value + 2 Cp sqrt(2 ln n_parent / n)`."""
    exploration_is_share: bool = True
    """Cp as a share of the hypervolume of all samples (10 % is the rule of thumb), or in the hypervolume's unit."""
    svm: SVMConfig = field(default_factory=SVMConfig)

    def __post_init__(self):
        check_choices(self)
        if not 1 <= self.depth <= 6:
            raise ValueError(f"TreeConfig: depth must be 1 to 6, got {self.depth}")
        if self.min_samples < 2 or self.exploration < 0:
            raise ValueError("TreeConfig: min_samples must be at least 2, exploration not negative")


class Region(NamedTuple):
    """The part of the space behind the best leaf: the path's SVMs, root first. `L = depth`."""

    machines: SVM  # leading axis L
    positive: Bool[Array, " L"]  # the side of the boundary that is inside
    active: Bool[Array, " L"]  # False where the path is shorter: no constraint


class PartitionInfo(NamedTuple):
    """What a partition found. Leaves in heap order; an early leaf stands at its leftmost descendant."""

    leaf: Int[Array, ""]  # the chosen one
    leaf_samples: Int[Array, " leaves"]
    leaf_hypervolume: Float[Array, " leaves"]


class _Level(NamedTuple):
    """One level of the tree: the node of every sample, and which nodes split."""

    node: Int[Array, " n"]
    good: Bool[Array, " n"]  # the SVM's label
    samples: Int[Array, " nodes"]
    splits: Bool[Array, " nodes"]
    order: Int[Array, " n"]  # samples sorted by node, best first; invalid ones last


def partition(
    kernel: Kernel,
    x: Float[Array, "n f"],
    objectives: Float[Array, "n m"],
    valid: Bool[Array, " n"],
    reference_point: Float[Array, " m"],
    config: TreeConfig,
) -> tuple[Region, PartitionInfo]:
    """Partitions the space by the evaluated samples and returns the best region.

    `x` are the samples' features, `objectives` are maximised. Rows that are not `valid`
    (and failed evaluations, whose objectives are NaN) take no part. With `min_samples` or fewer the region is the whole
    space.
    """
    valid = valid & ~jnp.isnan(objectives).any(axis=1)
    if config.children == "label":
        rows = jnp.max(jnp.where(valid, jnp.arange(x.shape[0]) + 1, 0))
        on_path, positive, info = at_smallest_size(
            rows, x.shape[0], lambda size: _path_by_label(objectives, valid, reference_point, config, size)
        )
        machines = jax.lax.map(lambda part: _fit_path_node(kernel, x, part, config), on_path)
        return Region(machines, positive, on_path.splits), info

    node = jnp.zeros(x.shape[0], jnp.int32)
    levels, every_machine = [], []
    for depth in range(config.depth):
        level = _split(objectives, valid, node, depth, config)
        machine = _fit_every_node(kernel, x, valid, level, config)
        decision = jax.vmap(lambda m: svm_decision(kernel, m, x))(machine)
        right = jnp.take_along_axis(decision, level.node[None, :], axis=0)[0] <= 0
        node = 2 * node + (right & level.splits[level.node])
        levels.append(level)
        every_machine.append(machine)
    leaf, info = _choose_leaf(objectives, valid, node, levels, reference_point, config)
    path = _path(leaf, config)
    machines = jax.tree.map(
        lambda *arrays: jnp.stack([array[place] for array, place in zip(arrays, path, strict=True)]), *every_machine
    )
    active = jnp.stack([level.splits[place] for level, place in zip(levels, path, strict=True)])
    return Region(machines, _positive(leaf, config), active), info


def _path(leaf, config: TreeConfig) -> list:
    """The place, within its level, of every node on the way to `leaf`."""
    return [leaf >> (config.depth - depth) for depth in range(config.depth)]


def _positive(leaf, config: TreeConfig) -> Bool[Array, " L"]:
    return jnp.stack([(leaf >> (config.depth - 1 - depth)) % 2 == 0 for depth in range(config.depth)])


def _path_by_label(objectives, valid, reference_point, config: TreeConfig, size: int):
    """The nodes on the path to the best leaf, by the first `size` rows, which hold all valid ones."""
    added = objectives.shape[0] - size
    objectives, valid = objectives[:size], valid[:size]
    node, levels = jnp.zeros(size, jnp.int32), []
    for depth in range(config.depth):
        level = _split(objectives, valid, node, depth, config)
        node = 2 * node + (~level.good & level.splits[level.node])
        levels.append(level)
    leaf, info = _choose_leaf(objectives, valid, node, levels, reference_point, config)
    nodes = [_path_node(level, place) for level, place in zip(levels, _path(leaf, config), strict=True)]
    on_path = jax.tree.map(lambda *parts: jnp.stack(parts), *nodes)
    padded = ((0, 0), (0, added))
    on_path = on_path._replace(order=jnp.pad(on_path.order, padded), good=jnp.pad(on_path.good, padded))
    return on_path, _positive(leaf, config), info


def region_depth(kernel: Kernel, region: Region, x: Float[Array, "n f"]) -> Int[Array, " n"]:
    """How many of the path's constraints, from the root on, each row satisfies: `L` inside the region.

    Constraints that are not active count as satisfied.
    """
    return _depth(lambda machine: svm_decision(kernel, machine, x), region)


def space_kernel(
    config: SVMConfig, codes: Int[Array, "n d"], features: Float[Array, "n d"]
) -> tuple[Kernel, Callable[[Region], Int[Array, " n"]]]:
    """The kernel for a space whose `n` architectures are all combinations of their `codes`, and `region -> depth[n]`.

    Feature `i` is a number for each choice of entry `i` (as in a tabular space). The depth is `region_depth` of all
    architectures, without the matrix of all their columns where the kernel has a faster way.
    """
    columns = np.asarray(codes).T
    choices = [np.unique(column, return_index=True)[1] for column in columns]
    values = [feature[rows] for feature, rows in zip(np.asarray(features).T, choices, strict=True)]
    kernel = make_kernel(config, features.shape[1], values)
    on_grid = kernel.on_grid
    if on_grid is None:
        return kernel, lambda region: region_depth(kernel, region, features)
    position = np.ravel_multi_index(tuple(columns), [len(rows) for rows in choices])
    return kernel, lambda region: _depth(on_grid, region)[position]


def _depth(decide: Callable[[SVM], Float[Array, " n"]], region: Region) -> Int[Array, " n"]:
    decision = jax.vmap(decide)(region.machines)
    inside = jnp.where(region.positive[:, None], decision > 0, decision <= 0) | ~region.active[:, None]
    depth, all_inside = jnp.zeros(decision.shape[1], jnp.int32), True
    for satisfied in inside:
        all_inside &= satisfied
        depth += all_inside
    return depth


def _split(objectives, valid, node, depth: int, config: TreeConfig) -> _Level:
    """Labels the better half of every node (ties: the earlier sample is better)."""
    n, nodes = objectives.shape[0], 2**depth
    samples = jnp.sum((node[:, None] == jnp.arange(nodes)[None, :]) & valid[:, None], axis=0)
    counts = dominance_counts(objectives, valid, node)
    key = jnp.where(valid, node * (n + 1) + counts, nodes * (n + 1))
    order = _order(key, nodes * (n + 1))
    first = jnp.cumsum(samples) - samples
    rank = jnp.zeros(n, jnp.int32).at[order].set(jnp.arange(n, dtype=jnp.int32)) - first[node]
    good = rank < (samples[node] + 1) // 2
    return _Level(node, good, samples, samples > config.min_samples, order)


def _order(key: Int[Array, " n"], most: int) -> Int[Array, " n"]:
    """`argsort(key, stable=True)` of keys in `0 .. most`: a CPU sorts one array several times faster than pairs."""
    n = key.shape[0]
    if (most + 1) * n > jnp.iinfo(jnp.int32).max:
        return jnp.argsort(key, stable=True)
    return jnp.sort(key * n + jnp.arange(n)) % n


class _PathNode(NamedTuple):
    """The samples of one node: places `first .. first + samples - 1` of `order`."""

    order: Int[Array, " n"]
    first: Int[Array, ""]
    samples: Int[Array, ""]
    good: Bool[Array, " n"]
    splits: Bool[Array, ""]


def _path_node(level: _Level, place) -> _PathNode:
    first = (jnp.cumsum(level.samples) - level.samples)[place]
    # A node that is not split needs no machine: it costs the smallest size.
    samples = jnp.where(level.splits[place], level.samples[place], 0)
    return _PathNode(level.order, first, samples, level.good, level.splits[place])


def _fit_path_node(kernel, x, node: _PathNode, config: TreeConfig) -> SVM:
    """The SVM of one node, on its samples alone."""
    n = x.shape[0]

    def fit(size: int) -> SVM:
        position = jnp.arange(size)
        rows = node.order[jnp.minimum(node.first + position, n - 1)]
        machine, _ = svm_fit(kernel, x[rows], node.good[rows], position < node.samples, config.svm)
        return svm_pad(machine, min(config.svm.rank, n))

    return at_smallest_size(node.samples, n, fit)


def _fit_every_node(kernel, x, valid, level: _Level, config: TreeConfig) -> SVM:
    def fit(place):
        return svm_fit(kernel, x, level.good, valid & (level.node == place), config.svm)[0]

    return jax.vmap(fit)(jnp.arange(level.samples.shape[0]))


def _choose_leaf(objectives, valid, node, levels: list[_Level], reference_point, config: TreeConfig):
    leaves = 2**config.depth
    values, total, samples = _node_values(objectives, valid, node, leaves, reference_point)
    weight = config.exploration * (total if config.exploration_is_share else 1.0)

    def bound(value, count, parent_count):
        parent = jnp.log(jnp.maximum(parent_count, 1).astype(value.dtype))
        bonus = 2 * weight * jnp.sqrt(2 * parent / jnp.maximum(count, 1))
        return jnp.where(count > 0, value + bonus, -jnp.inf)

    if config.selection == "descent":
        leaf = jnp.zeros((), jnp.int32)
        for depth, level in enumerate(levels):
            below = node >> (config.depth - 1 - depth)
            child_values, _, child_samples = _node_values(objectives, valid, below, 2 ** (depth + 1), reference_point)
            scores = bound(child_values, child_samples, jnp.repeat(level.samples, 2))
            leaf = 2 * leaf + (level.splits[leaf] & (scores[2 * leaf + 1] > scores[2 * leaf]))
    else:
        parent_samples = jnp.ones(leaves, jnp.int32)
        for level in levels:  # the deepest node on the way that split is the leaf's parent
            repeat = leaves // level.samples.shape[0]
            parent_samples = jnp.where(
                jnp.repeat(level.splits, repeat), jnp.repeat(level.samples, repeat), parent_samples
            )
        if config.selection == "greedy":
            weight = jnp.zeros_like(total)
        leaf = jnp.argmax(bound(values, samples, parent_samples)).astype(jnp.int32)
    return leaf, PartitionInfo(leaf, samples, values)


def _node_values(objectives, valid, node, nodes: int, reference_point):
    """Hypervolume of every node of a level and of all samples; the number of samples of every node."""
    membership = (node[None, :] == jnp.arange(nodes)[:, None]) & valid[None, :]
    groups = jnp.concatenate([membership, valid[None, :]])
    if objectives.shape[1] == 2:
        values = grouped_hypervolume_2d(objectives, groups, reference_point)
    else:
        values = jax.vmap(lambda inside: hypervolume(objectives, inside, reference_point))(groups)
    return values[:-1], values[-1], membership.sum(axis=1)
