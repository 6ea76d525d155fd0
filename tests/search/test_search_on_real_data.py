"""Searches on the real tables against the figures known for them, mean hypervolume shares over many seeds."""

import json
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import ttest_ind

from cenas_jax.benchmarks import nas_bench_201_benchmark
from cenas_jax.cluster.tabular import tabular_search
from cenas_jax.search import LamooConfig, gaussian_process, lamoo_search, random_search
from cenas_jax.search.lamoo import TreeConfig, searcher, space_kernel
from cenas_jax.search.lamoo.searcher import best_region
from cenas_jax.spaces import with_distinct_isomorphs

pytestmark = pytest.mark.data
SEEDS = 64


def shares(benchmark, searcher, seeds: int = SEEDS, **options):
    """`(evaluations[rounds], hypervolume_share[seeds, rounds], final states)` of one vmapped call."""

    def search(key):
        return tabular_search(key, searcher, benchmark.space, benchmark.table, **options)

    history, state = jax.jit(jax.vmap(search))(jax.random.split(jax.random.key(0), seeds))
    assert bool(history.valid.all())
    return np.asarray(history.evaluations[0]), np.asarray(history.hypervolume_share, np.float64), state


def every_architecture(benchmark):
    """The benchmark without its isomorphism classes, as the reference values have it."""
    return benchmark._replace(space=with_distinct_isomorphs(benchmark.space))


def standard_error(values):
    return values.std(axis=0, ddof=1) / math.sqrt(len(values))


def lamoo(benchmark, capacity: int, choice: Any = "random", tree: TreeConfig | None = None):
    config = LamooConfig(capacity=capacity, choice=choice, tree=tree or TreeConfig())
    return lamoo_search(benchmark.space, benchmark.table.reference_point, config)


def test_random_search_reproduces_the_reference_values(data_dir):
    benchmark = every_architecture(nas_bench_201_benchmark(data_dir))
    searcher = random_search(benchmark.space)
    evaluations, share, _ = shares(benchmark, searcher, 200, initial=10, batch=10, rounds=57)
    known = json.loads((data_dir / "nas" / "reference_values.json").read_text())["c10_edgegpu_energy"]
    for count, reference in known["random_search_hv_fraction"].items():
        values = share[:, evaluations.tolist().index(int(count))]
        both = math.hypot(reference["sd"] / math.sqrt(200), standard_error(values))
        assert abs(values.mean() - reference["mean"]) <= 2 * both, f"after {count} evaluations"


# Mean share after 74 evaluations: 10 random ones, then batches of 8 out of 500 screened.
AFTER_74 = [
    ("vanilla", "one-shot", "random", 0, 0.963),
    ("one-shot", "one-shot", "estimate", 500, 0.978),
    ("few-shot", "few-shot", "estimate", 500, 0.993),
    ("corrected", "one-shot", "corrected", 500, 0.994),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("estimate", "choice", "screened", "known"),
    [pytest.param(*row[1:], id=row[0]) for row in AFTER_74],
)
def test_lamoo_after_74_evaluations(data_dir, estimate, choice, screened, known):
    benchmark = nas_bench_201_benchmark(data_dir, estimate=estimate)
    searcher = lamoo(benchmark, 80, choice)
    evaluations, share, _ = shares(benchmark, searcher, initial=10, batch=8, rounds=8, screened=screened)
    assert evaluations[-1] == 74
    mean, error = share[:, -1].mean(), standard_error(share[:, -1])
    print(f"{mean:.4f} +- {error:.4f}, known {known}")
    assert mean >= known - 2 * error


@pytest.mark.slow
def test_draws_in_the_whole_space_help_the_corrected_choice(data_dir):
    """On CIFAR-100, which the test windows of the experiments do not use, after 170 evaluations."""
    benchmark = nas_bench_201_benchmark(data_dir, ("c100_test_200", "c100_edgegpu_energy"), "noise-0.484")
    found = []
    for share in (0.0, LamooConfig().whole_space_share):
        config = LamooConfig(capacity=192, choice="corrected", whole_space_share=share)
        searcher = lamoo_search(benchmark.space, benchmark.table.reference_point, config)
        found.append(shares(benchmark, searcher, initial=10, batch=8, rounds=20, screened=500)[1][:, -1])
    alone, both = found
    pvalue: Any = ttest_ind(both, alone, alternative="greater", equal_var=False)[1]
    print(f"the region alone {alone.mean():.4f}, half of the space {both.mean():.4f}, p {pvalue:.1e}")
    assert pvalue < 0.01


@pytest.mark.slow
@pytest.mark.parametrize("cost", ["c100_edgegpu_energy", "c100_fpga_energy"])
def test_counts_and_costs_help_the_corrected_choice(data_dir, monkeypatch, cost):
    """On CIFAR-100 after 42 evaluations, against a process that sees neither how often each operation was chosen nor
    what an architecture costs."""
    benchmark = nas_bench_201_benchmark(data_dir, ("c100_test_200", cost), "noise-0.484")
    options = {"initial": 10, "batch": 4, "rounds": 8, "screened": 500}
    _, seen, _ = shares(benchmark, lamoo(benchmark, 64, "corrected"), **options)
    monkeypatch.setattr(gaussian_process, "RELEVANCES", (0.0,))
    monkeypatch.setattr(searcher, "features_of", lambda space: lambda codes: math.sqrt(2) * space.one_hot(codes))
    _, unseen, _ = shares(benchmark, lamoo(benchmark, 64, "corrected"), **options)
    pvalue: Any = ttest_ind(seen[:, -1], unseen[:, -1], alternative="greater", equal_var=False)[1]
    print(f"with both {seen[:, -1].mean():.4f}, without {unseen[:, -1].mean():.4f}, p {pvalue:.1e}")
    assert pvalue < 0.05


