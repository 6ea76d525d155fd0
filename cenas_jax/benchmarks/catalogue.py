"""What lies in the data folder: listing, checking and importing it. The functions behind `cenas data`. Host only."""

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cenas_jax.benchmarks import importers
from cenas_jax.benchmarks.tables import TABLES, check_table, open_arrays
from cenas_jax.carbon.catalogue import COMPACT_TRACES, PAPER_TRACE, load_trace

IMPORT_KINDS = {"hw-nas-bench": "hwnasbench", "nats-bench": "nb201", "few-shot-nas": "supernet"}
"""Official source -> the compact table made from it."""

_SOURCES = {
    "nb201": "NATS-Bench (MIT): cenas data import nats-bench",
    "hwnasbench": "HW-NAS-Bench (MIT): cenas data import hw-nas-bench",
    "supernet": "few-shot-NAS, supernet_info: cenas data import few-shot-nas",
    "zc_proxies": "NAS-Bench-Suite-Zero",
}
_TRACES = {
    "us_cal_ciso_2020_2022.csv.gz": ("the trace of the CE-NAS experiments", (PAPER_TRACE,)),
    "em_hourly_2021_2023.npz": ("traces of ten grids", tuple(COMPACT_TRACES)),
}
"""File in carbon/ -> purpose and names of its traces."""


class DataFile(NamedTuple):
    """One line of `cenas data list`."""

    file: str
    """Path within the data folder."""
    present: bool
    rows: int
    """0 where the file is absent or cannot be read."""
    columns: tuple[str, ...]
    purpose: str
    source: str


def list_data(folder: Path) -> list[DataFile]:
    """Every file that the package knows, present or not; `ValueError` where the folder itself is missing."""
    _refuse_missing(folder)
    rows = []
    for name, table in TABLES.items():
        file, path = f"nas/{table.file}", folder / "nas" / table.file
        count, columns = _describe(_npz_shape, path)
        rows.append(DataFile(file, path.is_file(), count, columns, table.purpose, _SOURCES[name]))
    for name, (purpose, _) in _TRACES.items():
        path = folder / "carbon" / name
        count, columns = _describe(_csv_shape if name.endswith(".csv.gz") else _npz_shape, path)
        rows.append(DataFile(f"carbon/{name}", path.is_file(), count, columns, purpose, "Electricity Maps (ODbL)"))
    return rows


def check_data(folder: Path) -> list[str]:
    """Problems of tables and traces, one line each that names file, column and row; empty when all is sound.

    An absent file is no problem (`list_data` shows it), but that none is there is one. `ValueError` where the folder
    itself is missing.
    """
    _refuse_missing(folder)
    known = [
        *(folder / "nas" / table.file for table in TABLES.values()),
        *(folder / "carbon" / file for file in _TRACES),
    ]
    if not any(path.is_file() for path in known):
        return [f"{folder}: holds none of the files that cenas data list names, under nas/ and carbon/"]
    problems = []
    for name, table in TABLES.items():
        path = folder / "nas" / table.file
        if path.is_file():
            try:
                problems += [f"{path}: {problem}" for problem in check_table(name, open_arrays(path))]
            except ValueError as error:
                problems.append(str(error))
    for file, (_, names) in _TRACES.items():
        if (folder / "carbon" / file).is_file():
            try:
                for name in names:
                    load_trace(name, folder, gap_policy=None)
            except ValueError as error:
                problems.append(str(error))
    return problems


def import_data(kind: str, source: Path, folder: Path, *, partial: bool = False) -> Path:
    """Convert an official benchmark file (or unpacked archive) to its compact table in `<folder>/nas`; its path.

    `kind`: one of `IMPORT_KINDS`. `partial`: for `nats-bench`, see `importers.read_nats_bench`. An existing table is
    replaced only once the new one is complete. `ValueError`, one line, where the source is not what it should be.
    """
    if kind not in IMPORT_KINDS:
        raise ValueError(f"data kind {kind!r} is unknown: choose from {', '.join(IMPORT_KINDS)}")
    if partial and kind != "nats-bench":
        raise ValueError(f"partial import is for nats-bench archives, not for {kind}")
    if not source.exists():
        raise ValueError(f"{source}: no such file or folder")
    if source.is_dir() == (kind == "hw-nas-bench"):
        expected = "the .pickle file itself" if kind == "hw-nas-bench" else "the unpacked folder"
        raise ValueError(f"{source}: give {expected} for {kind}")
    name = IMPORT_KINDS[kind]
    if kind == "nats-bench":
        arrays = importers.read_nats_bench(source, partial=partial)
    else:
        arrays = (importers.read_hw_nas_bench if kind == "hw-nas-bench" else importers.read_few_shot)(source)
    problems = [] if partial else check_table(name, arrays)
    if problems:
        raise ValueError(f"{source}: {problems[0]}")
    target = folder / "nas" / TABLES[name].file
    _write(target, arrays)
    return target


def _write(target: Path, arrays: dict[str, np.ndarray]) -> None:
    part = target.with_name(target.name + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            np.savez_compressed(file, **arrays)  # pyright: ignore[reportArgumentType]
        part.replace(target)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise ValueError(f"{target}: cannot be written ({error.strerror})") from error


def _describe(shape: Callable[[Path], tuple[int, tuple[str, ...]]], path: Path) -> tuple[int, tuple[str, ...]]:
    """(rows, columns); (0, ()) for an absent or unreadable file, which `check_data` explains."""
    try:
        return shape(path)
    except (ValueError, OSError, EOFError):
        return 0, ()


def _npz_shape(path: Path) -> tuple[int, tuple[str, ...]]:
    arrays = open_arrays(path)
    return max((len(array) for array in arrays.values() if array.ndim), default=0), tuple(arrays)


def _csv_shape(path: Path) -> tuple[int, tuple[str, ...]]:
    with gzip.open(path, "rt", encoding="utf-8-sig") as file:
        header = tuple(file.readline().rstrip("\n").split(","))
        return sum(1 for _ in file), header


def _refuse_missing(folder: Path) -> None:
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; name the data folder by CENAS_DATA or --data")
