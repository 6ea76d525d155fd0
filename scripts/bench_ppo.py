"""Training an allocation policy by PPO in JAX against a PyTorch PPO on NumPy environments, side by side.

    pip install -e ".[baselines]"
    CENAS_DATA=<data> python scripts/bench_ppo.py --json experiments/results/bench_ppo.json
    python scripts/bench_ppo.py --quick    # minutes

Needs an otherwise idle machine. Without CENAS_DATA the tasks are the synthetic ones.
Not run to its end on an idle machine yet, so no figure is expected yet.

A step is an interval of an episode that still runs, and its share of the learning; every figure is the median of
updates after a warm-up, compilation apart. The real environment is the one that `cenas policy train` trains on, with
its defaults; the baseline (scripts/baselines/torch_ppo.py, CleanRL's way) has one process a core, each of which steps a
share of the searches in NumPy, SciPy, scikit-learn and moocore. The trivial one is a carbon bandit; its baseline is the
faster of one process and a process a core. BLAS and PyTorch have one thread each: more of them wait for each other, and
for XLA's.
"""

import argparse
import itertools
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from baselines import numpy_view
from baselines.numpy_correction import Correction, by_gain
from baselines.numpy_environment import (
    BanditEnvironments,
    Environments,
    ProcessEnvironments,
    SearchEnvironments,
    SearchTasks,
)
from baselines.numpy_lamoo import RegionScorer
from baselines.numpy_search import region as numpy_region
from baselines.torch_ppo import TorchPPO
from measuring import CORES, machine, median_s
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from cenas_jax.allocation import Environment, Observation
from cenas_jax.allocation.agent import INPUTS, AgentConfig, agent
from cenas_jax.allocation.ppo import PPO, Hyperparameters, PPOConfig, ppo
from cenas_jax.config import PolicyTrainOptions
from cenas_jax.runs.policies import SLOTS
from cenas_jax.runs.policy_tasks import HOURS, PolicyTasks, draw_task, task_environment, training_tasks
from cenas_jax.search.gaussian_process import features_of, fit_correction, posterior_quantiles
from cenas_jax.search.lamoo import TreeConfig, partition, space_kernel
from cenas_jax.search.ranking import LEVELS, by_hypervolume_gain, first_front
from cenas_jax.spaces.nas_bench_201 import nas_bench_201

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "helpers"))
import carbon_bandit  # noqa: E402  # pyright: ignore[reportMissingImports]

DEFAULTS = PolicyTrainOptions()
HYPER = Hyperparameters(
    learning_rate=DEFAULTS.learning_rate,
    entropy=DEFAULTS.entropy,
    decay=DEFAULTS.decay,
    last_update=DEFAULTS.updates,
)
SWEEP_UPDATES = 10
SCREENED = 256
"""Candidates an interval, as in the tasks."""


# --- updates of both sides -------------------------------------------------------------------------------------------


def learner(environment: Environment, draw: Callable, config: PPOConfig) -> PPO:
    return ppo(environment, draw, agent(AgentConfig(), SLOTS), config)


def jax_updates(training: PPO, environments: int, repeats: int) -> dict[str, float]:
    key, hyper = jax.random.key(0), jax.tree.map(jnp.float32, HYPER)
    state = jax.jit(training.init)(key)
    begin = time.perf_counter()
    lowered = jax.jit(training.update).lower(state, key, hyper)
    trace_s = time.perf_counter() - begin
    compiled = lowered.compile()
    compile_s = time.perf_counter() - begin - trace_s
    rates, seconds = [], []
    for _ in range(1 + repeats):
        begin = time.perf_counter()
        state, metrics = jax.block_until_ready(compiled(state, key, hyper))
        seconds.append(time.perf_counter() - begin)
        rates.append(environments * float(metrics.episode_steps) / seconds[-1])
    return {
        "steps_per_s": statistics.median(rates[1:]),
        "update_s": statistics.median(seconds[1:]),
        "trace_s": trace_s,
        "compile_s": compile_s,
    }


def torch_updates(environments: Environments, config: PPOConfig, repeats: int) -> dict[str, float]:
    torch.manual_seed(0)
    trainer = TorchPPO(environments, AgentConfig(), SLOTS, config, INPUTS)
    rates, seconds, played = [], [], []
    for _ in range(1 + repeats):
        begin = time.perf_counter()
        steps, _ = trainer.update(HYPER)
        seconds.append(time.perf_counter() - begin)
        played.append(trainer.play_s / seconds[-1])
        rates.append(steps / seconds[-1])
    return {
        "torch_steps_per_s": statistics.median(rates[1:]),
        "torch_update_s": statistics.median(seconds[1:]),
        "torch_rollout_share": statistics.median(played[1:]),
    }


def with_ratio(row: dict[str, Any]) -> dict[str, Any]:
    return row | {"ratio": row["steps_per_s"] / row["torch_steps_per_s"]}


# --- sections --------------------------------------------------------------------------------------------------------


