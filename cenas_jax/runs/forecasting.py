"""The commands of `cenas forecast`: fit, evaluate, predict. Each takes settled options and returns plain data."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cenas_jax.carbon import load_trace
from cenas_jax.carbon.trace import HOUR, hour_text
from cenas_jax.config import RecordOptions, data_folder, trace_name
from cenas_jax.forecast import combined
from cenas_jax.forecast.base import POINT, QUANTILES, Forecaster, forecast_table
from cenas_jax.forecast.baselines import repeat_last, seasonal_average
from cenas_jax.forecast.conformal import FEWEST_ISSUES, adapt, apply_margins, calibrate
from cenas_jax.forecast.experts import there_are_experts
from cenas_jax.forecast.grid import DAY_H, GridRecord, from_trace, load_grid
from cenas_jax.forecast.metrics import coverage_by_day, decision_regret, mape_by_day, quantile_loss
from cenas_jax.forecast.windows import HISTORY_H, HORIZON_H, GridArrays, actual_at, issue_rows, to_device
from cenas_jax.runs.folder import check_checkpoints
from cenas_jax.training.forecaster import FitConfig, FitInfo, Fitted, fine_tuning, fit, history_only
from cenas_jax.training.saved_forecaster import SHIPPED, load_forecaster, load_shipped, save_forecaster

CALIBRATION_DAYS = 60
"""Intervals are calibrated on so many past days, where there are so many."""
REGRET = ((24, 0.25), (24, 0.5), (24, 0.75), (80, 0.25), (80, 0.5), (80, 0.75))
"""Windows (h) and shares of their hours in which work runs."""


def load_record(options: RecordOptions, end: np.datetime64 | None = None) -> GridRecord:
    """The grid or trace that the options name, a trace up to `end`; `ValueError`, one line, for what does not fit."""
    data = data_folder(options.data, os.environ)
    csv_options = {key: getattr(options, key) for key in ("timezone", "unit", "column", "zone")}
    csv_options = {key: value for key, value in csv_options.items() if value is not None}
    if options.grid is not None:
        if options.trace is not None or csv_options:
            given = "trace" if options.trace is not None else next(iter(csv_options))
            raise ValueError(f"--{given} does not apply to --grid {options.grid}: leave one of them out")
        return load_grid(options.grid, data, factor=options.factor)
    name = trace_name(options.trace, "synthetic-ciso")
    trace = load_trace(name, data, factor=options.factor, gap_policy=None, **csv_options)
    hours = trace.hours if end is None else int((end - trace.start) / HOUR)
    return from_trace(trace.window(trace.start, hours) if 0 < hours < trace.hours else trace)


def load_fitted(name: str | None, record: GridRecord) -> Fitted:
    """A forecaster by file or shipped name, None: the shipped one of the record's zone; it must fit the record."""
    if name is None:
        if record.sources:
            raise ValueError(
                f"--forecaster: none that reads generation and weather ships with the package: fit one with "
                f"`cenas forecast fit --grid {record.zone}` and name its file, or give a --trace"
            )
        found = load_shipped(record.zone)
    else:
        found = load_shipped(name) if name in SHIPPED else load_forecaster(name)
    if found.factor_g_per_kwh != record.factor_g_per_kwh:
        raise ValueError(
            f"--forecaster {name}: fitted on {len(found.factor_g_per_kwh)} sources, or other emission factors, and "
            f"{record.zone} has {len(record.sources)} here: take a forecaster of this grid and --factor"
        )
    return found


