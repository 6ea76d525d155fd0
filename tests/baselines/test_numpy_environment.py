"""The NumPy environment to train policies on against the JAX one: views, corrected estimates, whole episodes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("moocore")

from baselines import numpy_environment, numpy_view  # noqa: E402  # pyright: ignore[reportAttributeAccessIssue]
from baselines.numpy_correction import Correction, by_gain  # noqa: E402  # pyright: ignore
from baselines.numpy_lamoo import RegionScorer  # noqa: E402  # pyright: ignore
from baselines.numpy_search import Problem, SearchConfig  # noqa: E402  # pyright: ignore
from carbon_bandit import HOURS, PRICE, SLOTS  # noqa: E402

from cenas_jax.allocation import Observation  # noqa: E402
from cenas_jax.allocation.agent import AgentConfig, agent  # noqa: E402
from cenas_jax.benchmarks import SyntheticBenchmarkConfig, synthetic_benchmark  # noqa: E402
from cenas_jax.carbon import Budget  # noqa: E402
from cenas_jax.carbon.power import measured, paper  # noqa: E402
from cenas_jax.cluster.simulated import simulated_cluster  # noqa: E402
from cenas_jax.cluster.state import ClusterConfig, ClusterParams  # noqa: E402
from cenas_jax.search import LamooConfig, lamoo_search  # noqa: E402
from cenas_jax.search.base import draw_without_replacement  # noqa: E402
from cenas_jax.search.gaussian_process import fit_correction, posterior_quantiles  # noqa: E402
from cenas_jax.search.lamoo import SVMConfig, TreeConfig  # noqa: E402
from cenas_jax.search.ranking import LEVELS, by_hypervolume_gain  # noqa: E402
from cenas_jax.spaces import tabular_space  # noqa: E402


@pytest.mark.parametrize("forecast_h", [0, 30])
def test_views_of_random_observations_agree(forecast_h):
    draw, count = np.random.default_rng(forecast_h), 60
    values = {name: draw.uniform(0, 1, count) for name in Observation._fields}
    values["remaining_h"] = np.round(draw.uniform(0, 80, count))
    values["lowest_ratio"], values["highest_ratio"] = draw.uniform(0.3, 1, count), draw.uniform(1, 1.7, count)
    values["supernet_share"] = np.where(draw.random(count) < 0.3, 0.5, 1.0)
    values["affordable_share"] = np.where(draw.random(count) < 0.1, 0.0, draw.uniform(0, 1, count))
    values["relative_forecast"] = draw.uniform(-1, 2, (count, forecast_h))
    values["relative_past"] = draw.uniform(0, 1, (count, 24))
    values = {name: np.asarray(value, np.float32) for name, value in values.items()}
    for slots in (1, 8):
        ours = jax.jit(jax.vmap(agent(AgentConfig(), slots).view))(Observation(**jax.tree.map(jnp.asarray, values)))
        theirs = numpy_view.view(numpy_view.Observation(**values), slots)
        for mine, other in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(mine, other, rtol=1e-5, atol=1e-5)
        assert slots == 1 or (np.asarray(ours.plans[:, 0]) > 0).mean() > 0.4
    assert numpy_view.Observation._fields == Observation._fields


def test_the_bandit_sees_what_the_jax_one_sees():
    from carbon_bandit import observe, worth

    environments = numpy_environment.BanditEnvironments(SLOTS, HOURS, PRICE)
    seen, split = environments.reset(np.arange(3)), np.array([0, 3, 8])
    see = jax.jit(jax.vmap(lambda ratio, hour: agent(AgentConfig(), SLOTS).view(observe(ratio, hour)), (0, None)))
    for hour in range(HOURS):
        ratio = jnp.asarray(environments.ratio, jnp.float32)
        np.testing.assert_allclose(see(ratio, jnp.float32(hour)).inputs, seen.inputs, atol=1e-5)
        answer = environments.step(split)
        np.testing.assert_allclose(answer.reward, worth(jnp.asarray(split), ratio), atol=1e-5)
        assert not answer.terminated.any() and (answer.truncated == (hour == HOURS - 1)).all()
        seen = answer.view


@pytest.mark.parametrize(("count", "unknown", "exact"), [(0, 0, False), (9, 3, False), (160, 20, False), (40, 0, True)])
def test_corrected_estimates_agree(count, unknown, exact):
    draw = np.random.default_rng(count)
    choices = np.eye(5)[draw.integers(0, 5, (count + 30, 5))]
    one_hot = choices.reshape(-1, 25)
    features = np.concatenate([one_hot, choices.sum(axis=1)], axis=1)
    target = one_hot @ draw.normal(size=25) + 90
    cost = target**2 / 90 + draw.normal(size=count + 30)
    target = target + (count > 48) * cost  # then the cost tells of what the choice of the kernel does not see, too
    estimate = target + (0 if exact else draw.normal(size=count + 30))
    estimates = np.stack([estimate, cost], axis=1)
    estimates[: unknown // 2], estimates[count : count + unknown] = np.nan, np.nan
    rows, fitted = 192, slice(count)

    def padded(values):
        return jnp.asarray(np.concatenate([values[fitted], np.zeros((rows - count, *values.shape[1:]))]), jnp.float32)

    @jax.jit
    def ours(features, estimates, target, query_features, query):
        correction = fit_correction(features, estimates, target, jnp.arange(rows) < count)
        quantiles = posterior_quantiles(correction, features, query_features, query, LEVELS)
        return quantiles, correction.length, correction.estimate_scale[1] > 0, correction.exact

    queries = jnp.asarray(features[count:], jnp.float32), jnp.asarray(estimates[count:], jnp.float32)
    expected, length, beside, is_exact = ours(padded(features), padded(estimates), padded(target), *queries)
    theirs = Correction(features[fitted], estimates[fitted], target[fitted])
    found = theirs.posterior_quantiles(features[count:], estimates[count:])
    assert theirs.exact == is_exact == exact
    assert exact or not count or theirs.fitted[0] == (float(length), float(beside))
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=1e-3)


gained = jax.jit(by_hypervolume_gain, static_argnums=5)


@pytest.mark.parametrize("seed", range(4))
def test_the_greedy_batch_agrees(seed):
    draw, n = np.random.default_rng(seed), 12
    evaluated, predicted = draw.normal(size=(40, 2)) * (seed > 0), draw.normal(size=(3, 90, 2)) * (1 + seed)
    reference = np.array([-1.0, -0.5])
    numbers = [part.astype(np.float32) for part in (predicted, evaluated, reference)]
    rows, _ = gained(numbers[0], np.ones(90, bool), numbers[1], np.ones(40, bool), numbers[2], n)
    assert rows.tolist() == by_gain(predicted, evaluated, reference, n).tolist()
    assert by_gain(predicted[:, :5], evaluated[:0], reference, n).shape == (5,)


# --- whole episodes: draw by draw -----------------------------------------------------------------------------------

EPISODE_H, WINDOW_H, FORECAST_H, SMALL_SLOTS = 12, 6, 5, 4
SPACE = tabular_space("small", (tuple("abcde"),) * 4)
CONFIG = dict(slots=SMALL_SLOTS, initial_design=5, queue_capacity=12, screen_per_interval=24, window_h=WINDOW_H)


@pytest.fixture(scope="module")
def table():
    config = SyntheticBenchmarkConfig(supernet_time_s=5000.0, estimate_time_s=20.0, mean_train_time_s=4000.0)
    return synthetic_benchmark(3, SPACE, config).table


@pytest.fixture(scope="module")
def steps(table):
    """Compiled; it never splits, so that its region does not hang on an SVM's rounding."""
    tree = TreeConfig(depth=1, min_samples=1000, svm=SVMConfig(kernel="linear"))
    lamoo = LamooConfig(capacity=32, choice="corrected", tree=tree)
    searcher = lamoo_search(SPACE, table.reference_point, lamoo)
    config = ClusterConfig(forecast_h=FORECAST_H, capacity=32, **CONFIG)
    environment = simulated_cluster(SPACE, table, searcher, config, EPISODE_H)
    return jax.jit(environment.reset), jax.jit(environment.step)


