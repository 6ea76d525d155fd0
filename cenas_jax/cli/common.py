"""What all commands share: one line for bad input, the printed document, where compiled programs are kept."""

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console
from rich.table import Table

_LEAST_WIDTH = 80
"""Of tables: a narrower terminal wraps lines; squeezed columns would lose their words."""


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
            table.add_column(name, overflow="fold", no_wrap=place == 0 < len(columns) - 1)
        for row in rows:
            table.add_row(*row)
        console = Console()
        console.width = max(console.width, _LEAST_WIDTH)
        console.print(table, markup=False)


def keep_compiled_programs() -> None:
    """Lets JAX keep what it compiles under the user's cache folder, so that a command that ran before starts sooner.

    Call it before jax is imported. JAX's own environment variables take precedence; nothing is kept where the folder
    cannot be made.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    folder = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "cenas_jax"
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
