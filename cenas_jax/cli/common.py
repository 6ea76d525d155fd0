"""What all commands share: one line for bad input, the printed document, where compiled programs are kept."""

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console
from rich.table import Table


def refuse(message: str) -> NoReturn:
    print(f"cenas: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)


@contextlib.contextmanager
def bad_input() -> Iterator[None]:
    """Around what reads input: its `ValueError` is one line and exit status 2, never a traceback."""
    try:
        yield
    except ValueError as error:
        refuse(str(error))


@contextlib.contextmanager
def stage(console: Console, seconds: dict[str, float], name: str, what: str) -> Iterator[None]:
    """Shows what is being done while it lasts, then how long it took."""
    start = time.perf_counter()
    with console.status(f"{name}: {what}"):
        yield
    seconds[name] = round(time.perf_counter() - start, 3)
    console.print(f"{name}: {what} ({seconds[name]:.1f} s)", markup=False, highlight=False, soft_wrap=True)


def print_document(as_json: bool, document: Any, title: str, columns: dict[str, list[str]]) -> None:
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


def keep_compiled_programs() -> None:
    """Lets JAX keep what it compiles under the user's cache folder, so that a command that ran before starts sooner.

    Call it before jax is imported. JAX's own environment variables take precedence; nothing is kept where the folder
    cannot be made.
    """
    caches = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    folder = os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(caches / "cenas_jax"))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError:
        del os.environ["JAX_COMPILATION_CACHE_DIR"]
