"""`cenas data`."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from cenas_jax.benchmarks.catalogue import check_data, import_data, list_data
from cenas_jax.cli.common import print_document
from cenas_jax.config import data_folder


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


def run(command: DataList | DataCheck | DataImport) -> int:
    folder = data_folder(command.data, os.environ, make=isinstance(command, DataImport))
    if folder is None:
        raise ValueError("--data: name the data folder, here or by the environment variable CENAS_DATA")
    if isinstance(command, DataList):
        files = list_data(folder)
        columns = {
            "file": [file.file for file in files],
            "rows": [f"{file.rows}" if file.present else "absent" for file in files],
            "purpose and source": [f"{file.purpose}; {file.source}" for file in files],
        }
        print_document(command.json, [file._asdict() for file in files], f"data folder {folder}", columns)
        return 0
    if isinstance(command, DataCheck):
        problems = check_data(folder)
        text = f"{len(problems)} problems in {folder}" if problems else f"no problem in {folder}"
        print_document(command.json, {"folder": str(folder), "problems": problems}, text, {"problem": problems})
        return 1 if problems else 0
    written = import_data(command.kind, command.source, folder, partial=command.partial)
    print_document(command.json, {"written": str(written)}, f"written: {written}", {})
    return 0