def bench_real(tasks: PolicyTasks, arguments: argparse.Namespace) -> list[dict]:
    """(a) Steps per second over the batch, and (c) the time to train the default policy."""
    rows, numpy_tasks = [], SearchTasks.of(tasks, SLOTS)
    with ProcessEnvironments(SearchEnvironments, (numpy_tasks,), CORES) as environments:
        for count in arguments.batches:
            config = PPOConfig(environments=count, replicas=DEFAULTS.replicas, steps=HOURS)
            training = learner(task_environment(SLOTS, DEFAULTS.reward), draw_task(tasks), config)
            row: dict[str, Any] = {"what": f"{count} searches"}
            row |= jax_updates(training, count, arguments.repeats)
            rows.append(with_ratio(row | torch_updates(environments, config, arguments.repeats)))
    for count, row in zip(arguments.batches, list(rows), strict=True):
        if count == DEFAULTS.environments:
            ours_s = row["trace_s"] + row["compile_s"] + DEFAULTS.updates * row["update_s"]
            theirs_s = DEFAULTS.updates * row["torch_update_s"]
            what = f"the default policy, {DEFAULTS.updates} times the median update, and compilation"
            rows.append({"what": what, "train_s": ours_s, "torch_train_s": theirs_s, "ratio": theirs_s / ours_s})
    return rows


def bench_trivial(arguments: argparse.Namespace) -> list[dict]:
    """(b) Steps per second on the carbon bandit."""
    rows, bandit = [], (carbon_bandit.SLOTS, carbon_bandit.HOURS, carbon_bandit.PRICE)
    for count in arguments.trivial:
        config = PPOConfig(environments=count, steps=carbon_bandit.HOURS)
        row: dict[str, Any] = {"what": f"bandit, {count} environments"}
        row |= jax_updates(learner(carbon_bandit.carbon_bandit(), lambda key: (), config), count, arguments.repeats)
        alone = torch_updates(BanditEnvironments(*bandit), config, arguments.repeats)
        with ProcessEnvironments(BanditEnvironments, bandit, CORES) as environments:
            shared = torch_updates(environments, config, arguments.repeats)
        rows.append(with_ratio(row | max(alone, shared, key=lambda found: found["torch_steps_per_s"])))
    return rows


def bench_sweep(arguments: argparse.Namespace) -> list[dict]:
    """(d) A whole training as one program, and sixteen hyper-parameter sets of it as one call."""
    count, updates = arguments.trivial[0], SWEEP_UPDATES
    config = PPOConfig(environments=count, steps=carbon_bandit.HOURS)
    training = learner(carbon_bandit.carbon_bandit(), lambda key: (), config)

    def train(hyper: Hyperparameters):
        key = jax.random.key(0)
        return jax.lax.scan(lambda state, _: training.update(state, key, hyper), training.init(key), None, updates)

    pairs = jnp.asarray(list(itertools.product((3e-4, 1e-3, 3e-3, 1e-2), (0.0, 1e-3, 1e-2, 3e-2))), jnp.float32)
    sets = jax.tree.map(lambda value: jnp.full(len(pairs), value, jnp.float32), HYPER)
    sets = sets._replace(learning_rate=pairs[:, 0], entropy=pairs[:, 1])
    rows, compiled = [], 0

    def note(event: str, duration_secs: float, **kwargs) -> None:
        nonlocal compiled
        compiled += event == "/jax/core/compile/backend_compile_duration"

    jax.monitoring.register_event_duration_secs_listener(note)
    one = jax.tree.map(lambda values: values[0], sets)
    for what, function, hyper in (("one training", train, one), ("sweep of 16", jax.vmap(train), sets)):
        program, before = jax.jit(function), compiled
        seconds = median_s(partial(program, hyper), arguments.repeats)
        rows.append({"what": f"{what}, {updates} updates", "seconds": seconds, "compilations": compiled - before})
    torch_s = (
        updates
        * torch_updates(
            BanditEnvironments(carbon_bandit.SLOTS, carbon_bandit.HOURS, carbon_bandit.PRICE), config, arguments.repeats
        )["torch_update_s"]
    )
    for row, trainings in zip(rows, (1, 16), strict=True):  # one after the other
        row |= {"torch_seconds": trainings * torch_s, "ratio": trainings * torch_s / row["seconds"]}
    return rows


def bench_view(arguments: argparse.Namespace) -> dict:
    """The policy's inputs with their greedy plans, in ms a search."""
    searches, draw = 32, np.random.default_rng(0)
    values = {name: np.asarray(draw.uniform(0, 1, searches), np.float32) for name in Observation._fields}
    values["remaining_h"] = np.full(searches, 50, np.float32)
    values["relative_forecast"] = np.asarray(draw.uniform(0, 1, (searches, 24)), np.float32)
    values["relative_past"] = values["relative_forecast"]
    ours = jax.jit(jax.vmap(agent(AgentConfig(), SLOTS).view))
    ms = 1e3 * median_s(partial(ours, Observation(**jax.tree.map(jnp.asarray, values))), arguments.repeats)
    theirs = partial(numpy_view.view, numpy_view.Observation(**values), SLOTS)
    numpy_ms = 1e3 * median_s(theirs, arguments.repeats)
    return {"what": "view of an observation", "ms": ms / searches, "numpy_ms": numpy_ms / searches}


