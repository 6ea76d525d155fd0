"""`cenas forecast`."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from rich.console import Console

from cenas_jax.carbon.header import grams_per_kwh
from cenas_jax.carbon.trace import HOUR, utc_hour
from cenas_jax.cli.common import print_document
from cenas_jax.config import RecordOptions, check_count, data_folder, trace_name
from cenas_jax.runs.folder import check_checkpoints, check_new_file, default_folder


@dataclass(frozen=True)
class ForecastFit:
    """Fit the transformer on a grid or a trace; it is written to one file.

    A trace goes on from the forecaster `generic`, which learnt from hours before July 2021, or from nothing where the
    validation days begin before that.
    """

    options: Annotated[RecordOptions, tyro.conf.arg(name="")] = field(default_factory=RecordOptions)
    out: Path | None = None
    """File to write (.npz); it must not exist. None: forecasters/TIME-ZONE.npz."""
    until: str | None = None
    """First hour that is not read, UTC. None: everything is read."""
    validation_days: int = 181
    """Last days before that, on which it is found how long to train."""
    seed: int = 0
    """Root of all random draws."""
    checkpoints: Path | None = None
    """Folder for checkpoints; a fit that finds its own there goes on from them."""
    json: bool = False
    """Print JSON."""


@dataclass(frozen=True)
class ForecastEvaluate:
    """Score daily forecasts of 96 hours, beside plain forecasters."""

    options: Annotated[RecordOptions, tyro.conf.arg(name="")] = field(default_factory=RecordOptions)
    forecaster: str | None = None
    """File of a fitted forecaster, or ciso, de, pjm, generic (they ship with the package). None: by the zone."""
    start: str | None = None
    """First issue, UTC. None: as early as there is history, after 60 days of calibration where there are 120."""
    end: str | None = None
    """Where the last forecast ends, UTC. None: the last hour."""
    json: bool = False
    """Print JSON."""


@dataclass(frozen=True)
class ForecastPredict:
    """Forecast the next hours, with intervals."""

    options: Annotated[RecordOptions, tyro.conf.arg(name="")] = field(default_factory=RecordOptions)
    forecaster: str | None = None
    """File of a fitted forecaster, or ciso, de, pjm, generic (they ship with the package). None: by the zone."""
    at: str | None = None
    """Issue hour, UTC; nothing later is forecast from. None: after the last reading."""
    hours: int = 96
    """How many hours, 1 to 96."""
    plot: Path | None = None
    """PNG file to draw: the quantiles over the actual curve, where that is known."""
    json: bool = False
    """Print JSON."""


@dataclass(frozen=True)
class Forecast:
    """Fit, evaluate and use forecasts of carbon intensity."""

    command: (
        Annotated[ForecastFit, tyro.conf.subcommand("fit")]
        | Annotated[ForecastEvaluate, tyro.conf.subcommand("evaluate")]
        | Annotated[ForecastPredict, tyro.conf.subcommand("predict")]
    )


def run(command: ForecastFit | ForecastEvaluate | ForecastPredict) -> int:
    _check(command)
    end, console = _end(command), Console(stderr=True)
    with console.status("load: starting jax, reading the record"):
        from cenas_jax.report import forecasts as report
        from cenas_jax.runs import forecasting

        record = forecasting.load_record(command.options, end)
    if isinstance(command, ForecastFit):
        out = command.out or Path("forecasters") / f"{default_folder(record.zone.lower()).name}.npz"
        check_new_file("out", out, ".npz", make_folder=True)
        with console.status("compile") as status:
            what = {"stop": "how long to train: step", "fit": "fit on everything: step"}
            document = forecasting.fit_forecaster(
                record,
                out,
                until=command.until,
                validation_days=command.validation_days,
                seed=command.seed,
                checkpoints=command.checkpoints,
                progress=lambda stage, info: status.update(
                    f"{what[stage]} {info.step}, loss {info.loss:.4f}, validation MAPE {info.error:.2f} %"
                ),
            )
        print_document(command.json, document, "\n".join(f"{name}: {value}" for name, value in document.items()), {})
        return 0
    fitted = forecasting.load_fitted(command.forecaster, record)
    if isinstance(command, ForecastEvaluate):
        with console.status("forecast every day"):
            document = forecasting.evaluate_forecaster(record, fitted, start=command.start, end=command.end)
        if command.json:
            print(json.dumps(document, ensure_ascii=False, allow_nan=False))
        else:
            report.print_scores(Console(), document)
        return 0
    with console.status("forecast"):
        outlook = forecasting.predict_hours(record, fitted, at=command.at, hours=command.hours)
    if command.plot is not None:
        report.fan_figure(outlook).savefig(command.plot, dpi=150, format="png")
    if command.json:
        print(json.dumps(outlook.document, ensure_ascii=False, allow_nan=False))
    else:
        report.print_outlook(Console(), outlook.document)
    return 0


def _check(command: ForecastFit | ForecastEvaluate | ForecastPredict) -> None:
    """What needs neither jax nor the record."""
    options = command.options
    data_folder(options.data, os.environ)
    if options.grid is None:
        trace_name(options.trace, "synthetic-ciso")
    if options.unit is not None:
        grams_per_kwh(options.unit)
    if isinstance(command, ForecastFit):
        check_checkpoints(command.checkpoints)
        if command.out is not None:
            check_new_file("out", command.out, ".npz", make_folder=True)
    if isinstance(command, ForecastEvaluate) and command.start is not None:
        utc_hour(command.start)
    if isinstance(command, ForecastPredict):
        check_count("hours", command.hours, 96)
        if command.plot is not None:
            check_new_file("plot", command.plot, ".png")


def _end(command: ForecastFit | ForecastEvaluate | ForecastPredict) -> np.datetime64 | None:
    """Where a trace need not be read on: a gap later than that is no reason to refuse it."""
    if isinstance(command, ForecastFit):
        return None if command.until is None else utc_hour(command.until)
    if isinstance(command, ForecastEvaluate):
        return None if command.end is None else utc_hour(command.end)
    return None if command.at is None else utc_hour(command.at) + 96 * HOUR  # the actual curve of the figure
