"""The SVM against scikit-learn's SVC on LaMOO-like problems: NAS-Bench-201 features, labels by dominance number."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.svm import SVC

from cenas_jax.benchmarks import nas_bench_201_benchmark, synthetic_benchmark
from cenas_jax.search.lamoo import SVMConfig, make_kernel, space_kernel, svm_decision, svm_fit
from cenas_jax.search.lamoo.svm import Landmarks, gamma_scale, svm_pad
from cenas_jax.spaces import space

SPACE = space("nas-bench-201")
CODES = SPACE.codes(jnp.arange(SPACE.size))
FEATURES = np.asarray(SPACE.features(CODES))
CAPACITY, BATCH = 512, 5


def dominance_numbers(objectives):
    no_worse = (objectives[:, None] >= objectives[None]).all(axis=-1)
    return (no_worse & (objectives[:, None] > objectives[None]).any(axis=-1)).sum(axis=0)


def better_half(objectives):
    order = np.argsort(dominance_numbers(objectives), kind="stable")
    good = np.zeros(len(order), bool)
    good[order[: (len(order) + 1) // 2]] = True
    return good


def lamoo_problem(seed: int, objectives):
    """40 to 500 architectures as a node of the first, second or third level sees them, and which are good."""
    random = np.random.default_rng(seed)
    count, level = int(random.integers(40, 501)), int(random.integers(3))
    rows = random.choice(len(objectives), count * 2**level, replace=False)
    for _ in range(level):
        rows = rows[better_half(objectives[rows])]
    return rows, better_half(objectives[rows])


class Reference(NamedTuple):
    """scikit-learn's machine, in float64."""

    alpha: np.ndarray
    decision: np.ndarray
    gram: np.ndarray
    primal: float


def gram(kernel: str, x, z, gamma: float):
    x, z = x.astype(np.float64), z.astype(np.float64)
    if kernel == "rbf":
        squared = (x**2).sum(1)[:, None] + (z**2).sum(1)[None, :] - 2 * x @ z.T
        return np.exp(-gamma * squared)
    return (gamma * x @ z.T) ** 4 if kernel == "poly" else x @ z.T


def scikit_learn(kernel: str, rows, good) -> Reference:
    x, y = FEATURES[rows], np.where(good, 1.0, -1.0)
    svc = SVC(kernel=kernel, degree=4, gamma="scale", C=1.0).fit(x, y)
    gamma = 1 / (x.shape[1] * x.var(dtype=np.float64))
    # The decision on the whole space from the dual, which is faster than `decision_function` and the same.
    decision = gram(kernel, FEATURES, svc.support_vectors_, gamma) @ svc.dual_coef_[0] + svc.intercept_[0]
    np.testing.assert_allclose(decision[:20], svc.decision_function(FEATURES[:20]), rtol=1e-5, atol=1e-6)
    alpha = np.zeros(len(rows))
    alpha[svc.support_] = np.abs(svc.dual_coef_[0])
    own = gram(kernel, x, x, gamma)
    primal = 0.5 * (alpha * y) @ own @ (alpha * y) + np.maximum(1 - y * decision[rows], 0).sum()
    return Reference(alpha, decision, own, primal)


def dual_objective(alpha, good, own):
    signed = alpha * np.where(good, 1.0, -1.0)
    return alpha.sum() - 0.5 * signed @ own @ signed


def padded(problems, capacity: int = CAPACITY):
    rows, good, valid = (np.zeros((len(problems), capacity), kind) for kind in (np.int32, bool, bool))
    for i, (chosen, labels) in enumerate(problems):
        rows[i, : len(chosen)], good[i, : len(chosen)], valid[i, : len(chosen)] = chosen, labels, True
    return jnp.asarray(rows), jnp.asarray(good), jnp.asarray(valid)


def solver(config: SVMConfig):
    """`(rows, good, valid) -> (decision on the whole space, alpha)` of one problem."""
    kernel, _ = space_kernel(config, CODES, jnp.asarray(FEATURES))
    x = jnp.asarray(FEATURES)

    def solve(rows, good, valid):
        machine, alpha = svm_fit(kernel, x[rows], good, valid, config)
        return svm_decision(kernel, machine, x), alpha

    return solve


@pytest.fixture(scope="module")
def solvers():
    kinds = ("poly", "rbf", "linear")
    return {kind: jax.jit(jax.vmap(solver(SVMConfig(kernel=kind)))) for kind in kinds}  # pyright: ignore


