"""The savings split: by hand, and its terms always add up."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cenas_jax.carbon.ledger import ACTIVITIES, Charge, Ledger
from cenas_jax.carbon.savings import savings


def ledger(hours, energy_kwh, emissions_g, activity="evaluation") -> Ledger:
    row = jnp.array([name == activity for name in ACTIVITIES]) * 1.0
    return Ledger(energy_kwh * row, emissions_g * row, hours * 3600 * row, Charge(0 * row, 0 * row, 0 * row))


def test_by_hand():
    """10 h at 1 kW and 300 g/kWh = 3,000 g against 6 h at .5 kW and 200 g/kWh = 600 g."""
    split = savings(ledger(6.0, 3.0, 600.0), ledger(10.0, 10.0, 3000.0))
    assert float(split.less_work_g) == pytest.approx(4 * 1 * 300)
    assert float(split.cheaper_work_g) == pytest.approx(6 * 0.5 * 300)
    assert float(split.later_work_g) == pytest.approx(3 * 100)
    assert float(split.total_g) == pytest.approx(2400)


def test_a_policy_that_only_runs_fewer_slots_saves_by_less_work_alone():
    split = savings(ledger(2.0, 2.0, 600.0), ledger(16.0, 16.0, 4800.0))
    assert [float(part) for part in split] == pytest.approx([4200, 0, 0], abs=1e-2)


def both(one: Ledger, two: Ledger) -> Ledger:
    return jax.tree.map(jnp.add, one, two)


def test_slots_without_work_are_less_work_not_cheaper_work():
    """2 h of evaluation and 14 h of rest at 100 W, against 16 h of evaluation."""
    rest = ledger(14.0, 1.4, 420.0, "idle")
    split = savings(both(ledger(2.0, 2.0, 600.0), rest), ledger(16.0, 16.0, 4800.0))
    assert [float(part) for part in split] == pytest.approx([4200, -420, 0], abs=1e-2)
    only_rest = savings(rest, ledger(16.0, 16.0, 4800.0))
    assert [float(part) for part in only_rest] == pytest.approx([4800, -420, 0], abs=1e-2)


def test_sampling_in_place_of_evaluation_is_cheaper_work():
    mixed = both(ledger(2.0, 2.0, 600.0), ledger(14.0, 0.0, 0.0, "sampling"))
    split = savings(mixed, ledger(16.0, 16.0, 4800.0))
    assert [float(part) for part in split] == pytest.approx([0, 4200, 0], abs=1e-2)


def test_equal_searches_save_nothing():
    one = ledger(1.0, 45.0, 1529.0)
    assert [float(part) for part in savings(one, one)] == [0, 0, 0]


amounts = st.one_of(st.just(0.0), st.floats(0.0625, 1e4, width=32))


@given(amounts, amounts, amounts, amounts, amounts, amounts, amounts, amounts)
def test_terms_add_up(hours, energy_kwh, emissions_g, other_h, other_kwh, other_g, idle_g, other_idle_g):
    """Also where nothing was done, or what was done emitted nothing."""
    mine = both(ledger(hours, energy_kwh, emissions_g), ledger(5.0, 1.0, idle_g, "idle"))
    other = both(ledger(other_h, other_kwh, other_g), ledger(7.0, 2.0, other_idle_g, "idle"))
    split = savings(mine, other)
    assume((energy_kwh > 0 or emissions_g == 0) and (hours > 0 or energy_kwh == 0))  # no emissions without work
    assume((other_kwh > 0 or other_g == 0) and (other_h > 0 or other_kwh == 0))
    scale = sum(abs(float(part)) for part in split) + 1
    expected = other_g + other_idle_g - emissions_g - idle_g
    np.testing.assert_allclose(split.total_g, expected, atol=1e-4 * scale, rtol=1e-4)
