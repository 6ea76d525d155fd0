"""The simulated search in JAX against NumPy, scikit-learn and moocore, side by side on the same cores.

    CENAS_DATA=<data> python scripts/bench_simulation.py --json experiments/results/bench_simulation.json    # > 1 h
    python scripts/bench_simulation.py --batch 8 --hours 10                                                   # ~5 min
    CENAS_DATA=<data> python scripts/bench_simulation.py --full --json ...                                    # hours

Needs an otherwise idle machine. Without CENAS_DATA the synthetic benchmark and trace are used, and named so.
Expected on two cores with --batch 64: 1.4 times the baseline's hours per second for the heuristic, 4 times for vanilla.
Every figure is a median after a warm-up.
The baseline runs a sample of the batch's searches (`--baseline-searches`) and is compared by searched
hours per second. Variants of it were measured in scripts/baselines/numpy_lamoo.py.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from baselines.numpy_lamoo import RegionScorer
from baselines.numpy_search import (
    Problem,
    SearchConfig,
    SearchTask,
    region,
    region_batch,
    search_batch,
    worker_pool,
)
from baselines.numpy_search import search as numpy_search
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from rich.console import Console
from rich.table import Table

from cenas_jax.allocation.policies import plain_params, plain_policy
from cenas_jax.benchmarks.base import Benchmark
from cenas_jax.benchmarks.nas_bench_201 import nas_bench_201_benchmark
from cenas_jax.benchmarks.synthetic import synthetic_benchmark
from cenas_jax.carbon import Budget, IntensityTrace, PowerModel, load_trace
from cenas_jax.carbon.power import measured
from cenas_jax.cluster.simulated import ClusterConfig, ClusterParams, simulated_cluster
from cenas_jax.cluster.simulation import check_overflow, simulate
from cenas_jax.search.lamoo import (
    LamooConfig,
    SVMConfig,
    TreeConfig,
    lamoo_search,
    make_kernel,
    partition,
    region_depth,
)
from cenas_jax.spaces.nas_bench_201 import nas_bench_201

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
# LAPACK calls of a batch run on XLA's thread pool and, from one of its threads, wait for it (jaxlib 0.10.2): with as
# many devices as threads all of them end up waiting, for ever. XLA reads the size of the pool from this variable.
os.environ.setdefault("NPROC", str(2 * CORES))
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
        jax.tree.map(jnp.float32, setting.power.params()),
        jax.tree.map(jnp.float32, setting.budget.params()),
        jnp.asarray(setting.power.charge_initial_design),
    )
    policy = plain_policy(SLOTS)
    return lambda key, policy_params: simulate(key, environment, policy, params, policy_params, setting.hours)


def numpy_task(setting: Setting, policy: str, seed: int) -> SearchTask:
    intensity = setting.trace.intensity_g_per_kwh
    return SearchTask(intensity, setting.power.params(), setting.budget.params(), policy, seed)


def batched(function: Callable, method: str, constant: tuple = ()) -> Callable:
    """`function(member, *constant)` over the leading axis of `member`, compiled.

    `vmap`: on one device. `named`: on all, by a sharded argument. `shard`: on all, each runs its own part;
    `shard-N`: the same, N members at a time.
    """
    over_members = lambda members: jax.vmap(lambda member: function(member, *constant))(members)  # noqa: E731
    if method == "vmap":
        return jax.jit(over_members)
    mesh = Mesh(np.array(jax.devices()), ("search",), axis_types=(AxisType.Auto,))
    spec = PartitionSpec("search")
    if method == "named":
        return jax.jit(over_members, in_shardings=NamedSharding(mesh, spec), out_shardings=NamedSharding(mesh, spec))
    if method != "shard":
        size = int(method.removeprefix("shard-"))

        def over_members(members):
            return jax.lax.map(lambda member: function(member, *constant), members, batch_size=size)

    # Scans start from constants, which are the same on every device: that check cannot hold here.
    return jax.jit(jax.shard_map(over_members, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False))


def median_s(call: Callable[[], Any], repeats: int) -> float:
    """Median wall-clock seconds after one warm-up call."""
    jax.block_until_ready(call())
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        jax.block_until_ready(call())
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds)


def bench_batches(setting: Setting, arguments: argparse.Namespace) -> list[dict]:
    """(a) Searched hours per second of a batch: ways to run it in JAX, then the best against the baseline."""
    keys = jax.random.split(jax.random.key(0), arguments.batch)
    heuristic = plain_params("heuristic", SLOTS)

    def sweep(method: str, setting: Setting, keys) -> Callable:
        search = jax_search(setting, arguments.capacity)
        program = batched(lambda member: search(member[0], member[1]), method)

        def call(policy):
            members = (keys, jax.tree.map(lambda x: jnp.broadcast_to(x, (len(keys),)), policy))
            return program(members)

        return call

    # The ways are compared on few searches of few hours: a whole batch by the slower ones takes half an hour.
    few, short = keys[: 32 * CORES], make_setting(min(setting.hours, 16))
    methods = ["vmap", "named", "shard", *(f"shard-{n}" for n in (8, 16) if n < len(few) // CORES)]
    rows = [
        {
            "what": f"JAX {method}, heuristic, {len(few)} searches of {short.hours} h",
            "hours_per_s": len(few) * short.hours / median_s(partial(sweep(method, short, few), heuristic), 1),
        }
        for method in methods
    ]
    done = arguments.batch * setting.hours
    best = methods[int(np.argmax([row["hours_per_s"] for row in rows]))]
    run = sweep(best, setting, keys)
    problem, config = Problem.of(setting.benchmark), SearchConfig(slots=SLOTS)
    with worker_pool(CORES, problem, config) as pool:
        for policy in ("heuristic", "vanilla"):
            call = partial(run, plain_params(policy, SLOTS))
            check_overflow(call(), arguments.capacity)
            ours = done / median_s(call, arguments.repeats)
            tasks = [numpy_task(setting, policy, seed) for seed in range(arguments.baseline_searches)]
            theirs = (
                len(tasks) * setting.hours / median_s(lambda tasks=tasks: search_batch(pool, tasks), arguments.repeats)
            )
            rows.append({"what": f"JAX best ({best}), {policy}", "hours_per_s": ours, "baseline_hours_per_s": theirs})
    return rows


def bench_partitions(setting: Setting, arguments: argparse.Namespace) -> list[dict]:
    """(b) LaMOO's partition and the region of the whole space, one at a time and a batch over all cores."""
    rows = []
    for kernel in ("poly", "rbf"):
        for samples in (200, 2000):
            ours, ours_batch = jax_region_s(setting, kernel, samples, arguments, batch=True)
            theirs, theirs_batch = numpy_region_s(setting, kernel, samples, arguments, batch=True)
            what = f"partition, {kernel}, {samples} samples"
            rows.append({"what": what, "ms": 1e3 * ours, "baseline_ms": 1e3 * theirs})
            what = f"{what}, each of {arguments.regions}"
            rows.append({"what": what, "ms": 1e3 * ours_batch, "baseline_ms": 1e3 * theirs_batch})
    return rows


