"""Policies compared over windows and limits: the searches of `cenas simulate`, one window and limit at a time."""

import os
from dataclasses import replace

import jax
import numpy as np
import pytest

from cenas_jax.config import (
    BenchmarkOptions,
    ClusterOptions,
    GridOptions,
    LimitOptions,
    PolicyOptions,
    SimulateConfig,
    settled,
)
from cenas_jax.runs import comparison as comparison_module
from cenas_jax.runs.comparison import Problem, compare, window_keys
from cenas_jax.runs.inputs import load_inputs
from cenas_jax.runs.simulation import compile_simulation, load_benchmark, prepare

CONFIG = SimulateConfig(
    policies=PolicyOptions(policy=("fixed-2", "one-shot", "vanilla"), seeds=2),
    limits=LimitOptions(hours=6),
    grid=GridOptions(trace="synthetic-ciso"),
    benchmark=BenchmarkOptions(benchmark="synthetic"),
    cluster=ClusterOptions(slots=4, capacity=32, screen_per_interval=64, queue_capacity=8),
)
STARTS = ("2021-07-02T06:00Z", "2021-09-11T17:00Z", "2021-11-02T00:00Z")
LIMITS_G = (1500.0, None)


@pytest.fixture(scope="module")
def found():
    done, problem = [], Problem(CONFIG, STARTS, LIMITS_G)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparison_module, "CHUNK", 4)
        comparison = compare(problem, processes=1, progress=lambda *counts: done.append(counts))
    assert done == [(chunk, 12) for chunk in range(1, 13)]  # two of three searches for each limit and policy
    return comparison


def test_shapes_and_limits(found):
    assert found.evaluations.shape == (2, 3, 3, 2) and found.hypervolume_share.shape == (2, 3, 3, 2, 6)
    assert (np.diff(found.hypervolume_share, axis=-1) >= 0).all()
    emitted_g = found.ledger.emissions_g.sum(axis=-1)
    np.testing.assert_allclose(found.emitted_g[..., -1], emitted_g, rtol=1e-5)
    assert (emitted_g[0] <= 1500).all() and (emitted_g[1, 2] > 1500).all()


@pytest.mark.parametrize(("place", "limit"), [(0, 1), (2, 0)])
def test_the_searches_of_one_window_are_those_of_simulate(found, place, limit):
    config = replace(
        CONFIG,
        grid=replace(CONFIG.grid, start=STARTS[place]),
        limits=replace(CONFIG.limits, carbon_limit_g=LIMITS_G[limit]),
    )
    inputs = load_inputs(settled(config, os.environ))
    prepared = prepare(inputs, load_benchmark(inputs.config))
    arguments = (window_keys(config, STARTS[place]), *prepared.arguments[1:])
    run = compile_simulation(prepared._replace(arguments=arguments))()
    np.testing.assert_array_equal(found.evaluations[limit, :, place], run.result.count)
    share, emissions_g = run.result.history.hypervolume_share, run.result.ledger.emissions_g
    np.testing.assert_allclose(found.hypervolume_share[limit, :, place], share, rtol=1e-5)
    np.testing.assert_allclose(found.ledger.emissions_g[limit, :, place], emissions_g, rtol=1e-4, atol=0.1)


def test_windows_draw_their_own_initial_designs():
    keys = [jax.random.key_data(window_keys(CONFIG, start)) for start in STARTS]
    assert len({tuple(row) for window in keys for row in np.asarray(window).tolist()}) == 6


@pytest.mark.parametrize("problem", [Problem(CONFIG, (), LIMITS_G), Problem(CONFIG, STARTS, ())])
def test_nothing_to_compare_is_refused(problem):
    with pytest.raises(ValueError, match="give one or more"):
        compare(problem)


@pytest.mark.slow
def test_processes_find_the_same(found, monkeypatch):
    monkeypatch.setenv("NPROC", "2")
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    reports = []
    again = compare(
        Problem(CONFIG, STARTS, LIMITS_G), processes=2, progress=lambda done, of: reports.append((done, of))
    )
    np.testing.assert_array_equal(again.evaluations, found.evaluations)
    np.testing.assert_allclose(again.hypervolume_share, found.hypervolume_share, rtol=1e-5)
    np.testing.assert_allclose(again.emitted_g, found.emitted_g, rtol=1e-4, atol=0.1)
    assert reports == [(chunk, 6) for chunk in range(1, 7)]
    assert os.environ["NPROC"] == "2" and "OPENBLAS_NUM_THREADS" not in os.environ
