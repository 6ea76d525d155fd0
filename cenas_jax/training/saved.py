"""What was learnt as one file: an .npz of float32 arrays and a JSON description. No pickles."""

import json
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

_DAMAGE = (
    OSError,
    EOFError,
    KeyError,
    TypeError,
    ValueError,
    ZeroDivisionError,
    NotImplementedError,  # of zipfile: an unknown compression
    zipfile.BadZipFile,
    zlib.error,
)
"""What reading a file with wrong bytes raises."""


class Kind(NamedTuple):
    """What a file holds, for its own description and for messages."""

    name: str
    """Such as `forecaster`."""
    version: int
    written_by: str
    """The command that makes such files."""

    @property
    def title(self) -> str:
        return f"cenas_jax {self.name}"


def save_learnt(path: str | Path, kind: Kind, description: dict[str, Any], state: Any) -> Path:
    """Writes `state` (a pytree of arrays) and its description to a new file; `ValueError` where it exists.

    `description["info"]` is a dictionary of plain data.
    """
    path = Path(path)
    if path.exists():
        raise ValueError(f"{path}: exists already, and is never overwritten: name a new file for the {kind.name}")
    document = {"kind": kind.title, "version": kind.version, **description}
    arrays = {name: np.asarray(leaf) for name, leaf in _named(state).items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, description=np.array(json.dumps(document)), **arrays)
    part.rename(path)
    return path


def load_learnt(
    path: str | Path, kind: Kind, abstract_state: Callable[[dict[str, Any], dict[str, np.ndarray]], Any]
) -> tuple[dict[str, Any], Any]:
    """The description and the state of a file. `ValueError`, one line, where it is missing, damaged, or another's.

    Args:
        abstract_state: `(description, arrays) -> state`, whose leaves have the shapes that such a state must have.
    """
    try:
        with Path(path).open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        description = json.loads(str(arrays.pop("description")))
        if (
            not isinstance(description["info"], dict)
            or description["kind"] != kind.title
            or description["version"] != kind.version
        ):
            raise ValueError(f"{description['kind']}, version {description['version']}")
        state = abstract_state(description, arrays)
        expected = _named(state)
        if {name: leaf.shape for name, leaf in expected.items()} != {name: leaf.shape for name, leaf in arrays.items()}:
            raise ValueError("its arrays do not fit its description")
        if not all(leaf.dtype == np.float32 and np.isfinite(leaf).all() for leaf in arrays.values()):
            raise ValueError("it holds values that are no finite float32 numbers")
    except (FileNotFoundError, IsADirectoryError):
        raise ValueError(f"{path}: no such file: name one written by `{kind.written_by}`") from None
    except _DAMAGE as error:
        why = " ".join(f"{type(error).__name__}: {error}".split())
        why = "no .npz file" if "allow_pickle" in why else why  # of text NumPy says how to load it unsafely
        raise ValueError(
            f"{path}: damaged, or no {kind.name} of this version ({why}): make it again with `{kind.written_by}`"
        ) from None
    leaves = [jnp.asarray(arrays[name]) for name in expected]
    return description, jax.tree.unflatten(jax.tree.structure(state), leaves)


def _named(state: Any) -> dict[str, Any]:
    """Arrays, or their shapes, by their path in the state."""
    leaves, _ = jax.tree.flatten_with_path(state)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
