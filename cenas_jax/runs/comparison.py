"""Policies against each other over many windows of a grid and many limits: whole searches, on all cores."""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from multiprocessing import get_context
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cenas_jax.benchmarks import Benchmark
from cenas_jax.carbon.ledger import Ledger
from cenas_jax.carbon.trace import HOUR, utc_hour
from cenas_jax.cluster.simulation import check_overflow
from cenas_jax.config import SimulateConfig, settled
from cenas_jax.runs.inputs import Inputs, load_inputs
from cenas_jax.runs.simulation import (
    cluster_params,
    load_benchmark,
    policies_of,
    reserve_for_one_shot,
    screens_every_hour,
    search_function,
    search_keys,
    with_capacity,
)
from cenas_jax.spaces import with_distinct_isomorphs

CHUNK = 16
"""Searches that one process vectorises, at most: more fall out of its cache."""


class Outcomes(NamedTuple):
    """Arrays; the first axes are limits, policies, windows, seeds."""

    evaluations: Any  # [l, p, w, s]
    ledger: Ledger
    """With a last axis of activities."""
    hypervolume_share: Any
    """`[l, p, w, s, hours]`: At the end of each hour; after the end of a search its last."""
    emitted_g: Any
    """`[l, p, w, s, hours]`: gCO2eq since the start, at the end of each hour."""


class Problem(NamedTuple):
    """What a comparison is about; plain data, so that it can be sent to other processes."""

    config: SimulateConfig
    """Its policies are compared with its seeds; its carbon limit and start are replaced."""
    starts: tuple[str, ...]
    """First hours of the windows, UTC."""
    limits_g: tuple[float | None, ...]
    """None: no limit."""
    isomorphs: bool = True
    """False: searches know of no isomorphs, as in the CE-NAS release."""


