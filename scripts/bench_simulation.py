"""The simulated search in JAX against NumPy, scikit-learn and moocore, side by side on the same cores.

    CENAS_DATA=<data> python scripts/bench_simulation.py --json experiments/results/bench_simulation.json    # ~22 min
    python scripts/bench_simulation.py --batch 8 --hours 10                                                   # ~8 min

Needs an otherwise idle machine. Without CENAS_DATA the synthetic benchmark and trace are used, and named so.
Expected on two cores, hours per second of a batch of 256: 23 (heuristic) and 30 times (vanilla) the plain baseline's,
6.5 and 13 times the tuned one's; a LaMOO partition by poly-4 at 200 and 2,000 samples 29 and 77 times the plain one's.
Every figure is a median after a warm-up.

Both sides run one process a core, each with one thread: threads that share a process wait for each other. There are two
baselines, equal but for how they score the 15,625 architectures: `plain` by scikit-learn's `decision_function`, as one
would write it first; `tuned` by the monomials of the polynomial kernel, the trick of the JAX side, or a kernel matrix
(see scripts/baselines/numpy_lamoo.py). They run a sample of the batch's searches (`--baseline-searches`) and are
compared by searched hours per second.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import cache, partial
from multiprocessing import get_context
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from baselines.numpy_lamoo import RegionScorer
from baselines.numpy_pool import SearchTask, region_batch, search_batch, worker_pool
from baselines.numpy_search import Problem, SearchConfig, region
from baselines.numpy_search import search as numpy_search
from measuring import CORES, machine, median_s
from rich.console import Console
from rich.table import Table

from cenas_jax.allocation.policies import plain_params, plain_policy
from cenas_jax.benchmarks.base import Benchmark
from cenas_jax.benchmarks.nas_bench_201 import nas_bench_201_benchmark
from cenas_jax.benchmarks.synthetic import synthetic_benchmark
from cenas_jax.carbon import Budget, IntensityTrace, PowerModel, load_trace
from cenas_jax.carbon.power import measured
from cenas_jax.cluster.simulated import simulated_cluster
from cenas_jax.cluster.simulation import check_overflow, simulate
from cenas_jax.cluster.state import ClusterConfig, ClusterParams
from cenas_jax.runs.comparison import one_thread_each
from cenas_jax.search.lamoo import (
    LamooConfig,
    SVMConfig,
    TreeConfig,
    lamoo_search,
    partition,
    space_kernel,
)
from cenas_jax.spaces.nas_bench_201 import nas_bench_201

CHUNK = 4
"""Searches that one process vectorises: more fall out of its cache."""
BASELINES = ("tuned", "plain")
SLOTS = 8
START = "2021-07-01T06:00Z"
WINDOW_H = ClusterConfig().window_h


class Setting(NamedTuple):
    benchmark: Benchmark
    trace: IntensityTrace
    power: PowerModel
    budget: Budget
    hours: int


def make_setting(hours: int) -> Setting:
    data = os.environ.get("CENAS_DATA")
    if data:
        benchmark = nas_bench_201_benchmark(Path(data), estimate="one-shot")
        trace = load_trace("us-cal-ciso", Path(data), start=START, hours=WINDOW_H + hours)
    else:
        benchmark = synthetic_benchmark(0, nas_bench_201())
        trace = load_trace("synthetic-ciso", start=START, hours=WINDOW_H + hours)
    return Setting(benchmark, trace, measured(), Budget(hours=hours), hours)


def jax_search(setting: Setting, capacity: int) -> Callable:
    """`(key, PlainParams) -> SimulationResult`."""
    space, table = setting.benchmark.space, setting.benchmark.table
    searcher = lamoo_search(space, table.reference_point, LamooConfig(capacity=capacity, choice="estimate"))
    config = ClusterConfig(slots=SLOTS, capacity=capacity)
    environment = simulated_cluster(space, table, searcher, config, setting.hours)
    params = ClusterParams(
        jnp.asarray(setting.trace.intensity_g_per_kwh, jnp.float32),
        jnp.zeros((setting.hours, 0)),
        jax.tree.map(jnp.float32, setting.power.params()),
        jax.tree.map(jnp.float32, setting.budget.params()),
        jnp.asarray(setting.power.charge_initial_design),
    )
    policy = plain_policy(SLOTS)
    return lambda key, policy_params: simulate(key, environment, policy, params, policy_params, setting.hours)


def numpy_task(setting: Setting, policy: str, seed: int) -> SearchTask:
    intensity = setting.trace.intensity_g_per_kwh
    return SearchTask(intensity, setting.power.params(), setting.budget.params(), policy, seed)


def chunked(function: Callable) -> Callable:
    """`function(member, *constant)` over the leading axis of `members`, compiled, a chunk at a time."""

    def over_members(members, *constant):
        return jax.lax.map(lambda member: function(member, *constant), members, batch_size=CHUNK)

    return jax.jit(over_members)


def jax_pool() -> Pool:
    """Processes with one thread each."""
    with one_thread_each():
        return get_context("spawn").Pool(CORES)


@cache
def _search_program(hours: int, capacity: int) -> Callable:
    search = jax_search(make_setting(hours), capacity)
    return chunked(lambda seed, policy: search(jax.random.key(seed), policy))


def _search_in_worker(hours: int, capacity: int, policy: str, seeds: np.ndarray) -> None:
    result = _search_program(hours, capacity)(jnp.asarray(seeds), plain_params(policy, SLOTS))
    check_overflow(result.overflow, capacity)


@cache
def _region_program(kernel: str, samples: int) -> tuple[Callable, tuple]:
    inside, constant = jax_region(make_setting(1), kernel, samples)
    return chunked(inside), constant


def _region_in_worker(kernel: str, sets: np.ndarray) -> None:
    program, constant = _region_program(kernel, sets.shape[1])
    jax.block_until_ready(program(jnp.asarray(sets), *constant))


def search_batch_jax(pool: Pool, hours: int, capacity: int, policy: str, seeds: np.ndarray) -> None:
    """All searches, an equal part to every process."""
    pool.starmap(_search_in_worker, [(hours, capacity, policy, part) for part in np.split(seeds, CORES)], chunksize=1)


def bench_batches(setting: Setting, arguments: argparse.Namespace) -> list[dict]:
    """(a) Searched hours per second of a batch."""
    rows = []
    seeds, problem = np.arange(arguments.batch), Problem.of(setting.benchmark)
    for policy in ("heuristic", "vanilla"):
        with jax_pool() as pool:
            call = partial(search_batch_jax, pool, setting.hours, arguments.capacity, policy, seeds)
            row = {"what": policy, "hours_per_s": len(seeds) * setting.hours / median_s(call, arguments.repeats)}
        tasks = [numpy_task(setting, policy, seed) for seed in range(arguments.baseline_searches)]
        for name in BASELINES:
            with worker_pool(CORES, problem, SearchConfig(slots=SLOTS, scoring=name)) as pool:
                seconds = median_s(partial(search_batch, pool, tasks), arguments.repeats)
            row[f"{name}_hours_per_s"] = len(tasks) * setting.hours / seconds
        rows.append(row)
    return rows


def bench_partitions(setting: Setting, arguments: argparse.Namespace) -> list[dict]:
    """(b) LaMOO's partition and the region of the whole space, one at a time and a batch over all cores."""
    rows = []
    for kernel in ("poly", "rbf"):
        for samples in (200, 2000):
            alone, together = {}, {}
            alone["ms"], together["ms"] = jax_region_ms(setting, kernel, samples, arguments, batch=True)
            for name in BASELINES:
                found = numpy_region_ms(setting, kernel, samples, arguments, name, batch=True)
                alone[f"{name}_ms"], together[f"{name}_ms"] = found
            what = f"partition, {kernel}, {samples} samples"
            rows += [{"what": what, **alone}, {"what": f"{what}, each of {arguments.regions}", **together}]
    return rows


