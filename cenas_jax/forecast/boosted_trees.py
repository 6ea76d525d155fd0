"""Gradient-boosted trees on hand-made features: the strongest plain rival of the transformer. Works on the host.

One LightGBM model for all hours ahead: a row is one hour of one forecast. Needs the extra `baselines`.
"""

import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from cenas_jax.forecast.base import QUANTILES, Forecaster
from cenas_jax.forecast.baselines import mixed_intensity
from cenas_jax.forecast.features import every_day
from cenas_jax.forecast.grid import DAY_H, LOWEST_G_PER_KWH
from cenas_jax.forecast.windows import HISTORY_DAYS, HORIZON_H, GridArrays, Window, actual_at, window_at

WEEK_DAYS, YEAR_D = 7, 365.25
RECENT_H = 6


@dataclass(frozen=True)
class BoostedTreesConfig:
    """Settings of LightGBM (Ke et al. 2017) and the inputs it is given."""

    learning_rate: float = 0.03
    leaves: int = 31
    rounds: int = 600
    min_data: int = 100
    """Rows (hours of a forecast) in a leaf, at least."""
    feature_fraction: float = 0.5
    bagging_fraction: float = 0.7
    l2: float = 5.0
    use_weather: bool = True
    use_source_forecast: bool = True
    """Needs the emission factors of the grid's sources."""
    seed: int = 0
    threads: int = 1
    """More are slower by far where other programs use the cores: they wait for each other, spinning."""


class BoostedTreesState(NamedTuple):
    booster: Any
    config: BoostedTreesConfig
    factor_g_per_kwh: tuple[float, ...]


def boosted_trees(
    config: BoostedTreesConfig = BoostedTreesConfig(),  # noqa: B008 (frozen)
    factor_g_per_kwh: tuple[float, ...] = (),
) -> Forecaster:
    """A point forecaster that works on the host: neither `jit` nor `vmap`; `boosted_table` is its `forecast_table`.

    It minimises the absolute error of log intensity relative to the window's mean log intensity. Invalid hours are not
    learnt from. `ValueError` where LightGBM is not installed or there is nothing to learn from.
    """

    def fit(key, grid: GridArrays, rows) -> BoostedTreesState:
        lightgbm = _lightgbm()
        inputs, level = _inputs(grid, rows, config, factor_g_per_kwh)
        actual = jax.vmap(actual_at, (None, 0))(grid, rows)
        target = np.log(np.maximum(np.asarray(actual.intensity_g_per_kwh), LOWEST_G_PER_KWH)) - level[:, None]
        valid = np.asarray(actual.valid).ravel()
        if not valid.any():
            raise ValueError("boosted_trees: there is no valid hour to learn from")
        learnt = lightgbm.Dataset(inputs.reshape(-1, inputs.shape[-1])[valid], target.ravel()[valid])
        return BoostedTreesState(lightgbm.train(_parameters(config), learnt, config.rounds), config, factor_g_per_kwh)

    def predict(state: BoostedTreesState, window: Window):
        return predict_many(state, jax.tree.map(lambda leaf: np.asarray(leaf)[None], window))[0]

    return Forecaster(fit, predict)


def predict_many(state: BoostedTreesState, windows: Window) -> Float[Array, "n H quantiles"]:
    """Forecasts (g/kWh) of windows with a leading axis."""
    inputs, level = _of_windows(windows, state.config, state.factor_g_per_kwh)
    return _predict(state, np.asarray(inputs), np.asarray(level))


def boosted_table(state: BoostedTreesState, grid: GridArrays, rows, **options) -> Float[Array, "n H quantiles"]:
    """As `base.forecast_table`: forecasts (g/kWh) issued at each of the `rows`; `options` go to `window_at`."""
    return _predict(state, *_inputs(grid, rows, state.config, state.factor_g_per_kwh, **options))


def _lightgbm():
    try:
        import lightgbm
    except ImportError as error:
        raise ValueError('boosted trees need LightGBM: pip install "cenas-jax[baselines]"') from error
    return lightgbm


def _parameters(config: BoostedTreesConfig) -> dict[str, Any]:
    return {
        "objective": "l1",
        "learning_rate": config.learning_rate,
        "num_leaves": config.leaves,
        "min_data_in_leaf": config.min_data,
        "feature_fraction": config.feature_fraction,
        "bagging_fraction": config.bagging_fraction,
        "bagging_freq": 1,
        "lambda_l2": config.l2,
        "seed": config.seed,
        "num_threads": config.threads,
        "deterministic": True,
        "force_col_wise": True,
        "verbose": -1,
    }


