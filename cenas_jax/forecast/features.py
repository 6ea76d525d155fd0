"""A window as the numbers a network sees: relative to the window's own level, so that a grid may drift."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from cenas_jax.forecast.grid import DAY_H, GridRecord
from cenas_jax.forecast.windows import HISTORY_DAYS, HISTORY_H, HORIZON_H, KnownFuture, Window

BASE_DAYS = 2
"""Shares of the sources start from the same hour's mean over so many days."""
RECENT_H, FADING_H = 6, (3.0, 12.0)
"""The last hours are seen singly, beside how fast (e-folding, h) what they tell may fade."""
AMPLIFY = 3.0
"""Shares and relative log intensities vary by about a third; this brings them to the scale of the other inputs."""


class Scales(NamedTuple):
    """Means and standard deviations over the hours that a forecaster was fitted on."""

    log_load_mean: Float[Array, ""]
    log_load_std: Float[Array, ""]
    weather_mean: Float[Array, " weather"]
    weather_std: Float[Array, " weather"]


class Features(NamedTuple):
    history: Float[Array, "T columns"]
    future: Float[Array, "H more_columns"]
    level: Float[Array, ""]
    """Mean log intensity of the window (ln g/kWh)."""
    base: Float[Array, " H"]
    """Mean log intensity of the same hour of the day over the window."""
    base_share: Float[Array, "H sources"]
    forecast_share: Float[Array, "H sources"]
    """Shares of the source forecast; 0 where there is none."""
    forecast_valid: Bool[Array, " H"]


def scales_of(grid: GridRecord, rows: int) -> Scales:
    """Scales over the first `rows` hours. Without sources or weather: neutral ones."""
    load_mw = np.maximum(grid.generation_mw[:rows].sum(axis=1), 1.0)
    weather = grid.weather_runs.shape[-1]
    days = grid.weather_runs[: max(rows // DAY_H, 1)]
    days = days[np.isfinite(days).all(axis=-1)]
    mean, std = (days.mean(axis=0), days.std(axis=0)) if len(days) else (np.zeros(weather), np.ones(weather))
    return Scales(
        jnp.asarray(np.log(load_mw).mean(), jnp.float32),
        jnp.asarray(max(np.log(load_mw).std(), 1e-2), jnp.float32),
        jnp.asarray(mean, jnp.float32),
        jnp.asarray(np.maximum(std, 1e-6), jnp.float32),
    )


def features_of(window: Window, scales: Scales) -> Features:
    """All inputs of a network, from one window. Missing weather and source forecasts are 0, beside a flag that is 0."""
    past, future = window.history, window.future
    log_intensity = jnp.log(past.intensity_g_per_kwh)
    level = log_intensity.mean()
    relative = (log_intensity - level) * AMPLIFY
    share, log_load = _shares(past.generation_mw, scales)
    past_weather, past_weather_valid = _weather(past.weather, scales)
    past_forecast, _, past_forecast_valid = _forecast(past.source_forecast_mw, scales)
    weather, weather_valid = _weather(future.weather, scales)
    forecast, forecast_load, forecast_valid = _forecast(future.source_forecast_mw, scales)
    history = jnp.concatenate(
        [
            relative[:, None],
            share * AMPLIFY,
            log_load[:, None],
            past_weather,
            past_weather_valid[:, None],
            past_forecast * AMPLIFY,
            past_forecast_valid[:, None],
            calendar(window.hour - HISTORY_H + jnp.arange(HISTORY_H)),
        ],
        axis=1,
    )
    week_ago = slice(0, HORIZON_H)  # The horizon's hours, one week earlier.
    base_share = every_day(share[-BASE_DAYS * DAY_H :].reshape(BASE_DAYS, DAY_H, share.shape[-1]).mean(axis=0))
    recent_change = relative[-RECENT_H:] - relative[-RECENT_H - DAY_H : -DAY_H]
    ahead_h = jnp.arange(HORIZON_H)[:, None]
    by_day = log_load.reshape(HISTORY_DAYS, DAY_H)
    columns = [
        relative[week_ago, None],
        share[week_ago] * AMPLIFY,
        log_load[week_ago, None],
        past_weather[week_ago],
        every_day(past_weather[-DAY_H:]),
        calendar(window.hour + jnp.arange(HORIZON_H)),
        weather,
        weather_valid[:, None],
        forecast * AMPLIFY,
        forecast_load[:, None],
        forecast_valid[:, None],
        every_day(relative.reshape(HISTORY_DAYS, DAY_H).T),
        every_day(share[-DAY_H:]) * AMPLIFY,
        base_share * AMPLIFY,
        every_day(by_day[jnp.array([-1, 0])].T),
        jnp.broadcast_to(jnp.concatenate([relative[-RECENT_H:], recent_change]), (HORIZON_H, 2 * RECENT_H)),
        ahead_h / HORIZON_H,
        jnp.exp(-ahead_h / jnp.array(FADING_H)[None]),
    ]
    horizon = jnp.concatenate(columns, axis=1)
    base = every_day(log_intensity.reshape(HISTORY_DAYS, DAY_H).mean(axis=0))
    return Features(history, horizon, level, base, base_share, forecast, forecast_valid > 0)


def hide_forecasts(window: Window, hidden: Bool[Array, ""]) -> Window:
    """The window as it were without source forecasts for the horizon, where `hidden`."""
    future = window.future
    unknown = jnp.where(hidden, jnp.nan, future.source_forecast_mw)
    return window._replace(future=KnownFuture(future.weather, unknown))


def calendar(hours: Int[Array, " n"]) -> Float[Array, "n columns"]:
    """Hour of the day as two harmonics and day of the week, one-hot from Monday on, of hours since 1970, UTC.

    The season is left out on purpose: with two or three years of data it identifies weeks rather than seasons.
    """
    turn = 2 * jnp.pi * (hours % DAY_H) / DAY_H
    weekday = (hours // DAY_H + 3) % 7  # 1970-01-01 was a Thursday.
    waves = [jnp.sin(turn), jnp.cos(turn), jnp.sin(2 * turn), jnp.cos(2 * turn)]
    return jnp.concatenate([jnp.stack(waves, axis=1), (weekday[:, None] == jnp.arange(7)[None]) * 1.0], axis=1)


def every_day(day):
    """One day's rows for every day of the horizon."""
    return jnp.tile(day, (HORIZON_H // DAY_H,) + (1,) * (day.ndim - 1))


def _shares(generation_mw, scales: Scales):
    """Shares of the sources, and standardised log load; zeros where a grid has no sources."""
    positive = jnp.maximum(generation_mw, 0)
    load = jnp.maximum(positive.sum(axis=1), 1.0)
    return positive / load[:, None], (jnp.log(load) - scales.log_load_mean) / scales.log_load_std


def _weather(weather, scales: Scales):
    valid = jnp.isfinite(weather).all(axis=1) & (weather.shape[1] > 0)
    return jnp.where(valid[:, None], (weather - scales.weather_mean[None]) / scales.weather_std[None], 0), valid * 1.0


def _forecast(source_forecast_mw, scales: Scales):
    valid = jnp.isfinite(source_forecast_mw).all(axis=1) & (source_forecast_mw.shape[1] > 0)
    share, log_load = _shares(jnp.where(valid[:, None], source_forecast_mw, 0), scales)
    return share * valid[:, None], log_load * valid, valid * 1.0