def evaluated_sets(setting: Setting, samples: int, count: int) -> np.ndarray:
    """Random evaluated architectures, `[count, samples]`."""
    generator = np.random.default_rng(0)
    return np.stack([generator.choice(setting.benchmark.space.size, samples, replace=False) for _ in range(count)])


def jax_region(setting: Setting, kernel_name, samples: int) -> tuple[Callable, tuple]:
    """`(evaluated[samples], *constant) -> bool[size]`, and the constant arguments."""
    space, table = setting.benchmark.space, setting.benchmark.table
    config = TreeConfig(svm=SVMConfig(kernel=kernel_name))
    codes = space.codes(jnp.arange(space.size))
    features = space.features(codes)
    kernel, depth_of = space_kernel(config.svm, codes, features)

    def inside(index, features):
        x, objectives, valid = features[index], table.objectives[index], jnp.ones(samples, bool)
        found, _ = partition(kernel, x, objectives, valid, table.reference_point, config)
        return depth_of(found) == config.depth

    return inside, (features,)


def jax_region_ms(setting: Setting, kernel: str, samples: int, arguments, *, batch: bool) -> tuple[float, float]:
    """Milliseconds of one region alone, and of one in a batch."""
    inside, constant = jax_region(setting, kernel, samples)
    sets = evaluated_sets(setting, samples, arguments.regions)
    one = jax.jit(inside)
    alone_s = median_s(lambda: one(sets[0], *constant), arguments.repeats)
    if not batch:
        return 1e3 * alone_s, float("nan")
    with jax_pool() as pool:
        tasks = [(kernel, part) for part in np.split(sets, CORES)]
        together_s = median_s(lambda: pool.starmap(_region_in_worker, tasks, chunksize=1), arguments.repeats)
    return 1e3 * alone_s, 1e3 * together_s / len(sets)


