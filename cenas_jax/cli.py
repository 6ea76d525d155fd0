"""The command line, `cenas`. jax and everything slow is imported once the arguments are known to be good."""

import contextlib
import io
import json
import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import tyro
from rich.console import Console
from rich.table import Table

from cenas_jax import __version__
from cenas_jax.benchmarks.catalogue import check_data, import_data, list_data
from cenas_jax.config import RecordOptions, SimulateConfig, data_folder, settled
from cenas_jax.runs.config_file import read_config
from cenas_jax.runs.folder import default_folder, new_folder

if TYPE_CHECKING:
    from cenas_jax.runs.simulation import SimulationRun


@dataclass(frozen=True)
class Simulate:
    """Race policies on the simulated cluster: every policy with every seed, as one compiled batch.

    Policies split the slots between sampling (screening candidates) and evaluating (training them), hour by hour.
    vanilla: all evaluate, nothing is screened. fixed-V: V evaluate. heuristic: the cleaner the grid within its window,
    the more evaluate. threshold: all but one evaluate on a clean grid, one on a dirty one. one-shot: all sample,
    and the best are evaluated at the end.
    """

    options: Annotated[SimulateConfig, tyro.conf.arg(name="")] = field(default_factory=SimulateConfig)
    config: Path | None = None
    """A config.toml to start from; options on the command line take precedence."""
    out: Path | None = None
    """Run folder to write; it must not exist. None: runs/TIME-simulate."""
    json: bool = False
    """Print one JSON document (the run's result.json) on stdout and nothing else there."""
    figures: bool = True
    """Draw the figures."""


@dataclass(frozen=True)
class DataList:
    """Show every known file of the data folder."""

    data: Path | None = None
    """Folder of real data. None: the environment variable CENAS_DATA."""
    json: bool = False
    """Print JSON."""


@dataclass(frozen=True)
class DataCheck:
    """Check the tables of the data folder; exit status 1 where there are problems."""

    data: Path | None = None
    """Folder of real data. None: the environment variable CENAS_DATA."""
    json: bool = False
    """Print JSON."""


@dataclass(frozen=True)
class DataImport:
    """Convert an official benchmark file or unpacked archive to a table of the data folder."""

    kind: Annotated[Literal["hw-nas-bench", "nats-bench", "few-shot-nas"], tyro.conf.Positional]
    """What the source is."""
    source: Annotated[Path, tyro.conf.Positional]
    """File or unpacked folder."""
    partial: bool = False
    """nats-bench: import an unfinished download; missing rows become NaN."""
    data: Path | None = None
    """Folder of real data, made if need be. None: the environment variable CENAS_DATA."""
    json: bool = False
    """Print JSON."""


@dataclass(frozen=True)
class Data:
    """List, check and import real data."""

    command: (
        Annotated[DataList, tyro.conf.subcommand("list")]
        | Annotated[DataCheck, tyro.conf.subcommand("check")]
        | Annotated[DataImport, tyro.conf.subcommand("import")]
    )


@dataclass(frozen=True)
class ForecastFit:
    """Fit the transformer on a grid or a trace; it is written to one file."""

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
    """First issue, UTC. None: as early as there is history."""
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
    """Issue hour, UTC; nothing later is read. None: after the last hour."""
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


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run one command. Exit status: 0 well done, 1 `data check` found problems, 2 bad input (one line on stderr)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments == ["--version"]:
        print(f"cenas {__version__}")
        sys.exit(0)
    command = _parsed(arguments)
    if isinstance(command, Simulate):
        _simulate(command)
        sys.exit(0)
    with _bad_input():
        status = _data(command.command) if isinstance(command, Data) else _forecast(command.command)
    sys.exit(status)


