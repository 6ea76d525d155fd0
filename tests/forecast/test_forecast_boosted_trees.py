"""Boosted trees: tiny ones."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_grid import FACTOR_G_PER_KWH, small_grid

from cenas_jax.forecast.base import POINT, QUANTILES, forecast_table
from cenas_jax.forecast.baselines import repeat_last
from cenas_jax.forecast.boosted_trees import BoostedTreesConfig, boosted_table, boosted_trees, predict_many
from cenas_jax.forecast.windows import actual_at, to_device, window_at

KEY = jax.random.key(0)
TINY = BoostedTreesConfig(rounds=40, learning_rate=0.1, leaves=7, min_data=10, threads=1)
GRID = small_grid()
ARRAYS = to_device(GRID)
LEARNT, LATER = np.arange(168, 600, 24), np.arange(700, 850, 17)


def test_missing_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    with pytest.raises(ValueError, match=r'^boosted trees need LightGBM: pip install "cenas-jax\[baselines\]"$'):
        boosted_trees(TINY).fit(KEY, ARRAYS, LEARNT)


def fitted(config=TINY, grid=ARRAYS, factors=FACTOR_G_PER_KWH):
    pytest.importorskip("lightgbm")
    forecaster = boosted_trees(config, factors)
    return forecaster, forecaster.fit(KEY, grid, LEARNT)


def test_table_many_and_one_agree():
    forecaster, state = fitted()
    table = boosted_table(state, ARRAYS, LATER, run_delay_h=5)
    assert table.shape == (len(LATER), 96, len(QUANTILES)) and np.isfinite(table).all()
    np.testing.assert_array_equal(table, np.repeat(table[..., :1], len(QUANTILES), axis=-1))
    windows = jax.vmap(lambda row: window_at(ARRAYS, row, run_delay_h=5))(LATER)
    np.testing.assert_allclose(predict_many(state, windows), table, rtol=1e-3)
    one = forecaster.predict(state, window_at(ARRAYS, LATER[3], run_delay_h=5))
    np.testing.assert_allclose(one, table[3], rtol=1e-3)


def test_they_learn():
    """A grid whose intensity follows the weather forecast to the letter: better than yesterday by far."""
    hours = np.arange(GRID.hours)
    wind = np.random.default_rng(5).uniform(0, 1, GRID.hours + 200).astype(np.float32)
    runs = np.stack([wind[24 * day : 24 * day + 96] for day in range(GRID.hours // 24 + 2)])[..., None]
    grid = ARRAYS._replace(
        intensity_g_per_kwh=jnp.asarray(200 + 300 * wind[hours]), weather_runs=jnp.asarray(runs, jnp.float32)
    )
    rows = np.arange(720, 840, 24)
    actual = np.asarray(jax.vmap(actual_at, (None, 0))(grid, rows).intensity_g_per_kwh)

    def error(table):
        return np.abs(np.asarray(table)[..., POINT] / actual - 1).mean()

    _, state = fitted(grid=grid)
    yesterday = forecast_table(repeat_last(24), (), grid, rows)
    assert error(boosted_table(state, grid, rows)) < 0.3 * error(yesterday)
    _, blind = fitted(BoostedTreesConfig(**{**vars(TINY), "use_weather": False}), grid)
    assert error(boosted_table(blind, grid, rows)) > 2 * error(boosted_table(state, grid, rows))


def test_seed_and_inputs():
    same = [np.asarray(boosted_table(fitted()[1], ARRAYS, LATER)) for _ in range(2)]
    np.testing.assert_array_equal(*same)
    features = {
        (weather, source): fitted(
            BoostedTreesConfig(rounds=1, min_data=10, threads=1, use_weather=weather, use_source_forecast=source)
        )[1].booster.num_feature()
        for weather in (True, False)
        for source in (True, False)
    }
    # Without both: 5 of the calendar, 7 + 1 + 4 of the past intensity, 2 x 3 shares, 2 loads. Weather: 4 x 2 variables.
    # Source forecast: intensity, 3 shares, total.
    assert features == {(False, False): 25, (True, False): 33, (False, True): 30, (True, True): 38}
    assert fitted(factors=())[1].booster.num_feature() == 33


def test_nothing_to_learn_from():
    pytest.importorskip("lightgbm")
    with pytest.raises(ValueError, match="no valid hour to learn from"):
        boosted_trees(TINY).fit(KEY, ARRAYS._replace(valid=jnp.zeros(GRID.hours, bool)), LEARNT)
