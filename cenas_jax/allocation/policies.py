"""Plain rules that split the slots: the rivals every learned policy must beat.

A policy's parameters are traced and live in its state, and `plain_policy` chooses the rule by a traced number, so that
different rules run side by side in one `vmap`.
"""

from collections.abc import Callable, Sequence
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
    diminishing: Float[Array, ""]
    """The greedy rules: a slot is worth `1 - diminishing` of the one before it in the hour; 0: as much."""


def one_of(policies: Sequence[Policy]) -> Policy:
    """Several policies behind one traced choice. Its params: `(place of the policy, the params of every policy)`."""

    def init(params):
        which, each = params
        return which, tuple(policy.init(own) for policy, own in zip(policies, each, strict=True))

    def act(key, state, observation):
        which, states = state

        def by(place: int):
            def answer(states):
                slots, own = policies[place].act(key, states[place], observation)
                return slots, (*states[:place], own, *states[place + 1 :])

            return answer

        slots, states = jax.lax.switch(which, [by(place) for place in range(len(policies))], states)
        return slots, (which, states)

    return Policy(init, act)


DIMINISHING = 0.5
"""Of the greedy rules, by default: slots side by side evaluate what cannot learn from each other."""
DAY_H = 24
SUPERNET_RESERVE = 0.5
"""Of time and carbon: a greedy plan that has no more left does not wait for the supernet any longer."""
RULES = ("fixed", "heuristic", "threshold", "one-shot", "yesterday-greedy", "forecast-greedy")


def plain_policy(slots: int) -> Policy:
    """All plain rules behind one traced choice, for `slots` slots.

    - `fixed`: a constant split. With every slot evaluating it is vanilla LaMOO: nothing is screened.
    - `heuristic`: evaluation share = (max CI - CI) / (max CI - min CI) over the rolling window, at least one slot each
      way (CE-NAS's rule without learning).
    - `threshold`: all slots but one evaluate while the relative intensity is below `threshold`, otherwise one does.
    - `one-shot`: only sampling, until the reserve for evaluating the predicted front is all that is left.
    - `yesterday-greedy`, `forecast-greedy`: spend the carbon that is left in the cheapest hours ahead, see
      `greedy_slots`; these hours are taken to be as the same hours of yesterday, or as the observation's forecast
      (without one, the present hour is all that is looked at).
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

    def yesterday_greedy(params, observation):
        return greedy_slots(slots, params.diminishing, observation, observation.relative_past[-DAY_H + 1 :])

    def forecast_greedy(params, observation):
        return greedy_slots(slots, params.diminishing, observation, observation.relative_forecast[1:])

    rules = (fixed, heuristic, threshold, one_shot, yesterday_greedy, forecast_greedy)

    def act(key, params, observation):
        return jax.lax.switch(params.rule, rules, params, observation), params

    return Policy(init=lambda params: params, act=act)


def greedy_slots(
    slots: int, diminishing: Float[Array, ""] | float, observation: Observation, later: Float[Array, " hours"]
) -> Int[Array, ""]:
    """Slots that evaluate now, so that what the budget affords does the most work until the time is over.

    One slot for one hour does `(1 - diminishing) ** (v - 1)` of work as the hour's v-th slot, and costs the hour's
    intensity. Steps are taken by work per carbon, as long as the budget lasts (CarbonScaler, Hanafy et al. 2023); hours
    beyond the known ones are taken to be like them. Two things are ours. What an hour evaluates has to be screened
    before, which costs the same for one slot and for many: an hour begins with as many slots as do the most work for
    their price, and its first slot pays for the screening. And what was not screened is not worth evaluating: where
    there are two slots, one always samples, and until the supernet is trained all do, for at most half of the time and
    the carbon.

    Args:
        later: relative intensity of the hours after the present one.
    """
    relative = jnp.concatenate([observation.relative_intensity[None], later])
    ratio = observation.lowest_ratio + relative * (observation.highest_ratio - observation.lowest_ratio)
    cost, hour = jnp.maximum(ratio, 1e-3), jnp.arange(relative.shape[0])
    most = max(slots - 1, 1)
    slot = jnp.arange(1.0, most + 1)
    worth = jnp.power(1.0 - diminishing, slot - 1)
    begin = jnp.cumsum(worth) / (slot + observation.sampling_cost)  # work per price of an hour of so many slots
    work = jnp.where(slot <= 1 + jnp.argmax(begin), begin.max(), worth)  # per price, of each slot
    price = jnp.where(slot == 1, 1 + observation.sampling_cost, 1.0)

    known_h = jnp.minimum(relative.shape[0], observation.remaining_h)
    repeats = jnp.maximum(observation.remaining_h / jnp.maximum(known_h, 1), 1)
    left = observation.affordable_share * slots * observation.remaining_h / repeats
    order = jnp.argsort(-(work[None] / cost[:, None]).reshape(-1), stable=True)
    within = (hour < known_h)[order // most]
    spent = jnp.cumsum(jnp.where(within, cost[order // most] * price[order % most], 0))
    now = (within & (spent <= left * (1 + 1e-6)) & (order < most)).sum(dtype=jnp.int32)
    shares_left = jnp.minimum(observation.remaining_time_share, observation.remaining_carbon_share)
    return jnp.where((observation.supernet_share < 1) & (shares_left > SUPERNET_RESERVE), 0, now)


def plain_params(
    name: str,
    slots: int,
    *,
    evaluation_slots: int | None = None,
    threshold: float = 0.5,
    reserve_share: float = 0.1,
    diminishing: float = DIMINISHING,
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
    if not 0 <= diminishing <= 1:
        raise ValueError(f"policy {name}: diminishing {diminishing} must lie in 0..1")
    return PlainParams(
        rule=jnp.asarray(RULES.index(name), jnp.int32),
        evaluation_slots=jnp.asarray(evaluation_slots or 0, jnp.int32),
        threshold=jnp.asarray(threshold, jnp.float32),
        reserve_share=jnp.asarray(reserve_share, jnp.float32),
        diminishing=jnp.asarray(diminishing, jnp.float32),
    )