@pytest.fixture(scope="module")
def real_objectives(data_dir):
    return np.asarray(nas_bench_201_benchmark(data_dir).table.objectives, np.float64)


@pytest.fixture(scope="module")
def synthetic_objectives():
    return np.asarray(synthetic_benchmark(0, SPACE).table.objectives, np.float64)


def agrees_with_scikit_learn(solve, kernel: str, objectives, seeds, capacity: int = CAPACITY):
    for start in range(0, len(seeds), BATCH):
        problems = [lamoo_problem(seed, objectives) for seed in seeds[start : start + BATCH]]
        decisions, alphas = solve(*padded(problems, capacity))
        for (rows, good), decision, alpha in zip(problems, np.asarray(decisions), np.asarray(alphas), strict=True):
            reference = scikit_learn(kernel, rows, good)
            alpha, unused = np.asarray(alpha[: len(rows)], np.float64), alpha[len(rows) :]
            assert np.mean((decision > 0) == (reference.decision > 0)) >= 0.99
            best = dual_objective(reference.alpha, good, reference.gram)
            assert dual_objective(alpha, good, reference.gram) == pytest.approx(best, rel=1e-3)
            assert alpha.min() >= 0 and alpha.max() <= 1 + 1e-6 and not unused.any()
            assert abs(alpha @ np.where(good, 1.0, -1.0)) <= 1e-3 * alpha.sum()
    assert solve._cache_size() == 1


@pytest.mark.parametrize(("kernel", "count"), [("poly", 10), ("rbf", 5)])
def test_agrees_with_scikit_learn_on_synthetic_objectives(solvers, synthetic_objectives, kernel, count):
    agrees_with_scikit_learn(solvers[kernel], kernel, synthetic_objectives, range(1000, 1000 + count))


def test_few_samples_agree_with_scikit_learn(synthetic_objectives):
    """Fewer than 1.5 times the monomials, where the samples' matrix is factorised instead of the features'."""
    seeds = [seed for seed in range(60) if len(lamoo_problem(seed, synthetic_objectives)[0]) <= 128][: 2 * BATCH]
    assert len(seeds) == 2 * BATCH
    agrees_with_scikit_learn(jax.jit(jax.vmap(solver(SVMConfig()))), "poly", synthetic_objectives, seeds, 128)


@pytest.mark.data
@pytest.mark.parametrize(("kernel", "count"), [("poly", 40), ("rbf", 5)])
def test_agrees_with_scikit_learn(solvers, real_objectives, kernel, count):
    agrees_with_scikit_learn(solvers[kernel], kernel, real_objectives, range(count))


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize("kernel", ["poly", "rbf"])
def test_agrees_with_scikit_learn_on_200_problems(solvers, real_objectives, kernel):
    agrees_with_scikit_learn(solvers[kernel], kernel, real_objectives, range(200))


def test_linear_machines_reach_the_primal_objective(solvers, synthetic_objectives):
    problems = [lamoo_problem(seed, synthetic_objectives) for seed in range(BATCH)]
    decisions, alphas = solvers["linear"](*padded(problems))
    for (rows, good), decision, alpha in zip(problems, np.asarray(decisions), np.asarray(alphas), strict=True):
        reference = scikit_learn("linear", rows, good)
        y = np.where(good, 1.0, -1.0)
        signed = alpha[: len(rows)] * y
        primal = 0.5 * signed @ reference.gram @ signed + np.maximum(1 - y * decision[rows], 0).sum()
        assert primal == pytest.approx(reference.primal, rel=0.01)


@pytest.mark.parametrize("kernel", ["poly", "rbf", "linear"])
def test_padding_changes_nothing(kernel, synthetic_objectives):
    rows, good = lamoo_problem(3, synthetic_objectives)
    rows, good = rows[:60], better_half(synthetic_objectives[rows[:60]])
    solve = jax.jit(solver(SVMConfig(kernel=kernel, rank=60)))
    decision, alpha = solve(*(array[0] for array in padded([(rows, good)], 60)))
    scale = np.abs(np.asarray(decision)).max()
    # Padding of any content, also between the real rows, and whatever it is labelled.
    random = np.random.default_rng(0)
    place = np.sort(random.choice(150, 60, replace=False))
    many_rows, many_good = random.integers(0, SPACE.size, 150), random.random(150) < 0.5
    many_rows[place], many_good[place] = rows, good
    valid = np.isin(np.arange(150), place)
    other, other_alpha = solve(jnp.asarray(many_rows, jnp.int32), jnp.asarray(many_good), jnp.asarray(valid))
    np.testing.assert_allclose(other, decision, atol=2e-3 * scale)
    np.testing.assert_allclose(other_alpha[place], alpha, atol=5e-3)
    assert not np.asarray(other_alpha)[~valid].any()