def numpy_region_ms(
    setting: Setting, kernel: str, samples: int, arguments, name: str, *, batch: bool
) -> tuple[float, float]:
    problem, config = Problem.of(setting.benchmark), SearchConfig(slots=SLOTS, kernel=kernel, scoring=name)
    scorer = RegionScorer(problem.features, config)
    sets = evaluated_sets(setting, samples, arguments.regions)
    alone_s = median_s(lambda: region(problem, config, sets[0], scorer), arguments.repeats)
    if not batch:
        return 1e3 * alone_s, float("nan")
    with worker_pool(CORES, problem, config) as pool:
        together_s = median_s(lambda: region_batch(pool, list(sets)), arguments.repeats)
    return 1e3 * alone_s, 1e3 * together_s / len(sets)


def bench_single(setting: Setting, arguments: argparse.Namespace) -> list[dict]:
    """(c) One search, in this process."""
    search = jax.jit(jax_search(setting, arguments.capacity))
    problem = Problem.of(setting.benchmark)
    rows = []
    for policy in ("heuristic", "vanilla"):
        params, task = plain_params(policy, SLOTS), numpy_task(setting, policy, 0)
        row: dict = {"what": f"one search of {setting.hours} h, {policy}"}
        row["ms"] = 1e3 * median_s(partial(search, jax.random.key(0), params), arguments.repeats)
        for name in BASELINES:
            config = SearchConfig(slots=SLOTS, scoring=name)
            call = partial(numpy_search, problem, config, *task, scorer=RegionScorer(problem.features, config))
            row[f"{name}_ms"] = 1e3 * median_s(call, arguments.repeats)
        rows.append(row)
    return rows


def bench_processes(arguments: argparse.Namespace) -> list[dict]:
    """Compilation and peak memory, each in a process of its own; the compile cache is first empty, then full."""
    with tempfile.TemporaryDirectory() as cache:
        rows = []
        part = arguments.batch // CORES
        for what, batch in (("one search", 1), (f"{part} searches, one core's part", part)):
            for state in ("cold", "from the persistent cache"):
                rows.append({"what": f"JAX, {what}, {state}", **child("jax", batch, cache, arguments)})
    return [*rows, {"what": "baseline, one search (jax is imported too)", **child("numpy", 1, cache, arguments)}]


