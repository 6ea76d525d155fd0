"""Which architecture a training step works on: `draw(key, step, choice)`, a function of the key and the step.

`choice` is traced, so that what is drawn from may change between calls of one compiled program: the allowed choices of
every entry (`uniform_path`, `fair_path`), a list of architectures such as a searcher's region (`listed_path`), or one
architecture (`given_path`).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key

DrawPath = Callable[[Key[Array, ""], Int[Array, ""], Any], tuple]
"""`(key, step, choice) -> path`: what the network is applied to after the images: the codes, or nothing for a network
of one architecture."""


def no_path(key: Key[Array, ""], step: Int[Array, ""], choice: Any) -> tuple:
    """For a network of one architecture; `choice` is not read."""
    return ()


def given_path(key: Key[Array, ""], step: Int[Array, ""], choice: Int[Array, " d"]) -> tuple[Int[Array, " d"]]:
    """Always the architecture `choice`: a candidate's training in the supernet's program, which is compiled once."""
    return (choice,)


def uniform_path(key: Key[Array, ""], step: Int[Array, ""], choice: Bool[Array, "d c"]) -> tuple[Int[Array, " d"]]:
    """A fresh path a step, every allowed choice of an entry as likely (Guo et al., single path one-shot, ECCV 2020)."""
    chance = jnp.where(choice, 0.0, -jnp.inf)
    return (jax.random.categorical(jax.random.fold_in(key, step), chance, axis=1).astype(jnp.int32),)


def fair_path(key: Key[Array, ""], step: Int[Array, ""], choice: Bool[Array, "d c"]) -> tuple[Int[Array, " d"]]:
    """A fresh path a step, so that every c steps each of an entry's c allowed choices is trained once.

    Strict fairness of Chu et al. (FairNAS, ICCV 2021), with an update after every path.
    """

    def entry(number, allowed):
        count = allowed.sum()
        own = jax.random.fold_in(jax.random.fold_in(key, number), step // count)
        luck = jnp.where(allowed, jax.random.uniform(own, allowed.shape), 2.0)
        return jnp.argsort(luck)[step % count]

    return (jax.vmap(entry)(jnp.arange(choice.shape[0]), choice).astype(jnp.int32),)


def listed_path(
    key: Key[Array, ""], step: Int[Array, ""], choice: tuple[Int[Array, "n d"], Bool[Array, " n"]]
) -> tuple[Int[Array, " d"]]:
    """A fresh row of `(codes[n, d], valid[n])` a step, as a searcher's `ask` gives them; one must be valid."""
    codes, valid = choice
    row = jax.random.categorical(jax.random.fold_in(key, step), jnp.where(valid, 0.0, -jnp.inf))
    return (codes[row],)


def every_choice(num_choices: tuple[int, ...]) -> Bool[Array, "d c"]:
    """The allowed choices of a whole space (`SearchSpace.num_choices`)."""
    return jnp.arange(max(num_choices))[None, :] < jnp.asarray(num_choices)[:, None]


def only(allowed: Bool[Array, "d c"], entry: int, choice: int) -> Bool[Array, "d c"]:
    """The part of a space in which an entry has one choice: what a few-shot supernet covers."""
    return allowed.at[entry].set(jnp.arange(allowed.shape[1]) == choice)