def fit_forecaster(
    record: GridRecord,
    out: Path,
    *,
    until: str | None = None,
    validation_days: int = 181,
    seed: int = 0,
    checkpoints: Path | None = None,
    progress: Callable[[str, FitInfo], None] = lambda stage, info: None,
) -> dict[str, Any]:
    """Finds how long to train on all but the last `validation_days`, trains so long on everything, writes `out`.

    Nothing from `until` on is read. A record of intensities alone goes on from the shipped generic forecaster, but for
    one whose validation days the generic one may have seen: then from nothing.
    """
    if not 0 <= seed < 2**31:
        raise ValueError(f"--seed {seed}: give a whole number from 0 to {2**31 - 1}")
    check_checkpoints(checkpoints)
    if validation_days > record.hours // DAY_H:
        raise ValueError(f"--validation-days {validation_days}: {record.source} has {record.hours // DAY_H} days")
    end = record.start + (record.hours if until is None else record.row(until)) * HOUR
    split = end - validation_days * DAY_H * HOUR
    if validation_days < FEWEST_ISSUES or split <= record.start + (HISTORY_H + HORIZON_H) * HOUR:
        raise ValueError(
            f"--validation-days {validation_days}: give {FEWEST_ISSUES} or more, and leave more hours before them to "
            f"learn from: {record.source} begins at {hour_text(record.start)} and is read to {hour_text(end)}"
        )
    initial, config = None, FitConfig()
    if not record.sources:
        generic = load_shipped("generic")
        unseen = split >= np.datetime64(generic.info["fitted_until"].removesuffix("Z"))
        initial, config = (generic, fine_tuning()) if unseen else (None, history_only())
    key = jax.random.key(seed)
    learnt = issue_rows(record, record.start, split, every_h=1)
    found = fit(
        key,
        record,
        learnt,
        config,
        validation_rows=issue_rows(record, split, end),
        initial=initial,
        checkpoints=None if checkpoints is None else checkpoints / "search",
        progress=lambda info: progress("stop", info),
    )
    final = fit(
        key,
        record,
        issue_rows(record, record.start, end, every_h=1),
        config,
        steps=found.info["steps"],
        initial=initial,
        checkpoints=None if checkpoints is None else checkpoints / "final",
        progress=lambda info: progress("fit", info),
    )
    begun = "nothing" if initial is None else "generic"
    info = {
        **final.info,
        "begun_from": begun,
        "fitted_until": f"{end}Z",
        "validation_mape": found.info["validation_mape"],
        "seed": seed,
    }
    save_forecaster(out, final._replace(info=info))
    return {"written": str(out), **info}


