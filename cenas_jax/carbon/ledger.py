"""Energy and emissions of a search, by activity. Pure JAX.

Three sums must agree to 1e-6 relative: by activity (`Ledger`), by interval (the emitted `Charge` rows, added up on
the host in float64) and power x time x intensity. An interval's charge is a product of five factors, so in float32 it
is off by at most 3e-7. Adding thousands of them up in plain float32 would lose another 1e-5, so every total carries the
rounding error of its additions beside it (Knuth's TwoSum: exact, and free of the branch of Kahan's sum).
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from cenas_jax.carbon.power import PowerParams

ACTIVITIES = ("evaluation", "sampling", "supernet", "initial_design", "idle")
JOULES_PER_KWH = 3.6e6


class Charge(NamedTuple):
    """Energy, emissions and slot seconds by activity, in the order of `ACTIVITIES`. Rows may be stacked."""

    energy_kwh: Float[Array, "*intervals 5"]
    emissions_g: Float[Array, "*intervals 5"]
    busy_s: Float[Array, "*intervals 5"]


class Ledger(NamedTuple):
    """What a search has used so far."""

    energy_kwh: Float[Array, "*batch 5"]
    emissions_g: Float[Array, "*batch 5"]
    busy_s: Float[Array, "*batch 5"]
    rounding: Charge
    """Rounding error of each total: `total + rounding` is the sum to twice the precision."""


def energy_kwh(
    power_w: Float[Array, "*shape"], duration_s: Float[Array, "*shape"], pue: Float[Array, ""] | float
) -> Float[Array, "*shape"]:
    """Energy at the building's meter: watts x seconds x PUE, in kWh."""
    return power_w * (duration_s / JOULES_PER_KWH) * pue


def emissions_g(
    energy_kwh: Float[Array, "*shape"], intensity_g_per_kwh: Float[Array, ""] | float
) -> Float[Array, "*shape"]:
    """Operational emissions, gCO2eq."""
    return energy_kwh * intensity_g_per_kwh


def charge(duration_s: Float[Array, "5"], power: PowerParams, intensity_g_per_kwh: Float[Array, ""] | float) -> Charge:
    """What one interval costs: `duration_s` are slot seconds by activity (7 busy slots for an hour: 25,200)."""
    power_w = jnp.stack(
        [
            jnp.asarray(watts, duration_s.dtype)
            for watts in (
                power.evaluation_w,
                power.sampling_w,
                power.supernet_w,
                power.initial_design_w,
                power.idle_w,
            )
        ]
    )
    energy = energy_kwh(power_w, duration_s, jnp.asarray(power.pue, duration_s.dtype))
    return Charge(energy, emissions_g(energy, intensity_g_per_kwh), duration_s)


def empty_ledger() -> Ledger:
    zeros = jnp.zeros(len(ACTIVITIES))
    return Ledger(zeros, zeros, zeros, Charge(zeros, zeros, zeros))


def ledger_charge(
    ledger: Ledger,
    duration_s: Float[Array, "5"],
    power: PowerParams,
    intensity_g_per_kwh: Float[Array, ""] | float,
) -> tuple[Ledger, Charge]:
    """Book one interval: `(ledger, the interval's own charge)`. See `charge` for the arguments."""
    interval = charge(duration_s, power, intensity_g_per_kwh)
    booked = [
        _add(total, rounding, value)
        for total, rounding, value in zip(ledger[:3], ledger.rounding, interval, strict=True)
    ]
    totals, rounding = zip(*booked, strict=True)
    return Ledger(*totals, rounding=Charge(*rounding)), interval


def _add(
    total: Float[Array, "*shape"], rounding: Float[Array, "*shape"], value: Float[Array, "*shape"]
) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
    """Knuth's TwoSum of `total + rounding + value`; keeps the dtype of `total`."""
    value = value.astype(total.dtype) + rounding
    new = total + value
    value_part = new - total
    return new, (total - (new - value_part)) + (value - value_part)