def evaluated_sets(setting: Setting, samples: int, count: int) -> np.ndarray:
    """Random evaluated architectures, `[count, samples]`."""
    generator = np.random.default_rng(0)
    return np.stack([generator.choice(setting.benchmark.space.size, samples, replace=False) for _ in range(count)])


def jax_region_s(setting: Setting, kernel_name, samples: int, arguments, *, batch: bool) -> tuple[float, float]:
    """Seconds of one region alone, and of one in a batch."""
    space, table = setting.benchmark.space, setting.benchmark.table
    config = TreeConfig(svm=SVMConfig(kernel=kernel_name))
    features = space.features(space.codes(jnp.arange(space.size)))
    kernel = make_kernel(config.svm, features.shape[1])
    static = kernel.static(features)

    def inside(index, features, static):
        found, _ = partition(
            kernel,
            features[index],
            static[index],
            table.objectives[index],
            jnp.ones(samples, bool),
            table.reference_point,
            config,
        )
        return region_depth(kernel, found, static) == config.depth

    sets = jnp.asarray(evaluated_sets(setting, samples, arguments.regions))
    one = jax.jit(inside)
    alone_s = median_s(lambda: one(sets[0], features, static), arguments.repeats)
    if not batch:
        return alone_s, float("nan")
    program = batched(inside, "shard", (features, static))
    return alone_s, median_s(lambda: program(sets), arguments.repeats) / len(sets)


def numpy_region_s(setting: Setting, kernel: str, samples: int, arguments, *, batch: bool) -> tuple[float, float]:
    problem, config = Problem.of(setting.benchmark), SearchConfig(slots=SLOTS, kernel=kernel)
    scorer = RegionScorer(problem.features, config)
    sets = evaluated_sets(setting, samples, arguments.regions)
    alone_s = median_s(lambda: region(problem, config, sets[0], scorer), arguments.repeats)
    if not batch:
        return alone_s, float("nan")
    with worker_pool(CORES, problem, config) as pool:
        return alone_s, median_s(lambda: region_batch(pool, list(sets)), arguments.repeats) / len(sets)


