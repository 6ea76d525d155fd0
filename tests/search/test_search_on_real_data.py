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
from cenas_jax.benchmarks.base import isomorphs_differ
from cenas_jax.cluster.tabular import tabular_search
from cenas_jax.search import LamooConfig, lamoo_search, random_search
from cenas_jax.search.lamoo import TreeConfig, make_kernel, region_depth
from cenas_jax.search.lamoo.searcher import best_region

pytestmark = pytest.mark.data
SEEDS = 64


def shares(benchmark, searcher, seeds: int = SEEDS, **options):
    """`(evaluations[rounds], hypervolume_share[seeds, rounds], final states)` of one vmapped call."""

    def search(key):
        return tabular_search(key, searcher, benchmark.space, benchmark.table, **options)

    history, state = jax.jit(jax.vmap(search))(jax.random.split(jax.random.key(0), seeds))
    assert bool(history.valid.all())
    return np.asarray(history.evaluations[0]), np.asarray(history.hypervolume_share, np.float64), state


def standard_error(values):
    return values.std(axis=0, ddof=1) / math.sqrt(len(values))


def lamoo(benchmark, capacity: int, choice: Any = "random"):
    config = LamooConfig(capacity=capacity, choice=choice, isomorphs_differ=isomorphs_differ(benchmark))
    return lamoo_search(benchmark.space, benchmark.table.reference_point, config)


def test_random_search_reproduces_the_reference_values(data_dir):
    benchmark = nas_bench_201_benchmark(data_dir)
    searcher = random_search(benchmark.space, isomorphs_differ=True)
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


ONE_SHOT_IS_SHORT = pytest.mark.xfail(reason=".9747 +- .0014 where .978 is known, from 8 to 12 searches: 2.3 errors")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("estimate", "choice", "screened", "known"),
    [pytest.param(*row[1:], id=row[0], marks=ONE_SHOT_IS_SHORT if row[0] == "one-shot" else ()) for row in AFTER_74],
)
def test_lamoo_after_74_evaluations(data_dir, estimate, choice, screened, known):
    benchmark = nas_bench_201_benchmark(data_dir, estimate=estimate)
    searcher = lamoo(benchmark, 80, choice)
    evaluations, share, _ = shares(benchmark, searcher, initial=10, batch=8, rounds=8, screened=screened)
    assert evaluations[-1] == 74
    mean, error = share[:, -1].mean(), standard_error(share[:, -1])
    print(f"{mean:.4f} +- {error:.4f}, known {known}")
    assert mean >= known - 2 * error


@pytest.fixture(scope="module")
def after_300(data_dir):
    """A benchmark, and the shares and last archives of LaMOO with 300 evaluations on it."""
    benchmark = nas_bench_201_benchmark(data_dir)
    _, share, state = shares(benchmark, lamoo(benchmark, 300), initial=10, batch=5, rounds=58)
    return benchmark, share[:, -1], state.archive


@pytest.mark.slow
def test_lamoo_beats_random_search_at_300_evaluations(after_300):
    benchmark, by_lamoo, _ = after_300
    searcher = random_search(benchmark.space, isomorphs_differ=True)
    _, share, _ = shares(benchmark, searcher, initial=10, batch=5, rounds=58)
    pvalue: Any = ttest_ind(by_lamoo, share[:, -1], alternative="greater", equal_var=False)[1]
    print(f"LaMOO {by_lamoo.mean():.4f}, random {share[:, -1].mean():.4f}, p {pvalue:.1e}")
    assert pvalue < 0.01


@pytest.fixture(scope="module")
def region_advantage(after_300):
    """Mean objectives of each search's last region, less the space's: `[searches, 2]`."""
    benchmark, _, archives = after_300
    space, table, tree = benchmark.space, benchmark.table, TreeConfig()
    features = space.features(space.codes(jnp.arange(space.size)))
    kernel = make_kernel(tree.svm, features.shape[1])
    static = kernel.static(features)

    @jax.jit
    def region_means(archive):
        rows = static[space.index(archive.codes)]
        region, _ = best_region(space, kernel, archive, rows, table.reference_point, tree)
        inside = region_depth(kernel, region, static) == tree.depth
        return jnp.where(inside[:, None], table.objectives, 0).sum(axis=0) / inside.sum()

    means = np.asarray(jax.lax.map(region_means, archives))
    means = means[np.isfinite(means).all(axis=1)]
    assert len(means) > 0.8 * SEEDS
    difference = means - np.asarray(table.objectives.mean(axis=0))[None, :]
    print("region's mean less the space's", difference.mean(axis=0), "+-", standard_error(difference))
    return difference


@pytest.mark.slow
def test_the_region_is_cheaper_than_the_space(region_advantage):
    assert region_advantage[:, 1].mean() > 3 * standard_error(region_advantage)[1]


@pytest.mark.slow
@pytest.mark.xfail(
    reason="failures at 10 % are cheap, so few dominate them: even the 500 least dominated architectures of the whole "
    "table have a mean accuracy of 86.0 %, the space 87.1 %"
)
def test_the_region_is_more_accurate_than_the_space(region_advantage):
    assert region_advantage[:, 0].mean() > 3 * standard_error(region_advantage)[0]
