"""The contract of spaces too large to enumerate: no index, no table; costs are computed from the codes."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from cenas_jax.spaces.base import SearchSpace, free_choices, joined, named_choices, parsed


class LargeSpace(NamedTuple):
    """Architectures `int32[d]`, entry `i` being a choice out of `num_choices[i]`. What has the name of a field of
    `SearchSpace` means the same; the functions are pure and work under `jit` and `vmap`, but for the names'."""

    name: str
    num_choices: tuple[int, ...]
    choice_names: tuple[tuple[str, ...], ...]
    sample: Callable[[Key[Array, ""], int], Int[Array, "n d"]]
    """`(key, n) -> codes[n, d]`, uniform over the valid ones, with replacement."""
    mutate: Callable[[Key[Array, ""], Int[Array, "n d"]], Int[Array, "n d"]]
    """`(key, codes[n, d]) -> codes[n, d]`: one entry of every row is changed to another choice; valid ones stay so."""
    is_valid: Callable[[Int[Array, "n d"]], Bool[Array, " n"]]
    features: Callable[[Int[Array, "n d"]], Float[Array, "n f"]]
    one_hot: Callable[[Int[Array, "n d"]], Float[Array, "n h"]]
    parameters: Callable[[Int[Array, "n d"]], Float[Array, " n"]]
    """Trained parameters of each network: weights, biases, scales and shifts of normalisations; without auxiliary
    heads. float32: exact up to 2**24, beyond that to a millionth."""
    multiply_adds: Callable[[Int[Array, "n d"]], Float[Array, " n"]]
    """Multiply-adds of one forward pass over one image: convolutions and linear layers, a bias counted as one more
    input; not normalisation, activation and pooling. float32, to a millionth."""
    canonical: Callable[[Int[Array, "n d"]], Int[Array, "n d"]]
    """The representative of each architecture's isomorphism class: equal for all that compute the same function after
    their nodes are renamed. The codes themselves where the space knows no isomorphs."""
    to_string: Callable[[np.ndarray], str]
    from_string: Callable[[str], np.ndarray]

    @property
    def index(self):  # which a tuple would have otherwise
        return self.__getattr__("index")

    def __getattr__(self, attribute: str):
        if attribute in SearchSpace._fields:
            raise AttributeError(
                f"space {self.name!r} is too large to enumerate: it has no `{attribute}`; use a tabular space here"
            )
        raise AttributeError(f"LargeSpace has no attribute {attribute!r}")


def large_space(
    name: str,
    choices: tuple[tuple[str, ...], ...],
    *,
    features: Callable[[Int[Array, "n d"]], Float[Array, "n f"]],
    parameters: Callable[[Int[Array, "n d"]], Float[Array, " n"]],
    multiply_adds: Callable[[Int[Array, "n d"]], Float[Array, " n"]],
    holds: Callable[[Int[Array, "n d"]], Bool[Array, " n"]] | None = None,
    canonical: Callable[[Int[Array, "n d"]], Int[Array, "n d"]] | None = None,
    to_string: Callable[[np.ndarray], str] | None = None,
    from_string: Callable[[str], np.ndarray] | None = None,
) -> LargeSpace:
    """A space from the names of every entry's choices and the functions that only it can know.

    `holds`: its constraints, for codes within their choices; none by default, so that every combination is valid.
    With constraints, `sample` draws until all rows are valid (so they should not be rare), and `mutate` draws
    uniformly from a row's valid neighbours. `ValueError` for a malformed description.
    """
    num_choices = named_choices(name, choices)
    free = free_choices(num_choices)
    if holds is not None:
        free = free._replace(
            sample=functools.partial(_sample_where, holds, free.sample),
            mutate=functools.partial(_mutate_where, holds, _neighbours(num_choices)),
            is_valid=lambda codes, within=free.is_valid: (
                within(codes) & holds(jnp.where(within(codes)[:, None], codes, 0))
            ),
        )
    return LargeSpace(
        name=name,
        num_choices=num_choices,
        choice_names=choices,
        sample=free.sample,
        mutate=free.mutate,
        is_valid=free.is_valid,
        features=features,
        one_hot=free.one_hot,
        parameters=parameters,
        multiply_adds=multiply_adds,
        canonical=canonical or (lambda codes: codes),
        to_string=to_string or functools.partial(joined, choices),
        from_string=from_string or functools.partial(parsed, name, choices),
    )


def least_row(rows: Int[Array, "p n d"], valid: Bool[Array, "p n"]) -> Int[Array, "n d"]:
    """The lexicographically least of the `p` rows that are valid, for each of `n`; at least one must be."""
    least = []
    for column in range(rows.shape[2]):
        values = jnp.where(valid, rows[:, :, column], jnp.iinfo(jnp.int32).max)
        least.append(values.min(axis=0))
        valid &= values == least[-1][None, :]
    return jnp.stack(least, axis=1)


def _neighbours(num_choices: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Entry and shift of every change to one entry; a shift of 1 .. count - 1, modulo count, is another choice."""
    entry, shift = zip(*((e, s) for e, count in enumerate(num_choices) for s in range(1, count)), strict=True)
    return np.eye(len(num_choices), dtype=np.int32)[list(entry)] * np.asarray(shift)[:, None], np.asarray(num_choices)


def _sample_where(holds, draw, key: Key[Array, ""], n: int) -> Int[Array, "n d"]:
    def again(state):
        key, codes, valid = state
        key, key_draw = jax.random.split(key)
        fresh = draw(key_draw, n)
        return key, jnp.where(valid[:, None], codes, fresh), valid | holds(fresh)

    key, key_first = jax.random.split(key)
    codes = draw(key_first, n)
    return jax.lax.while_loop(lambda state: ~state[2].all(), again, (key, codes, holds(codes)))[1]


def _mutate_where(holds, changes, key: Key[Array, ""], codes: Int[Array, "n d"]) -> Int[Array, "n d"]:
    shifts, counts = changes
    near = (codes[:, None] + shifts[None]) % counts[None, None]
    valid = holds(near.reshape(-1, codes.shape[1])).reshape(near.shape[:2])
    drawn = jax.random.categorical(key, jnp.where(valid, 0.0, -jnp.inf), axis=1)
    return jnp.take_along_axis(near, drawn[:, None, None], axis=1)[:, 0].astype(jnp.int32)
