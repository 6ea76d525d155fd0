"""The corrected estimates, against scikit-learn's Gaussian process."""

import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arrays import replaced
from scipy.stats import norm
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

from cenas_jax.search.gaussian_process import (
    LENGTHS,
    NOISES,
    RELEVANCES,
    by_first_rows,
    features_of,
    fit_correction,
    no_correction,
    posterior_quantiles,
)
from cenas_jax.spaces import tabular_space

SPACE = tabular_space("small", (("a", "b", "c", "d", "e"),) * 4)
CODES = np.asarray(SPACE.codes(jnp.arange(SPACE.size)))
FEATURES = np.asarray(features_of(SPACE)(jnp.asarray(CODES)), np.float64)


QUANTILES = (0.1, 0.5, 0.8)
predicted = jax.jit(posterior_quantiles, static_argnums=4)
fitted = jax.jit(fit_correction)


@jax.jit
def quantiles(features, estimates, target, valid, query_features, query):
    correction = fit_correction(features, estimates, target, valid)
    return posterior_quantiles(correction, features, query_features, query, QUANTILES)


def posterior(*arguments):
    """The median."""
    return np.asarray(quantiles(*arguments))[1]


def problem(seed: int, rows: int = 40, queries: int = 60):
    """Estimates of the target, and a cost; the target follows it where the seed is odd."""
    random = np.random.default_rng(seed)
    cost = random.uniform(size=len(CODES)) * 5
    target = FEATURES @ random.normal(size=FEATURES.shape[1]) * 2 + 80 + (seed % 2) * 8 * cost
    estimate = 0.3 * target + random.normal(size=len(target)) + 7
    chosen = random.permutation(len(target))[: rows + queries]
    return chosen[:rows], chosen[rows:], target + 0.1 * random.normal(size=len(target)), np.stack([estimate, cost], 1)


def as_arguments(train, query, target, estimate, pad: int = 0):
    def padded(rows, fill):
        return np.concatenate([rows, np.full((pad, *rows.shape[1:]), fill)]).astype(np.float32)

    valid = np.arange(len(train) + pad) < len(train)
    return (
        padded(FEATURES[train], 0.0),
        padded(estimate[train], 1e3),
        padded(target[train], -1e3),
        valid,
        FEATURES[query].astype(np.float32),
        estimate[query].astype(np.float32),
    )


def scikit_learn(train, query, target, estimate):
    """Quantiles by the same kernel from scikit-learn's stock, the best of the same grid by marginal likelihood."""
    top = target[train].max()
    scale = np.median(top - target[train])
    warped = -np.log1p((top - target[train]) / scale)
    mean, deviation = warped.mean(), warped.std()
    e = (estimate - estimate[train].mean(axis=0)) / estimate[train].std(axis=0)
    y = (warped - mean) / deviation

    best, highest_evidence = None, -math.inf
    for relevance, length, noise in itertools.product(RELEVANCES, LENGTHS, NOISES):
        rows = np.column_stack([FEATURES / np.sqrt(2), e * np.sqrt([1, relevance])])
        gram = RBF(length)(rows[train]) + noise * np.eye(len(train))
        amplitude = y @ np.linalg.solve(gram, y) / len(y)
        regressor = GaussianProcessRegressor(
            ConstantKernel(amplitude) * RBF(length) + WhiteKernel(noise * amplitude),
            optimizer=None,  # pyright: ignore
            alpha=1e-12,
        )
        regressor.fit(rows[train], y)
        evidence: Any = regressor.log_marginal_likelihood_value_
        if evidence > highest_evidence:
            best, highest_evidence = (regressor, noise * amplitude, rows, relevance), evidence
    assert best is not None
    prediction, spread = best[0].predict(best[2][query], return_std=True)
    spread = np.sqrt(np.maximum(spread**2 - best[1], 0))  # without the noise of one evaluation
    prediction = prediction + norm.ppf(QUANTILES)[:, None] * spread
    return top - scale * np.expm1(-(mean + deviation * prediction)), best[3]


@pytest.mark.parametrize("seed", range(6))
def test_agrees_with_scikit_learn(seed):
    arguments = problem(seed)
    expected, relevance = scikit_learn(*arguments)
    np.testing.assert_allclose(quantiles(*as_arguments(*arguments)), expected, rtol=0, atol=0.02)
    scales = fitted(*as_arguments(*arguments)[:4]).estimate_scale
    assert relevance == (scales[1] > 0) == seed % 2  # a cost that tells nothing is left out


def test_features_are_indicators_and_how_many_entries_took_each_choice():
    codes = jnp.asarray([[0, 1, 1, 4], [2, 2, 2, 2]])
    features = np.asarray(features_of(SPACE)(codes))
    np.testing.assert_array_equal(features[:, :20], SPACE.one_hot(codes))
    np.testing.assert_array_equal(features[:, 20:], [[1, 2, 0, 0, 1], [0, 0, 4, 0, 0]])
    for others in (("a", "b", "c"), ("narrow", "wide")):  # which are not the same choices
        uneven = tabular_space("uneven", (("a", "b"), others))
        np.testing.assert_array_equal(features_of(uneven)(codes[:, :2] % 2), uneven.one_hot(codes[:, :2] % 2))


