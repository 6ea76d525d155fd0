"""Arrays for tests, made by NumPy: every operation of `jax.numpy` outside of `jit` compiles a program of its own."""

import numpy as np


def replaced(values, where, new) -> np.ndarray:
    """A copy of `values` with `new` at `where`."""
    copy = np.array(values)
    copy[where] = new
    return copy
