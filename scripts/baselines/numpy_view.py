"""What the learned policy makes of observations, in NumPy: the view of `cenas_jax.allocation.agent`, for many searches.

Float32, as the greedy plans hang on ties between steps.
"""

from typing import Any, NamedTuple

import numpy as np

from cenas_jax.allocation.agent import GREEDY_PLANS, SMALLEST_SHARE
from cenas_jax.allocation.policies import DAY_H, MOST_DAYS, SUPERNET_RESERVE

CHUNK = 8
"""Searches whose plans are made at once: more fall out of the cache."""


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
    parts = [_plans(slots, _rows(observation, part), ahead[part, 1:]) for part in _chunks(len(ahead))]
    heuristic = 1 - observation.relative_intensity
    plans = np.concatenate([np.concatenate(parts), heuristic[:, None]], axis=1).astype(np.float32)
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


def _plans(slots: int, observation: Observation, later: np.ndarray) -> np.ndarray:
    """Shares of the slots that evaluate now, `[n, greedy plans]`."""
    return np.stack([greedy_slots(slots, by, observation, later) for by in GREEDY_PLANS], axis=1) / np.float32(slots)


def greedy_slots(slots: int, diminishing: float, observation: Observation, later: np.ndarray) -> np.ndarray:
    """Slots that evaluate now, `[n]`; `later[n, hours]` as in `cenas_jax.allocation.policies.greedy_slots`."""
    relative = np.concatenate([observation.relative_intensity[:, None], later], axis=1)
    width = observation.highest_ratio - observation.lowest_ratio
    cost = np.maximum(observation.lowest_ratio[:, None] + relative * width[:, None], np.float32(1e-3))
    hours, most = relative.shape[1], max(slots - 1, 1)
    worth = np.arange(1, most + 1, dtype=np.float32) ** np.float32(-diminishing)
    steps = (worth / cost[:, :, None]).reshape(len(cost), -1)
    order = np.argsort(-steps, axis=1, kind="stable")
    hour, worth = order // most, worth[order % most]
    price = np.take_along_axis(cost, hour, axis=1)[:, None]

    remaining_h = np.asarray(observation.remaining_h, np.float32)[:, None]
    known_h = np.minimum(np.float32(hours), remaining_h)
    first = np.broadcast_to(np.arange(1, hours + 1, dtype=np.float32), (len(cost), hours))
    days = known_h * np.arange(1, MOST_DAYS + 1, dtype=np.float32)
    ends_h = np.minimum(np.concatenate([first, days, remaining_h], axis=1), remaining_h)
    within_h = np.minimum(ends_h, known_h)
    repeats = np.maximum(ends_h / np.maximum(within_h, 1), 1)
    budget = observation.affordable_share * np.float32(slots) * observation.remaining_h
    left = ((budget[:, None] - observation.sampling_cost[:, None] * ends_h) / repeats)[:, :, None]

    within = hour[:, None] < within_h[:, :, None]  # [n, ends, steps]
    spent = np.cumsum(within * price, axis=2)
    part = np.clip((left - spent) / price + 1, 0, 1) * within
    work = np.einsum("nes,ns->ne", part, worth) * repeats
    taken = within & (spent <= left * np.float32(1 + 1e-6)) & (hour == 0)[:, None]
    best = np.argmax(np.where(ends_h > 0, work, -1) * (1 + np.float32(1e-6) * ends_h), axis=1)
    now = np.count_nonzero(taken[np.arange(len(best)), best], axis=1)
    left = np.minimum(observation.remaining_time_share, observation.remaining_carbon_share)
    return np.where((observation.supernet_share < 1) & (left > SUPERNET_RESERVE), 0, now)


def _rows(observation: Observation, part: slice) -> Observation:
    return Observation(*(np.asarray(value[part], np.float32) for value in observation))


def _chunks(count: int) -> list[slice]:
    return [slice(start, start + CHUNK) for start in range(0, count, CHUNK)]