def test_corrects_poor_estimates():
    train, query, target, estimate = problem(0, 60, 200)
    median = np.asarray(posterior(*as_arguments(train, query, target, estimate)))
    assert np.corrcoef(median, target[query])[0, 1] > np.corrcoef(estimate[query, 0], target[query])[0, 1] + 0.1


def test_padding_and_failed_rows_teach_nothing():
    train, query, target, estimate = problem(1)
    plain = posterior(*as_arguments(train, query, target, estimate))
    np.testing.assert_allclose(posterior(*as_arguments(train, query, target, estimate, pad=24)), plain, atol=2e-3)
    features, known, values, valid, *rest = as_arguments(train, query, target, estimate, pad=24)
    lost = replaced(values, np.s_[40:], np.nan), np.ones(len(valid), bool)
    failed = posterior(features, known, *lost, *rest)
    np.testing.assert_allclose(failed, plain, atol=2e-3)
    wide = quantiles(features, known, *lost, *rest)
    np.testing.assert_allclose(wide, quantiles(*as_arguments(train, query, target, estimate)), atol=5e-3)


@pytest.mark.parametrize("column", [0, 1, slice(None)], ids=["own", "others", "all"])
def test_missing_estimates_count_as_average_ones(column):
    train, query, target, estimate = problem(3)  # of a target that follows the cost
    average = estimate[train[5:]].mean(axis=0)
    missing, filled = estimate.copy(), estimate.copy()
    missing[train[:5], column] = np.nan
    missing[query[:7], column] = np.nan
    filled[query[:7], column] = average[column]
    features, known, *rest = as_arguments(train, query, target, missing)
    got = posterior(features, known, *rest)
    assert np.isfinite(got).all()
    reference = posterior(features, known, *as_arguments(train, query, target, filled)[2:])
    np.testing.assert_allclose(got, reference, atol=1e-3)


def test_exact_estimates_are_returned_as_they_are():
    train, query, target, estimate = problem(5)
    exact = estimate.copy()
    exact[:, 0] = target
    exact[train[:6]] = np.nan  # never screened
    exact[query[0]] = np.nan
    features, known, *rest = as_arguments(train, query, target, exact, pad=24)
    got = np.asarray(posterior(features, known, *rest))
    np.testing.assert_array_equal(got, exact[query, 0].astype(np.float32))  # NaN where it is
    np.testing.assert_array_equal(quantiles(features, known, *rest), np.broadcast_to(got, (len(QUANTILES), len(got))))
    # One estimate that is off is enough: then they are corrected.
    off = np.asarray(posterior(features, replaced(known, 10, known[10] + 0.5), *rest))
    assert np.abs(off[1:] - got[1:]).max() > 1e-3


def test_without_any_row_the_median_is_zero():
    features, known, values, valid, *rest = as_arguments(*problem(3))
    np.testing.assert_array_equal(posterior(features, known, values, np.zeros_like(valid), *rest), 0)
    np.testing.assert_array_equal(predicted(no_correction(len(valid), 2), features, *rest, QUANTILES), 0)


def test_a_fit_of_more_rows_than_the_grid_sees_and_kept_in_a_larger_array_predicts_as_well():
    """Which kernel is best is decided by the first rows; the fit itself takes all of them."""
    train, query, target, estimate = problem(7, 400, 100)
    features, known, values, valid, query_features, guess = as_arguments(train, query, target, estimate, pad=12)
    correction = fitted(features, known, values, valid)
    median = np.asarray(predicted(correction, features, query_features, guess, (0.5,)))[0]
    few = posterior(*as_arguments(train[:128], query, target, estimate))
    wrong, wrong_by_few = (np.abs(np.asarray(guessed) - target[query]).mean() for guessed in (median, few))
    assert wrong < wrong_by_few
    kept = by_first_rows(correction, len(train))
    again = predicted(kept, features[: len(train)], query_features, guess, (0.5,))[0]
    np.testing.assert_allclose(again, median, rtol=1e-5)


def test_equal_targets_and_equal_estimates_are_no_trouble():
    train, query, target, estimate = problem(4)
    flat = posterior(*as_arguments(train, query, np.full_like(target, 5.0), np.full_like(estimate, 2.0)))
    np.testing.assert_allclose(flat, 5.0, rtol=1e-6)


def test_one_value_of_a_known_cost_does_not_tell_who_was_screened():
    """Its mean rounds, and a deviation of that rounding would set those with a cost apart from those without."""
    train, query, target, estimate = problem(6, 17)
    estimate[:, 1] = 0.1
    estimate[train[:10]] = np.nan
    target[train[:10]] -= 30
    features, known, values, valid, *rest = as_arguments(train, query, target, estimate)
    assert fitted(features, known, values, valid).estimate_scale[1] <= 1
    alone = posterior(features, known[:, :1], values, valid, rest[0], rest[1][:, :1])
    np.testing.assert_allclose(posterior(features, known, values, valid, *rest), alone, atol=1e-3)
