"""What allocation policies are trained on: many benchmarks, grids, windows, budgets and power models; never the test's.

Held out for tests are every accuracy on CIFAR-10 and every real hour from July 2021 on; both are refused here, in code.
What is synthetic is not free of them, though: the coefficients of the synthetic traces were fitted on 2021 and 2022
(the mean daily, weekly and yearly shape of CISO, DE and PJM), and the synthetic benchmarks' defaults were set by eye
after CIFAR-10's percentiles.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from cenas_jax.allocation.environment import Environment
from cenas_jax.allocation.reward import RewardName
from cenas_jax.benchmarks import SyntheticBenchmarkConfig, nas_bench_201_benchmark, synthetic_benchmark
from cenas_jax.benchmarks.base import BenchmarkTable, benchmark_table
from cenas_jax.carbon import IntensityTrace, fill_gaps, load_trace
from cenas_jax.carbon.budget import BudgetParams
from cenas_jax.carbon.power import PowerParams
from cenas_jax.cluster.simulated import simulated_cluster
from cenas_jax.cluster.state import ClusterConfig, ClusterParams
from cenas_jax.search import LamooConfig, lamoo_search
from cenas_jax.spaces.nas_bench_201 import nas_bench_201

TEST_FROM = np.datetime64("2021-07-01T00", "h")
HOURS, WINDOW_H, FORECAST_H = 80, 24, 24
SYNTHETIC_BENCHMARKS, SYNTHETIC_FAMILIES, REAL_BENCHMARKS = 24, 6, 24
SYNTHETIC_TRACES = tuple(f"synthetic-{profile}" for profile in ("ciso", "de", "pjm"))
REAL_TRACES = ("us-cal-ciso", "em-de", "em-us-mida-pjm", "em-us-tex-erco", "em-nl", "em-es", "em-pl")
COSTS = ("edgegpu_energy", "edgegpu_latency", "fpga_energy", "raspi4_latency")
AFFORDABLE = (0.02, 0.4)
"""Share of the slots that the carbon limit lets evaluate for all the time; drawn log-uniformly."""
FORECAST_NOISE = 0.15
"""Most relative error of a forecast, 24 h ahead."""
SUPERNET_H = (0.3, 12.0)
"""Slot-hours that the supernet's training takes; drawn log-uniformly for each benchmark."""
CAPACITY = 384
"""Evaluations that end an episode, where the limit on carbon does not: what a search can hold."""


class PolicyTasks(NamedTuple):
    """Everything that a task is drawn from; stacked along the first axis."""

    tables: BenchmarkTable
    intensity_g_per_kwh: Float[Array, "traces hours"]
    """NaN after a trace's end."""
    hours: Int[Array, " traces"]
    sources: tuple[str, ...]
    """Names of benchmarks and traces, for the record."""


class Task(NamedTuple):
    """One episode; the params of `task_environment`."""

    table: BenchmarkTable
    cluster: ClusterParams


def training_tasks(data: Path | None, seed: int = 0) -> PolicyTasks:
    """The tasks to train on: synthetic ones, and where there is a data folder CIFAR-100 and real grids before July
    2021. `ValueError` where a file is missing, or something held out for tests would be used.
    """
    random = np.random.default_rng(seed)
    tables, sources = _synthetic_tables(seed, random)
    traces = [load_trace(name, seed=seed + number) for number, name in enumerate(SYNTHETIC_TRACES)]
    if data is not None:
        real, names = _real_tables(data, random)
        tables, sources = tables + real, sources + names
        traces += [fill_gaps(_before_test(load_trace(name, data, gap_policy=None)), "hold", 12) for name in REAL_TRACES]
    longest = max(trace.hours for trace in traces)
    rows = [np.pad(t.intensity_g_per_kwh, (0, longest - t.hours), constant_values=np.nan) for t in traces]
    for trace in traces:
        refuse_held_out(trace)
    return PolicyTasks(
        jax.tree.map(lambda *parts: jnp.asarray(np.stack(parts)), *tables),
        jnp.asarray(np.stack(rows), jnp.float32),
        jnp.asarray([trace.hours for trace in traces], jnp.int32),
        (*sources, *(trace.source for trace in traces)),
    )


