"""Synthetic benchmarks: the shape that real tables have, the asked estimate quality, determinism."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau

from cenas_jax.benchmarks import SyntheticBenchmarkConfig, benchmark_table, synthetic_benchmark
from cenas_jax.benchmarks.noise import noise_scale, noisy_estimates
from cenas_jax.benchmarks.synthetic import synthetic_columns
from cenas_jax.spaces import space, tabular_space

NB201 = space("nas-bench-201")
OTHER = tabular_space("other", (tuple("abc"), ("only",), tuple("abcdefg"), tuple("ab"), tuple("abcd"), tuple("abcde")))


@pytest.mark.parametrize("seed", range(4))
def test_shape_of_the_tables(seed):
    benchmark = synthetic_benchmark(seed, NB201)
    objectives = np.asarray(benchmark.table.objectives)
    accuracy, cost = objectives[:, 0], -objectives[:, 1]
    assert 0.80 < np.mean((accuracy > 85) & (accuracy < 94.5)) < 0.97
    assert 0.015 < np.mean(accuracy < 20) < 0.03
    assert 93.5 < accuracy.max() < 95.5
    # Better costs more, with exceptions.
    assert 0.05 < kendalltau(accuracy, cost)[0] < 0.6
    train_time_s = np.asarray(benchmark.table.train_time_s)
    assert train_time_s.mean() == pytest.approx(3600, rel=0.02)
    assert kendalltau(train_time_s, cost)[0] > 0.5
    assert kendalltau(np.asarray(benchmark.table.estimates[:, 0]), accuracy)[0] == pytest.approx(0.5, abs=0.03)
    assert benchmark.synthetic and "synthetic" in benchmark.source
    assert all("synthetic" in name for name in benchmark.objective_names)


@pytest.mark.parametrize("tau", [0.1, 0.95])
def test_estimates_have_the_asked_tau(tau):
    table = synthetic_benchmark(11, NB201, SyntheticBenchmarkConfig(estimate_tau=tau)).table
    reached = kendalltau(np.asarray(table.estimates[:, 0]), np.asarray(table.objectives[:, 0]))[0]
    assert reached == pytest.approx(tau, abs=0.03)


def test_broken_architectures_make_weak_choices():
    benchmark = synthetic_benchmark(0, NB201)
    features = np.asarray(NB201.features(NB201.codes(jnp.arange(NB201.size))))
    broken = np.asarray(benchmark.table.objectives[:, 0]) < 20
    assert (features[broken] == 0).mean() > 2 * (features == 0).mean()


def test_interactions_matter():
    """An additive model explains the latent quality without interactions, and not with them."""

    def residual(share):
        config = SyntheticBenchmarkConfig(interaction_share=share, seed_noise=0.0, broken_share=0.0)
        accuracy = np.asarray(synthetic_benchmark(5, NB201, config).table.objectives[:, 0], np.float64)
        latent = -np.log(config.best_accuracy - accuracy)
        one_hot = np.asarray(NB201.one_hot(NB201.codes(jnp.arange(NB201.size))), np.float64)
        fitted = one_hot @ np.linalg.lstsq(one_hot, latent, rcond=None)[0]
        return np.var(latent - fitted) / np.var(latent)

    assert residual(0.0) < 1e-3
    # The part of random pair terms that is not additive: (4/5)^2 of their variance for five choices, 0.32 of the whole.
    assert 0.2 < residual(0.5) < 0.45


def test_other_spaces_and_several_costs():
    benchmark = synthetic_benchmark(
        jax.random.key(1), OTHER, SyntheticBenchmarkConfig(num_costs=2, supernet_time_s=0.0)
    )
    table = benchmark.table
    assert table.objectives.shape == (OTHER.size, 3) and len(benchmark.objective_names) == len(benchmark.units) == 3
    assert abs(kendalltau(np.asarray(table.objectives[:, 1]), np.asarray(table.objectives[:, 2]))[0]) < 0.95
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(table))


def test_deterministic_from_the_seed():
    first, again, other = (synthetic_benchmark(seed, OTHER).table for seed in (7, 7, 8))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert np.any(np.asarray(first.objectives != other.objectives))


def test_float32_also_under_x64():
    with jax.enable_x64(True):
        table = synthetic_benchmark(7, OTHER).table
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(table))


def test_vmap_over_keys_equals_a_loop():
    config = SyntheticBenchmarkConfig()
    codes = OTHER.codes(jnp.arange(OTHER.size))
    features = OTHER.features(codes)
    keys = jax.random.split(jax.random.key(0), 3)
    batched = jax.vmap(lambda key: synthetic_columns(key, codes, features, OTHER.num_choices, config))(keys)
    for i in range(3):
        one = synthetic_columns(keys[i], codes, features, OTHER.num_choices, config)
        jax.tree.map(lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=2e-4, atol=2e-3), batched, one)


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 2**31 - 1), tau=st.floats(0.05, 0.95), scale=st.floats(1e-3, 1e3))
def test_noise_for_any_tau_and_scale(seed, tau, scale):
    key = jax.random.key(seed)
    # Skewed, and with ties.
    values = scale * jnp.round(jnp.exp(jax.random.normal(key, (4000,))), 2)
    noisy = noisy_estimates(jax.random.fold_in(key, 1), values, tau)
    assert kendalltau(np.asarray(values), np.asarray(noisy))[0] == pytest.approx(tau, abs=0.04)


def test_noise_scale_in_closed_form():
    # Normal values with deviation 1, noise s: correlation r = 1 / sqrt(1 + s^2), tau = 2 asin(r) / pi; s = 1 for 1/2.
    values = jax.random.normal(jax.random.key(0), (200_000,))
    assert float(noise_scale(jax.random.key(1), values, 0.5)) == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"best_accuracy": 101.0}, "need 0 <= chance_accuracy < median_accuracy < best_accuracy <= 100"),
        ({"chance_accuracy": 95.0}, "need 0 <= chance_accuracy"),
        ({"interaction_share": 1.5}, "interaction_share is 1.5, give 0 .. 1"),
        ({"seed_noise": -1.0}, "seed_noise is -1.0, give 0 or more"),
        ({"estimate_tau": 1.0}, "estimate_tau is 1.0, give a value between 0 and 1"),
        ({"num_costs": 0}, "num_costs is 0, give 1 or more"),
        ({"cost_range": (5.0, 5.0)}, "cost_range is (5.0, 5.0), give 0 < lowest < highest"),
        ({"mean_train_time_s": 0.0}, "times must be positive"),
    ],
)
def test_malformed_configs(change, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        dataclasses.replace(SyntheticBenchmarkConfig(), **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"objectives": np.array([[1.0, -1.0], [np.nan, -1.0]])}, "not finite in 1 of 2 rows, first at index 1"),
        ({"estimates": np.array([[np.inf, -1.0], [1.0, -1.0]])}, "an estimate is infinite in 1 of 2 rows"),
        ({"train_time_s": np.array([0.0, 1.0])}, "the training time is not positive in 1 of 2 rows, first at index 0"),
        ({"estimate_time_s": 0.0}, "estimate_time_s 0.0 must be positive"),
        ({"reference_point": np.array([0.0, 0.0])}, "no row exceeds the reference point [0.0, 0.0]"),
    ],
)
def test_malformed_columns(change, message):
    columns = {
        "objectives": np.array([[1.0, -1.0], [2.0, -2.0]]),
        "estimates": np.array([[np.nan, -1.0], [2.0, -2.0]]),
        "train_time_s": np.array([1.0, 2.0]),
        "estimate_time_s": 1.0,
        "supernet_time_s": 0.0,
        "reference_point": np.array([0.0, -3.0]),
    }
    # By hand: 1 x 2 + (2 - 1) x 1 above (0, -3).
    assert float(benchmark_table(**columns).max_hypervolume) == pytest.approx(3.0)
    with pytest.raises(ValueError, match=re.escape(message)):
        benchmark_table(**(columns | change))
