"""Reading pickles that hold plain data, without running what else they may hold. Host only."""

import collections
import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from numpy._core import multiarray, numeric

_CONTAINERS_AND_NUMBERS = (set, frozenset, list, tuple, dict, str, bytes, int, float, complex, bool)
# Python 3 writes `builtins`; pickles of protocol 2 and below are written with the old name.
_ALLOWED: dict[tuple[str, str], Any] = {
    (module, kind.__name__): kind for kind in _CONTAINERS_AND_NUMBERS for module in ("builtins", "__builtin__")
}
_ALLOWED[("collections", "OrderedDict")] = collections.OrderedDict
_ALLOWED[("numpy", "ndarray")] = np.ndarray
_ALLOWED[("numpy", "dtype")] = np.dtype
# NumPy 2 renamed numpy.core; both names occur in files.
for _core in ("numpy.core", "numpy._core"):
    _ALLOWED[(f"{_core}.multiarray", "_reconstruct")] = multiarray._reconstruct  # pyright: ignore
    _ALLOWED[(f"{_core}.multiarray", "scalar")] = multiarray.scalar  # pyright: ignore
    _ALLOWED[(f"{_core}.numeric", "_frombuffer")] = numeric._frombuffer  # pyright: ignore


def _encode_latin1(text: str, encoding: str) -> bytes:
    """How protocols 0 to 2 write bytes; no other codec is looked up."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes in encoding {encoding!r}")
    return text.encode("latin1")


_ALLOWED[("_codecs", "encode")] = _encode_latin1


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        allowed = _ALLOWED.get((module, name))
        if allowed is None:
            raise pickle.UnpicklingError(f"it refers to {module}.{name}, and only plain data and NumPy arrays are read")
        return allowed


def load_plain_pickle(content: bytes, path: Path) -> Any:
    """The data pickled in `content` (read from `path`): containers, numbers, strings, NumPy arrays and scalars.

    `ValueError`, in one line naming the file, where the pickle refers to anything else (nothing of it is then called or
    imported) or is damaged.
    """
    try:
        return _PlainUnpickler(io.BytesIO(content)).load()
    except MemoryError as error:
        raise ValueError(f"{path}: refused, its pickle asks for more memory than there is") from error
    except Exception as error:  # A damaged pickle can raise nearly anything.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path}: refused as a pickle, {reason}; get the official file again") from error
