"""Means, intervals and step curves of the report, against SciPy and by hand."""

import numpy as np
import pytest
from scipy import stats

from cenas_jax.report.figures import COLOURS, LINES, _steps
from cenas_jax.report.tables import SHARE, mean_with_interval


@pytest.mark.parametrize("seeds", [2, 8, 100])
def test_interval_is_scipys(seeds):
    values = np.random.default_rng(seeds).normal(0.97, 0.01, seeds)
    expected = stats.t.interval(0.95, seeds - 1, values.mean(), stats.sem(values))
    np.testing.assert_allclose(mean_with_interval(values), (values.mean(), *expected), rtol=1e-12)


def test_interval_of_a_share_is_cut_to_what_is_possible():
    """By hand, t(1 degree of freedom, 97.5 %) = 12.7062: 0.95 +- 0.6353, and 0.05 +- 0.6353."""
    shares = np.asarray([0.9, 1.0])
    np.testing.assert_allclose(mean_with_interval(shares, SHARE), (0.95, 0.95 - 0.63531, 1.0), rtol=1e-5)
    np.testing.assert_allclose(mean_with_interval(1 - shares, SHARE), (0.05, 0.0, 0.05 + 0.63531), rtol=1e-5)


def test_thirty_policies_look_different():
    looks = {(COLOURS[place % len(COLOURS)], LINES[place % len(LINES)]) for place in range(30)}
    assert len(looks) == 30


def test_one_seed_has_no_interval():
    one = mean_with_interval(np.asarray([0.5]))
    assert one.mean == 0.5 and np.isnan(one.low) and np.isnan(one.high)


def test_a_result_counts_once_its_emissions_are_spent():
    """Emitted 10 g, 10 g, 30 g by the ends of three hours, with 0.5, 0.4 and 0.1 still missing then."""
    grid = np.asarray([0.0, 9.9, 10.0, 29.0, 30.0, 99.0])
    spent, missing = np.asarray([10.0, 10.0, 30.0]), np.asarray([0.5, 0.4, 0.1])
    assert _steps(grid, spent, missing, 1.0).tolist() == [1.0, 1.0, 0.4, 0.4, 0.1, 0.1]
