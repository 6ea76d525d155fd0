"""Run folders: complete or not there at all. Host only."""

import fcntl
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path


def default_folder(command: str, parent: Path = Path("runs")) -> Path:
    """`runs/<UTC time>-<command>`, a name that is free."""
    stem = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{command}"
    names = (stem, *(f"{stem}-{number}" for number in range(2, 1000)))
    return next(parent / name for name in names if not (parent / name).exists())


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A working folder beside `path` that becomes `path` when the block ends. If it fails, or SIGTERM ends it, the
    working folder is removed, and with it the parents that were made for it. Main thread only.

    `ValueError` where `path` exists, cannot be made or is being written: before the block, so that nobody computes in
    vain. The working folder is locked while its process lives, so that an empty one that a killed run left is taken
    over.
    """
    if os.path.lexists(path):
        raise ValueError(f"--out {path}: exists already, and runs are never overwritten: name a new folder")
    part = path.with_name(f".{path.name}.part")
    with ExitStack() as undo:

        def terminate(number: int, frame: object) -> None:
            undo.close()  # here, as jax may swallow an exception raised amid its own calls
            signal.raise_signal(number)

        undo.callback(signal.signal, signal.SIGTERM, signal.signal(signal.SIGTERM, terminate))
        try:
            for parent in reversed([parent for parent in path.parents if not os.path.lexists(parent)]):
                parent.mkdir(exist_ok=True)
                undo.callback(_remove_if_empty, parent)
            part.mkdir(exist_ok=True)
            lock = os.open(part, os.O_RDONLY)
            undo.callback(os.close, lock)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            left_behind = any(part.iterdir())
        except BlockingIOError as error:
            raise ValueError(f"--out {path}: another run is writing it: name a new folder") from error
        except OSError as error:
            raise ValueError(f"--out {path}: cannot be made ({part}: {error.strerror}): name another folder") from error
        if left_behind:
            raise ValueError(f"--out {path}: a killed run left {part}: remove it, or name a new folder")
        undo.callback(shutil.rmtree, part, ignore_errors=True)  # After the renaming there is nothing left to remove.
        yield part
        part.rename(path)


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def check_new_file(option: str, path: Path, suffix: str, make_folder: bool = False) -> None:
    """`ValueError` for a file that exists already, or where none can be written; the folder must be there, or
    `make_folder`."""
    if os.path.lexists(path):
        raise ValueError(f"--{option} {path}: exists already, and nothing is overwritten: name a new file")
    if path.suffix.lower() != suffix:
        raise ValueError(f"--{option} {path}: name a {suffix} file")
    parents = path.absolute().parents
    folder = next(parent for parent in parents if parent.exists()) if make_folder else parents[0]
    try:
        with tempfile.TemporaryFile(dir=folder):  # some folders cannot be written to, whatever `os.access` says
            pass
    except OSError:
        message = f"--{option} {path}: {folder} is no folder that may be written to: name another file"
        raise ValueError(message) from None


def check_checkpoints(folder: Path | None) -> None:
    if folder is not None and folder.exists() and not folder.is_dir():
        raise ValueError(f"--checkpoints {folder}: is a file: name a folder")