def refuse_held_out(trace: IntensityTrace) -> None:
    """`ValueError` where a real trace reaches into the hours that are held out for tests."""
    if not trace.synthetic and trace.start + trace.hours * np.timedelta64(1, "h") > TEST_FROM:
        raise ValueError(f"{trace.source}: hours from {TEST_FROM} on are held out for tests: end the trace before them")


def refuse_held_out_objectives(objectives: tuple[str, ...]) -> None:
    """`ValueError` where one of them was measured on CIFAR-10, which is held out for tests."""
    for name in objectives:
        if name.startswith("c10_") or name.endswith("_c10"):
            raise ValueError(f"objective {name}: CIFAR-10 is held out for tests: train on CIFAR-100")


def draw_task(tasks: PolicyTasks) -> Callable[[Key[Array, ""]], Task]:
    """`(key) -> Task`, pure: a benchmark, a grid, a window of 80 h, a forecast's error, a power model, a limit."""

    def draw(key) -> Task:
        keys = jax.random.split(key, 10)
        place = jax.random.randint(keys[0], (), 0, tasks.tables.train_time_s.shape[0])
        table = jax.tree.map(lambda part: part[place], tasks.tables)
        trace = jax.random.randint(keys[1], (), 0, tasks.hours.shape[0])
        start = jax.random.randint(keys[2], (), 0, tasks.hours[trace] - (WINDOW_H + HOURS + FORECAST_H))
        whole = jax.lax.dynamic_slice(
            tasks.intensity_g_per_kwh, (trace, start), (1, WINDOW_H + HOURS + FORECAST_H - 1)
        )[0]
        power = _power(keys[3], keys[4])
        hours = jnp.round(jax.random.uniform(keys[5], minval=24.0, maxval=HOURS))
        low, high = np.log(AFFORDABLE)
        share = jnp.exp(jax.random.uniform(keys[6], minval=low, maxval=high))
        mean = whole[WINDOW_H : WINDOW_H + HOURS].mean()
        full_g = 8 * hours * mean * power.evaluation_w * power.pue / 1000
        nothing = jnp.float32(jnp.inf)
        return Task(
            table,
            ClusterParams(
                intensity_g_per_kwh=whole[: WINDOW_H + HOURS],
                forecast_g_per_kwh=_forecast(keys[7], keys[8], whole[WINDOW_H:]),
                power=power,
                budget=BudgetParams(
                    hours=hours, carbon_g=share * full_g, energy_kwh=nothing, evaluations=jnp.float32(CAPACITY)
                ),
                charge_initial_design=jnp.asarray(power.initial_design_w) > 0,
                screens_on=jnp.asarray(False),
            ),
        )

    return draw


def task_environment(slots: int = 8, reward: RewardName = "budgeted") -> Environment:
    """The environment of the tasks, of `HOURS` intervals; its params are a `Task`."""
    space = nas_bench_201()
    config = ClusterConfig(
        slots=slots, window_h=WINDOW_H, forecast_h=FORECAST_H, capacity=CAPACITY, screen_per_interval=256, reward=reward
    )
    lamoo = LamooConfig(capacity=CAPACITY, choice="corrected")

    def of(task: Task) -> Environment:
        searcher = lamoo_search(space, task.table.reference_point, lamoo)
        return simulated_cluster(space, task.table, searcher, config, HOURS)

    def reset(key, task: Task):
        return of(task).reset(key, task.cluster)

    def step(state, evaluation_slots, task: Task):
        return of(task).step(state, evaluation_slots, task.cluster)

    return Environment(slots, reset, step)


