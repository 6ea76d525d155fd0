"""The forecast in an observation: by hand, hour by hour, without look-ahead, and one compilation for all forecasts."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_cluster import CONFIG, HOURS, SPACE, TABLE, cluster_params

from cenas_jax.allocation import Policy
from cenas_jax.carbon import Budget, from_arrays
from cenas_jax.cluster.simulated import simulated_cluster
from cenas_jax.cluster.simulation import simulate
from cenas_jax.cluster.state import ClusterConfig
from cenas_jax.config import GridOptions
from cenas_jax.runs.forecasts import FORECAST_H, forecast_ahead
from cenas_jax.search import random_search

PAST_H = 200
START = np.datetime64("2021-01-01T00", "h")


def environment_of(forecast_h):
    config = dataclasses.replace(CONFIG, forecast_h=forecast_h)
    return simulated_cluster(SPACE, TABLE, random_search(SPACE), config, HOURS)


ENVIRONMENT = environment_of(FORECAST_H)
reset, step = jax.jit(ENVIRONMENT.reset), jax.jit(ENVIRONMENT.step)


def params_of(intensity, forecast, **options):
    return cluster_params(intensity, **options)._replace(forecast_g_per_kwh=jnp.asarray(forecast, jnp.float32))


def observations(params, intervals=HOURS):
    """What is observed at the start of every interval, and after the last."""
    state, observation = reset(jax.random.key(0), params)
    seen = [observation]
    for _ in range(intervals):
        state, time_step = step(state, jnp.asarray(2), params)
        seen.append(time_step.observation)
    return seen


def random_intensity(seed):
    return np.random.default_rng(seed).uniform(50, 700, CONFIG.window_h + HOURS).astype(np.float32)


def random_forecast(seed):
    return np.random.default_rng(seed).uniform(0, 900, (HOURS, FORECAST_H)).astype(np.float32)


def test_every_hour_sees_its_own_row_over_its_own_window():
    intensity, forecast = random_intensity(0), random_forecast(1)
    seen = observations(params_of(intensity, forecast))
    for hour in range(HOURS):
        window = intensity[hour : hour + CONFIG.window_h + 1].astype(float)
        expected = (forecast[hour] - window.min()) / (window.max() - window.min())
        np.testing.assert_allclose(seen[hour].relative_forecast, np.clip(expected, -1, 2), rtol=1e-4, atol=1e-5)
    # After the last hour there is nothing to decide: it is seen once more.
    np.testing.assert_array_equal(seen[HOURS].relative_forecast, seen[HOURS - 1].relative_forecast)


def test_forecast_by_hand():
    # The window of the first hour holds 100 .. 400: its middle is 250, and 1,000 and 0 are beyond one more range.
    intensity = [100, 200, 300, 400, 250, 150, 300, 600] + [50] * 6
    forecast = np.full((HOURS, FORECAST_H), 250.0)
    forecast[0, :6] = 100, 400, 325, 50, 1000, -500
    first = observations(params_of(intensity, forecast), 0)[0].relative_forecast
    assert first[:7].tolist() == pytest.approx([0, 1, 0.75, -1 / 6, 2, -1, 0.5])


def test_a_flat_window_has_no_scale():
    params = params_of([np.nan] * 6 + [300.0] * 8, random_forecast(2))
    assert set(observations(params, 0)[0].relative_forecast.tolist()) == {0.5}


def test_without_forecast_nothing_is_seen_of_it():
    _, observation = jax.jit(environment_of(0).reset)(jax.random.key(0), cluster_params())
    assert observation.relative_forecast.shape == (0,)


@pytest.mark.parametrize("name", ["persistence", "yesterday"])
@pytest.mark.parametrize("known", [0, 1, 5])
def test_later_hours_never_change_an_earlier_forecast(name, known):
    """From the trace to the observation: only the hours from `known` on differ between the two searches."""
    random = np.random.default_rng(known)
    was = random.uniform(50, 700, PAST_H + HOURS)
    now = was.copy()
    now[PAST_H + known :] = random.uniform(50, 700, HOURS - known)
    tables, seen = [], []
    for values in (was, now):
        trace = from_arrays(values, START, zone="made")

        def load(start, hours, gap_policy, trace=trace):
            return trace if start is None else trace.window(start, hours)

        tables.append(forecast_ahead(GridOptions(forecast=name), load, trace.window(START + PAST_H, HOURS)))
        params = params_of(values[PAST_H - CONFIG.window_h :], tables[-1])
        seen.append([observation.relative_forecast for observation in observations(params)])
    # The forecast that is issued at the start of hour `known` does not know it; the range that it is seen over does.
    np.testing.assert_array_equal(tables[0][: known + 1], tables[1][: known + 1])
    assert not np.array_equal(tables[0][known + 1], tables[1][known + 1])
    np.testing.assert_array_equal(seen[0][:known], seen[1][:known])
    assert not np.array_equal(seen[0][known + 1], seen[1][known + 1])


def cleanest_hour() -> Policy:
    """As many slots evaluate as hours remain until the cleanest hour of the forecast."""

    def act(key, state, observation):
        return jnp.argmin(observation.relative_forecast).astype(jnp.int32) % (CONFIG.slots + 1), state

    return Policy(init=lambda params: params, act=act)


def test_one_compilation_for_all_forecasts_and_a_batch_equals_the_searches_one_by_one():
    def search(key, params):
        return simulate(key, ENVIRONMENT, cleanest_hour(), params, (), HOURS)

    one, many = jax.jit(search), jax.jit(jax.vmap(search))
    params = [params_of(random_intensity(seed), random_forecast(seed + 10)) for seed in range(5)]
    keys = jax.random.split(jax.random.key(7), len(params))
    batch = many(keys, jax.tree.map(lambda *leaves: np.stack(leaves), *params))
    for i, (key, given) in enumerate(zip(keys, params, strict=True)):
        alone = one(key, given)
        expected = np.argmin(np.clip(np.asarray(relative(given)), -1, 2), axis=1) % (CONFIG.slots + 1)
        np.testing.assert_array_equal(alone.history.evaluation_slots, expected)
        np.testing.assert_array_equal(batch.history.evaluation_slots[i], expected)
        np.testing.assert_array_equal(batch.evaluated[i, : batch.count[i]], alone.evaluated[: alone.count])
        np.testing.assert_allclose(batch.ledger.emissions_g[i], alone.ledger.emissions_g, rtol=1e-5)
    assert [compiled._cache_size() for compiled in (one, many)] == [1, 1]  # pyright: ignore


def relative(params):
    """Every row over its own window, `[HOURS, FORECAST_H]`."""
    intensity, rows = np.asarray(params.intensity_g_per_kwh), np.asarray(params.forecast_g_per_kwh)
    windows = np.lib.stride_tricks.sliding_window_view(intensity, CONFIG.window_h + 1)
    low, high = windows.min(axis=1, keepdims=True), windows.max(axis=1, keepdims=True)
    return (rows - low) / (high - low)


@pytest.mark.parametrize("shape", [(HOURS - 1, FORECAST_H), (HOURS, FORECAST_H - 1), (HOURS, 0)])
def test_a_table_of_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match=r"forecast_g_per_kwh has shape .* give \(8, 24\)"):
        reset(jax.random.key(0), params_of(300.0, np.zeros(shape), budget=Budget()))


def test_a_negative_horizon_is_refused():
    with pytest.raises(ValueError, match="forecast_h must be at least 0, got -1"):
        ClusterConfig(forecast_h=-1)
