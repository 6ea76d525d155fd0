"""The contract of a search space: an architecture is a row of small integers, one choice an entry.

This one is of spaces that are enumerated; `large.py` has that of the others.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Integer, Key

SEPARATOR = "|"
"""Between the choices in a tabular space's default names."""
MAX_TABULAR_SIZE = 2**24
"""A tabular space is enumerated (tables, isomorphism classes); larger ones need a contract of their own."""


class SearchSpace(NamedTuple):
    """A finite set of architectures `int32[d]`, entry `i` being a choice out of `num_choices[i]`.

    The functions are pure and work under `jit` and `vmap`. `index` and `codes` are inverse to each other; their
    order is the space's canonical one (the row order of its benchmark tables).
    """

    name: str
    num_choices: tuple[int, ...]
    choice_names: tuple[tuple[str, ...], ...]
    """Names of the choices of every entry, in code order."""
    size: int
    """Number of architectures; `index` runs over `0 .. size - 1`."""
    sample: Callable[[Key[Array, ""], int], Int[Array, "n d"]]
    """`(key, n) -> codes[n, d]`, uniform, with replacement."""
    mutate: Callable[[Key[Array, ""], Int[Array, "n d"]], Int[Array, "n d"]]
    """`(key, codes[n, d]) -> codes[n, d]`: one entry of every row is changed to another choice."""
    is_valid: Callable[[Int[Array, "n d"]], Bool[Array, " n"]]
    """True where every entry is within its choices (and the space's constraints hold)."""
    features: Callable[[Int[Array, "n d"]], Float[Array, "n f"]]
    """Ordinal features: choices ordered by compute, what LaMOO's partitions see (codes within their choices)."""
    one_hot: Callable[[Int[Array, "n d"]], Float[Array, "n h"]]
    """`h = sum(num_choices)` indicators."""
    index: Callable[[Int[Array, "n d"]], Int[Array, " n"]]
    codes: Callable[[Int[Array, " n"]], Int[Array, "n d"]]
    isomorph: np.ndarray
    """`int32[size]`: the representative of each architecture's isomorphism class, the one that searches propose: the
    lowest index, or another elected by `with_representatives`. `arange(size)` where every architecture is its own.
    """
    to_string: Callable[[np.ndarray], str]
    """`codes[d] -> name`, on the host."""
    from_string: Callable[[str], np.ndarray]
    """The inverse of `to_string`; `ValueError` says what is wrong with a malformed name."""


def tabular_space(
    name: str,
    choices: tuple[tuple[str, ...], ...],
    *,
    ordinal: tuple[tuple[float, ...], ...] | None = None,
    order: Integer[np.ndarray, " size"] | None = None,
    isomorph: Integer[np.ndarray, " size"] | None = None,
    to_string: Callable[[np.ndarray], str] | None = None,
    from_string: Callable[[str], np.ndarray] | None = None,
) -> SearchSpace:
    """A space in which every combination of the choices is an architecture, indexed by mixed radix.

    `choices`: the names of entry `i`'s choices, in code order; at most `MAX_TABULAR_SIZE` combinations.
    `ordinal`: a number for each choice, rising with its compute, for `features`; the codes themselves by default.
    `order`: the canonical order, `order[index]` being the lexicographic position (entry 0 slowest) of the architecture;
    lexicographic by default. `isomorph`: lowest index of each architecture's class; every architecture its own class
    by default. `to_string`, `from_string`: names joined by `|` by default, for example `conv3x3|skip`.

    Rows out of range are False in `is_valid`, get index `size` (which a scatter drops) and should not be passed
    elsewhere; `codes` clips its indices. `ValueError` for a malformed description.
    """
    num_choices = _checked_choices(name, choices)
    size = int(np.prod(num_choices, dtype=np.int64))
    ordinal_table = _ordinal_table(name, num_choices, ordinal)
    order, isomorph = _checked_order(name, size, order), _checked_isomorph(name, size, isomorph)
    position_to_index = np.argsort(order).astype(np.int32)
    # Lexicographic place values: entry 0 varies slowest.
    place = np.concatenate([np.cumprod(num_choices[:0:-1])[::-1], [1]]).astype(np.int32)
    counts = np.asarray(num_choices, np.int32)
    free = free_choices(num_choices)

    def features(codes: Int[Array, "n d"]) -> Float[Array, "n f"]:
        return jnp.asarray(ordinal_table)[np.arange(len(counts))[None, :], codes]

    def index(codes: Int[Array, "n d"]) -> Int[Array, " n"]:
        position = jnp.sum(codes.astype(jnp.int32) * place[None, :], axis=1, dtype=jnp.int32)
        return jnp.where(free.is_valid(codes), jnp.asarray(position_to_index)[position], size)

    def codes(index: Int[Array, " n"]) -> Int[Array, "n d"]:
        position = jnp.asarray(order)[jnp.clip(index, 0, size - 1)]
        # Entry by entry: a CPU divides by a constant several times faster than by a row of them.
        parts = [jax.lax.rem(jax.lax.div(position, weight), count) for weight, count in zip(place, counts, strict=True)]
        return jnp.stack(parts, axis=1)

    return SearchSpace(
        name=name,
        num_choices=num_choices,
        choice_names=choices,
        size=size,
        sample=free.sample,
        mutate=free.mutate,
        is_valid=free.is_valid,
        features=features,
        one_hot=free.one_hot,
        index=index,
        codes=codes,
        isomorph=isomorph,
        to_string=to_string or functools.partial(joined, choices),
        from_string=from_string or functools.partial(parsed, name, choices),
    )