def bench_parts(tasks: PolicyTasks, arguments: argparse.Namespace) -> list[dict]:
    """What an interval of the real environment consists of, in ms a search: JAX vmapped, NumPy on one core."""
    searches, space = 32, nas_bench_201()
    table, problem = jax.tree.map(lambda part: part[0], tasks.tables), SearchTasks.of(tasks, SLOTS)
    problem, config = problem.problems[0], problem.config
    codes = space.codes(jnp.arange(space.size))
    predictor_features, features = features_of(space)(codes), space.features(codes)
    tree = TreeConfig()
    kernel, depth_of = space_kernel(tree.svm, codes, features)
    scorer, rows = RegionScorer(features=problem.features, config=config), []
    n = config.queue_capacity
    for count in (128,) if arguments.quick else (128, 384):
        draw = np.random.default_rng(0)
        sets = np.stack([draw.choice(space.size, count + SCREENED + n, replace=False) for _ in range(searches)])
        index, query = jnp.asarray(sets[:, :count]), jnp.asarray(sets[:, count:])
        valid = jnp.ones(count, bool)

        def fit(index, valid=valid):
            return fit_correction(predictor_features[index], table.estimates[index], table.objectives[index, 0], valid)

        def rank(index, query, correction, valid=valid):
            known = table.estimates[query]
            guess = posterior_quantiles(correction, predictor_features[index], predictor_features[query], known, LEVELS)
            predicted = jnp.stack([guess, jnp.broadcast_to(known[:, 1], guess.shape)], axis=-1)
            every = jnp.ones(query.shape[0], bool)
            return by_hypervolume_gain(
                predicted, every, *first_front(table.objectives[index], valid), table.reference_point, n
            )

        def split(index, valid=valid):
            found = table.objectives[index], valid, table.reference_point, tree
            region, _ = partition(kernel, features[index], *found)
            return depth_of(region)

        one, other = sets[0, :count], sets[0, count:]

        def numpy_fit(one=one):
            correction = Correction(problem.predictor_features[one], problem.estimates[one], problem.objectives[one, 0])
            _ = correction.fitted
            return correction

        def numpy_rank(correction, one=one, other=other):
            guess = correction.posterior_quantiles(problem.predictor_features[other], problem.estimates[other])
            predicted = np.stack([guess, np.broadcast_to(problem.estimates[other, 1], guess.shape)], axis=-1)
            return by_gain(predicted, problem.objectives[one], problem.reference_point, n)

        corrections = jax.jit(jax.vmap(fit))(index)
        for what, ours, theirs in (
            ("Gaussian process of one objective", partial(jax.jit(jax.vmap(fit)), index), numpy_fit),
            (
                "ranking of the screened",
                partial(jax.jit(jax.vmap(rank)), index, query, corrections),
                partial(numpy_rank, numpy_fit()),
            ),
            (
                "partition and region",
                partial(jax.jit(jax.vmap(split)), index),
                partial(numpy_region, problem, config, one, scorer),
            ),
        ):
            ms = 1e3 * median_s(ours, arguments.repeats) / searches
            numpy_ms = 1e3 * median_s(theirs, arguments.repeats)
            rows.append({"what": f"{what}, {count} evaluations", "ms": ms, "numpy_ms": numpy_ms})
    return rows


# --- report ----------------------------------------------------------------------------------------------------------


def show(console: Console, title: str, rows: list[dict]) -> None:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    table = Table(*columns, title=title)
    for row in rows:
        table.add_row(*(str(row.get(name, "")) for name in columns))
    console.print(table)


def rounded(row: dict[str, Any]) -> dict[str, Any]:
    """To four digits."""
    return {name: float(f"{value:.4g}") if isinstance(value, float) else value for name, value in row.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, nargs="+", default=[8, 16, 32, 64], help="searches an update")
    parser.add_argument("--trivial", type=int, nargs="+", default=[64, 512], help="environments of the bandit")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="the smallest batches, three repeats")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.batches, arguments.trivial, arguments.repeats = arguments.batches[:1], arguments.trivial[:1], 3
    threadpool_limits(1)
    torch.set_num_threads(1)
    jax.config.update("jax_enable_compilation_cache", False)  # compile times are cold ones
    data = os.environ.get("CENAS_DATA")
    tasks = training_tasks(Path(data) if data else None, DEFAULTS.seed)
    console = Console()
    report: dict[str, Any] = {
        "machine": machine("torch", "scipy"),
        "data": list(tasks.sources),
        "options": {name: value for name, value in vars(arguments).items() if name != "json"},
    }
    console.print(report)
    sections = {
        "trivial environment": lambda: bench_trivial(arguments),
        "sweep": lambda: bench_sweep(arguments),
        "real environment": lambda: bench_real(tasks, arguments),
        "parts of an interval": lambda: [bench_view(arguments), *bench_parts(tasks, arguments)],
    }
    for title, bench in sections.items():
        report[title] = [rounded(row) for row in bench()]
        show(console, title, report[title])
        if arguments.json:  # after each section: what was measured is kept
            arguments.json.parent.mkdir(parents=True, exist_ok=True)
            arguments.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
