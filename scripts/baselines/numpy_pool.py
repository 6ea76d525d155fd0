"""Searches and regions of `numpy_search` in worker processes, one a core."""

from multiprocessing import get_context
from multiprocessing.pool import Pool
from typing import NamedTuple

import numpy as np
from baselines.numpy_lamoo import RegionScorer
from baselines.numpy_search import Problem, Result, SearchConfig, region, search
from threadpoolctl import threadpool_limits

from cenas_jax.carbon import BudgetParams, PowerParams


class SearchTask(NamedTuple):
    """One search; the fields are arguments of `search`."""

    intensity_g_per_kwh: np.ndarray
    power: PowerParams
    budget: BudgetParams
    policy: str
    seed: int


def worker_pool(processes: int, problem: Problem, config: SearchConfig) -> Pool:
    """Processes with one BLAS thread each, that know the problem. Spawned: a process that runs JAX must not fork."""
    return get_context("spawn").Pool(processes, _start_worker, (problem, config))


def search_batch(pool: Pool, tasks: list[SearchTask]) -> list[Result]:
    """One search for every task."""
    return pool.map(_search_in_worker, tasks, chunksize=1)


def region_batch(pool: Pool, evaluated: list[np.ndarray]) -> list[np.ndarray]:
    """The region of all architectures for each set of evaluated ones."""
    return pool.map(_region_in_worker, evaluated, chunksize=1)


_worker: dict = {}


def _start_worker(problem: Problem, config: SearchConfig) -> None:
    threadpool_limits(1)
    _worker.update(problem=problem, config=config, scorer=RegionScorer(problem.features, config))


def _search_in_worker(task: SearchTask) -> Result:
    return search(_worker["problem"], _worker["config"], *task, scorer=_worker["scorer"])


def _region_in_worker(evaluated: np.ndarray) -> np.ndarray:
    return region(_worker["problem"], _worker["config"], evaluated, _worker["scorer"])
