"""What a policy sees of a search on the simulated cluster at the start of a carbon interval."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cenas_jax.allocation.environment import FORECAST_HIGHEST, FORECAST_LOWEST, Observation
from cenas_jax.benchmarks.base import BenchmarkTable
from cenas_jax.cluster.state import ClusterConfig, ClusterParams, ClusterState

INTERVAL_S = 3600.0


def observe(
    state: ClusterState,
    params: ClusterParams,
    config: ClusterConfig,
    intervals: int,
    table: BenchmarkTable,
) -> Observation:
    """The observation of a search over `intervals` hours; that after the last interval sees the last one's hour.

    `ValueError` where the table of forecasts is not of
    shape `[intervals, forecast_h]`: a shorter one would be read at the wrong rows.
    """
    shape = params.forecast_g_per_kwh.shape
    if shape != (intervals, config.forecast_h):
        raise ValueError(
            f"ClusterParams: forecast_g_per_kwh has shape {shape}: give {(intervals, config.forecast_h)}, "
            "(intervals, forecast_h)"
        )
    known = jax.lax.dynamic_slice_in_dim(params.intensity_g_per_kwh, state.interval, config.window_h + 1)
    now, low, high, mean = known[-1], jnp.nanmin(known), jnp.nanmax(known), jnp.nanmean(known)
    previous = jnp.where(jnp.isnan(known[-2]), now, known[-2])
    forecast = params.forecast_g_per_kwh[jnp.minimum(state.interval, intervals - 1)]
    hours = jnp.minimum(params.budget.hours, intervals)
    remaining_h = jnp.maximum(hours - state.interval, 0)
    carbon_g, energy_kwh = state.ledger.emissions_g.sum(), state.ledger.energy_kwh.sum()
    used = jnp.maximum(carbon_g / params.budget.carbon_g, energy_kwh / params.budget.energy_kwh)
    by_carbon = (params.budget.carbon_g - carbon_g) / jnp.maximum(mean, 1e-6)
    affordable_kwh = jnp.minimum(by_carbon, params.budget.energy_kwh - energy_kwh)
    all_slots_kwh = config.slots * params.power.evaluation_w * params.power.pue / 1000 * remaining_h
    screening_h = jnp.minimum(config.screen_per_interval * table.estimate_time_s / INTERVAL_S, float(config.slots))
    return Observation(
        remaining_h=jnp.asarray(remaining_h, jnp.float32),
        remaining_time_share=remaining_h / hours,
        remaining_carbon_share=jnp.clip(1 - used, 0, 1),
        affordable_share=jnp.clip(affordable_kwh / jnp.maximum(all_slots_kwh, 1e-9), 0, 1),
        sampling_cost=screening_h * params.power.sampling_w / jnp.maximum(params.power.evaluation_w, 1e-9),
        relative_intensity=_relative(now, low, high),
        relative_forecast=jnp.clip(_relative(forecast, low, high), FORECAST_LOWEST, FORECAST_HIGHEST),
        relative_past=jnp.where(jnp.isnan(known[:-1]), 0.5, _relative(known[:-1], low, high)),
        lowest_ratio=low / jnp.maximum(mean, 1e-6),
        highest_ratio=high / jnp.maximum(mean, 1e-6),
        intensity_change=now / jnp.maximum(previous, 1e-6) - 1,
        log_hypervolume=log_ratio(state.hypervolume, state.initial_hypervolume),
        recent_gain=state.recent_gain,
        log_evaluations=jnp.log1p(state.count.astype(jnp.float32)),
        queue_fill=state.queue.valid.mean(dtype=jnp.float32),
        half_finished_share=state.half_finished.valid.mean(dtype=jnp.float32),
        supernet_share=1 - state.supernet_left_s / jnp.maximum(table.supernet_time_s, 1.0),
    )


def log_ratio(value: Float[Array, ""], base: Float[Array, ""]) -> Float[Array, ""]:
    """`ln(value / base)`; 0 while the base is 0."""
    return jnp.where(base > 0, jnp.log(jnp.maximum(value, 1e-12) / jnp.maximum(base, 1e-12)), 0.0)


def _relative(value, low, high):
    """Where a value lies in the range `low` to `high`; 0.5 where that is flat."""
    return jnp.where(high > low, (value - low) / jnp.where(high > low, high - low, 1), 0.5)
