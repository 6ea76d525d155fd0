"""Where a search's carbon savings come from: less work, cheaper work, or work at cleaner hours."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from cenas_jax.carbon.ledger import ACTIVITIES, Ledger

IDLE = ACTIVITIES.index("idle")


class Savings(NamedTuple):
    """gCO2eq that a search emitted less than another; negative where it emitted more. The three add up to the total."""

    less_work_g: Float[Array, "*batch"]
    """Fewer slot-hours of work, at the other's energy a slot-hour and its mean intensity. A slot without work does
    none."""
    cheaper_work_g: Float[Array, "*batch"]
    """Less energy a slot-hour of work (sampling in place of evaluation), at the other's mean intensity; and what slots
    without work drew less."""
    later_work_g: Float[Array, "*batch"]
    """The same energy of work at hours of lower intensity. Alone in this is a policy carbon-aware rather than frugal.
    """

    @property
    def total_g(self) -> Float[Array, "*batch"]:
        return self.less_work_g + self.cheaper_work_g + self.later_work_g


def savings(ledger: Ledger, other: Ledger) -> Savings:
    """The split of `other`'s emissions minus `ledger`'s.

    Emissions of work (every activity but `idle`) are slot-hours x energy a slot-hour x energy-weighted mean intensity;
    the factors are exchanged one after the other, in this order. Where a search used no slot-hour or no energy, its
    factor is taken to be the other's, so that all is ascribed to less (or cheaper) work.
    """
    work_h, energy_kwh, emissions_g = _of_work(ledger)
    other_h, other_kwh, other_g = _of_work(other)
    power = _ratio(other_kwh, other_h, _ratio(energy_kwh, work_h, 0.0))
    intensity = _ratio(other_g, other_kwh, _ratio(emissions_g, energy_kwh, 0.0))
    own_power, own_intensity = _ratio(energy_kwh, work_h, power), _ratio(emissions_g, energy_kwh, intensity)
    return Savings(  # differences first: equal searches save nothing to the bit
        less_work_g=(other_h - work_h) * power * intensity,
        cheaper_work_g=work_h * (power - own_power) * intensity
        + (other.emissions_g[..., IDLE] - ledger.emissions_g[..., IDLE]),
        later_work_g=energy_kwh * (intensity - own_intensity),
    )


def _of_work(ledger: Ledger):
    """Slot-hours, kWh and gCO2eq over all activities but `idle`."""
    work = [place for place in range(len(ACTIVITIES)) if place != IDLE]
    seconds, kwh, g = (part[..., work].sum(axis=-1) for part in (ledger.busy_s, ledger.energy_kwh, ledger.emissions_g))
    return seconds / 3600, kwh, g


def _ratio(numerator, denominator, otherwise):
    return jnp.where(denominator > 0, numerator / jnp.where(denominator > 0, denominator, 1), otherwise)
