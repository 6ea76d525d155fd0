"""The carbon forecaster in JAX against the same network in PyTorch, side by side on the same cores.

    pip install -e ".[baselines]" && python scripts/bench_forecast.py --json experiments/results/bench_forecast.json

Expected time: 2 to 8 minutes on 2 idle cores. Expected: 1.5 to 2.2 (batch 32) and 1.1 to 1.4 times (128) PyTorch's
windows per second, a forecast of 96 h in 0.8 to 1.4 ms, a year of hourly forecasts in 2 to 5 s. A combined forecast
from the day's state takes 3 to 4 ms; half a year of daily ones with that state, learnt day by day from 2.5 years, 7 s.

The grid is made up, in the shape of CISO's (8 sources, 5 weather variables, 2.5 years). The JAX side trains as `fit`
does: windows and features are made inside the step, the loss is the whole one. The PyTorch side has its features ready
in memory and a plain loss of the same outputs. Medians of five after a warm-up.
"""

import argparse
import functools
import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import torch
from baselines.torch_forecaster import TorchCarbonTransformer

from cenas_jax.forecast import combined
from cenas_jax.forecast.base import forecast_table
from cenas_jax.forecast.features import features_of, scales_of
from cenas_jax.forecast.grid import RUN_H, WEATHER, GridRecord
from cenas_jax.forecast.transformer import output_size
from cenas_jax.forecast.windows import HISTORY_H, HORIZON_H, issue_rows, to_device, window_at
from cenas_jax.training import forecaster as training
from cenas_jax.training.forecaster import FitConfig, fit

DAYS, SOURCES = 912, 8


def made_up_grid() -> GridRecord:
    draw, hours = np.random.default_rng(0), 24 * DAYS
    generation = draw.uniform(100, 1000, (hours, SOURCES)).astype(np.float32)
    factor = tuple(float(value) for value in np.linspace(10, 800, SOURCES))
    return GridRecord(
        zone="made up",
        start=np.datetime64("2019-01-01T00", "h"),
        intensity_g_per_kwh=(generation @ np.array(factor) / generation.sum(axis=1)).astype(np.float32),
        valid=np.ones(hours, bool),
        generation_mw=generation,
        weather_runs=draw.normal(size=(DAYS + 1, RUN_H, len(WEATHER))).astype(np.float32),
        source_forecast_mw=draw.uniform(100, 1000, (DAYS + 1, RUN_H, SOURCES)).astype(np.float32),
        sources=tuple(f"source {number}" for number in range(SOURCES)),
        factor_g_per_kwh=factor,
    )


def median_s(work: Callable[[], object], repeats: int = 5) -> float:
    jax.block_until_ready(work())
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(work())
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def jax_windows_per_s(record: GridRecord, config: FitConfig) -> dict[str, float]:
    rows = jnp.asarray(issue_rows(record, record.start, record.start + record.hours, every_h=1))
    grid, scales = to_device(record), scales_of(record, record.hours)
    program, key = training._program(config, record.factor_g_per_kwh), jax.random.key(0)
    state = program.start(key, grid, rows, scales)
    start = time.perf_counter()
    jax.block_until_ready(program.chunk(state, key, grid, rows, scales))
    first_s = time.perf_counter() - start
    seconds = median_s(lambda: program.chunk(state, key, grid, rows, scales))
    windows = config.chunk_steps * config.batch * config.members
    return {"windows_per_s": round(windows / seconds, 1), "compile_s": round(first_s - seconds, 1)}


def prepared(record: GridRecord, count: int):
    grid, scales = to_device(record), scales_of(record, record.hours)
    rows = jnp.asarray(issue_rows(record, record.start, record.start + record.hours, every_h=1)[:count])
    return jax.jit(jax.vmap(lambda row: features_of(window_at(grid, row), scales)))(rows)


def torch_model(config: FitConfig, features) -> TorchCarbonTransformer:
    tokens = HISTORY_H // config.network.history_patch_h + HORIZON_H // config.network.horizon_patch_h
    columns = features.history.shape[-1], features.future.shape[-1]
    return TorchCarbonTransformer(config.network, *columns, output_size(SOURCES), tokens)


def torch_windows_per_s(config: FitConfig, features) -> float:
    model = torch_model(config, features)
    optimiser = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    history, horizon = torch.tensor(np.asarray(features.history)), torch.tensor(np.asarray(features.future))
    target = torch.zeros(len(history), HORIZON_H)

    def steps():
        for _ in range(config.chunk_steps):
            drawn = torch.randint(len(history), (config.batch,))
            optimiser.zero_grad()
            outputs = model(history[drawn], horizon[drawn])
            loss = (outputs[..., 0] - target[drawn]).abs().mean() + 0.1 * outputs[..., 1:].abs().mean()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()

    return round(config.chunk_steps * config.batch / median_s(steps), 1)


def predictions(record: GridRecord, config: FitConfig, features) -> dict[str, float]:
    rows = issue_rows(record, record.start, record.start + record.hours, every_h=1)
    fitted = fit(jax.random.key(0), record, rows, config, steps=config.chunk_steps)
    grid, row = to_device(record), jnp.int32(5000)
    predict = jax.jit(lambda row: fitted.forecaster.predict(fitted.state, window_at(grid, row)))
    year = jnp.asarray(rows[:8760])
    fill = functools.partial(forecast_table, fitted.forecaster, fitted.state, grid)
    half_year = issue_rows(record, record.start, record.start + record.hours)[-181:]

    def learn():
        return combined.learn(fitted.forecaster, fitted.state, record, grid, half_year)

    _, learnt = learn()
    together = functools.partial(combined.predict, fitted.forecaster, record.factor_g_per_kwh)
    predict_combined = jax.jit(lambda row, learnt: together(learnt, window_at(grid, row)))
    models = [torch_model(config, features).eval() for _ in range(config.members)]
    history, horizon = (torch.tensor(np.asarray(part[:1])) for part in (features.history, features.future))

    def torch_predict():
        with torch.inference_mode():
            return [np.asarray(model(history, horizon)) for model in models]

    return {
        "members": config.members,
        "jax_predict_ms": round(1e3 * median_s(lambda: predict(row), 50), 3),
        "torch_predict_ms": round(1e3 * median_s(torch_predict, 50), 3),
        "jax_year_s": round(median_s(lambda: fill(year)), 2),
        "combined_predict_ms": round(1e3 * median_s(lambda: predict_combined(row, learnt), 50), 3),
        "combined_learn_half_year_s": round(median_s(learn), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="The carbon forecaster in JAX and in PyTorch.")
    parser.add_argument("--json", type=Path, help="file to write")
    path = parser.parse_args().json
    record = made_up_grid()
    features = prepared(record, 2000)
    found = {
        "machine": f"{platform.machine()}, {jax.device_count()} {jax.devices()[0].device_kind} device",
        "training": {},
    }
    for batch in (32, 128):
        single = replace(FitConfig(), members=1, batch=batch)
        ours, theirs = jax_windows_per_s(record, single), torch_windows_per_s(single, features)
        ratio = round(ours["windows_per_s"] / theirs, 2)
        found["training"][f"one network, batch {batch}"] = {**ours, "torch_windows_per_s": theirs, "ratio": ratio}
    found["training"]["ensemble of 5, batch 32"] = jax_windows_per_s(record, FitConfig())
    found["prediction"] = predictions(record, FitConfig(), features)
    print(json.dumps(found, indent=1))
    if path:
        path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