@pytest.fixture(scope="module", params=[TreeConfig(), TreeConfig(depth=1)], ids=["default", "one-split"])
def after_300(data_dir, request):
    """A benchmark, LaMOO's tree, searcher, shares and last states with 300 evaluations on it."""
    benchmark, tree = nas_bench_201_benchmark(data_dir), request.param
    searcher = lamoo(benchmark, 300, tree=tree)
    _, share, state = shares(benchmark, searcher, initial=10, batch=5, rounds=58)
    return benchmark, tree, searcher, share[:, -1], state


@pytest.mark.slow
def test_lamoo_beats_random_search_at_300_evaluations(after_300):
    """Random search as it is known, and for the default tree also one that knows isomorphs, as LaMOO does here."""
    benchmark, tree, _, by_lamoo, _ = after_300
    for known in (every_architecture(benchmark), benchmark)[: 2 if tree == TreeConfig() else 1]:
        _, share, _ = shares(known, random_search(known.space), initial=10, batch=5, rounds=58)
        pvalue: Any = ttest_ind(by_lamoo, share[:, -1], alternative="greater", equal_var=False)[1]
        print(f"LaMOO {by_lamoo.mean():.4f}, random {share[:, -1].mean():.4f}, p {pvalue:.1e}")
        assert pvalue < 0.01


@pytest.mark.slow
def test_what_the_region_proposes_is_better_than_the_space(after_300):
    """Mean accuracy and energy of 50 architectures that LaMOO asks for, less those of 50 that random search would ask
    for in its place: none of either was evaluated before."""
    benchmark, _, searcher, _, states = after_300
    space, objectives = benchmark.space, benchmark.table.objectives
    nothing = jnp.zeros((0, len(space.num_choices)), jnp.int32), jnp.zeros(0, bool)

    @jax.jit
    def proposed(key, state):
        def mean_of(codes, valid):
            return jnp.where(valid[:, None], objectives[space.index(codes)], 0).sum(axis=0) / valid.sum()

        key_region, key_space = jax.random.split(key)
        region = mean_of(*searcher.ask(key_region, searcher.fit(state), 50, *nothing))
        everywhere = anywhere.init(key)._replace(evaluated=state.evaluated)
        return region - mean_of(*anywhere.ask(key_space, everywhere, 50, *nothing))

    anywhere = random_search(space)
    keys = jax.random.split(jax.random.key(1), SEEDS)
    difference = np.asarray(jax.lax.map(lambda pair: proposed(*pair), (keys, states)))
    print("50 proposals' mean less the space's", difference.mean(axis=0), "+-", standard_error(difference))
    assert (difference.mean(axis=0) > 3 * standard_error(difference)).all()


@pytest.fixture(scope="module")
def region_advantage(after_300):
    """Mean objectives of all that is inside of each search's last region, evaluated or not, less those of the whole
    space: `[searches, 2]`.

    One architecture of every isomorphism class, as no more are ever proposed: of the 341 failures at 10 % in the table,
    five are different.
    """
    benchmark, tree, _, _, states = after_300
    space, table = benchmark.space, benchmark.table
    codes = space.codes(jnp.arange(space.size))
    kernel, depth_of = space_kernel(tree.svm, codes, space.features(codes))

    @jax.jit
    def region_means(archive):
        region, _ = best_region(space, kernel, archive, table.reference_point, tree)
        inside = depth_of(region) == tree.depth
        proposed = jnp.zeros(space.size, bool).at[jnp.where(inside, space.isomorph, space.size)].set(True, mode="drop")
        return jnp.where(proposed[:, None], table.objectives, 0).sum(axis=0) / proposed.sum()

    means = np.asarray(jax.lax.map(region_means, states.archive))
    means = means[np.isfinite(means).all(axis=1)]
    assert len(means) > 0.8 * SEEDS
    difference = means - np.asarray(table.objectives)[np.unique(space.isomorph)].mean(axis=0, keepdims=True)
    print("region's mean less the space's", difference.mean(axis=0), "+-", standard_error(difference))
    return difference


@pytest.mark.slow
def test_the_region_is_cheaper_than_the_space(region_advantage):
    assert region_advantage[:, 1].mean() > 3 * standard_error(region_advantage)[1]


@pytest.mark.slow
def test_the_region_is_more_accurate_than_the_space(region_advantage, after_300, request):
    """The half behind the first split is. The region of the default, three splits deep, is not."""
    if after_300[1].depth > 1:
        reason = (
            "failures at 10 % are cheap, so few dominate them: two or three of the space's five classes lie among "
            "the 130 classes of a region, whose mean is 89.0 +- .1 % where the space's is 89.7 (medians: 91.5 and 91.4)"
        )
        request.applymarker(pytest.mark.xfail(reason=reason, strict=True))
    assert region_advantage[:, 0].mean() > 3 * standard_error(region_advantage)[0]
