"""Figures of finished simulations as numbers: one row a search, an interval, an architecture or an activity.

Sums are float64 sums of the interval rows, so every table agrees with every other.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Bool, Float64, Int
from scipy.special import stdtrit

from cenas_jax.carbon.ledger import ACTIVITIES
from cenas_jax.carbon.savings import savings
from cenas_jax.carbon.trace import HOUR
from cenas_jax.runs.simulation import SimulationRun

INTERVAL_METHOD = "95 % Student t interval of the mean over seeds, cut to what is possible"


class Estimate(NamedTuple):
    """A mean over seeds with its 95 % interval; NaN bounds where there is one seed."""

    mean: float
    low: float
    high: float


def mean_with_interval(
    values: Float64[np.ndarray, " seeds"], possible: tuple[float, float] = (-np.inf, np.inf)
) -> Estimate:
    """Student's t interval: seeds are independent and few, where a percentile bootstrap is too narrow.

    It is cut to the `possible` values: the true mean lies among them, so the rest covers it exactly as often.
    """
    mean, n = float(values.mean()), len(values)
    if n == 1:
        return Estimate(mean, np.nan, np.nan)
    half = float(stdtrit(n - 1, 0.975) * values.std(ddof=1) / np.sqrt(n))
    lowest, highest = min(possible[0], mean), max(possible[1], mean)  # float32 may round a share of 1 up
    return Estimate(mean, max(mean - half, lowest), min(mean + half, highest))


SAVINGS = {"less_work_g": "less work", "cheaper_work_g": "cheaper work", "later_work_g": "later work"}
"""Columns that say where the difference to vanilla's emissions comes from, and their names."""
SHARE = (0.0, 1.0)


def searches(run: SimulationRun) -> pd.DataFrame:
    """One row a search: what it reached, its energy_kwh and emissions_g in all and by activity; where vanilla ran, also
    how much less it emitted than vanilla with the same seed, by `carbon.savings`."""
    history = run.result.history
    columns = _by_search(run)
    columns["hypervolume_share"] = history.hypervolume_share[:, :, -1].ravel().astype(float)
    columns["evaluations"] = run.result.count.ravel()
    columns["screened"] = history.screened.sum(axis=-1).ravel()
    columns["hours_run"] = history.duration_s.sum(axis=-1, dtype=np.float64).ravel() / 3600
    for quantity in ("energy_kwh", "emissions_g"):
        sums = getattr(history.charge, quantity).sum(axis=2, dtype=np.float64).reshape(-1, len(ACTIVITIES))
        columns[quantity] = sums.sum(axis=1)
        columns |= {f"{activity}_{quantity}": sums[:, i] for i, activity in enumerate(ACTIVITIES)}
    policies = run.inputs.config.policies.policy
    if "vanilla" in policies:
        vanilla = policies.index("vanilla")
        saved = savings(run.result.ledger, jax.tree.map(lambda part: part[vanilla][None], run.result.ledger))
        columns |= {name: np.asarray(getattr(saved, name), float).ravel() for name in SAVINGS}
    return pd.DataFrame(columns)


def summary(run: SimulationRun) -> dict[str, dict[str, Estimate]]:
    """Mean and interval of every figure of `searches`, by policy."""
    frame = searches(run)
    return {
        name: {
            column: mean_with_interval(frame.loc[frame.policy == name, column].to_numpy(float), _possible(column))
            for column in frame.columns.drop(["policy", "seed"])
        }
        for name in run.inputs.config.policies.policy
    }


def _possible(column: str) -> tuple[float, float]:
    """Only savings may be negative."""
    if column == "hypervolume_share":
        return SHARE
    return (-np.inf if column in SAVINGS else 0.0, np.inf)


