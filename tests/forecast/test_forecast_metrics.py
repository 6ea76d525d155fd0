"""Scores on tables small enough to work out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arrays import replaced

from cenas_jax.forecast.base import QUANTILES
from cenas_jax.forecast.metrics import coverage_by_day, decision_regret, mape_by_day, quantile_loss

ALL = np.ones((2, 48), bool)


def two_days(first, second):
    """Two issues of two days, each day constant."""
    return np.repeat([first, second], 24, axis=1).reshape(2, 48).astype(np.float32)


def test_percentage_error_by_day():
    """Day 1: |110-100|/100 and |180-200|/200 are both 10 %; day 2: 50/50 = 100 % and 0."""
    point, actual = two_days([110, 100], [180, 80]), two_days([100, 50], [200, 80])
    np.testing.assert_allclose(mape_by_day(point, actual, ALL), [10, 50], rtol=1e-6)


def test_hours_that_are_not_valid_count_nothing():
    """Without the second issue's day 2, the first's 100 % remain; a wild value or NaN beneath the mask is not seen."""
    point, actual = two_days([110, 100], [180, 80]), two_days([100, 50], [200, 0])
    valid = replaced(ALL, np.s_[1, 24:], False)
    for wild in (0.0, 1e9, np.nan):
        wild_point, wild_actual = replaced(point, (1, 30), wild), replaced(actual, (1, 30), wild)
        np.testing.assert_allclose(mape_by_day(wild_point, actual, valid), [10, 100], rtol=1e-6)
        np.testing.assert_allclose(mape_by_day(point, wild_actual, valid), [10, 100], rtol=1e-6)


def test_missing_scores_are_nan_never_zero():
    point, actual = two_days([110, 100], [180, 80]), two_days([100, 50], [200, 80])
    none = replaced(ALL, np.s_[:, 24:], False)
    lost = replaced(point, (0, 0), np.nan)
    assert np.isnan(mape_by_day(point, actual, none)).tolist() == [False, True]
    assert np.isnan(mape_by_day(lost, actual, ALL)).tolist() == [True, False]
    assert np.isnan(coverage_by_day(lost, point, actual, ALL)).tolist() == [True, False]
    table = np.repeat(point[..., None], len(QUANTILES), axis=2)
    lost = replaced(table, (0, 0, 0), np.nan)
    assert np.isnan(quantile_loss(lost, actual, ALL))
    with jax.disable_jit():
        assert np.isnan(quantile_loss(*map(jnp.asarray, (lost, actual, ALL))))
    assert np.isnan(quantile_loss(table, actual, ALL & False))


def test_coverage_by_day():
    """Day 1: both inside (an end counts); day 2: 6 of the 48 hours lie above."""
    low, high = two_days([90, 40], [200, 40]), two_days([110, 60], [220, 60])
    actual = replaced(two_days([100, 50], [200, 50]), np.s_[0, 24:30], 60.5)
    np.testing.assert_allclose(coverage_by_day(low, high, actual, ALL), [100, 87.5])
    np.testing.assert_allclose(coverage_by_day(low, high, actual, replaced(ALL, np.s_[0, 24:30], False)), [100, 100])


def test_quantile_loss():
    """Quantiles 80, 90, 100, 110, 120 and 100 in truth: 0.05*20 + 0.25*10 + 0 + 0.25*10 + 0.05*20 = 7, over five."""
    table = np.tile(np.array([80, 90, 100, 110, 120], np.float32), (1, 24, 1))
    actual, valid = np.full((1, 24), 100, np.float32), np.ones((1, 24), bool)
    np.testing.assert_allclose(quantile_loss(table, actual, valid), 7 / 5, rtol=1e-5)
    # 130 in truth: 0.05*50 + 0.25*40 + 0.5*30 + 0.75*20 + 0.95*10 = 52.
    np.testing.assert_allclose(quantile_loss(table, actual + 30, valid), 52 / 5, rtol=1e-5)
    half = valid & (np.arange(24) < 12)[None]
    np.testing.assert_allclose(quantile_loss(table, np.where(half, actual, np.float32(np.nan)), half), 7 / 5, rtol=1e-5)


def test_decision_regret():
    """Windows of 4 h, half of it run.

    Issue 1: actual 1 2 3 4 tens; the forecast calls hours 0 and 2 lowest: (10+30)/2 = 20, best 15, blind 25.
    Issue 2: actual 40 80 20 60; a flat forecast runs the first two: 60, best 30, blind 50: worse than no forecast.
    """
    actual = np.array([[10, 20, 30, 40, 1], [40, 80, 20, 60, 1]], np.float32)
    point = np.array([[1, 9, 2, 8, 0], [5, 5, 5, 5, 0]], np.float32)
    valid = np.ones((2, 5), bool)
    regret = decision_regret(point, actual, valid, window_h=4, share=0.5)
    np.testing.assert_allclose(regret, (40.0, 22.5, 37.5))
    np.testing.assert_allclose(regret.regret_g_per_kwh, 17.5)
    np.testing.assert_allclose(regret.captured_share, -2.5 / 15, rtol=1e-6)
    first = decision_regret(point, actual, replaced(valid, (1, 3), False), window_h=4, share=0.5)
    np.testing.assert_allclose(first, (20.0, 15.0, 25.0))
    np.testing.assert_allclose(first.captured_share, 0.5)
    beyond = decision_regret(point, actual, replaced(valid, np.s_[:, 4], False), window_h=4, share=0.5)
    np.testing.assert_allclose(beyond, regret)


def test_regret_of_a_perfect_forecast_is_nothing():
    actual = np.random.default_rng(0).uniform(100, 500, (30, 96)).astype(np.float32)
    regret = decision_regret(actual, actual, np.ones((30, 96), bool), window_h=24, share=0.3)
    assert regret.regret_g_per_kwh == 0 and regret.captured_share == 1
    whole = decision_regret(-actual, actual, np.ones((30, 96), bool), window_h=24, share=1.0)
    np.testing.assert_allclose(whole.regret_g_per_kwh, 0, atol=1e-3)


def test_a_missing_forecast_decides_nothing():
    actual = np.arange(1, 11, dtype=np.float32).reshape(2, 5)
    point = replaced(actual, (0, 1), np.nan)
    regret = decision_regret(point, actual, np.ones((2, 5), bool), window_h=4, share=0.5)
    assert np.isnan(regret.chosen_g_per_kwh) and not np.isnan(regret.clairvoyant_g_per_kwh)


@pytest.mark.parametrize("window_h, share", [(24, 0.01), (24, 1.5), (24, -1.0), (97, 0.5)])
def test_impossible_decisions(window_h, share):
    table = np.ones((2, 96), np.float32)
    with pytest.raises(ValueError, match="run at least one hour of a window of at most 96 h"):
        decision_regret(table, table, table > 0, window_h=window_h, share=share)