def _parsed(arguments: list[str]) -> Simulate | Data | Forecast:
    with _bad_input():
        start = Simulate(options=_config_file(arguments))
    commands = (
        Annotated[Simulate, tyro.conf.subcommand("simulate", default=start)]
        | Annotated[Data, tyro.conf.subcommand("data")]
        | Annotated[Forecast, tyro.conf.subcommand("forecast")]
    )
    refusal = io.StringIO()
    try:
        with contextlib.redirect_stderr(refusal):
            return tyro.cli(
                commands,  # pyright: ignore[reportArgumentType]
                args=arguments,
                prog="cenas",
                description="Carbon-efficient neural architecture search. cenas --version prints the version.",
                config=(tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes),
            )
    except SystemExit as leaving:
        if leaving.code:
            _refuse(_one_line(refusal.getvalue()))
        raise


def _config_file(arguments: list[str]) -> SimulateConfig:
    """The config that `--config` names, which the other options are read on top of."""
    for place, argument in enumerate(arguments):
        name, given, path = argument.partition("=")
        if name == "--config" and (given or place + 1 < len(arguments)):
            return read_config(Path(path if given else arguments[place + 1]))
    return SimulateConfig()


def _one_line(box: str) -> str:
    """tyro's message as one line: what is wrong, and the options that were perhaps meant.

    A title, then sections parted by rules; drawn with box characters where the terminal knows them, with colours on a
    terminal.
    """
    lines = [line.strip("│ ") for line in re.sub(r"\x1b\[[0-9;]*m", "", box).splitlines()[1:]]
    parts = "\n".join("\0" if set(line) <= set("-─╰╯ ") else line for line in lines).split("\0")
    message, *rest = [" ".join(part.split()) for part in parts if part.strip()]
    near = sorted(set(re.findall(r"--[a-z-]+", " ".join(rest[:1])))) if message.startswith("Unrecognized") else []
    meant = [name for name in near if name != "--help"]
    return message + (f" (did you mean {' or '.join(meant)}?)" if meant else "") + "; see cenas COMMAND --help"


