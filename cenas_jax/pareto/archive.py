"""The archive of evaluated architectures: a fixed capacity, filled from the front."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


class Archive(NamedTuple):
    """Evaluated architectures in the order they were added; rows from `count` on are empty (zeros)."""

    codes: Int[Array, "capacity d"]
    objectives: Float[Array, "capacity m"]
    count: Int[Array, ""]


def archive_init(capacity: int, d: int, m: int) -> Archive:
    """An empty archive for `capacity` architectures of `d` choices and `m` maximised objectives.

    Codes are int32, objectives JAX's default float.
    """
    return Archive(
        codes=jnp.zeros((capacity, d), jnp.int32),
        objectives=jnp.zeros((capacity, m)),
        count=jnp.zeros((), jnp.int32),
    )


def archive_add(
    archive: Archive, codes: Int[Array, "b d"], objectives: Float[Array, "b m"], valid: Bool[Array, " b"]
) -> tuple[Archive, Int[Array, ""]]:
    """Append the valid rows in order; invalid rows leave no trace. Keeps the archive's dtypes.

    Objectives may be NaN: a failed evaluation is kept, so that it is not proposed again.

    Returns:
        The archive, and `overflow`: how many valid rows did not fit (int32, normally 0). Those rows, the last ones, are
        lost: the caller raises an error where it leaves compiled code.
    """
    capacity = archive.codes.shape[0]
    total = archive.count + jnp.sum(valid, dtype=jnp.int32)
    # Invalid rows aim outside, and the scatter drops what lies outside.
    targets = jnp.where(valid, archive.count + jnp.cumsum(valid, dtype=jnp.int32) - 1, capacity)
    added = Archive(
        codes=archive.codes.at[targets].set(codes.astype(archive.codes.dtype), mode="drop"),
        objectives=archive.objectives.at[targets].set(objectives.astype(archive.objectives.dtype), mode="drop"),
        count=jnp.minimum(total, capacity),
    )
    return added, total - added.count


def archive_valid(archive: Archive) -> Bool[Array, " capacity"]:
    """True for the rows that hold an architecture."""
    return jnp.arange(archive.codes.shape[0]) < archive.count
