"""The tasks that policies train on: what is drawn, and that nothing held out for tests can be."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cenas_jax.carbon import load_trace
from cenas_jax.runs import policy_tasks
from cenas_jax.runs.policy_tasks import (
    HOURS,
    TEST_FROM,
    WINDOW_H,
    draw_task,
    refuse_held_out,
    refuse_held_out_objectives,
    training_tasks,
)
from cenas_jax.spaces.nas_bench_201 import nas_bench_201


@pytest.fixture(scope="module")
def tasks():
    return training_tasks(None, seed=3)


def test_tasks_differ_in_everything_and_stay_within_their_ranges(tasks):
    drawn = jax.jit(jax.vmap(draw_task(tasks)))(jax.random.split(jax.random.key(0), 200))
    cluster, power = drawn.cluster, drawn.cluster.power
    assert jnp.isfinite(cluster.intensity_g_per_kwh).all() and cluster.intensity_g_per_kwh.shape == (200, 24 + HOURS)
    assert jnp.isfinite(cluster.forecast_g_per_kwh).all() and (cluster.forecast_g_per_kwh > 0).all()
    charged = power.sampling_w > 0
    assert 60 < charged.sum() < 140
    np.testing.assert_array_equal(cluster.charge_initial_design, charged)
    np.testing.assert_array_equal(power.evaluation_w[~charged], 1000)
    hours, mean = cluster.budget.hours, cluster.intensity_g_per_kwh[:, WINDOW_H:].mean(axis=1)
    share = cluster.budget.carbon_g / (8 * hours * mean * power.evaluation_w * power.pue / 1000)
    assert 24 <= hours.min() and hours.max() <= HOURS
    assert 0.0199 < share.min() < 0.04 and 0.25 < share.max() < 0.4001
    assert len(set(np.asarray(drawn.table.max_hypervolume).tolist())) == policy_tasks.SYNTHETIC_BENCHMARKS
    supernet_h = np.asarray(tasks.tables.supernet_time_s) / 3600
    assert len(set(supernet_h.tolist())) == policy_tasks.SYNTHETIC_BENCHMARKS
    assert 0.29 < supernet_h.min() < 1 and 4 < supernet_h.max() < 12.1


def test_isomorphs_are_alike_in_every_table(tasks):
    """One space serves all tables, whichever member of a class it proposes."""
    representative = nas_bench_201().isomorph
    for part in (tasks.tables.objectives, tasks.tables.train_time_s):
        np.testing.assert_array_equal(part, part[:, representative])


def test_a_forecast_knows_the_present_hour_and_errs_the_more_the_further_it_looks(tasks):
    drawn = jax.jit(jax.vmap(draw_task(tasks)))(jax.random.split(jax.random.key(1), 300))
    forecast, truth = drawn.cluster.forecast_g_per_kwh, drawn.cluster.intensity_g_per_kwh[:, WINDOW_H:]
    np.testing.assert_allclose(forecast[:, :, 0], truth, rtol=1e-5)
    error = [np.abs(forecast[:, : -ahead or None, ahead] / truth[:, ahead:] - 1).mean() for ahead in (1, 6, 23)]
    assert error[0] < error[1] < error[2] < 0.15


def test_hours_held_out_are_refused():
    trace = load_trace("synthetic-ciso", start="2021-06-30T00", hours=24)
    real = replace(trace, source="a real grid", synthetic=False)
    refuse_held_out(real)
    later = replace(real, start=real.start + np.timedelta64(1, "h"))
    with pytest.raises(ValueError, match=f"a real grid: hours from {TEST_FROM} on are held out for tests"):
        refuse_held_out(later)


def test_objectives_on_cifar_10_are_refused():
    refuse_held_out_objectives(("c100_test_200", "c100_edgegpu_energy"))
    for name in ("c10_valid_200", "c10_fpga_latency", "params_c10"):
        with pytest.raises(ValueError, match=f"objective {name}: CIFAR-10 is held out for tests"):
            refuse_held_out_objectives(("c100_test_200", name))


@pytest.mark.data
def test_real_tasks_end_before_the_test(data_dir):
    tasks = training_tasks(data_dir)
    assert tasks.hours.shape[0] == len(policy_tasks.SYNTHETIC_TRACES) + len(policy_tasks.REAL_TRACES)
    assert not any("CIFAR-10 " in source or "c10" in source for source in tasks.sources)
    first = jax.tree.map(lambda part: part.shape[0], tasks.tables)
    assert set(jax.tree.leaves(first)) == {policy_tasks.SYNTHETIC_BENCHMARKS + policy_tasks.REAL_BENCHMARKS}
