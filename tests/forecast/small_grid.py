"""A small grid with everything a real one has: three sources, two weather variables, runs that are missing."""

import numpy as np

from cenas_jax.forecast.grid import RUN_H, GridRecord
from cenas_jax.forecast.windows import Window

FACTOR_G_PER_KWH = (800.0, 400.0, 20.0)
DAYS = 40


def small_grid(seed: int = 0, *, days: int = DAYS, start: str = "2020-03-05T00", weather: int = 2) -> GridRecord:
    """Hourly values with a daily cycle and noise; one hour is not valid, the first 12 days have no source forecast."""
    draw = np.random.default_rng(seed)
    hours, turn = days * 24, 2 * np.pi * np.arange(days * 24) / 24
    generation = 1000 + 400 * np.stack([np.sin(turn), np.cos(turn), -np.sin(turn)], axis=1)
    generation += draw.uniform(0, 300, (hours, 3))
    valid = np.ones(hours, bool)
    valid[hours // 2] = False
    touched = days + 2  # one more where the first hour is not midnight
    source_forecast = draw.uniform(500, 1500, (touched, RUN_H, 3))
    source_forecast[:12] = np.nan
    weather_runs = draw.normal(280, 5, (touched, RUN_H, weather))
    weather_runs[20] = np.nan
    return GridRecord(
        zone="small",
        start=np.datetime64(start, "h"),
        intensity_g_per_kwh=(generation @ FACTOR_G_PER_KWH / generation.sum(axis=1)).astype(np.float32),
        valid=valid,
        generation_mw=generation.astype(np.float32),
        weather_runs=weather_runs.astype(np.float32),
        source_forecast_mw=source_forecast.astype(np.float32),
        sources=("coal", "nat_gas", "wind"),
        factor_g_per_kwh=FACTOR_G_PER_KWH,
    )


def published_at(grid: GridRecord, row: int, run_delay_h: int) -> np.ndarray:
    """Which days' runs are there at the start of hour `row`, by their dates."""
    runs = grid.start.astype("datetime64[D]") + np.arange(len(grid.weather_runs))
    return runs.astype("datetime64[h]") + np.timedelta64(run_delay_h, "h") <= grid.start + np.timedelta64(row, "h")


def slow_window(grid: GridRecord, row: int, run_delay_h: int) -> Window:
    """The window hour by hour, from dates: the last run published by then that reaches the hour, or NaN."""

    def foreseen(runs, at, issued):
        there = np.flatnonzero(published_at(grid, issued, run_delay_h))
        if not there.size:
            return np.full(runs.shape[-1], np.nan, np.float32)
        dated = grid.start.astype("datetime64[D]").astype("datetime64[h]") + np.timedelta64(24 * int(there[-1]), "h")
        lead = int((grid.start + np.timedelta64(at, "h") - dated).astype(int))
        return runs[there[-1], lead] if lead < RUN_H else np.full(runs.shape[-1], np.nan, np.float32)

    past, ahead = range(row - 168, row), range(row, row + 96)
    weather, sources = grid.weather_runs, grid.source_forecast_mw
    issue = np.datetime64(grid.start, "h") + np.timedelta64(row, "h")
    history = {
        "intensity_g_per_kwh": grid.intensity_g_per_kwh[row - 168 : row],
        "generation_mw": grid.generation_mw[row - 168 : row],
        "weather": np.stack([foreseen(weather, at, at) for at in past]),
        "source_forecast_mw": np.stack([foreseen(sources, at, at) for at in past]),
    }
    future = {
        "weather": np.stack([foreseen(weather, at, row) for at in ahead]),
        "source_forecast_mw": np.stack([foreseen(sources, at, row) for at in ahead]),
    }
    return Window(issue.astype(int), history, future)  # type: ignore[arg-type]