def compare(
    problem: Problem, *, processes: int | None = None, progress: Callable[[int, int], None] = lambda done, of: None
) -> Outcomes:
    """Every policy at every limit from every start with every seed. Searches of one window and seed share their draws,
    those of different windows do not (`window_keys`).

    Args:
        processes: each with one thread, which is faster on a CPU than one with many. None: one a core; 1: in this one.
            More than one are spawned, so a script that calls this needs `if __name__ == "__main__"`.
        progress: called with the chunks done and their number.

    `ValueError` for what does not fit, before any search; after one, where it outgrew the capacity.
    """
    shape = _shape(problem)
    groups, count = shape[0] * shape[1], shape[2] * shape[3]
    each = -(-count // CHUNK)
    rows = np.minimum(np.arange(each * -(-count // each)), count - 1).reshape(each, -1)  # the last is repeated
    tasks = [(problem, group, chunk) for group in range(groups) for chunk in rows]
    chunks = len(tasks)
    processes = min(processes or _cores(), chunks)
    parts = []
    if processes == 1:
        for task in tasks:
            parts.append(_run(task))
            progress(len(parts), chunks)
    else:
        with one_thread_each(), get_context("spawn").Pool(processes) as pool:
            parts.append(pool.apply(_run, tasks[:1]))  # alone: where JAX keeps a cache, the others find it compiled
            progress(1, chunks)
            for part in pool.imap(_run, tasks[1:]):
                parts.append(part)
                progress(len(parts), chunks)

    def joined(*rows):
        by_group = np.concatenate(rows).reshape(groups, -1, *rows[0].shape[1:])[:, :count]
        return by_group.reshape(*shape, *by_group.shape[2:])

    return jax.tree.map(joined, *parts)


def window_keys(config: SimulateConfig, start: str) -> jax.Array:
    """One key a seed for the searches from `start`."""
    hour = int((utc_hour(start) - np.datetime64(0, "s")) / HOUR)
    return jax.vmap(lambda key: jax.random.fold_in(key, hour))(search_keys(config))


def problem_inputs(problem: Problem) -> tuple[list[Inputs], Benchmark]:
    """What is read for every window, and the benchmark; `ValueError` for what does not fit."""
    config = settled(problem.config, os.environ)
    inputs = [load_inputs(replace(config, grid=replace(config.grid, start=start))) for start in problem.starts]
    benchmark = load_benchmark(inputs[0].config)
    if not problem.isomorphs:
        benchmark = benchmark._replace(space=with_distinct_isomorphs(benchmark.space))
    return inputs, benchmark


def _shape(problem: Problem) -> tuple[int, int, int, int]:
    policies = problem.config.policies
    if not (problem.starts and problem.limits_g):
        raise ValueError(f"comparison: {len(problem.starts)} starts, {len(problem.limits_g)} limits: give one or more")
    return len(problem.limits_g), len(policies.policy), len(problem.starts), policies.seeds


def _run(task: tuple[Problem, int, np.ndarray]) -> Outcomes:
    """Some of the windows and seeds (flat) of one limit and policy, so that they end at about the same time, and no
    search pays for the rules of others."""
    problem, group, flat = task
    program, keys, windows, policy_params = _program(problem)
    _, policies, *rest = _shape(problem)
    limit, policy = divmod(group, policies)
    window, seed = np.unravel_index(flat, rest)
    params = jax.tree.map(lambda part: part[window], windows)
    limit_g = problem.limits_g[limit]
    carbon_g = jnp.full(len(flat), np.inf if limit_g is None else limit_g, jnp.float32)
    screens_on = jnp.full(len(flat), screens_every_hour(problem.config.policies.policy[policy]))
    params = params._replace(budget=params.budget._replace(carbon_g=carbon_g), screens_on=screens_on)
    which, (plain, *learned) = jax.tree.map(lambda part: part[limit, window, policy], policy_params)
    chosen = which[0], (plain._replace(rule=plain.rule[0]), *learned)
    return jax.device_get(program(keys[window, seed], params, chosen))


@lru_cache(maxsize=2)
def _program(problem: Problem) -> tuple[Callable, jax.Array, Any, Any]:
    """The compiled searches of a chunk; keys by (window, seed), params by window, policies by (limit, window, name)."""
    inputs, benchmark = problem_inputs(problem)
    config = with_capacity(inputs[0].config, benchmark)
    policy, _ = policies_of(config, 0.0)
    search = search_function(config, benchmark, policy, inputs[0].forecast_g_per_kwh.shape[1])
    by_limit = []
    for limit_g in problem.limits_g:
        limited = [each._replace(budget=replace(each.budget, carbon_g=limit_g)) for each in inputs]
        by_limit.append(_stack([policies_of(config, reserve_for_one_shot(each, benchmark))[1] for each in limited]))

    def one(key, params, policy_params):
        result = search(key, params, policy_params)
        history = result.history
        emitted_g = jnp.cumsum(history.charge.emissions_g.sum(axis=-1))
        return Outcomes(result.count * 1.0, result.ledger, history.hypervolume_share, emitted_g), result.overflow

    _, (plain, *learned) = by_limit[0]
    by_window = jax.tree.map(lambda _: 0, plain)._replace(rule=None)  # which rule it is, is one for all
    batch = jax.jit(jax.vmap(one, (0, 0, (None, (by_window, *learned)))))

    def program(*arguments):
        found, overflow = batch(*arguments)
        check_overflow(overflow, int(config.cluster.capacity or 0))
        return found

    keys = jnp.stack([window_keys(config, start) for start in problem.starts])
    return program, keys, _stack([cluster_params(each) for each in inputs]), _stack(by_limit)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def one_thread_each() -> Iterator[None]:
    """Processes started meanwhile have one thread: these variables are read when they start, the first by XLA, the
    second by SciPy's OpenBLAS, which factorises for XLA and whose threads wait for each other across processes."""
    ones = {"NPROC": "1", "OPENBLAS_NUM_THREADS": "1"}
    before = {name: os.environ.get(name) for name in ones}
    os.environ.update(ones)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def _stack(parts: Sequence) -> Any:
    return jax.tree.map(lambda *values: jnp.asarray(np.stack([np.asarray(value) for value in values])), *parts)
