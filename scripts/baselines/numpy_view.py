"""What the learned policy makes of observations, in NumPy: the view of `cenas_jax.allocation.agent`, for many searches.

Float32, as the greedy plans hang on ties between steps.
"""

from typing import Any, NamedTuple

import numpy as np

from cenas_jax.allocation.agent import GREEDY_PLANS, SMALLEST_SHARE
from cenas_jax.allocation.policies import DAY_H, SUPERNET_RESERVE


class Observation(NamedTuple):
    """As `cenas_jax.allocation.Observation`, each `[n]` (or, of one search, numbers) but the forecast and the past."""

    remaining_h: Any
    remaining_time_share: Any
    remaining_carbon_share: Any
    affordable_share: Any
    sampling_cost: Any
    relative_intensity: Any
    relative_forecast: Any  # [n, forecast_h]
    relative_past: Any  # [n, window_h]
    lowest_ratio: Any
    highest_ratio: Any
    intensity_change: Any
    log_hypervolume: Any
    recent_gain: Any
    log_evaluations: Any
    queue_fill: Any
    half_finished_share: Any
    supernet_share: Any


class View(NamedTuple):
    """Rows are searches."""

    inputs: np.ndarray  # [n, inputs]
    affordable_share: np.ndarray  # [n]
    plans: np.ndarray  # [n, plans]


def view(observation: Observation, slots: int) -> View:
    """Of observations stacked along the first axis, float32, with a forecast or a past of 24 h at least."""
    forecast, past = observation.relative_forecast, observation.relative_past
    ahead = np.asarray(forecast[:, :DAY_H] if forecast.shape[1] else past[:, -DAY_H:], np.float32)
    greedy = [greedy_slots(slots, by, observation, ahead[:, 1:]) / np.float32(slots) for by in GREEDY_PLANS]
    plans = np.stack([*greedy, 1 - observation.relative_intensity], axis=1).astype(np.float32)
    width = observation.highest_ratio - observation.lowest_ratio
    now = observation.lowest_ratio + observation.relative_intensity * width
    ratio = observation.lowest_ratio[:, None] + ahead * width[:, None]
    scalars = [
        observation.remaining_time_share,
        np.log1p(observation.remaining_h),
        observation.remaining_carbon_share,
        np.log(np.maximum(observation.affordable_share, SMALLEST_SHARE)),
        observation.sampling_cost,
        observation.relative_intensity,
        now,
        observation.lowest_ratio,
        observation.highest_ratio,
        (ratio < now[:, None]).mean(axis=1),
        observation.intensity_change,
        observation.log_hypervolume,
        observation.recent_gain,
        observation.log_evaluations,
        observation.queue_fill,
        observation.half_finished_share,
        observation.supernet_share,
    ]
    inputs = np.concatenate([np.stack(scalars, axis=1), plans, ratio], axis=1, dtype=np.float32)
    return View(inputs, np.asarray(observation.affordable_share, np.float32), plans)


def greedy_slots(slots: int, diminishing: float, observation: Observation, later: np.ndarray) -> np.ndarray:
    """Slots that evaluate now, `[n]`; `later[n, hours]` as in `cenas_jax.allocation.policies.greedy_slots`."""
    relative = np.concatenate([observation.relative_intensity[:, None], later], axis=1)
    width = observation.highest_ratio - observation.lowest_ratio
    cost = np.maximum(observation.lowest_ratio[:, None] + relative * width[:, None], np.float32(1e-3))
    hours, most = relative.shape[1], max(slots - 1, 1)
    slot, screening = np.arange(1, most + 1, dtype=np.float32), observation.sampling_cost[:, None]
    worth = np.float32(1 - diminishing) ** (slot - 1)
    begin = np.cumsum(worth) / (slot + screening)  # [n, slots]
    work = np.where(slot <= 1 + np.argmax(begin, axis=1)[:, None], begin.max(axis=1)[:, None], worth)
    price = np.where(slot == 1, 1 + screening, np.float32(1))

    remaining_h = np.asarray(observation.remaining_h, np.float32)
    known_h = np.minimum(np.float32(hours), remaining_h)
    repeats = np.maximum(remaining_h / np.maximum(known_h, 1), 1)
    left = (observation.affordable_share * np.float32(slots) * remaining_h / repeats)[:, None]
    order = np.argsort(-(work[:, None] / cost[:, :, None]).reshape(len(cost), -1), axis=1, kind="stable")
    hour, place = order // most, order % most
    within = hour < known_h[:, None]
    each = np.take_along_axis(cost, hour, axis=1) * np.take_along_axis(price, place, axis=1)
    spent = np.cumsum(within * each, axis=1)
    now = np.count_nonzero(within & (spent <= left * np.float32(1 + 1e-6)) & (hour == 0), axis=1)
    shares_left = np.minimum(observation.remaining_time_share, observation.remaining_carbon_share)
    return np.where((observation.supernet_share < 1) & (shares_left > SUPERNET_RESERVE), 0, now)
