"""Run folders: complete or not there at all. Host only."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path


def default_folder(command: str, parent: Path = Path("runs")) -> Path:
    """`runs/<UTC time>-<command>`, a name that is free."""
    stem = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{command}"
    names = (stem, *(f"{stem}-{number}" for number in range(2, 1000)))
    return next(parent / name for name in names if not (parent / name).exists())


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A working folder beside `path` that becomes `path` when the block ends, and is removed if it fails.

    `ValueError` where `path` exists or cannot be made: before the block, so that nobody computes in vain.
    """
    if path.exists():
        raise ValueError(f"--out {path}: exists already, and runs are never overwritten: name a new folder")
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.mkdir()
    except FileExistsError as error:
        raise ValueError(
            f"--out {path}: {error.filename} is in the way: another run writes it, or remove it"
        ) from error
    except OSError as error:
        raise ValueError(f"--out {path}: cannot be made ({error.strerror}): name another folder") from error
    try:
        yield part
        part.rename(path)
    finally:
        shutil.rmtree(part, ignore_errors=True)  # After the renaming there is nothing left to remove.
