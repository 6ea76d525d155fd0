"""The partition: labels, leaf sizes and the choice of a leaf by hand; what must not change the region."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cenas_jax.benchmarks import synthetic_benchmark
from cenas_jax.pareto import dominance_counts
from cenas_jax.search.lamoo import SVMConfig, TreeConfig, make_kernel, partition, region_depth, space_kernel
from cenas_jax.search.lamoo.svm import svm_decision
from cenas_jax.search.lamoo.tree import _split
from cenas_jax.spaces import tabular_space

LINEAR = SVMConfig(kernel="linear")
REFERENCE = jnp.asarray([-1.0, -1.0])


def chain(count: int):
    """Samples 0 .. count - 1, each dominated by all later ones; the only feature is the number itself."""
    numbers = jnp.arange(count, dtype=jnp.float32)
    return numbers[:, None], jnp.stack([numbers, numbers], axis=1)


@functools.partial(jax.jit, static_argnames="config")
def find(x, objectives, valid, reference_point, config: TreeConfig):
    """The partition by samples with features `x`, and how deep in its region each of them lies."""
    kernel = make_kernel(config.svm, x.shape[1])
    region, info = partition(kernel, x, objectives, valid, reference_point, config)
    return region, info, region_depth(kernel, region, x)


def chain_partition(count: int, config: TreeConfig):
    x, objectives = chain(count)
    return find(x, objectives, jnp.ones(count, bool), REFERENCE, config)


def tree(**options) -> TreeConfig:
    return TreeConfig(**{"svm": LINEAR, "exploration_is_share": False, "exploration": 0.0, **options})


def test_labels_by_hand():
    # Node 0 holds (3, 0), (2, 2), (1, 1), (0, 3), (0, 0): dominance numbers 0, 0, 1, 0, 4, so the better three of five
    # are the numbers 0. Node 1 holds two equal rows and one row better than both: of two equals the earlier is better.
    objectives = [(3, 0), (1, 1), (2, 2), (1, 1), (0, 3), (0, 0), (1, 1), (2, 1), (9, 9)]
    node = [0, 0, 0, 1, 0, 0, 1, 1, 1]
    valid = [True] * 8 + [False]
    level = _split(jnp.asarray(objectives, jnp.float32), jnp.asarray(valid), jnp.asarray(node), 1, tree(min_samples=3))
    assert level.good[:8].tolist() == [True, False, True, True, True, False, False, True]
    assert level.samples.tolist() == [5, 3] and level.splits.tolist() == [True, False]
    # By node, then by dominance number, then by age; what is not valid comes last.
    assert level.order.tolist() == [0, 2, 4, 1, 5, 7, 3, 6, 8]


def test_leaf_sizes_and_hypervolumes_by_hand():
    _, info, depth = chain_partition(12, tree(min_samples=4, depth=2))
    assert info.leaf_samples.tolist() == [3, 3, 3, 3]
    # From (-1, -1) to the best of each leaf: 11, 8, 5 and 2.
    assert info.leaf_hypervolume.tolist() == [144, 81, 36, 9]
    assert int(info.leaf) == 0
    assert (depth == 2).tolist() == [False] * 9 + [True] * 3


def test_an_odd_node_gives_the_better_half_one_more():
    _, info, _ = chain_partition(13, tree(min_samples=6, depth=2))
    # 13 -> 7 and 6; 7 > 6 splits into 4 and 3; 6 does not split and stands at its leftmost place.
    assert info.leaf_samples.tolist() == [4, 3, 6, 0]


@pytest.mark.parametrize(
    ("selection", "exploration", "leaf"),
    [
        # Bonus in units of 2 Cp: sqrt(2 ln 7 / 4) = 0.986, sqrt(2 ln 7 / 3) = 1.139, sqrt(2 ln 13 / 6) = 0.925.
        # Values (best number + 1)^2: 169, 81 and 36.
        ("leaf", 0.0, 0),
        ("leaf", 280.0, 0),  # 169 + 552.2 = 721.3 > 81 + 637.8 = 718.8
        ("leaf", 290.0, 1),  # 169 + 572.0 = 741.0 < 81 + 660.6 = 741.6
        ("greedy", 1e6, 0),
        # At the root: sqrt(2 ln 13 / 7) = 0.856 against 0.925, values 169 against 36.
        ("descent", 900.0, 1),  # left: 169 + 1540.8 = 1709.8 > 36 + 1664.3 = 1700.3; there 169 + 1775 < 81 + 2050
        ("descent", 1000.0, 2),  # 169 + 1712.0 = 1881.0 < 36 + 1849.2 = 1885.2: right, an early leaf
        ("descent", 0.0, 0),
    ],
)
def test_choice_of_a_leaf_by_hand(selection, exploration, leaf):
    config = tree(min_samples=6, depth=2, selection=selection, exploration=exploration)
    region, info, depth = chain_partition(13, config)
    assert int(info.leaf) == leaf
    assert region.active.tolist() == [True, leaf < 2]
    expected = {0: range(9, 13), 1: range(6, 9), 2: range(6)}[leaf]
    np.testing.assert_array_equal(depth == 2, np.isin(np.arange(13), list(expected)))


def test_exploration_as_a_share_is_a_share_of_the_hypervolume():
    # All samples: 13^2 = 169. 290 / 169 = 1.716, 280 / 169 = 1.657.
    for share, leaf in ((280 / 169, 0), (290 / 169, 1)):
        config = tree(min_samples=6, depth=2, exploration=share, exploration_is_share=True)
        assert int(chain_partition(13, config)[1].leaf) == leaf


@pytest.mark.parametrize(("children", "selection"), [("label", "leaf"), ("prediction", "descent")])
def test_few_samples_are_the_whole_space(children, selection):
    config = tree(min_samples=10, children=children, selection=selection)
    x, objectives = chain(11)
    region, info, depth = find(x, objectives, jnp.arange(11) < 10, REFERENCE, config)
    assert not region.active.any() and bool((depth == 3).all())
    assert info.leaf_samples.tolist() == [10] + [0] * 7
    region, _, depth = find(x, objectives, jnp.ones(11, bool), REFERENCE, config)
    assert region.active.tolist() == [True, False, False] and not bool((depth == 3).all())


def test_no_sample_at_all_is_the_whole_space():
    x, objectives = chain(8)
    _, info, depth = find(x, objectives, jnp.zeros(8, bool), REFERENCE, tree())
    assert bool((depth == 3).all()) and int(info.leaf_samples.sum()) == 0


def test_children_by_prediction_lie_where_the_boundary_puts_them():
    # The best sample sits deep among the bad ones: no line can have it, so prediction sends it to the right.
    x, objectives = chain(12)
    x = x.at[11, 0].set(0.5)
    by_label = find(x, objectives, jnp.ones(12, bool), REFERENCE, tree(min_samples=6, depth=1))[1]
    assert by_label.leaf_samples.tolist() == [6, 6] and by_label.leaf_hypervolume.tolist() == [144, 36]
    config = tree(min_samples=6, depth=1, children="prediction")
    region, info, _ = find(x, objectives, jnp.ones(12, bool), REFERENCE, config)
    machine = jax.tree.map(lambda array: array[0], region.machines)
    left = np.asarray(svm_decision(make_kernel(LINEAR, 1), machine, x)) > 0
    assert left[7:11].all() and not left[11]
    assert info.leaf_samples.tolist() == [left.sum(), 12 - left.sum()]
    assert info.leaf_hypervolume.tolist() == [121, 144] and int(info.leaf) == 1


SPACE = tabular_space("small", (tuple("abcde"),) * 5)
BENCHMARK = synthetic_benchmark(5, SPACE)
CODES = SPACE.codes(jnp.arange(SPACE.size))
FEATURES = SPACE.features(CODES)
OBJECTIVES = BENCHMARK.table.objectives


@pytest.fixture(scope="module")
def regions():
    """`(config) -> jitted (rows, objectives, valid) -> depth of every architecture of the space, info`."""
    compiled = {}

    def of(config: TreeConfig):
        if config not in compiled:
            kernel, depth_of = space_kernel(config.svm, CODES, FEATURES)

            def find(rows, objectives, valid):
                found = objectives, valid, BENCHMARK.table.reference_point, config
                region, info = partition(kernel, FEATURES[rows], *found)
                return depth_of(region), info

            compiled[config] = jax.jit(find)
        return compiled[config]

    return of


def samples(seed: int, count: int, capacity: int):
    """`count` evaluated architectures in front, then other rows that are not valid."""
    rows = np.random.default_rng(seed).permutation(SPACE.size)[:capacity]
    return jnp.asarray(rows, jnp.int32), OBJECTIVES[rows], jnp.arange(capacity) < count


CONFIGS = [
    TreeConfig(),
    TreeConfig(children="prediction"),
    TreeConfig(svm=SVMConfig(kernel="rbf", rank=64)),
]


@pytest.mark.parametrize(
    "config",
    [CONFIGS[0], *(pytest.param(config, marks=pytest.mark.slow) for config in CONFIGS[1:])],
    ids=["published", "prediction", "rbf"],
)
def test_padding_invalid_and_failed_rows_change_nothing(regions, config):
    region_of = regions(config)
    for seed in range(3):
        rows, objectives, valid = samples(seed, 50, 128)
        depth, info = region_of(rows, objectives, valid)
        more = jnp.asarray(np.random.default_rng(seed).integers(0, SPACE.size, 128), jnp.int32)
        # Between the real rows: architectures that are not valid, and failed ones with NaN for one objective.
        place = jnp.asarray(np.sort(np.random.default_rng(seed).permutation(128)[:50]))
        wide_rows = more.at[place].set(rows[:50])
        wide_objectives = (OBJECTIVES[more] + 1e3).at[::2, 1].set(jnp.nan).at[place].set(objectives[:50])
        real = jnp.zeros(128, bool).at[place].set(True)
        wide_valid = real | jnp.isnan(wide_objectives[:, 1])
        wide_depth, wide_info = region_of(wide_rows, wide_objectives, wide_valid)
        assert int(info.leaf) == int(wide_info.leaf)
        np.testing.assert_array_equal(info.leaf_samples, wide_info.leaf_samples)
        np.testing.assert_allclose(info.leaf_hypervolume, wide_info.leaf_hypervolume, rtol=1e-5)
        assert np.mean(np.asarray(depth) != np.asarray(wide_depth)) <= 0.005


@pytest.mark.slow
def test_capacity_does_not_change_the_region(regions):
    region_of = regions(TreeConfig())
    rows, objectives, valid = samples(9, 60, 256)
    small = region_of(rows[:64], objectives[:64], valid[:64])
    large = region_of(rows, objectives, valid)
    np.testing.assert_array_equal(small[0], large[0])
    np.testing.assert_array_equal(small[1].leaf_samples, large[1].leaf_samples)


def test_depth_counts_the_constraints_from_the_root(regions):
    config = TreeConfig()
    kernel = make_kernel(config.svm, FEATURES.shape[1])
    rows, objectives, valid = samples(2, 60, 64)
    region, _, _ = find(FEATURES[rows], objectives, valid, BENCHMARK.table.reference_point, config)
    inside = []
    for level in range(config.depth):
        decision = np.asarray(svm_decision(kernel, jax.tree.map(lambda a, i=level: a[i], region.machines), FEATURES))
        if not region.active[level]:
            inside.append(np.ones(SPACE.size, bool))
        else:
            inside.append(decision > 0 if region.positive[level] else decision <= 0)
    expected = [next((i for i, row in enumerate(column) if not row), 3) for column in np.array(inside).T]
    np.testing.assert_array_equal(region_depth(kernel, region, FEATURES), expected)


@pytest.mark.parametrize("config", [CONFIGS[0], CONFIGS[2]], ids=["poly", "rbf"])
def test_the_region_is_better_than_the_space(regions, config):
    region_of = regions(config)
    dominated_by = np.asarray(dominance_counts(OBJECTIVES, jnp.ones(SPACE.size, bool)))
    inside_is_better, good_inside = [], []
    for seed in range(10):
        rows, objectives, valid = samples(seed, 100, 128)
        depth, info = region_of(rows, objectives, valid)
        inside = np.asarray(depth) == config.depth
        inside_is_better.append(dominated_by[inside].mean() < dominated_by.mean())
        # Evaluated architectures in the region, against the number that dominates the median evaluated one.
        own = dominated_by[np.asarray(rows[:100])]
        good_inside.append(np.mean(own[inside[np.asarray(rows[:100])]] <= np.median(own)))
    assert np.mean(inside_is_better) >= 0.8 and np.mean(good_inside) > 0.7


def test_vmap_equals_a_loop(regions):
    region_of = regions(TreeConfig())
    batch = [samples(seed, count, 128) for seed, count in enumerate((5, 40, 128))]
    together = jax.jit(jax.vmap(region_of))(*(jnp.stack(parts) for parts in zip(*batch, strict=True)))
    for i, arguments in enumerate(batch):
        depth, info = region_of(*arguments)
        assert int(info.leaf) == int(together[1].leaf[i])
        np.testing.assert_array_equal(info.leaf_samples, together[1].leaf_samples[i])
        assert np.mean(np.asarray(depth) != np.asarray(together[0][i])) <= 0.005


@pytest.mark.parametrize("option", [{"depth": 0}, {"depth": 7}, {"min_samples": 1}, {"exploration": -0.1}])
def test_bad_options_are_refused(option):
    with pytest.raises(ValueError, match=next(iter(option))):
        dataclasses.replace(TreeConfig(), **option)