def test_vmap_equals_a_loop(synthetic_objectives):
    solve = solver(SVMConfig())
    arguments = padded([lamoo_problem(seed, synthetic_objectives) for seed in range(4)])
    together, _ = jax.jit(jax.vmap(solve))(*arguments)
    one = jax.jit(solve)
    for i, decision in enumerate(np.asarray(together)):
        alone = np.asarray(one(*(array[i] for array in arguments))[0])
        np.testing.assert_allclose(decision, alone, atol=1e-3 * np.abs(alone).max())
        assert np.mean((decision > 0) == (alone > 0)) > 0.999


@pytest.mark.parametrize("kernel", ["poly", "rbf", "linear"])
@pytest.mark.parametrize("good", [True, False])
def test_one_class_alone_wins_everywhere(kernel, good):
    solve = solver(SVMConfig(kernel=kernel, rank=32))
    rows = jnp.arange(32, dtype=jnp.int32) * 400
    decision, _ = jax.jit(solve)(rows, jnp.full(32, good), jnp.arange(32) < 20)
    assert bool(((decision > 0) == good).all())


def test_padded_machine_decides_the_same(synthetic_objectives):
    config = SVMConfig(kernel="rbf")
    kernel = make_kernel(config, 6)
    x = jnp.asarray(FEATURES)
    rows, good = lamoo_problem(8, synthetic_objectives)
    rows = jnp.asarray(rows[:50], jnp.int32)
    machine, _ = svm_fit(kernel, x[rows], jnp.asarray(good[:50]), jnp.ones(50, bool), config)
    wide = svm_pad(machine, 64)
    assert wide.weights.shape == (64,) and wide.landmarks.points.shape == (64, 6)
    np.testing.assert_allclose(svm_decision(kernel, wide, x), svm_decision(kernel, machine, x), rtol=1e-4, atol=1e-4)
    assert svm_pad(machine, 10) is machine


def test_gamma_scale_is_scikit_learns():
    x = np.random.default_rng(0).normal(size=(30, 5)).astype(np.float32)
    valid = np.arange(30) < 20
    assert float(gamma_scale(jnp.asarray(x), jnp.asarray(valid))) == pytest.approx(1 / (5 * x[:20].var()), rel=1e-5)
    assert float(gamma_scale(jnp.ones((4, 3)), jnp.ones(4, bool))) == 1.0
    assert float(gamma_scale(jnp.ones((4, 3)), jnp.zeros(4, bool))) == 1.0


def test_rbf_beyond_its_rank_is_still_close(synthetic_objectives):
    seeds = [seed for seed in range(20) if len(lamoo_problem(seed, synthetic_objectives)[0]) > 300][:3]
    problems = [lamoo_problem(seed, synthetic_objectives) for seed in seeds]
    decisions, _ = jax.jit(jax.vmap(solver(SVMConfig(kernel="rbf", rank=256))))(*padded(problems))
    for (rows, good), decision in zip(problems, np.asarray(decisions), strict=True):
        assert np.mean((decision > 0) == (scikit_learn("rbf", rows, good).decision > 0)) > 0.95


def test_too_many_monomials_are_refused():
    with pytest.raises(ValueError, match="20 features has 8855 monomials, more than 512: use kernel='rbf'"):
        make_kernel(SVMConfig(), 20)
    nowhere = Landmarks(jnp.zeros((0, 0)), jnp.zeros(()))
    assert make_kernel(SVMConfig(degree=2), 20).columns(nowhere, jnp.ones((1, 20))).shape == (1, 210)


@pytest.mark.parametrize("option", [{"degree": 0}, {"penalty": 0.0}, {"rank": 0}, {"steps": 0}])
def test_bad_options_are_refused(option):
    with pytest.raises(ValueError, match=f"{next(iter(option))}"):
        SVMConfig(**option)
