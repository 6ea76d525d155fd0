"""Limits of a search. Host only: no jax."""

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from jax.typing import ArrayLike


class BudgetParams(NamedTuple):
    """Traced scalars of a `Budget`; +inf where there is no limit."""

    hours: "ArrayLike"
    carbon_g: "ArrayLike"
    energy_kwh: "ArrayLike"
    evaluations: "ArrayLike"


@dataclass(frozen=True)
class Budget:
    """Limits of one search; None = no limit. The search stops at the first that would be exceeded.

    `ValueError` where a limit is not a positive finite number, or `evaluations` is not whole.
    """

    hours: float | None = None
    """Carbon intervals of one hour."""
    carbon_g: float | None = None
    """Emissions, gCO2eq; hard: never exceeded."""
    energy_kwh: float | None = None
    """Energy at the building's meter (PUE included), kWh."""
    evaluations: int | None = None
    """Finished trainings, the initial design included."""

    def __post_init__(self):
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None:
                continue
            if not (math.isfinite(value) and value > 0):
                raise ValueError(
                    f"budget: {field.name} = {value} is not a limit: give a number above 0, or leave it out"
                )
            if field.name == "evaluations" and value != int(value):
                raise ValueError(f"budget: evaluations = {value} is not a whole number")

    def params(self) -> BudgetParams:
        limits = (getattr(self, field.name) for field in fields(self))
        return BudgetParams(*(math.inf if limit is None else float(limit) for limit in limits))