def evaluate_forecaster(record: GridRecord, fitted: Fitted, *, start: str | None, end: str | None) -> dict[str, Any]:
    """Scores of daily forecasts issued from `start` on whose horizon ends by `end`, beside plain forecasters'.

    Intervals adapt to the outcomes as they become known, from a calibration on the days before `start`. A grid with
    sources is forecast by the forecaster combined with `forecast.experts`, from the first issue on that has them.
    """
    rows = _daily(record, start, end)
    if start is None and rows.size > 2 * CALIBRATION_DAYS:
        rows = rows[CALIBRATION_DAYS:]
    grid = to_device(record)
    actual = _actual(grid, rows)
    before = rows[0] - DAY_H * np.arange(CALIBRATION_DAYS + HORIZON_H // DAY_H, HORIZON_H // DAY_H - 1, -1)
    before = before[before >= HISTORY_H].astype(np.int32)
    both = _forecasts(record, fitted, grid, np.concatenate([before, rows]))
    tables = {"forecaster": both[before.size :]}
    for name, plain in {"repeat yesterday": repeat_last(24), "weekly average": seasonal_average()}.items():
        tables[name] = _table(plain, (), grid, rows)
    scores = {}
    for name, table in tables.items():
        point = table[..., POINT]
        scores[name] = {
            "mape_by_day_percent": _rounded(mape_by_day(point, *actual)),
            "quantile_loss_g_per_kwh": round(float(quantile_loss(table, *actual)), 3),
            "captured_share": {
                f"{share:.0%} of {window_h} h": _rounded(
                    [decision_regret(point, *actual, window_h=window_h, share=share).captured_share]
                )[0]
                for window_h, share in REGRET
            },
        }
    if before.size >= FEWEST_ISSUES:
        state = calibrate(both[: before.size], *_actual(grid, before))
        adapted = adapt(state, tables["forecaster"], *actual)
        scores["forecaster"]["coverage_90_by_day_percent"] = _rounded(
            coverage_by_day(adapted[..., 0], adapted[..., -1], *actual)
        )
    return {
        "grid": record.zone,
        "source": record.source,
        "fitted_until": fitted.info["fitted_until"],
        "seen_in_the_fit": int(rows[0]) < _until(record, fitted),
        "combined": there_are_experts(record, int(rows[-1])),
        "first_issue": hour_text(record.start + int(rows[0]) * HOUR),
        "last_issue": hour_text(record.start + int(rows[-1]) * HOUR),
        "issues": int(rows.size),
        "scores": scores,
    }


class Outlook(NamedTuple):
    """A forecast to be shown. `actual_g_per_kwh` is NaN where it is not known."""

    document: dict[str, Any]
    history_g_per_kwh: np.ndarray
    quantiles_g_per_kwh: np.ndarray
    actual_g_per_kwh: np.ndarray
    first_hour: np.datetime64


def predict_hours(record: GridRecord, fitted: Fitted, *, at: str | None, hours: int) -> Outlook:
    """The forecast issued at `at` (None: after the last reading) for the next `hours` (at most 96).

    `filled_hours` of the document counts readings missing in the week before it, which hold the value 24 h earlier.
    Intervals are calibrated on the outcomes of the last days, where at least `FEWEST_ISSUES` are known; on days that
    the fit has read errors are smaller, and intervals may be too narrow: `calibrated_on_seen_days`. A grid with
    sources is forecast by the forecaster combined with `forecast.experts`: `combined`. Where it is
    `seen_in_the_fit`, the fit has read hours after the issue, and the forecast is no test of it.
    """
    if not 1 <= hours <= HORIZON_H:
        raise ValueError(f"--hours {hours}: give 1 to {HORIZON_H}")
    row = int(np.flatnonzero(record.valid)[-1]) + 1 if at is None else record.row(at)
    if row < HISTORY_H:
        first = hour_text(record.start + HISTORY_H * HOUR)
        raise ValueError(
            f"--at: a forecast takes {HISTORY_H} h of history, and {record.source} has {row} h before "
            f"{hour_text(record.start + row * HOUR)}: give a time from {first} on, or a longer trace"
        )
    grid = to_device(record)
    known = row - HORIZON_H - DAY_H * np.arange(CALIBRATION_DAYS - 1, -1, -1)
    known = known[known >= HISTORY_H].astype(np.int32)
    both = _forecasts(record, fitted, grid, np.append(known, np.int32(row)))
    quantiles = both[-1]
    if known.size >= FEWEST_ISSUES:
        state = calibrate(both[:-1], *_actual(grid, known))
        quantiles = apply_margins(state, quantiles)
    quantiles = np.asarray(quantiles, np.float64)[:hours]
    actual = jax.tree.map(np.asarray, actual_at(grid, jnp.int32(row)))
    issued, until = record.start + row * HOUR, _until(record, fitted)
    document = {
        "grid": record.zone,
        "issued": hour_text(issued),
        "fitted_until": fitted.info["fitted_until"],
        "seen_in_the_fit": row < until,
        "combined": there_are_experts(record, row),
        "filled_hours": int((~record.valid[row - HISTORY_H : row]).sum()),
        "calibrated_on_days": int(known.size) if known.size >= FEWEST_ISSUES else 0,
        "calibrated_on_seen_days": int((known < until).sum()) if known.size >= FEWEST_ISSUES else 0,
        "levels": list(QUANTILES),
        "hours": [
            {"hour": hour_text(issued + ahead * HOUR), "g_per_kwh": [round(float(value), 2) for value in row_quantiles]}
            for ahead, row_quantiles in enumerate(quantiles)
        ],
    }
    return Outlook(
        document,
        record.intensity_g_per_kwh[max(row - 48, 0) : row],
        quantiles,
        np.where(actual.valid, actual.intensity_g_per_kwh, np.nan)[:hours],
        issued,
    )


def _daily(record: GridRecord, start: str | None, end: str | None) -> np.ndarray:
    """Rows of the issues at 00:00 UTC."""
    first = record.start if start is None else start
    last = record.start + record.hours * HOUR if end is None else end
    rows = issue_rows(record, first, last, every_h=1)
    rows = rows[(record.first_hour + rows) % DAY_H == 0]
    if not rows.size:
        raise ValueError(f"{record.source}: no forecast issued at 00:00 UTC fits between {first} and {last}")
    return rows


def _actual(grid: GridArrays, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    actual = jax.vmap(actual_at, (None, 0))(grid, rows)
    return np.asarray(actual.intensity_g_per_kwh), np.asarray(actual.valid)


def _until(record: GridRecord, fitted: Fitted) -> int:
    """The row after the last that the forecaster was fitted on."""
    return int((np.datetime64(fitted.info["fitted_until"].removesuffix("Z")) - record.start) / HOUR)


def _forecasts(record: GridRecord, fitted: Fitted, grid: GridArrays, rows: np.ndarray) -> np.ndarray:
    """Quantiles `[n, H, Q]` issued at daily `rows`, in order: where there are experts, combined with theirs by the
    outcomes since the fit and since `rows[0]`; inputs of the experts are scaled by what is before it, too."""
    if not there_are_experts(record, int(rows[-1])):
        return _table(fitted.forecaster, fitted.state, grid, rows)
    issues, until = np.arange(rows[0], rows[-1] + 1, DAY_H, dtype=np.int32), _until(record, fitted)
    found, _ = combined.learn(fitted.forecaster, fitted.state, record, grid, issues, unseen_from=until)
    return found[(rows - rows[0]) // DAY_H]


def _table(forecaster: Forecaster, state, grid: GridArrays, rows: np.ndarray) -> np.ndarray:
    """On the host, where columns and rows are picked without compiling."""
    return np.asarray(forecast_table(forecaster, state, grid, rows))


def _rounded(values) -> list[float | None]:
    """None: there is no such number, as for a saving where nothing can be saved."""
    return [round(float(value), 4) if np.isfinite(value) else None for value in np.asarray(values)]
