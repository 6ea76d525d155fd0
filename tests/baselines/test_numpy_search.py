"""The JAX simulator against an independent one in NumPy, scikit-learn and moocore."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

pytest.importorskip("sklearn")
pytest.importorskip("moocore")

from baselines import numpy_lamoo  # noqa: E402  # pyright: ignore[reportAttributeAccessIssue]
from baselines import numpy_search as oracle  # pyright: ignore[reportAttributeAccessIssue]

from cenas_jax.allocation.policies import plain_params, plain_policy  # noqa: E402
from cenas_jax.benchmarks.base import cheapest_isomorphs  # noqa: E402
from cenas_jax.benchmarks.synthetic import SyntheticBenchmarkConfig, synthetic_benchmark  # noqa: E402
from cenas_jax.carbon import Budget, PowerModel  # noqa: E402
from cenas_jax.carbon.ledger import empty_ledger, ledger_charge  # noqa: E402
from cenas_jax.carbon.power import measured, paper  # noqa: E402
from cenas_jax.cluster.schedule import list_schedule, stop_time_s  # noqa: E402
from cenas_jax.cluster.simulated import simulated_cluster  # noqa: E402
from cenas_jax.cluster.simulation import simulate  # noqa: E402
from cenas_jax.cluster.state import ClusterConfig, ClusterParams  # noqa: E402
from cenas_jax.search.base import isomorphism_classes  # noqa: E402
from cenas_jax.search.lamoo import (  # noqa: E402
    LamooConfig,
    SVMConfig,
    TreeConfig,
    lamoo_search,
    partition,
    space_kernel,
)
from cenas_jax.spaces.nas_bench_201 import nas_bench_201  # noqa: E402

SLOTS, HOURS, WINDOW_H = 8, 24, 24


@pytest.fixture(scope="module")
def benchmark():
    return with_isomorphs(synthetic_benchmark(3, nas_bench_201()))


def with_isomorphs(benchmark):
    """The classes of NAS-Bench-201, the cheapest member of each elected."""
    return benchmark._replace(space=cheapest_isomorphs(nas_bench_201(), np.asarray(benchmark.table.objectives)[:, 1:]))


@pytest.fixture(scope="module")
def intensity_g_per_kwh():
    hour = np.arange(WINDOW_H + HOURS)
    values = 300 + 120 * np.sin(2 * np.pi * hour / 24) + np.random.default_rng(0).normal(0, 25, hour.size)
    return values.astype(np.float32).astype(float)


# --- one interval ---------------------------------------------------------------------------------------------------

seconds = st.floats(0.5, 9000, width=32)
jobs = st.lists(st.tuples(seconds, st.booleans()), min_size=1, max_size=24)


@settings(deadline=None, max_examples=150)
@given(jobs, st.integers(0, SLOTS), st.floats(0, 400, width=32), st.booleans(), st.floats(0, 4, width=32), seconds)
@example([(1.0, False)], 0, 2.0**-126, False, 2.0**-126, 1.0)  # the least there is lasts for days
def test_schedule_stop_time_and_ledger(work, evaluation_slots, idle_w, charged, energy_left_kwh, sampling_end_s):
    padded = [*work, *[(1.0, False)] * (24 - len(work))]  # one shape for every example
    remaining_s = jnp.asarray([duration for duration, _ in padded], jnp.float32)
    valid = jnp.asarray([real for _, real in padded])
    starts_s, busy_s = map(
        np.asarray, _list_schedule(remaining_s, valid, evaluation_slots=jnp.asarray(evaluation_slots))
    )
    real_s = [duration for duration, real in work if real]
    expected_starts_s, expected_busy_s = oracle.list_schedule(real_s, evaluation_slots)
    np.testing.assert_allclose(starts_s[np.asarray(valid)], expected_starts_s, rtol=1e-5)
    assert np.isinf(starts_s[~np.asarray(valid)]).all()
    np.testing.assert_allclose(busy_s[:evaluation_slots], expected_busy_s, rtol=1e-5)

    power = PowerModel(350.0, 150.0, 250.0, float(idle_w), pue=1.25, idle_slots=True, charge_initial_design=charged)
    watts = power.params()
    sampling_slots = SLOTS - evaluation_slots
    busy = [*expected_busy_s, *[float(sampling_end_s)] * sampling_slots]
    busy_w = [watts.evaluation_w * watts.pue] * evaluation_slots + [0.0] * sampling_slots
    idle_power_w = watts.idle_w * watts.pue
    expected_stop_s = oracle.stop_time_s(busy, busy_w, idle_power_w, 3600.0, float(energy_left_kwh))
    stop_s = _stop_time_s(
        jnp.asarray(busy, jnp.float32),
        jnp.asarray(busy_w, jnp.float32),
        jnp.full(SLOTS, idle_power_w, jnp.float32),
        jnp.float32(3600),
        jnp.float32(energy_left_kwh),
    )
    assert float(stop_s) == pytest.approx(expected_stop_s, rel=1e-4, abs=0.05)

    duration_s = np.array([sum(real_s), 17.5 * sampling_slots, 3600.0, evaluation_slots * 12.25, expected_stop_s])
    ledger, _ = ledger_charge(empty_ledger(), jnp.asarray(duration_s, jnp.float32), watts, 321.5)
    energy_kwh, emissions_g = oracle.charge(duration_s, watts, 321.5)
    np.testing.assert_allclose(ledger.energy_kwh, energy_kwh, rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(ledger.emissions_g, emissions_g, rtol=1e-6, atol=1e-9)


_list_schedule = jax.jit(partial(list_schedule, slots=SLOTS))
_stop_time_s = jax.jit(stop_time_s)


# --- the partition --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel_name", ["poly", pytest.param("rbf", marks=pytest.mark.slow)])
def test_partition_and_region(benchmark, kernel_name):
    space, table, capacity = benchmark.space, benchmark.table, 320
    problem, numpy_config = oracle.Problem.of(benchmark), oracle.SearchConfig(kernel=kernel_name)
    scorer = numpy_lamoo.RegionScorer(problem.features, numpy_config)
    config = TreeConfig(svm=SVMConfig(kernel=kernel_name))
    codes = space.codes(jnp.arange(space.size))
    features = space.features(codes)
    kernel, depth_of = space_kernel(config.svm, codes, features)

    @jax.jit
    def ours(index, valid, features):
        x, objectives = features[index], table.objectives[index]
        region, info = partition(kernel, x, objectives, valid, table.reference_point, config)
        return info.leaf, region.active, depth_of(region)

    for samples, seed in itertools.product((0, 10, 11, 25, 90, 300), range(4)):
        index = np.random.default_rng(seed).choice(space.size, capacity, replace=False)
        valid = jnp.arange(capacity) < samples
        leaf, active, depth = map(np.asarray, ours(jnp.asarray(index), valid, features))
        evaluated = index[:samples]
        expected = numpy_lamoo.partition(problem.objectives[evaluated], problem.reference_point, numpy_config)
        assert leaf == expected.place
        assert active.sum() == len(expected.path)
        expected_depth = scorer.depth(expected.path, evaluated)
        agreement = ((depth == config.depth) == (expected_depth == len(expected.path))).mean()
        assert agreement >= 0.99, f"{samples} samples, seed {seed}: {agreement:.4f} of the region's membership agrees"


@pytest.mark.parametrize("kernel_name", ["poly", "rbf"])
def test_both_scorings_find_the_same_region(benchmark, kernel_name):
    problem = oracle.Problem.of(benchmark)
    evaluated = np.random.default_rng(0).choice(benchmark.space.size, 60, replace=False)
    depths = []
    for scoring in ("tuned", "plain"):
        config = oracle.SearchConfig(kernel=kernel_name, scoring=scoring)
        leaf = numpy_lamoo.partition(problem.objectives[evaluated], problem.reference_point, config)
        depths.append(numpy_lamoo.RegionScorer(problem.features, config).depth(leaf.path, evaluated))
    assert (depths[0] == depths[1]).mean() >= 0.999  # the tuned one scores in float32
    with pytest.raises(ValueError, match="choose tuned or plain"):
        numpy_lamoo.RegionScorer(problem.features, oracle.SearchConfig(scoring="fast"))


def test_dominance_and_hypervolume_of_the_oracle():
    objectives = np.array([[1.0, 4.0], [2.0, 3.0], [2.0, 3.0], [1.0, 3.0], [0.0, 5.0], [-1.0, 9.0]])
    # Row 3 is dominated by rows 0, 1 and 2; rows 1 and 2 are duplicates.
    assert numpy_lamoo.dominance_counts(objectives).tolist() == [0, 0, 0, 3, 0, 0]
    # Row 5 lies below the reference; strips: 2 x 3 + 1 x 1 from (1, 4).
    assert numpy_lamoo.hypervolume(objectives, np.zeros(2)) == pytest.approx(7.0)


# --- whole searches: draw by draw -----------------------------------------------------------------------------------

CASES = {
    "vanilla": ("vanilla", measured(), Budget(hours=float(HOURS))),
    "fixed-4": ("fixed-4", measured(), Budget(hours=float(HOURS))),
    "heuristic": ("heuristic", measured(), Budget(hours=float(HOURS))),
    "only sampling": ("fixed-0", measured(), Budget(hours=float(HOURS))),
    "free initial design": ("fixed-3", paper(), Budget(hours=float(HOURS), carbon_g=9000.0)),
    "carbon": ("heuristic", measured(), Budget(hours=float(HOURS), carbon_g=2500.0)),
    "energy, idle slots": ("fixed-7", measured(idle_slots=True), Budget(hours=float(HOURS), energy_kwh=20.0)),
    "little energy": ("fixed-0", measured(), Budget(energy_kwh=2.0)),
    "evaluations": ("fixed-5", measured(), Budget(hours=float(HOURS), evaluations=33)),
    "part of an hour": ("fixed-6", measured(), Budget(hours=10.4)),
}


@pytest.fixture(scope="module")
def tight_benchmark():
    """Screening and the supernet take long enough for time and energy to cut them."""
    config = SyntheticBenchmarkConfig(estimate_time_s=60.0, supernet_time_s=9000.0)
    return with_isomorphs(synthetic_benchmark(4, nas_bench_201(), config))


@pytest.fixture(scope="module")
def whole_space_search(tight_benchmark, intensity_g_per_kwh):
    """A compiled search that never splits, so that its region does not hang on an SVM's rounding (and the least of all
    trees does)."""
    tree = TreeConfig(depth=1, min_samples=100_000, svm=SVMConfig(kernel="linear"))
    return _jax_search(tight_benchmark, intensity_g_per_kwh, tree)


@pytest.fixture(scope="module")
def draw_classes(tight_benchmark):
    return jax.jit(isomorphism_classes(tight_benchmark.space).draw, static_argnums=2)


@pytest.mark.parametrize("case", CASES)
def test_the_same_draws_give_the_same_search(
    whole_space_search, draw_classes, tight_benchmark, intensity_g_per_kwh, case
):
    policy, power, budget = CASES[case]
    config = oracle.SearchConfig(slots=SLOTS, min_samples=100_000)
    problem = oracle.Problem.of(tight_benchmark)
    for seed in range(2):
        key = jax.random.key(seed)

        def draw(interval, mask, n, part, key=key):
            purpose = (0, 0) if interval < 0 else (interval, 2)
            for number in purpose:
                key = jax.random.fold_in(key, number)
            index, valid = draw_classes(key, jnp.asarray(mask), n)
            return np.asarray(index)[np.asarray(valid)]

        result = whole_space_search(key, plain_params(policy, SLOTS), _params(intensity_g_per_kwh, power, budget))
        expected = oracle.search(
            problem,
            config,
            intensity_g_per_kwh,
            power.params(),
            budget.params(),
            policy,
            0,
            charge_initial_design=power.charge_initial_design,
            draw=draw,
        )
        assert int(result.overflow) == 0
        assert np.asarray(result.evaluated)[: int(result.count)].tolist() == expected.evaluated
        history = result.history
        assert np.asarray(history.evaluation_slots).tolist() == expected.evaluation_slots.tolist()
        assert np.asarray(history.screened).tolist() == expected.screened.tolist()
        np.testing.assert_allclose(history.hypervolume_share, expected.hypervolume_share, rtol=1e-5)
        for ours, theirs in (
            (history.charge.busy_s, expected.duration_s),
            (history.charge.energy_kwh, expected.energy_kwh),
            (history.charge.emissions_g, expected.emissions_g),
        ):
            np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=1e-5 * theirs.max(), err_msg=case)
        np.testing.assert_allclose(result.ledger.energy_kwh, expected.energy_kwh.sum(axis=0), rtol=2e-5, atol=1e-5)
        assert expected.emissions_g.sum() <= (budget.carbon_g or np.inf)
        assert expected.energy_kwh.sum() <= (budget.energy_kwh or np.inf)


# --- whole searches: on average -------------------------------------------------------------------------------------

SEEDS = 32


@pytest.fixture(scope="module")
def search_by_seed(benchmark, intensity_g_per_kwh):
    search = _jax_search(benchmark, intensity_g_per_kwh, TreeConfig())
    return jax.vmap(search, in_axes=(0, None, None))


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["vanilla", "fixed-4", "heuristic"])
def test_searches_agree_on_average(search_by_seed, benchmark, intensity_g_per_kwh, policy):
    power, budget = measured(), Budget(hours=float(HOURS))
    keys = jax.random.split(jax.random.key(11), SEEDS)
    result = search_by_seed(keys, plain_params(policy, SLOTS), _params(intensity_g_per_kwh, power, budget))
    problem, config = oracle.Problem.of(benchmark), oracle.SearchConfig(slots=SLOTS)
    scorer = numpy_lamoo.RegionScorer(problem.features, config)
    run = partial(oracle.search, problem, config, intensity_g_per_kwh, power.params(), budget.params(), policy)
    expected = [run(seed, scorer=scorer) for seed in range(SEEDS)]
    share = np.asarray(result.history.hypervolume_share)
    measures = {
        "evaluations": (result.count, [len(one.evaluated) for one in expected]),
        "energy": (result.ledger.energy_kwh.sum(axis=1), [one.energy_kwh.sum() for one in expected]),
        "emissions": (result.ledger.emissions_g.sum(axis=1), [one.emissions_g.sum() for one in expected]),
        "screened": (result.history.screened.sum(axis=1), [one.screened.sum() for one in expected]),
        "hypervolume after 12 h": (share[:, 11], [one.hypervolume_share[11] for one in expected]),
        "hypervolume after 24 h": (share[:, -1], [one.hypervolume_share[-1] for one in expected]),
    }
    for name, (ours, theirs) in measures.items():
        ours, theirs = np.asarray(ours, float), np.asarray(theirs, float)
        error = np.sqrt(ours.var(ddof=1) / SEEDS + theirs.var(ddof=1) / SEEDS)
        difference = abs(ours.mean() - theirs.mean())
        assert difference <= 4 * error + 1e-5 * abs(theirs.mean()), (
            f"{name}: {ours.mean():.6g} against {theirs.mean():.6g}, difference {difference:.3g}, error {error:.3g}"
        )


def _jax_search(benchmark, intensity_g_per_kwh, tree: TreeConfig):
    capacity = 256
    searcher = lamoo_search(
        benchmark.space, benchmark.table.reference_point, LamooConfig(capacity=capacity, choice="estimate", tree=tree)
    )
    config = ClusterConfig(slots=SLOTS, capacity=capacity)
    environment = simulated_cluster(benchmark.space, benchmark.table, searcher, config, HOURS)
    policy = plain_policy(SLOTS)

    @jax.jit
    def search(key, policy_params, params):
        return simulate(key, environment, policy, params, policy_params, HOURS)

    return search


def _params(intensity_g_per_kwh, power: PowerModel, budget: Budget) -> ClusterParams:
    return ClusterParams(
        jnp.asarray(intensity_g_per_kwh, jnp.float32),
        jnp.zeros((HOURS, 0)),
        jax.tree.map(jnp.float32, power.params()),
        jax.tree.map(jnp.float32, budget.params()),
        jnp.asarray(power.charge_initial_design),
    )
