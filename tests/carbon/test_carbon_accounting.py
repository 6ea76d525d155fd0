"""Power models, budgets and the ledger."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cenas_jax.carbon import Budget, PowerModel
from cenas_jax.carbon.ledger import ACTIVITIES, charge, empty_ledger, ledger_charge
from cenas_jax.carbon.power import BOARD_POWER_W, measured, paper

EVALUATION = ACTIVITIES.index("evaluation")


def watts(params):
    return np.array([getattr(params, f"{activity}_w") for activity in ACTIVITIES], float)


def test_paper_hour():
    """7 evaluation slots of 1 kW for one hour at 340.93 g/kWh; all other activities are free."""
    busy = jnp.array([7.0, 1.0, 1.0, 1.0, 1.0]) * 3600
    interval = charge(busy, paper().params(), jnp.asarray(340.93))
    np.testing.assert_allclose(interval.emissions_g.sum(), 2386.51, rtol=1e-6)
    np.testing.assert_allclose(interval.energy_kwh, [7, 0, 0, 0, 0], rtol=1e-6)


def test_measured_preset_charges_everything():
    model = measured("a100", pue=1.5, idle_slots=True)
    np.testing.assert_allclose(watts(model.params()), [300, 180, 300, 300, 48])
    # 1 h of each at PUE 1.5 and 200 g/kWh: 1.128 kW x 1.5 x 200.
    interval = charge(jnp.full(5, 3600.0), model.params(), 200.0)
    np.testing.assert_allclose(interval.emissions_g.sum(), 1.128 * 1.5 * 200, rtol=1e-6)
    released = measured("a100").params()
    assert released.idle_w == 0 and released.pue == 1.2 and released.initial_design_w == released.evaluation_w
    for gpu in BOARD_POWER_W:
        model = measured(gpu)
        assert 0 < model.idle_w < model.sampling_w < model.evaluation_w < BOARD_POWER_W[gpu]


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: measured("tpu"), "gpu 'tpu' is unknown: choose one of a10, a100"),
        (lambda: measured("a100", pue=0.9), "pue = 0.9 is impossible"),
        (lambda: PowerModel(-1.0, 0.0, 0.0, 0.0), "evaluation_w = -1.0 is not a power: give watts, 0 or more"),
        (lambda: PowerModel(1.0, math.nan, 0.0, 0.0), "sampling_w = nan is not a power"),
        (lambda: Budget(hours=0.0), "budget: hours = 0.0 is not a limit: give a number above 0"),
        (lambda: Budget(carbon_g=-5.0), "carbon_g = -5.0 is not a limit"),
        (lambda: Budget(energy_kwh=math.inf), "energy_kwh = inf is not a limit"),
        (lambda: Budget(hours=math.nan), "hours = nan is not a limit"),
        (lambda: Budget(evaluations=0), "evaluations = 0 is not a limit"),
    ],
)
def test_bad_configs(build, message):
    with pytest.raises(ValueError, match=message) as caught:
        build()
    assert "\n" not in str(caught.value)


def test_budget_params():
    params = Budget(hours=80.0, carbon_g=30000.0).params()
    assert params == (80.0, 30000.0, math.inf, math.inf)
    assert hash(Budget(hours=80.0)) == hash(Budget(hours=80.0))


@jax.jit
def run(durations_s, intensities, params):
    def step(ledger, interval):
        return ledger_charge(ledger, interval[0], params, interval[1])

    return jax.lax.scan(step, empty_ledger(), (durations_s, intensities))


run_batch = jax.jit(jax.vmap(run, in_axes=(0, 0, None)))


def relative(found, expected):
    return np.max(np.abs(np.asarray(found, np.float64) / expected - 1))


@pytest.mark.parametrize("x64", [False, True])
def test_three_sums_agree(x64):
    """20,000 intervals: by activity = by interval = power x time x intensity, to 1e-6 (float64: 1e-12)."""
    with jax.enable_x64(x64):
        rng = np.random.default_rng(0)
        dtype = jnp.zeros(()).dtype
        durations_s = jnp.asarray(rng.uniform(0.01, 8 * 3600, (20_000, 5)), dtype)
        intensities = jnp.asarray(rng.uniform(20, 900, 20_000), dtype)
        params = measured("h100", idle_slots=True).params()
        ledger, rows = run(durations_s, intensities, params)
        seconds, grams = np.asarray(durations_s, np.float64), np.asarray(intensities, np.float64)
        energy = watts(params)[None, :] * seconds / 3.6e6 * params.pue
        limit = 1e-12 if x64 else 1e-6
        assert ledger.energy_kwh.dtype == dtype
        for total, row, exact in (
            (ledger.energy_kwh, rows.energy_kwh, energy),
            (ledger.emissions_g, rows.emissions_g, energy * grams[:, None]),
            (ledger.busy_s, rows.busy_s, seconds),
        ):
            assert relative(total, exact.sum(0)) < limit
            assert relative(np.asarray(row, np.float64).sum(0), exact.sum(0)) < limit
            assert relative(np.asarray(row, np.float64).sum(1), exact.sum(1)) < limit
            assert relative(np.asarray(total, np.float64).sum(), exact.sum()) < limit


@jax.enable_x64(False)
def test_plain_float32_sums_would_fail():
    """The compensation is needed and survives XLA: a hundred thousand small rows beside a plain running sum."""
    durations_s = jnp.zeros((100_000, 5)).at[:, EVALUATION].set(1234.567)
    params = paper().params()
    ledger, rows = run(durations_s, jnp.full(100_000, 321.123), params)
    exact = np.asarray(rows.emissions_g, np.float64)[:, EVALUATION].sum()
    plain, _ = jax.lax.scan(lambda total, row: (total + row, None), jnp.zeros(()), rows.emissions_g[:, EVALUATION])
    assert relative(ledger.emissions_g[EVALUATION], exact) < 1e-7 < 1e-6 < relative(plain, exact)


@settings(deadline=None, max_examples=25)
@given(
    # Nothing, or enough for the product to be a normal float: XLA flushes what is smaller, or not, by program.
    seconds=st.lists(st.just(0.0) | st.floats(2**-10, 28800, width=32), min_size=5, max_size=5),
    intensity=st.just(0.0) | st.floats(2**-10, 1000, width=32),
)
def test_ledger_is_linear_and_batches(seconds, intensity):
    params = measured("t4", idle_slots=True).params()
    durations_s, intensities = jnp.asarray([seconds] * 3), jnp.full(3, intensity)
    single, _ = run(durations_s, intensities, params)
    batch, _ = run_batch(jnp.stack([durations_s, 2 * durations_s]), jnp.stack([intensities] * 2), params)
    for name in ("energy_kwh", "emissions_g", "busy_s"):
        np.testing.assert_allclose(getattr(batch, name)[0], getattr(single, name), rtol=1e-6)
        np.testing.assert_allclose(getattr(batch, name)[1], 2 * getattr(single, name), rtol=1e-6)
    exact = (watts(params) * np.array(seconds, np.float64) / 3.6e6 * params.pue * intensity * 3).sum()
    np.testing.assert_allclose(np.asarray(single.emissions_g, np.float64).sum(), exact, rtol=1e-6, atol=1e-30)