def child(side: str, batch: int, cache: str, arguments: argparse.Namespace) -> dict:
    cached = {"JAX_COMPILATION_CACHE_DIR": cache, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    threads = {"NPROC": "1" if batch > 1 else str(CORES)}
    options = ["--batch", batch, "--hours", arguments.hours, "--capacity", arguments.capacity]
    command = [sys.executable, __file__, "--child", side, *map(str, options)]
    output = subprocess.run(
        command, env={**os.environ, **cached, **threads}, check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    return json.loads(output.splitlines()[-1])


def run_child(arguments: argparse.Namespace) -> None:
    """Prints seconds and MiB as one line of JSON."""
    setting, found = make_setting(arguments.hours), {}
    if arguments.child == "jax":
        program = _search_program(arguments.hours, arguments.capacity)
        members = jnp.arange(arguments.batch), plain_params("heuristic", SLOTS)
        begin = time.perf_counter()
        lowered = program.lower(*members)
        found["trace_s"] = time.perf_counter() - begin
        compiled = lowered.compile()
        found["compile_s"] = time.perf_counter() - begin - found["trace_s"]
        call = partial(compiled, *members)
    else:
        problem, config = Problem.of(setting.benchmark), SearchConfig(slots=SLOTS)
        call = partial(numpy_search, problem, config, *numpy_task(setting, "heuristic", 0))
    begin = time.perf_counter()
    jax.block_until_ready(call())
    found["first_run_s"] = time.perf_counter() - begin
    found["peak_mib"] = peak_mib()
    print(json.dumps(found))


def peak_mib() -> float:
    """Most memory that this process has held (Linux). `getrusage` gives the parent's where that is larger."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024  # pyright: ignore[reportOptionalSubscript]


def bench_growth(arguments: argparse.Namespace) -> list[dict]:
    """How cost grows with the evaluations that a partition sees, and with the batch."""
    setting = make_setting(min(arguments.hours, 24))
    rows = []
    for samples in (200, 500, 1000, 2000, 5000):
        row: dict = {"what": f"partition, poly, {samples} samples"}
        row["ms"], _ = jax_region_ms(setting, "poly", samples, arguments, batch=False)
        for name in BASELINES:
            row[f"{name}_ms"], _ = numpy_region_ms(setting, "poly", samples, arguments, name, batch=False)
        rows.append(row)
    batches = [size for size in (4, 16, 64, 256, 1024) if size % CORES == 0]  # of 1: `bench_single`
    with jax_pool() as pool:
        for batch in batches:
            call = partial(search_batch_jax, pool, setting.hours, arguments.capacity, "heuristic", np.arange(batch))
            done = batch * setting.hours
            rows.append(
                {
                    "what": f"batch of {batch}, {setting.hours} h",
                    "hours_per_s": done / median_s(call, arguments.repeats),
                }
            )
    return rows


def show(console: Console, title: str, rows: list[dict]) -> None:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    table = Table(*columns, *(f"times {name}" for name in BASELINES), title=title)
    for row in rows:
        cells = [f"{row[name]:.4g}" if isinstance(row.get(name), float) else str(row.get(name, "")) for name in columns]
        for name in BASELINES:
            if f"{name}_ms" in row:
                cells.append(f"{row[f'{name}_ms'] / row['ms']:.2f}")
            elif f"{name}_hours_per_s" in row:
                cells.append(f"{row['hours_per_s'] / row[f'{name}_hours_per_s']:.2f}")
            else:
                cells.append("")
        table.add_row(*cells)
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=256, help="searches; a multiple of the cores")
    parser.add_argument("--hours", type=int, default=80)
    parser.add_argument("--capacity", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--regions", type=int, default=16, help="partitions in a batch; a multiple of the cores")
    parser.add_argument("--baseline-searches", type=int, default=8)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", choices=("jax", "numpy"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        return run_child(arguments)
    if arguments.batch % CORES or arguments.regions % CORES:
        parser.error(f"--batch {arguments.batch} and --regions {arguments.regions} must be multiples of {CORES} cores")
    setting = make_setting(arguments.hours)
    console = Console()
    options = {name: value for name, value in vars(arguments).items() if name not in ("json", "child")}
    source = (
        "synthetic benchmark and trace" if setting.benchmark.synthetic else "NAS-Bench-201, HW-NAS-Bench, US-CAL-CISO"
    )
    report: dict[str, Any] = {"machine": machine(), "data": source, "options": options}
    console.print(report)
    sections = {
        f"hours of {arguments.batch} searches per second": lambda: bench_batches(setting, arguments),
        "LaMOO partition": lambda: bench_partitions(setting, arguments),
        "one search": lambda: bench_single(setting, arguments),
        "compilation and memory": lambda: bench_processes(arguments),
        "growth": lambda: bench_growth(arguments),
    }
    for title, bench in sections.items():
        report[title] = bench()
        show(console, title, report[title])
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
