"""What a simulation reads before it starts: intensity, forecasts and the power model. Host only, but for forecasts."""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Float64

from cenas_jax.carbon import Budget, IntensityTrace, PowerModel, load_trace
from cenas_jax.carbon.power import measured, paper
from cenas_jax.carbon.trace import HOUR, utc_hour
from cenas_jax.config import GridOptions, SimulateConfig


class Inputs(NamedTuple):
    config: SimulateConfig
    """Settled, `start` included."""
    trace: IntensityTrace
    """The hours of the search alone."""
    intensity_g_per_kwh: Float32[np.ndarray, " hours"]
    """`window_h` hours before the start (NaN where the trace does not reach back), then the hours of the search."""
    forecast_g_per_kwh: Float32[np.ndarray, "hours forecast_h"]
    """Row i: what is forecast at the start of the search's hour i for the hours i, i + 1, ...; no column: none."""
    power: PowerModel
    budget: Budget


def load_inputs(config: SimulateConfig) -> Inputs:
    """Read the trace and check power and limits; `config` is settled. `ValueError` for whatever does not fit."""
    limits, options = config.limits, config.power
    budget = Budget(float(limits.hours), limits.carbon_limit_g, limits.energy_limit_kwh, limits.evaluation_limit)
    if options.power == "paper":
        power = paper()
    else:
        assert options.gpu is not None and options.pue is not None  # settled
        power = measured(options.gpu, pue=options.pue, idle_slots=options.idle_slots)
    design = config.cluster.initial_design
    if not power.charge_initial_design and limits.evaluation_limit is not None and limits.evaluation_limit < design:
        raise ValueError(
            f"--evaluation-limit {limits.evaluation_limit}: with --power {options.power} a search starts with the "
            f"{design} evaluations of --initial-design: give {design} or more, or a smaller --initial-design"
        )
    load = _loader(config)
    past, trace = _past_and_search(config, load)
    unknown = np.full(config.cluster.window_h - len(past), np.nan)
    intensity = np.concatenate([unknown, past, trace.intensity_g_per_kwh]).astype(np.float32)
    grid = replace(config.grid, start=f"{trace.start}:00Z")
    return Inputs(replace(config, grid=grid), trace, intensity, _forecast(config.grid, load, trace), power, budget)


def _loader(config: SimulateConfig) -> Callable[..., IntensityTrace]:
    """`load(start, hours, gap_policy)`: a window of the config's trace."""
    grid, data, name = config.grid, config.benchmark.data, str(config.grid.trace)
    csv_options = {key: getattr(grid, key) for key in ("timezone", "unit", "column", "zone")}
    csv_options = {key: value for key, value in csv_options.items() if value is not None}

    def load(start: np.datetime64 | None, hours: int | None, gap_policy: str | None) -> IntensityTrace:
        return load_trace(
            name,
            data,
            factor=grid.factor,
            start=start,
            hours=hours,
            gap_policy=gap_policy,
            max_gap_h=grid.max_gap_h,
            seed=config.benchmark.data_seed,
            **csv_options,
        )

    return load


def _past_and_search(
    config: SimulateConfig, load: Callable[..., IntensityTrace]
) -> tuple[Float64[np.ndarray, " past"], IntensityTrace]:
    """Intensity of the hours before the search, as far as policies look back and the trace has them; the search's."""
    start, gap_policy = None if config.grid.start is None else utc_hour(config.grid.start), config.grid.gap_policy
    search = load(start, config.limits.hours, gap_policy)
    past_h = min(config.cluster.window_h, int((search.start - load(None, 1, gap_policy).start) / HOUR))
    past = load(search.start - past_h * HOUR, past_h, gap_policy).intensity_g_per_kwh if past_h else np.zeros(0)
    return past, search


def _forecast(
    options: GridOptions, load: Callable[..., IntensityTrace], search: IntensityTrace
) -> Float32[np.ndarray, "hours forecast_h"]:
    if options.forecast == "none":
        return np.zeros((search.hours, 0), np.float32)
    from cenas_jax.runs.forecasts import forecast_ahead  # starts jax, which the rest of this file does without

    return forecast_ahead(options, load, search)
