"""Fits on a small grid: they learn, stop early, resume to the same weights, compile once; files are checked."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arrays import replaced

from cenas_jax.carbon import from_arrays
from cenas_jax.forecast.base import POINT, forecast_table
from cenas_jax.forecast.grid import RUN_H, GridRecord, from_trace
from cenas_jax.forecast.windows import actual_at, issue_rows, to_device, window_at
from cenas_jax.nets import CarbonTransformerConfig
from cenas_jax.training import forecaster as training
from cenas_jax.training.forecaster import FitConfig, fit
from cenas_jax.training.saved_forecaster import SHIPPED, load_forecaster, load_shipped, save_forecaster

SMALL = FitConfig(
    network=CarbonTransformerConfig(width=8, heads=2, hour_width=4, hidden=8, dropout=0.1),
    members=2,
    batch=8,
    most_steps=600,
    chunk_steps=10,
    patience=3,
    learning_rate=1e-2,
    average=0.8,
)
DAYS = 60


def trace_record(seed=0, days=DAYS) -> GridRecord:
    draw = np.random.default_rng(seed)
    hours = np.arange(24 * days)
    values = 300 + 80 * np.sin(hours / 24 * 2 * np.pi) + np.cumsum(draw.normal(0, 3, hours.size))
    return from_trace(from_arrays(np.maximum(values, 50), "2021-03-01T00:00Z", zone="made up"))


def source_record(days=DAYS) -> GridRecord:
    """Two sources; the weather is what drives the second, so that a forecast can be better than the past."""
    draw = np.random.default_rng(1)
    driver = draw.uniform(0.1, 0.9, (days + 5, 24))
    wind = 1000 * driver[:days].reshape(-1)
    generation = np.stack([1200 - wind, wind], axis=1).astype(np.float32)
    runs = np.stack([driver[day : day + 4].reshape(-1) for day in range(days + 1)])[..., None]
    return GridRecord(
        zone="made up",
        start=np.datetime64("2021-03-01T00", "h"),
        intensity_g_per_kwh=(generation @ np.array([800, 20]) / generation.sum(axis=1)).astype(np.float32),
        valid=np.ones(24 * days, bool),
        generation_mw=generation,
        weather_runs=runs.astype(np.float32),
        source_forecast_mw=np.full((days + 1, RUN_H, 2), np.nan, np.float32),
        sources=("coal", "wind"),
        factor_g_per_kwh=(800.0, 20.0),
    )


def split(record):
    middle = record.start + 24 * 45
    end = record.start + record.hours
    return issue_rows(record, record.start, middle, every_h=1), issue_rows(record, middle, end)


@pytest.mark.slow
def test_a_fit_learns_what_weather_tells():
    record = source_record()
    rows, held_out = split(record)
    errors = []
    fitted = fit(
        jax.random.key(0),
        record,
        rows,
        SMALL,
        validation_rows=held_out,
        progress=lambda info: errors.append(info.error),
    )
    assert fitted.info["validation_mape"] == pytest.approx(min(errors), abs=1e-3)
    assert min(errors) < 0.6 * errors[0]
    grid = to_device(record)
    table = forecast_table(fitted.forecaster, fitted.state, grid, jnp.asarray(held_out))
    actual = jax.vmap(actual_at, (None, 0))(grid, held_out)
    error = 100 * jnp.abs(table[..., POINT] / actual.intensity_g_per_kwh - 1).mean()
    assert float(error) == pytest.approx(fitted.info["validation_mape"], abs=0.01)


def test_early_stopping_stops_and_keeps_the_best():
    record = trace_record()
    rows, held_out = split(record)
    seen = []
    fitted = fit(jax.random.key(0), record, rows, SMALL, validation_rows=held_out, progress=seen.append)
    assert seen[-1].step < SMALL.most_steps
    assert seen[-1].step - fitted.info["steps"] == SMALL.patience * SMALL.chunk_steps
    assert fitted.info["steps"] == min(seen, key=lambda info: info.error).step


def test_a_resumed_fit_ends_with_the_same_bits(tmp_path):
    record = trace_record()
    rows, _ = split(record)
    key = jax.random.key(3)
    whole = fit(key, record, rows, SMALL, steps=40)

    class Stop(Exception):
        pass

    def interrupt(info):
        if info.step == 20:
            raise Stop

    with pytest.raises(Stop):
        fit(key, record, rows, SMALL, steps=40, checkpoints=tmp_path / "c", progress=interrupt)
    steps = []
    resumed = fit(
        key, record, rows, SMALL, steps=40, checkpoints=tmp_path / "c", progress=lambda info: steps.append(info.step)
    )
    assert steps == [30, 40]
    for one, two in zip(jax.tree.leaves(whole.state), jax.tree.leaves(resumed.state), strict=True):
        np.testing.assert_array_equal(one, two)
    changed = dataclasses.replace(record, intensity_g_per_kwh=record.intensity_g_per_kwh + np.float32(1e-3))
    for other in (
        {"key": jax.random.key(4)},
        {"grid": changed},  # the same hours, corrected
        {"steps": 50},
        {"rows": rows[::-1].copy()},  # the same windows, in another order
        {"initial": whole},
    ):
        arguments = {"key": key, "grid": record, "rows": rows, "steps": 40, **other}
        with pytest.raises(ValueError, match="another run"):
            fit(config=SMALL, checkpoints=tmp_path / "c", **arguments)


def test_fits_of_other_seeds_and_grids_of_one_shape_compile_once():
    rows, _ = split(trace_record())
    sizes = []
    for seed in range(3):
        fit(jax.random.key(seed), trace_record(seed), rows, SMALL, steps=20)
        sizes.append(training._program(SMALL, ()).chunk._cache_size())  # pyright: ignore[reportFunctionMemberAccess]
    assert len(set(sizes)) == 1


@pytest.mark.parametrize("record", [trace_record(), source_record()], ids=["trace", "sources"])
def test_no_look_ahead(record):
    """Whatever is not known at the issue time may change: no quantile does."""
    rows, _ = split(record)
    fitted = fit(jax.random.key(0), record, rows, SMALL, steps=10)
    row = 24 * 40 + 7
    grid = to_device(record)
    day = row // 24
    changed = grid._replace(
        intensity_g_per_kwh=replaced(grid.intensity_g_per_kwh, np.s_[row:], 9999.0),
        valid=replaced(grid.valid, np.s_[row:], False),
        generation_mw=replaced(grid.generation_mw, np.s_[row:], -5.0),
        weather_runs=replaced(grid.weather_runs, np.s_[day + 1 :], 77.0),
        source_forecast_mw=replaced(grid.source_forecast_mw, np.s_[day + 1 :], 77.0),
    )
    predict = jax.jit(lambda grid: fitted.forecaster.predict(fitted.state, window_at(grid, jnp.int32(row))))
    np.testing.assert_array_equal(predict(grid), predict(changed))
    last = 1.5 * record.intensity_g_per_kwh[row - 1]
    known = grid._replace(intensity_g_per_kwh=replaced(grid.intensity_g_per_kwh, row - 1, last))
    if not record.sources:
        assert not np.array_equal(predict(grid), predict(known))


def test_a_saved_forecaster_forecasts_the_same(tmp_path):
    record = source_record()
    rows, _ = split(record)
    fitted = fit(jax.random.key(0), record, rows, SMALL, steps=10)
    path = save_forecaster(tmp_path / "new" / "f.npz", fitted)
    loaded = load_forecaster(path)
    assert (loaded.config, loaded.factor_g_per_kwh, loaded.info) == (SMALL, (800.0, 20.0), fitted.info)
    window = window_at(to_device(record), jnp.int32(500))
    one, two = (jax.jit(each.forecaster.predict)(each.state, window) for each in (fitted, loaded))
    np.testing.assert_array_equal(one, two)
    with pytest.raises(ValueError, match="never overwritten"):
        save_forecaster(path, fitted)


NO_HEADS = {"network": dataclasses.asdict(CarbonTransformerConfig()) | {"heads": 0}}


def damaged_files(folder):
    good = save_forecaster(folder / "good.npz", load_shipped("generic"))
    content = good.read_bytes()
    with np.load(good) as file:
        arrays = {name: file[name] for name in file.files}
    description = json.loads(str(arrays["description"]))
    first = next(name for name in arrays if name.startswith("params"))

    def write(name, **changes):
        np.savez(folder / name, **{**arrays, **changes})

    (folder / "cut.npz").write_bytes(content[: len(content) // 2])
    (folder / "flipped.npz").write_bytes(
        content[:2000] + bytes(255 - byte for byte in content[2000:2100]) + content[2100:]
    )
    (folder / "text.npz").write_text("a,b\n1,2\n")
    (folder / "empty.npz").write_bytes(b"")
    np.savez(folder / "foreign.npz", weights=np.zeros(3))
    write("other_kind.npz", description=np.array(json.dumps({**description, "kind": "policy"})))
    write("newer.npz", description=np.array(json.dumps({**description, "version": 99})))
    write("shape.npz", **{first: np.zeros(3, np.float32)})
    write("nan.npz", **{first: np.full_like(arrays[first], np.nan)})
    write("complex.npz", **{first: arrays[first] * 1j})
    write("heads.npz", description=np.array(json.dumps({**description, "config": description["config"] | NO_HEADS})))
    write("no_info.npz", description=np.array(json.dumps({**description, "info": {}})))
    write("option.npz", description=np.array(json.dumps({**description, "config": {"no": 1}})))
    return tuple(path.stem for path in folder.glob("*.npz") if path != good) + ("missing",)


def test_damaged_and_foreign_files_give_one_clear_line(tmp_path):
    for name in damaged_files(tmp_path):
        with pytest.raises(ValueError, match=f"{name}.npz: .*cenas forecast fit") as refusal:
            load_forecaster(tmp_path / f"{name}.npz")
        assert "\n" not in str(refusal.value)


def test_shipped_forecasters_are_small_and_saw_nothing_after_june_2021():
    for name in SHIPPED:
        fitted = load_shipped(name)
        assert fitted.factor_g_per_kwh == ()
        assert fitted.info["fitted_until"] <= "2021-07-01T00Z"
    sizes = [path.stat().st_size for path in (training.Path(training.__file__).parent / "shipped").glob("*.npz")]
    assert len(sizes) == len(SHIPPED) and max(sizes) < 1e6


def test_zones_find_their_shipped_forecaster():
    assert load_shipped("US-CAL-CISO").info == load_shipped("ciso").info == load_shipped("synthetic-ciso").info
    assert load_shipped("FR").info == load_shipped("generic").info != load_shipped("de").info


def test_fit_refuses_what_makes_no_sense():
    record = trace_record()
    rows, held_out = split(record)
    for options in ({}, {"validation_rows": held_out, "steps": 10}):
        with pytest.raises(ValueError, match="either validation_rows"):
            fit(jax.random.key(0), record, rows, SMALL, **options)
