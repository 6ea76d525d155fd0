"""Forecasts of carbon intensity: windows of what was known, forecasters, calibration and scores."""

from cenas_jax.forecast.base import POINT, QUANTILES, Forecaster, forecast_table
from cenas_jax.forecast.baselines import persistence, repeat_last, ridge, seasonal_average, source_forecast
from cenas_jax.forecast.grid import GRIDS, GridRecord, from_trace, load_grid
from cenas_jax.forecast.windows import HISTORY_H, HORIZON_H, Window, actual_at, issue_rows, to_device, window_at

__all__ = [
    "GRIDS",
    "HISTORY_H",
    "HORIZON_H",
    "POINT",
    "QUANTILES",
    "Forecaster",
    "GridRecord",
    "Window",
    "actual_at",
    "forecast_table",
    "from_trace",
    "issue_rows",
    "load_grid",
    "persistence",
    "repeat_last",
    "ridge",
    "seasonal_average",
    "source_forecast",
    "to_device",
    "window_at",
]
