"""What a simulation is given: past intensity, the reserve of one-shot, capacity."""

import os
from dataclasses import replace

import numpy as np
import pytest

from cenas_jax.cli.common import keep_compiled_programs
from cenas_jax.config import GridOptions, SimulateConfig, settled
from cenas_jax.runs.inputs import load_inputs
from cenas_jax.runs.simulation import load_benchmark, prepare, reserve_for_one_shot


@pytest.fixture
def trace(tmp_path):
    """60 hours of 200, 201, ... g/kWh from 2021-01-01 on; the hours 2 and 3 are missing."""
    stamps = np.datetime64("2021-01-01T00", "m") + np.arange(60) * 60
    rows = [f"{stamp}Z,{200 + hour}" for hour, stamp in enumerate(np.datetime_as_string(stamps)) if hour not in (2, 3)]
    path = tmp_path / "trace.csv"
    path.write_text("\n".join(["datetime,carbon_intensity", *rows]))
    return str(path)


def config(hours=6, window_h=24, **grid):
    base = SimulateConfig()
    return settled(
        replace(
            base,
            limits=replace(base.limits, hours=hours),
            cluster=replace(base.cluster, window_h=window_h),
            grid=GridOptions(**grid),
        ),
        {},
    )


@pytest.mark.parametrize("start, known", [("2021-01-02T06:00Z", 24), ("2021-01-01T10:00+02:00", 8), (None, 0)])
def test_the_past_is_read_as_far_as_it_reaches(trace, start, known):
    inputs = load_inputs(config(hours=6, trace=trace, start=start, gap_policy="hold"))
    assert inputs.intensity_g_per_kwh.shape == (24 + 6,)
    past, first = inputs.intensity_g_per_kwh[:24], inputs.trace.intensity_g_per_kwh[0]
    assert np.isnan(past[: 24 - known]).all() and not np.isnan(past[24 - known :]).any()
    if known:
        assert past[-1] == first - 1  # the hour before
    np.testing.assert_array_equal(inputs.intensity_g_per_kwh[24:], inputs.trace.intensity_g_per_kwh.astype(np.float32))
    assert inputs.config.grid.start == f"{inputs.trace.start}:00Z"


def test_a_gap_in_the_past_is_refused_too(trace):
    with pytest.raises(ValueError, match="gap policy"):
        load_inputs(config(trace=trace, start="2021-01-01T08:00Z"))
    load_inputs(config(trace=trace, start="2021-01-01T08:00Z", window_h=4))


def test_reserve_of_one_shot_and_capacity(trace):
    """By hand: a full queue of 32 takes 32 x mean time; on 8 slots that is mean x 4 of 20 hours."""
    given = config(hours=20, trace=trace, start="2021-01-01T10:00Z", gap_policy="hold")
    benchmark = load_benchmark(given)
    mean_h = float(benchmark.table.train_time_s.mean()) / 3600
    by_time = load_inputs(given)
    assert reserve_for_one_shot(by_time, benchmark) == pytest.approx(4 * mean_h / 20)
    # a100: 300 W x PUE 1.2; the 20 hours 210..229 g/kWh.
    emissions_g = 32 * mean_h * 0.3 * 1.2 * 219.5
    limited = replace(given, limits=replace(given.limits, carbon_limit_g=2 * emissions_g))
    assert reserve_for_one_shot(load_inputs(limited), benchmark) == pytest.approx(0.5)
    scarce = replace(given, limits=replace(given.limits, energy_limit_kwh=0.001))
    assert reserve_for_one_shot(load_inputs(scarce), benchmark) == 0.9
    assert prepare(by_time, benchmark).inputs.config.cluster.capacity == int(np.ceil(1.5 * 8 * 20 / mean_h))
    short = config(hours=1, trace=trace)
    assert prepare(load_inputs(short), benchmark).inputs.config.cluster.capacity == 64


def test_compiled_programs_are_kept_in_the_cache_folder_unless_jax_is_told_another(monkeypatch, tmp_path):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    keep_compiled_programs()
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == str(tmp_path / "caches" / "cenas_jax")
    assert (tmp_path / "caches" / "cenas_jax").is_dir()
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "/elsewhere")
    keep_compiled_programs()
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == "/elsewhere"
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    keep_compiled_programs()
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ
