"""Hard budgets, the ledger's sums and no look-ahead, over 1,000 random searches of one compilation."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_cluster import CONFIG, HOURS, cluster_params, random_searches, simulate_many, simulate_one

from cenas_jax.allocation import plain_params
from cenas_jax.carbon import Budget
from cenas_jax.carbon.ledger import charge
from cenas_jax.carbon.power import PowerModel, measured, paper

BATCHES = 8  # of 125 searches
EVALUATION, SAMPLING, SUPERNET, INITIAL, IDLE = range(5)


@pytest.fixture(scope="module")
def runs():
    """Parameters and results of all searches, on the host in float64."""

    def double(tree):
        return jax.tree.map(
            lambda array: (
                np.asarray(array, np.float64) if jnp.issubdtype(array.dtype, jnp.floating) else np.asarray(array)
            ),
            tree,
        )

    batches = []
    for seed in range(BATCHES):
        keys, params, policies = random_searches(seed)
        batches.append((double(params), double(simulate_many(keys, params, policies))))
    return jax.tree.map(lambda *parts: np.concatenate(parts), *batches)


def powers_w(power):
    """Watts at the meter by activity, in the ledger's order: `[runs, 5]`."""
    watts = (power.evaluation_w, power.sampling_w, power.supernet_w, power.initial_design_w, power.idle_w)
    return np.stack(watts, axis=1) * power.pue[:, None]


def test_no_search_outgrew_its_capacity(runs):
    assert runs[1].overflow.max() == 0


def test_sums_by_activity_and_by_interval_are_power_times_time_times_intensity(runs):
    params, result = runs
    charged, ledger = result.history.charge, result.ledger
    intensity = params.intensity_g_per_kwh[:, CONFIG.window_h :]
    energy = powers_w(params.power)[:, None, :] * charged.busy_s / 3.6e6
    emissions = energy * intensity[:, :, None]
    for exact, rows, total in (
        (energy, charged.energy_kwh, ledger.energy_kwh),
        (emissions, charged.emissions_g, ledger.emissions_g),
        (charged.busy_s, charged.busy_s, ledger.busy_s),
    ):
        np.testing.assert_allclose(rows, exact, rtol=1e-6)
        np.testing.assert_allclose(rows.sum(axis=(1, 2)), exact.sum(axis=(1, 2)), rtol=1e-6)
        np.testing.assert_allclose(total, exact.sum(axis=1), rtol=1e-6)
        np.testing.assert_allclose(total.sum(axis=1), rows.sum(axis=(1, 2)), rtol=1e-6)


def test_no_budget_is_ever_exceeded(runs):
    params, result = runs
    charged = result.history.charge
    intensity = params.intensity_g_per_kwh[:, CONFIG.window_h :]
    energy = powers_w(params.power)[:, None, :] * charged.busy_s / 3.6e6
    assert np.all((energy * intensity[:, :, None]).sum(axis=(1, 2)) <= params.budget.carbon_g)
    assert np.all(energy.sum(axis=(1, 2)) <= params.budget.energy_kwh)
    assert np.all(result.count <= params.budget.evaluations)
    assert np.all(result.history.duration_s.sum(axis=1) <= params.budget.hours * 3600 * (1 + 1e-6))
    # Each kind of limit did end searches, and left some of them alone.
    ended = result.history.duration_s.sum(axis=1) < np.minimum(params.budget.hours, HOURS) * 3600 - 1
    for limit in (params.budget.carbon_g, params.budget.energy_kwh, params.budget.evaluations):
        assert 0.1 < ended[np.isfinite(limit)].mean() < 1
    unlimited = [
        np.isinf(limit) for limit in (params.budget.carbon_g, params.budget.energy_kwh, params.budget.evaluations)
    ]
    assert not ended[np.all(unlimited, axis=0)].any()


def test_slots_are_not_used_twice(runs):
    _, result = runs
    busy_s, slots = result.history.charge.busy_s, result.history.evaluation_slots
    duration_s = result.history.duration_s
    assert busy_s.min() >= 0
    working_s = busy_s[..., EVALUATION] + busy_s[..., INITIAL]
    assert np.all(working_s <= slots * duration_s * (1 + 1e-5) + 1e-2)
    assert np.all(busy_s[..., SAMPLING] + busy_s[..., SUPERNET] <= (CONFIG.slots - slots) * 3600 * (1 + 1e-5))
    assert np.all(busy_s.sum(axis=-1) <= CONFIG.slots * 3600 * (1 + 1e-5))
    # An interval that ran to its end used every slot for all of it, idling included.
    full = duration_s == 3600
    np.testing.assert_allclose(busy_s.sum(axis=-1)[full], CONFIG.slots * 3600, rtol=1e-5)


def test_no_architecture_is_evaluated_twice(runs):
    _, result = runs
    for row, count in zip(result.evaluated, result.count, strict=True):
        assert len(set(row[:count].tolist())) == count
    assert np.all(np.diff(result.history.hypervolume_share, axis=1) >= -1e-6)
    np.testing.assert_array_equal(result.history.evaluations[:, -1], result.count)


def test_nothing_happens_once_a_search_has_stopped(runs):
    _, result = runs
    stopped = ~result.history.running
    assert stopped.any()
    for part in (result.history.screened, result.history.finished, result.history.evaluation_slots):
        assert not part[stopped].any()
    assert not result.history.charge.busy_s[stopped].any() and not result.history.charge.emissions_g[stopped].any()
    assert not result.history.duration_s[stopped].any() and not result.reward[stopped].any()
    assert np.all(np.diff(result.history.running.astype(int), axis=1) <= 0)


@pytest.mark.parametrize("known", [1, 3, 6])
def test_no_look_ahead(known):
    keys, params, policies = random_searches(99)
    intensity = np.asarray(params.intensity_g_per_kwh)
    other = intensity.copy()
    other[:, CONFIG.window_h + known :] = np.random.default_rng(0).uniform(
        10, 900, other[:, CONFIG.window_h + known :].shape
    )
    before = simulate_many(keys, params, policies)
    after = simulate_many(keys, params._replace(intensity_g_per_kwh=jnp.asarray(other)), policies)
    for was, now in zip(jax.tree.leaves(before.history), jax.tree.leaves(after.history), strict=True):
        np.testing.assert_array_equal(was[:, :known], now[:, :known])
    assert not np.array_equal(before.history.evaluation_slots, after.history.evaluation_slots)


def test_the_hour_of_the_paper():
    # 7 kWh at 340.93 g/kWh; sampling is free.
    hour = charge(jnp.asarray([25_200.0, 3600.0, 0.0, 0.0, 0.0]), paper().params(), 340.93)
    assert float(hour.emissions_g.sum()) == pytest.approx(2386.51, abs=5e-3)
    result = simulate_one(jax.random.key(0), cluster_params(340.93, paper()), plain_params("fixed-3", CONFIG.slots))
    busy_s = result.history.charge.busy_s[:, EVALUATION]
    assert busy_s.tolist()[3:] == pytest.approx([3 * 3600] * (HOURS - 3))
    assert result.history.charge.emissions_g.sum(axis=1)[3:].tolist() == pytest.approx([3 * 340.93] * (HOURS - 3))


@pytest.mark.parametrize("limit", ["carbon_g", "energy_kwh"])
def test_a_budget_is_used_up_to_the_last_second(limit):
    # Evaluation alone, nothing idles: 4 slots at 360 W and 250 g/kWh are 1.44 kWh and 360 g an hour.
    power = PowerModel(360.0, 0.0, 0.0, 0.0)
    budget = Budget(energy_kwh=1.44 * 3.25) if limit == "energy_kwh" else Budget(carbon_g=360 * 3.25)
    result = simulate_one(
        jax.random.key(1), cluster_params(250.0, power, budget), plain_params("vanilla", CONFIG.slots)
    )
    assert result.history.duration_s.tolist() == pytest.approx([3600] * 3 + [900] + [0] * 4, rel=1e-3)
    used = result.ledger.emissions_g.sum() if limit == "carbon_g" else result.ledger.energy_kwh.sum()
    assert 1 - 1e-4 < float(used) / getattr(budget, limit) <= 1


@pytest.mark.parametrize("evaluations", [5, 6, 13])
def test_evaluations_are_counted_to_the_last_one(evaluations):
    params = cluster_params(power=paper(), budget=Budget(evaluations=evaluations))
    result = simulate_one(jax.random.key(2), params, plain_params("vanilla", CONFIG.slots))
    assert int(result.count) == evaluations
    if evaluations == CONFIG.initial_design:  # given at the start: nothing is left to do
        assert float(result.ledger.busy_s.sum()) == 0


def test_hours_may_be_a_fraction():
    result = simulate_one(
        jax.random.key(3), cluster_params(budget=Budget(hours=2.5)), plain_params("heuristic", CONFIG.slots)
    )
    assert result.history.duration_s.tolist() == [3600, 3600, 1800, 0, 0, 0, 0, 0]
    assert math.isclose(float(result.ledger.busy_s.sum()), 2.5 * 3600 * CONFIG.slots, rel_tol=1e-5)


def test_measured_power_charges_every_activity():
    result = simulate_one(
        jax.random.key(4), cluster_params(power=measured(idle_slots=True)), plain_params("fixed-2", CONFIG.slots)
    )
    assert bool((result.ledger.emissions_g > 0).all())