def _refuse(message: str) -> NoReturn:
    print(f"cenas: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)


@contextlib.contextmanager
def _bad_input() -> Iterator[None]:
    """Around what reads input: its `ValueError` is one line and exit status 2, never a traceback."""
    try:
        yield
    except ValueError as error:
        _refuse(str(error))


@contextlib.contextmanager
def _stage(console: Console, seconds: dict[str, float], name: str, what: str) -> Iterator[None]:
    """Shows what is being done while it lasts, then how long it took."""
    start = time.perf_counter()
    with console.status(f"{name}: {what}"):
        yield
    seconds[name] = round(time.perf_counter() - start, 3)
    console.print(f"{name}: {what} ({seconds[name]:.1f} s)", markup=False, highlight=False, soft_wrap=True)


def _simulate(command: Simulate) -> None:
    progress, seconds = Console(stderr=True), {}
    out = command.out or default_folder("simulate")
    with _bad_input():
        config = settled(command.options, os.environ)
        if out.exists():
            raise ValueError(f"--out {out}: exists already, and runs are never overwritten: name a new folder")
        from cenas_jax.runs.inputs import load_inputs

        with _stage(progress, seconds, "load", f"trace {config.grid.trace}"):
            inputs = load_inputs(config)
        with _stage(progress, seconds, "benchmark", f"{config.benchmark.benchmark}"):
            from cenas_jax.runs import simulation

            ready = simulation.prepare(inputs, simulation.load_benchmark(config))
    with contextlib.ExitStack() as stack:
        with _bad_input():
            part = stack.enter_context(new_folder(out))
        searches = f"{len(config.policies.policy)} policies x {config.policies.seeds} seeds x {config.limits.hours} h"
        with _stage(progress, seconds, "compile", searches):
            run_all = simulation.compile_simulation(ready)
        with _stage(progress, seconds, "simulate", searches):
            run = run_all()
        with _bad_input():
            simulation.refuse_overflow(run)
        with _stage(progress, seconds, "write", f"{out}"):
            document = _write(run, part, seconds, figures=command.figures)
    _show(command, run, document, out)


def _write(run: "SimulationRun", part: Path, seconds: dict[str, float], *, figures: bool) -> dict[str, Any]:
    from cenas_jax.report.files import write_files

    if figures:
        from cenas_jax.report.figures import write_figures

        write_figures(run, part)
    return write_files(run, part, dict(seconds))


def _show(command: Simulate, run: "SimulationRun", document: dict[str, Any], out: Path) -> None:
    if command.json:
        print(json.dumps({**document, "folder": str(out)}, ensure_ascii=False, allow_nan=False))
        return
    from cenas_jax.report.console import print_run

    print_run(Console(), run)
    print(f"run folder: {out}")


def _forecast(command: ForecastFit | ForecastEvaluate | ForecastPredict) -> int:
    console = Console(stderr=True)
    with console.status("load: starting jax, reading the record"):
        from cenas_jax.report import forecasts as report
        from cenas_jax.runs import forecasting

        record = forecasting.load_record(command.options)
    if isinstance(command, ForecastFit):
        out = command.out or Path("forecasters") / f"{default_folder(record.zone.lower()).name}.npz"
        if out.exists():
            raise ValueError(f"--out {out}: exists already, and forecasters are never overwritten: name a new file")
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
        _print(command.json, document, "\n".join(f"{name}: {value}" for name, value in document.items()), {})
        return 0
    fitted = forecasting.load_fitted(command.forecaster, record)
    if isinstance(command, ForecastEvaluate):
        with console.status("forecast every day"):
            document = forecasting.evaluate_forecaster(record, fitted, start=command.start, end=command.end)
        if command.json:
            print(json.dumps(document, ensure_ascii=False))
        else:
            report.print_scores(Console(), document)
        return 0
    if command.plot is not None and (command.plot.exists() or not command.plot.absolute().parent.is_dir()):
        raise ValueError(f"--plot {command.plot}: name a new file in a folder that exists")
    with console.status("forecast"):
        outlook = forecasting.predict_hours(record, fitted, at=command.at, hours=command.hours)
    if command.plot is not None:
        report.fan_figure(outlook).savefig(command.plot, dpi=150, format="png")
    if command.json:
        print(json.dumps(outlook.document, ensure_ascii=False))
    else:
        report.print_outlook(Console(), outlook.document)
    return 0


def _data(command: DataList | DataCheck | DataImport) -> int:
    folder = data_folder(command.data, os.environ, make=isinstance(command, DataImport))
    if folder is None:
        raise ValueError("--data: name the data folder, here or by the environment variable CENAS_DATA")
    if isinstance(command, DataList):
        files = list_data(folder)
        columns = {
            "file": [file.file for file in files],
            "present": ["yes" if file.present else "no" for file in files],
            "rows": [f"{file.rows}" if file.present else "-" for file in files],
            "columns": [f"{len(file.columns)}" if file.present else "-" for file in files],
            "purpose": [file.purpose for file in files],
            "source": [file.source for file in files],
        }
        _print(command.json, [file._asdict() for file in files], f"data folder {folder}", columns)
        return 0
    if isinstance(command, DataCheck):
        problems = check_data(folder)
        text = f"{len(problems)} problems in {folder}" if problems else f"no problem in the tables of {folder}"
        _print(command.json, {"folder": str(folder), "problems": problems}, text, {"problem": problems})
        return 1 if problems else 0
    written = import_data(command.kind, command.source, folder, partial=command.partial)
    _print(command.json, {"written": str(written)}, f"written: {written}", {})
    return 0


def _print(as_json: bool, document: Any, title: str, columns: dict[str, list[str]]) -> None:
    """The document as JSON, or the title over a table of the columns (left out where it has no row)."""
    if as_json:
        print(json.dumps(document, ensure_ascii=False))
        return
    print(title)
    rows = list(zip(*columns.values(), strict=True))
    if rows:
        table = Table()
        for place, name in enumerate(columns):
            table.add_column(name, overflow="fold", no_wrap=place == 0)
        for row in rows:
            table.add_row(*row)
        Console().print(table, markup=False)