def history(run: SimulationRun) -> pd.DataFrame:
    """One row for every policy, seed and interval; rows after a search has stopped have duration 0 and no charge."""
    rows, trace = run.result.history, run.inputs.trace
    hour = np.arange(trace.hours)
    shape = rows.running.shape
    columns: dict[str, Any] = {name: np.repeat(values, trace.hours) for name, values in _by_search(run).items()}
    columns["hour"] = np.tile(hour, shape[0] * shape[1])
    columns["time_utc"] = np.tile(np.datetime_as_string(trace.start + hour * HOUR, unit="m"), shape[0] * shape[1])
    columns["intensity_g_per_kwh"] = np.tile(trace.intensity_g_per_kwh, shape[0] * shape[1])
    columns["duration_h"] = rows.duration_s.ravel().astype(float) / 3600
    for name in ("evaluation_slots", "screened", "finished", "evaluations", "queue", "half_finished"):
        columns[name] = getattr(rows, name).ravel()
    columns["hypervolume_share"] = rows.hypervolume_share.ravel().astype(float)
    charge = rows.charge
    charges = {
        "busy_h": charge.busy_s.astype(float) / 3600,
        "energy_kwh": charge.energy_kwh,
        "emissions_g": charge.emissions_g,
    }
    for quantity, values in charges.items():
        values = values.astype(float).reshape(-1, len(ACTIVITIES))
        columns |= {f"{activity}_{quantity}": values[:, i] for i, activity in enumerate(ACTIVITIES)}
    return pd.DataFrame(columns)


def ledger(run: SimulationRun) -> pd.DataFrame:
    """One row for every policy, seed and activity: busy_h (slot hours), energy_kwh, emissions_g."""
    charge = run.result.history.charge
    columns: dict[str, Any] = {name: np.repeat(values, len(ACTIVITIES)) for name, values in _by_search(run).items()}
    columns["activity"] = np.tile(np.asarray(ACTIVITIES), run.result.count.size)
    columns["busy_h"] = charge.busy_s.sum(axis=2, dtype=np.float64).ravel() / 3600
    columns["energy_kwh"] = charge.energy_kwh.sum(axis=2, dtype=np.float64).ravel()
    columns["emissions_g"] = charge.emissions_g.sum(axis=2, dtype=np.float64).ravel()
    return pd.DataFrame(columns)


def pareto(run: SimulationRun) -> pd.DataFrame:
    """The front of every search, in order of evaluation: architecture and objectives in their natural sign."""
    policy, seed, place = np.nonzero(run.on_front)
    index = run.result.evaluated[policy, seed, place]
    space = run.benchmark.space
    values = natural_objectives(run)[index]
    columns = {
        "policy": np.asarray(run.inputs.config.policies.policy)[policy],
        "seed": seed,
        "evaluation": place + 1,
        "architecture": [space.to_string(code) for code in np.asarray(space.codes(jnp.asarray(index)))],
    }
    return pd.DataFrame(columns | {name: values[:, i] for i, name in enumerate(objective_columns(run))})


def natural_objectives(run: SimulationRun) -> Float64[np.ndarray, "size m"]:
    """The whole table with costs positive: accuracies are given in %, and everything else was negated."""
    sign = np.where(maximised(run), 1.0, -1.0)
    return np.asarray(run.benchmark.table.objectives, float) * sign[None, :]


def maximised(run: SimulationRun) -> Bool[np.ndarray, " m"]:
    """Which objectives are maximised in their natural sign."""
    return np.asarray([unit == "%" for unit in run.benchmark.units])


def objective_columns(run: SimulationRun) -> tuple[str, ...]:
    """Names of the objectives with their units, fit for a CSV header."""
    units = ("percent" if unit == "%" else unit.replace(" ", "_") for unit in run.benchmark.units)
    return tuple(f"{name}_{unit}" for name, unit in zip(run.benchmark.objective_names, units, strict=True))


def evaluated_index(run: SimulationRun, policy: int, seed: int) -> Int[np.ndarray, " evaluations"]:
    """Table rows that one search evaluated, in order."""
    return np.asarray(run.result.evaluated[policy, seed, : run.result.count[policy, seed]])


def _by_search(run: SimulationRun) -> dict[str, Any]:
    policies, seeds = run.inputs.config.policies.policy, run.inputs.config.policies.seeds
    return {"policy": np.repeat(np.asarray(policies), seeds), "seed": np.tile(np.arange(seeds), len(policies))}
