"""What an allocation policy sees and decides, and the contract of the environment that answers it (gymnax's shape)."""

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxtyping import Array, Bool, Float, Int, Key

FORECAST_LOWEST, FORECAST_HIGHEST = -1.0, 2.0
"""Bounds of `relative_forecast`: a whole range of the window beyond its lowest and its highest hour."""


class Observation(NamedTuple):
    """The search at the start of a carbon interval, free of any benchmark's scale. float32, scalars but the
    past and the forecast.

    Shares lie in 0..1. Nothing here was unknown at the start of the interval: no look-ahead, unless the forecast that
    the environment was given is the truth.
    """

    remaining_h: Float[Array, ""]
    """Hours until the end of the time."""
    remaining_time_share: Float[Array, ""]
    remaining_carbon_share: Float[Array, ""]
    """Of the scarcer of the carbon and the energy budget; 1 where neither is limited."""
    affordable_share: Float[Array, ""]
    """Share of the slots that what is left of these budgets would let evaluate for all the time that is left, at the
    window's mean intensity; 1 where all could, or nothing is limited.
    """
    sampling_cost: Float[Array, ""]
    """What an hour's screening draws, in hours of one slot that evaluates; 0 where sampling is not charged."""
    relative_intensity: Float[Array, ""]
    """`(CI - min) / (max - min)` over the rolling window, the current hour included; 0.5 where the window is flat."""
    relative_forecast: Float[Array, " forecast_h"]
    """What was forecast at the start of this hour, for it and the next hours, over the range of the same window: below
    0 cleaner, above 1 dirtier than all of it; clipped to -1..2; 0.5 where the window is flat. Empty without forecast.
    """
    relative_past: Float[Array, " window_h"]
    """The window's hours before this one, oldest first, in the same units; 0.5 where unknown."""
    lowest_ratio: Float[Array, ""]
    """The window's lowest intensity over its mean; with `highest_ratio` it turns relative values into ratios."""
    highest_ratio: Float[Array, ""]
    intensity_change: Float[Array, ""]
    """This hour's intensity over the previous hour's, minus 1."""
    log_hypervolume: Float[Array, ""]
    """Natural logarithm of the hypervolume over that of the initial design; 0 at the start."""
    recent_gain: Float[Array, ""]
    """Growth of `log_hypervolume` over the last interval."""
    log_evaluations: Float[Array, ""]
    """`ln(1 + evaluations)`."""
    queue_fill: Float[Array, ""]
    half_finished_share: Float[Array, ""]
    """Half-finished jobs over slots."""
    supernet_share: Float[Array, ""]
    """How much of the supernet's training is done; 1 where none is needed."""


class TimeStep(NamedTuple):
    """The answer to an action. `terminated`: a budget ended the search. `truncated`: the last interval is over."""

    observation: Observation
    reward: Float[Array, ""]
    terminated: Bool[Array, ""]
    truncated: Bool[Array, ""]
    info: Any


class Environment(NamedTuple):
    """Pure functions under `jit` and `vmap`; `params` is a traced pytree, so a sweep over it is a `vmap`."""

    slots: int
    """Actions are 0..slots evaluation slots; the other slots sample."""
    reset: Callable[[Key[Array, ""], Any], tuple[Any, Observation]]
    """`(key, params) -> (state, observation)`."""
    step: Callable[[Any, Int[Array, ""], Any], tuple[Any, TimeStep]]
    """`(state, evaluation_slots, params) -> (state, time_step)`. A step after the end changes nothing, rewards 0."""
