"""Plain rules that split the slots: the rivals every learned policy must beat.

A policy's parameters are traced and live in its state, and `plain_policy` chooses the rule by a traced number, so that
different rules run side by side in one `vmap`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from cenas_jax.allocation.environment import Observation


class Policy(NamedTuple):
    """`init(params) -> state` and `act(key, state, observation) -> (evaluation_slots, state)`."""

    init: Callable[[Any], Any]
    act: Callable[[Key[Array, ""], Any, Observation], tuple[Int[Array, ""], Any]]


class PlainParams(NamedTuple):
    """Parameters of `plain_policy`. Fields a rule does not use are ignored."""

    rule: Int[Array, ""]
    """Position in `RULES`."""
    evaluation_slots: Int[Array, ""]
    """`fixed`: the constant split."""
    threshold: Float[Array, ""]
    """`threshold`: evaluate below this relative intensity."""
    reserve_share: Float[Array, ""]
    """`one-shot`: evaluate once the remaining share of time or carbon has fallen to this."""


RULES = ("fixed", "heuristic", "threshold", "one-shot")


def plain_policy(slots: int) -> Policy:
    """All plain rules behind one traced choice, for `slots` slots.

    - `fixed`: a constant split. With every slot evaluating it is vanilla LaMOO: nothing is screened.
    - `heuristic`: evaluation share = (max CI - CI) / (max CI - min CI) over the rolling window, at least one slot each
      way (CE-NAS's rule without learning).
    - `threshold`: all slots but one evaluate while the relative intensity is below `threshold`, otherwise one does.
    - `one-shot`: only sampling, until the reserve for evaluating the predicted front is all that is left.
    """

    def clamp(evaluation_slots):  # at least one slot each way, where there are two
        return jnp.clip(evaluation_slots, min(1, slots), max(slots - 1, 1)).astype(jnp.int32)

    def fixed(params, observation):
        return jnp.clip(params.evaluation_slots, 0, slots).astype(jnp.int32)

    def heuristic(params, observation):
        return clamp(jnp.round(slots * (1 - observation.relative_intensity)))

    def threshold(params, observation):
        return clamp(jnp.where(observation.relative_intensity < params.threshold, slots, 0))

    def one_shot(params, observation):
        left = jnp.minimum(observation.remaining_time_share, observation.remaining_carbon_share)
        return jnp.where(left <= params.reserve_share, slots, 0).astype(jnp.int32)

    rules = {"fixed": fixed, "heuristic": heuristic, "threshold": threshold, "one-shot": one_shot}

    def act(key, params, observation):
        return jax.lax.switch(params.rule, [rules[name] for name in RULES], params, observation), params

    return Policy(init=lambda params: params, act=act)


def plain_params(
    name: str, slots: int, *, evaluation_slots: int | None = None, threshold: float = 0.5, reserve_share: float = 0.1
) -> PlainParams:
    """Parameters of a rule by name: one of `RULES`, `vanilla` (every slot evaluates), or `fixed-V` for V = 0..slots."""
    if name == "vanilla":
        name, evaluation_slots = "fixed", slots
    elif name.startswith("fixed-") and name[6:].isdecimal():
        name, evaluation_slots = "fixed", int(name[6:])
    if name not in RULES:
        known = ", ".join(["vanilla", "fixed-V", *RULES[1:]])
        raise ValueError(f"policy {name!r} is unknown: choose from {known} (V = 0..{slots} evaluation slots)")
    if name == "fixed" and (evaluation_slots is None or not 0 <= evaluation_slots <= slots):
        raise ValueError(f"policy fixed-V: V must be 0..{slots} evaluation slots, got {evaluation_slots}")
    if not (0 <= threshold <= 1 and 0 <= reserve_share <= 1):
        raise ValueError(f"policy {name}: threshold {threshold} and reserve share {reserve_share} must lie in 0..1")
    return PlainParams(
        rule=jnp.asarray(RULES.index(name), jnp.int32),
        evaluation_slots=jnp.asarray(evaluation_slots or 0, jnp.int32),
        threshold=jnp.asarray(threshold, jnp.float32),
        reserve_share=jnp.asarray(reserve_share, jnp.float32),
    )
