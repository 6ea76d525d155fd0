"""Power drawn by a device slot, by activity. Host only: no jax."""

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from jax.typing import ArrayLike


class PowerParams(NamedTuple):
    """Traced scalars of a `PowerModel`, in the order of `ledger.ACTIVITIES`; watts per slot, PUE without unit."""

    evaluation_w: "ArrayLike"
    sampling_w: "ArrayLike"
    supernet_w: "ArrayLike"
    initial_design_w: "ArrayLike"
    """Evaluation power, or 0 where the initial design is free."""
    idle_w: "ArrayLike"
    """0 where slots without work are released."""
    pue: "ArrayLike"


@dataclass(frozen=True)
class PowerModel:
    """Watts of one slot (a GPU) by activity, and what is charged to the search.

    `ValueError` where a power is negative or not finite, or `pue` is below 1.
    """

    evaluation_w: float
    """Training a candidate."""
    sampling_w: float
    """Screening candidates with the supernet."""
    supernet_w: float
    """Training the supernet."""
    idle_w: float
    """A slot that waits."""
    pue: float = 1.0
    """Power usage effectiveness of the data centre: energy of the building / energy of the devices."""
    idle_slots: bool = False
    """True: a slot without work stays ours and draws `idle_w`. False: it is released (0 W, someone else's)."""
    charge_initial_design: bool = True
    """False: the initial architectures are there for nothing, with their results."""

    def __post_init__(self):
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name.endswith("_w") and not (math.isfinite(value) and value >= 0):
                raise ValueError(f"power model: {field.name} = {value} is not a power: give watts, 0 or more")
        if not (math.isfinite(self.pue) and self.pue >= 1):
            raise ValueError(
                f"power model: pue = {self.pue} is impossible: the building uses at least 1.0 x its devices"
            )

    def params(self) -> PowerParams:
        return PowerParams(
            evaluation_w=float(self.evaluation_w),
            sampling_w=float(self.sampling_w),
            supernet_w=float(self.supernet_w),
            initial_design_w=float(self.evaluation_w) if self.charge_initial_design else 0.0,
            idle_w=float(self.idle_w) if self.idle_slots else 0.0,
            pue=float(self.pue),
        )


def paper() -> PowerModel:
    """The accounting of the CE-NAS release: 1 kW per evaluating GPU; sampling, idling, the supernet, the initial
    design and the building cost nothing."""
    return PowerModel(1000.0, 0.0, 0.0, 0.0, pue=1.0, idle_slots=False, charge_initial_design=False)


BOARD_POWER_W = {
    "a10": 150.0,
    "a100": 400.0,  # SXM4
    "a100-pcie": 300.0,  # 80 GB
    "h100": 700.0,  # SXM5
    "h100-pcie": 350.0,
    "h200": 700.0,  # SXM
    "l4": 72.0,
    "l40s": 350.0,
    "rtx3090": 350.0,
    "rtx4090": 450.0,
    "t4": 70.0,
    "v100": 300.0,  # SXM2
}
"""Maximum board power from the manufacturer's data sheets, W."""

EVALUATION_SHARE, SUPERNET_SHARE, SAMPLING_SHARE, IDLE_SHARE = 0.75, 0.75, 0.45, 0.12
"""Assumed mean share of the board power by activity (not measured here): training small networks does not saturate
the board, screening is short inference batches with waits between them, and a waiting board with a context open
draws about an eighth. CPU, memory and network of the host are not included."""


def measured(gpu: str = "a100", *, pue: float = 1.2, idle_slots: bool = False) -> PowerModel:
    """Watts of a named GPU by activity, everything charged.

    Board power is the data sheet's, the shares by activity (`EVALUATION_SHARE`, ...) and the PUE are assumptions:
    where you have measured your own device, construct a `PowerModel`. `ValueError` lists the known names.
    """
    if gpu not in BOARD_POWER_W:
        raise ValueError(f"gpu {gpu!r} is unknown: choose one of {', '.join(BOARD_POWER_W)}")
    board_w = BOARD_POWER_W[gpu]
    return PowerModel(
        evaluation_w=EVALUATION_SHARE * board_w,
        sampling_w=SAMPLING_SHARE * board_w,
        supernet_w=SUPERNET_SHARE * board_w,
        idle_w=IDLE_SHARE * board_w,
        pue=pue,
        idle_slots=idle_slots,
    )