def _synthetic_tables(seed: int, random) -> tuple[list[BenchmarkTable], tuple[str, ...]]:
    space, tables = nas_bench_201(), []
    for family in range(SYNTHETIC_FAMILIES):
        config = SyntheticBenchmarkConfig(
            estimate_tau=float(random.uniform(0.3, 0.7)),
            median_accuracy=float(random.uniform(86, 92)),
            interaction_share=float(random.uniform(0.1, 0.5)),
            compute_effect=float(random.uniform(0.3, 0.7)),
            estimate_time_s=_log_uniform(random, 1.0, 20.0),
        )
        for number in range(family, SYNTHETIC_BENCHMARKS, SYNTHETIC_FAMILIES):
            table = synthetic_benchmark(1000 * seed + number, space, config).table
            tables.append(_with_any_supernet(_by_class(table, space.isomorph), random))
    return tables, (f"{SYNTHETIC_BENCHMARKS} synthetic benchmarks",)


def _real_tables(data: Path, random) -> tuple[list[BenchmarkTable], tuple[str, ...]]:
    """CIFAR-100 with the energy or latency of a device, and estimates of a drawn quality."""
    tables = []
    for number in range(REAL_BENCHMARKS):
        tau = round(float(random.uniform(0.3, 0.7)), 3)
        objectives = ("c100_test_200", f"c100_{COSTS[number % len(COSTS)]}")
        refuse_held_out_objectives(objectives)
        benchmark = nas_bench_201_benchmark(data, objectives, f"noise-{tau}", seed=number)
        tables.append(_with_any_supernet(_by_class(benchmark.table, benchmark.space.isomorph), random))
    return tables, (f"{REAL_BENCHMARKS} tables of CIFAR-100 with HW-NAS-Bench costs",)


def _log_uniform(random: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(random.uniform(np.log(low), np.log(high))))


def _with_any_supernet(table: BenchmarkTable, random: np.random.Generator) -> BenchmarkTable:
    """The table with a supernet of a drawn size: benchmarks' own are all alike."""
    return table._replace(supernet_time_s=jnp.float32(3600 * _log_uniform(random, *SUPERNET_H)))


def _by_class(table: BenchmarkTable, representative: np.ndarray) -> BenchmarkTable:
    """The table where isomorphs have the row of their representative (the cheapest of them, where they were measured):
    which one that is depends on the table, and one space must serve all tables."""

    def rows(part) -> np.ndarray:
        return np.asarray(part, float)[np.asarray(representative)]

    return benchmark_table(
        objectives=rows(table.objectives),
        estimates=rows(table.estimates),
        train_time_s=rows(table.train_time_s),
        estimate_time_s=float(table.estimate_time_s),
        supernet_time_s=float(table.supernet_time_s),
        reference_point=np.asarray(table.reference_point, float),
    )


def _before_test(trace: IntensityTrace) -> IntensityTrace:
    return trace.window(trace.start, int((TEST_FROM - trace.start) / np.timedelta64(1, "h")))


def _power(key_kind, key_values) -> PowerParams:
    """The paper's accounting in half of the tasks; else everything charged, with random watts and PUE."""
    paper = jax.random.bernoulli(key_kind)
    uniform = jax.random.uniform(key_values, (4,))
    evaluation_w = jnp.where(paper, 1000.0, 50 + 500 * uniform[0])
    charged = jnp.where(paper, 0.0, 1.0)
    return PowerParams(
        evaluation_w=evaluation_w,
        sampling_w=charged * evaluation_w * (0.3 + 0.6 * uniform[1]),
        supernet_w=charged * evaluation_w,
        initial_design_w=charged * evaluation_w,
        idle_w=jnp.zeros(()),
        pue=1 + charged * 0.6 * uniform[2],
    )


def _forecast(key_scale, key_noise, truth: Float[Array, " n"]) -> Float[Array, "hours forecast_h"]:
    """The truth with errors that grow with the hours ahead, to a share of it that is drawn; the present hour is exact.

    A forecaster's errors would depend on which data it was fitted on; these are honest about being made up.
    """
    ahead = jnp.arange(FORECAST_H)
    rows = truth[jnp.arange(HOURS)[:, None] + ahead[None, :]]
    scale = FORECAST_NOISE * jax.random.uniform(key_scale)
    walk = jnp.cumsum(jax.random.normal(key_noise, rows.shape), axis=1)
    walk = (walk - walk[:, :1]) / np.sqrt(FORECAST_H)
    return rows * jnp.exp(scale * walk)