def _predict(state: BoostedTreesState, inputs: np.ndarray, level: np.ndarray):
    count, _, features = inputs.shape
    relative = state.booster.predict(inputs.reshape(-1, features), num_threads=state.config.threads)
    point = np.exp(relative.reshape(count, HORIZON_H) + level[:, None]).astype(np.float32)
    return jnp.asarray(np.repeat(point[..., None], len(QUANTILES), axis=2))


def _inputs(grid: GridArrays, rows, config: BoostedTreesConfig, factor_g_per_kwh: tuple[float, ...], **options):
    """`(inputs[n, H, features], level[n])` as NumPy arrays."""
    inputs, level = _of_rows(grid, rows, config, factor_g_per_kwh, tuple(options.items()))
    return np.asarray(inputs), np.asarray(level)


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def _of_rows(grid, rows, config, factor_g_per_kwh, options):
    def of_row(row):
        return _features(window_at(grid, row, **dict(options)), config, factor_g_per_kwh)

    return jax.lax.map(of_row, rows, batch_size=64)


@functools.partial(jax.jit, static_argnums=(1, 2))
def _of_windows(windows, config, factor_g_per_kwh):
    return jax.vmap(lambda window: _features(window, config, factor_g_per_kwh))(windows)


def _features(window: Window, config: BoostedTreesConfig, factor_g_per_kwh: tuple[float, ...]):
    """`(inputs[H, features], level)`, NaN where unknown; the level is the window's mean log intensity."""
    level = jnp.log(window.history.intensity_g_per_kwh).mean()
    columns = [*_calendar(window.hour), *_past_intensity(window, level), *_past_generation(window)]
    if config.use_weather:
        columns += _weather(window)
    if config.use_source_forecast and factor_g_per_kwh:
        columns += _source_forecast(window, level, factor_g_per_kwh)
    return jnp.concatenate([column.reshape(HORIZON_H, -1) for column in columns], axis=1), level


def _calendar(hour):
    hours = hour + jnp.arange(HORIZON_H)
    turn = 2 * jnp.pi * (hours // DAY_H % YEAR_D) / YEAR_D
    week_day = (hours // DAY_H + 3) % WEEK_DAYS  # 1970-01-01 was a Thursday.
    return [jnp.arange(HORIZON_H) * 1.0, hours % DAY_H * 1.0, week_day * 1.0, jnp.sin(turn), jnp.cos(turn)]


def _past_intensity(window: Window, level):
    relative = jnp.log(window.history.intensity_g_per_kwh) - level
    days = relative.reshape(HISTORY_DAYS, DAY_H)
    summary = jnp.stack([relative[-DAY_H:].mean(), level, relative[-1], relative[-RECENT_H:].mean()])
    return [every_day(days.T), every_day(days.mean(axis=0)), _every_hour(summary)]


def _past_generation(window: Window):
    """Mean shares of the week and of its last day, and the load of the same hour yesterday and a week ago."""
    positive_mw = jnp.maximum(window.history.generation_mw, 0)
    load_mw = positive_mw.sum(axis=1)
    if not positive_mw.shape[1]:
        return []
    share = positive_mw / jnp.maximum(load_mw, 1.0)[:, None]
    means = jnp.concatenate([share.mean(axis=0), share[-DAY_H:].mean(axis=0)])
    return [_every_hour(means), every_day(load_mw[-DAY_H:]), every_day(load_mw[:DAY_H])]


def _weather(window: Window):
    """The hour's weather, yesterday's at that hour, and the means of the first day ahead and of the hour's own day."""
    weather = window.future.weather
    daily = jnp.nanmean(weather.reshape(-1, DAY_H, weather.shape[1]), axis=1)
    yesterday = window.history.weather[-DAY_H:]
    return [weather, every_day(yesterday), _every_hour(daily[0]), jnp.repeat(daily, DAY_H, axis=0)]


def _source_forecast(window: Window, level, factor_g_per_kwh: tuple[float, ...]):
    """Log intensity of the source forecast relative to the window's level, its shares, and its total."""
    forecast_mw = window.future.source_forecast_mw
    mixed, total_mw = mixed_intensity(forecast_mw, factor_g_per_kwh), forecast_mw.sum(axis=1)
    relative = jnp.where(mixed >= LOWEST_G_PER_KWH, jnp.log(mixed) - level, jnp.nan)
    return [relative, forecast_mw / total_mw[:, None], total_mw]


def _every_hour(values: Float[Array, " columns"]) -> Float[Array, "H columns"]:
    return jnp.broadcast_to(values, (HORIZON_H, values.shape[0]))