class FreeChoices(NamedTuple):
    """The functions of a space whose entries are free of each other; as `SearchSpace` has them."""

    sample: Callable[[Key[Array, ""], int], Int[Array, "n d"]]
    mutate: Callable[[Key[Array, ""], Int[Array, "n d"]], Int[Array, "n d"]]
    is_valid: Callable[[Int[Array, "n d"]], Bool[Array, " n"]]
    one_hot: Callable[[Int[Array, "n d"]], Float[Array, "n h"]]


def free_choices(num_choices: tuple[int, ...]) -> FreeChoices:
    """Draws, mutations, checks and indicators where every combination of the choices is an architecture."""
    counts = np.asarray(num_choices, np.int32)
    entries = np.arange(len(counts))
    mutable = np.flatnonzero(counts > 1).astype(np.int32)
    column_entry = np.repeat(entries, counts).astype(np.int32)
    column_choice = np.concatenate([np.arange(count) for count in num_choices]).astype(np.int32)

    def sample(key: Key[Array, ""], n: int) -> Int[Array, "n d"]:
        return jax.random.randint(key, (n, len(counts)), 0, jnp.asarray(counts)[None, :], dtype=jnp.int32)

    def mutate(key: Key[Array, ""], codes: Int[Array, "n d"]) -> Int[Array, "n d"]:
        key_entry, key_shift = jax.random.split(key)
        entry = jax.random.choice(key_entry, jnp.asarray(mutable), (codes.shape[0],))
        # A shift of 1 .. count - 1, modulo count, is uniform over the other choices.
        shift = jax.random.randint(key_shift, entry.shape, 1, jnp.asarray(counts)[entry], dtype=jnp.int32)
        shifts = jnp.where(entry[:, None] == entries[None, :], shift[:, None], 0)
        return ((codes + shifts) % counts[None, :]).astype(jnp.int32)

    def is_valid(codes: Int[Array, "n d"]) -> Bool[Array, " n"]:
        return jnp.all((codes >= 0) & (codes < counts[None, :]), axis=1)

    def one_hot(codes: Int[Array, "n d"]) -> Float[Array, "n h"]:
        return (codes[:, column_entry] == column_choice[None, :]).astype(jnp.float32)

    return FreeChoices(sample, mutate, is_valid, one_hot)


def with_representatives(space: SearchSpace, preference: Float[np.ndarray, " size"]) -> SearchSpace:
    """The space with the most preferred member of every isomorphism class as its representative; ties: the lowest."""
    best_first = np.lexsort((np.arange(space.size), -preference, space.isomorph))
    _, first, members = np.unique(space.isomorph[best_first], return_index=True, return_inverse=True)
    isomorph = np.empty(space.size, np.int32)
    isomorph[best_first] = best_first[first[members]]
    return space._replace(isomorph=isomorph)