def bench_single(setting: Setting, arguments: argparse.Namespace) -> list[dict]:
    """(c) One search, in this process."""
    search = jax.jit(jax_search(setting, arguments.capacity))
    problem, config = Problem.of(setting.benchmark), SearchConfig(slots=SLOTS)
    scorer = RegionScorer(problem.features, config)
    rows = []
    for policy in ("heuristic", "vanilla"):
        params, task = plain_params(policy, SLOTS), numpy_task(setting, policy, 0)
        ours = median_s(lambda params=params: search(jax.random.key(0), params), arguments.repeats)
        theirs = median_s(lambda task=task: numpy_search(problem, config, *task, scorer=scorer), arguments.repeats)
        rows.append(
            {"what": f"one search of {setting.hours} h, {policy}", "ms": 1e3 * ours, "baseline_ms": 1e3 * theirs}
        )
    return rows


def bench_processes(arguments: argparse.Namespace) -> list[dict]:
    """Compilation and peak memory, each in a process of its own; the compile cache is first empty, then full."""
    with tempfile.TemporaryDirectory() as cache:
        rows = []
        for what, batch in (("one search", 1), (f"batch of {arguments.batch}", arguments.batch)):
            for state in ("cold", "from the persistent cache"):
                rows.append({"what": f"JAX, {what}, {state}", **child("jax", batch, cache, arguments)})
    return [*rows, {"what": "baseline, one search (jax is imported too)", **child("numpy", 1, cache, arguments)}]


def child(side: str, batch: int, cache: str, arguments: argparse.Namespace) -> dict:
    cached = {"JAX_COMPILATION_CACHE_DIR": cache, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    options = ["--batch", batch, "--hours", arguments.hours, "--capacity", arguments.capacity]
    command = [sys.executable, __file__, "--child", side, *map(str, options)]
    output = subprocess.run(command, env={**os.environ, **cached}, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(output.splitlines()[-1])


def run_child(arguments: argparse.Namespace) -> None:
    """Prints seconds and MiB as one line of JSON."""
    setting, found = make_setting(arguments.hours), {}
    if arguments.child == "jax":
        search = jax_search(setting, arguments.capacity)
        keys = jax.random.split(jax.random.key(0), arguments.batch)
        method = "shard" if arguments.batch > 1 else "vmap"
        program = batched(lambda key: search(key, plain_params("heuristic", SLOTS)), method)
        begin = time.perf_counter()
        lowered = program.lower(keys)
        found["trace_s"] = time.perf_counter() - begin
        compiled = lowered.compile()
        found["compile_s"] = time.perf_counter() - begin - found["trace_s"]
        call = partial(compiled, keys)
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
    for samples in (200, 500, 1000, 2000, 5000) if arguments.full else (200, 1000):
        ours, _ = jax_region_s(setting, "poly", samples, arguments, batch=False)
        theirs, _ = numpy_region_s(setting, "poly", samples, arguments, batch=False)
        rows.append({"what": f"partition, poly, {samples} samples", "ms": 1e3 * ours, "baseline_ms": 1e3 * theirs})
    search, heuristic = jax_search(setting, arguments.capacity), plain_params("heuristic", SLOTS)
    for batch in (1, 4, 16, 64, 256, 1024) if arguments.full else (1, 16):
        program = batched(lambda key: search(key, heuristic), "shard" if batch % CORES == 0 else "vmap")
        keys = jax.random.split(jax.random.key(0), batch)
        seconds = median_s(partial(program, keys), arguments.repeats)
        rows.append(
            {"what": f"JAX, batch of {batch}, {setting.hours} h", "hours_per_s": batch * setting.hours / seconds}
        )
    return rows


def machine() -> dict:
    cpus = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in cpus.read_text().splitlines() if line.startswith("model name")]
    packages = ("jax", "jaxlib", "numpy", "scikit-learn", "moocore")
    versions = {package: importlib.metadata.version(package) for package in packages}
    return {
        "cores": CORES,
        "processor": names[0] if names else platform.machine(),
        "python": platform.python_version(),
    } | versions


def show(console: Console, title: str, rows: list[dict]) -> None:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    table = Table(*columns, "JAX is faster by", title=title)
    for row in rows:
        cells = [f"{row[name]:.4g}" if isinstance(row.get(name), float) else str(row.get(name, "")) for name in columns]
        ratio = ""
        if "baseline_ms" in row:
            ratio = f"{row['baseline_ms'] / row['ms']:.2f}"
        elif "baseline_hours_per_s" in row:
            ratio = f"{row['hours_per_s'] / row['baseline_hours_per_s']:.2f}"
        table.add_row(*cells, ratio)
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=256, help="searches; a multiple of the cores")
    parser.add_argument("--hours", type=int, default=80)
    parser.add_argument("--capacity", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--regions", type=int, default=16, help="partitions in a batch; a multiple of the cores")
    parser.add_argument("--baseline-searches", type=int, default=16)
    parser.add_argument("--full", action="store_true", help="growth up to 5,000 evaluations and 1,024 searches")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", choices=("jax", "numpy"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", CORES)
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