CASES = {
    "charged": (measured(), Budget(hours=12.0, evaluations=30)),
    "carbon": (measured(), Budget(hours=12.0, carbon_g=1500.0, evaluations=30)),
    "free initial design": (paper(), Budget(hours=7.0, evaluations=30)),
}
_draw = jax.jit(draw_without_replacement, static_argnums=2)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("seed", range(2))
def test_the_same_draws_give_the_same_episode(steps, table, case, seed):
    power, budget = CASES[case]
    random, root = np.random.default_rng(seed), jax.random.key(seed)
    intensity = random.uniform(100, 500, WINDOW_H + EPISODE_H).astype(np.float32).astype(float)
    forecast = random.uniform(100, 500, (EPISODE_H, FORECAST_H)).astype(np.float32).astype(float)
    params = ClusterParams(
        jnp.asarray(intensity, jnp.float32),
        jnp.asarray(forecast, jnp.float32),
        jax.tree.map(jnp.float32, power.params()),
        jax.tree.map(jnp.float32, budget.params()),
        jnp.asarray(power.charge_initial_design),
    )

    def draw(interval, mask, n, part):
        key = root
        for number in (0, 0) if interval < 0 else (interval, 2):
            key = jax.random.fold_in(key, number)
        key = key if interval < 0 else jax.random.split(key)[part]
        positions, valid = _draw(key, jnp.asarray(mask), n)
        return np.asarray(positions)[np.asarray(valid)]

    task = numpy_environment.Task(
        Problem.of_table(SPACE, table),
        intensity,
        forecast,
        power.params(),
        budget.params(),
        power.charge_initial_design,
    )
    config = SearchConfig(choice="corrected", min_samples=1000, **CONFIG)
    episode = numpy_environment.SearchEpisode(task, config, draw, RegionScorer(task.problem.features, config))
    state, observation = steps[0](root, params)
    for _ in range(EPISODE_H):
        for name, ours, theirs in zip(Observation._fields, observation, episode.observation, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=2e-5, err_msg=name)
        split = int(random.integers(0, SMALL_SLOTS + 1))
        state, expected = steps[1](state, jnp.asarray(split), params)
        reward, terminated, truncated = episode.step(split)
        assert reward == pytest.approx(float(expected.reward), rel=1e-4, abs=2e-5)
        assert (terminated, truncated) == (bool(expected.terminated), bool(expected.truncated))
        assert state.evaluated[: int(state.count)].tolist() == episode.search.evaluated
        if terminated or truncated:
            break
        observation = expected.observation
    assert len(episode.search.evaluated) > 5