def with_distinct_isomorphs(space: SearchSpace) -> SearchSpace:
    """The space with every architecture as a class of its own: searches may evaluate all of them."""
    return space._replace(isomorph=np.arange(space.size, dtype=np.int32))


def _checked_choices(name: str, choices: tuple[tuple[str, ...], ...]) -> tuple[int, ...]:
    num_choices = named_choices(name, choices)
    size = int(np.prod(num_choices, dtype=object)) if choices else 0
    if not 1 < size <= MAX_TABULAR_SIZE:
        raise ValueError(
            f"space {name!r}: {size} architectures; a tabular space has 2 .. {MAX_TABULAR_SIZE}: change its choices"
        )
    return num_choices


def named_choices(name: str, choices: tuple[tuple[str, ...], ...]) -> tuple[int, ...]:
    """How many choices each entry has; `ValueError` for names that cannot be told apart."""
    for entry, names in enumerate(choices):
        if not names or len(set(names)) != len(names):
            raise ValueError(f"space {name!r}, entry {entry}: give one or more different choices, not {names}")
        if any(SEPARATOR in choice or not choice for choice in names):
            raise ValueError(f"space {name!r}, entry {entry}: a choice's name must be non-empty, without {SEPARATOR!r}")
    return tuple(len(names) for names in choices)


def _ordinal_table(
    name: str, num_choices: tuple[int, ...], ordinal: tuple[tuple[float, ...], ...] | None
) -> Float[np.ndarray, "d c"]:
    """Ordinals as a rectangle; the padding is never read for valid codes."""
    if ordinal is None:
        ordinal = tuple(tuple(float(code) for code in range(count)) for count in num_choices)
    if tuple(len(values) for values in ordinal) != num_choices:
        raise ValueError(f"space {name!r}: `ordinal` must give one number for every choice of every entry")
    table = np.zeros((len(num_choices), max(num_choices)), np.float32)
    for entry, values in enumerate(ordinal):
        table[entry, : len(values)] = values
    return table


def _checked_order(name: str, size: int, order: Integer[np.ndarray, " n"] | None) -> Integer[np.ndarray, " size"]:
    if order is None:
        return np.arange(size, dtype=np.int32)
    if order.shape != (size,) or not np.array_equal(np.sort(order), np.arange(size)):
        raise ValueError(f"space {name!r}: `order` must be a permutation of 0 .. {size - 1}")
    return order.astype(np.int32)


def _checked_isomorph(name: str, size: int, isomorph: Integer[np.ndarray, " n"] | None) -> Integer[np.ndarray, " size"]:
    indices = np.arange(size, dtype=np.int32)
    if isomorph is None:
        return indices
    in_range = isomorph.shape == (size,) and bool(np.all((isomorph >= 0) & (isomorph <= indices)))
    if not in_range or not np.array_equal(isomorph[isomorph], isomorph):
        raise ValueError(f"space {name!r}: `isomorph` must hold, for each of {size} indices, the lowest of its class")
    return isomorph.astype(np.int32)


def joined(choices: tuple[tuple[str, ...], ...], codes: np.ndarray) -> str:
    """The default name of an architecture: its choices, joined by `|`."""
    return SEPARATOR.join(names[code] for names, code in zip(choices, np.asarray(codes), strict=True))


def parsed(name: str, choices: tuple[tuple[str, ...], ...], text: str) -> np.ndarray:
    """The inverse of `joined`; `ValueError` says what is wrong with a malformed name."""
    parts = text.split(SEPARATOR)
    if len(parts) != len(choices):
        raise ValueError(
            f"architecture {text!r}: {len(parts)} choices, but space {name!r} has {len(choices)} entries joined by "
            f"{SEPARATOR!r}"
        )
    for entry, (part, names) in enumerate(zip(parts, choices, strict=True)):
        if part not in names:
            raise ValueError(f"architecture {text!r}, entry {entry}: {part!r} is none of {', '.join(names)}")
    return np.asarray([names.index(part) for part, names in zip(parts, choices, strict=True)], np.int32)
