"""A search on the simulated cluster as data: its sizes, what may differ between searches, its state, its reports."""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from jaxtyping import Array, Bool, Float, Int, Key

from cenas_jax.carbon.budget import BudgetParams
from cenas_jax.carbon.ledger import Charge, Ledger
from cenas_jax.carbon.power import PowerParams
from cenas_jax.choices import check_choices


@dataclass(frozen=True)
class ClusterConfig:
    """Sizes of the simulated cluster; they decide shapes."""

    slots: int = 8
    """Devices, each either sampling or evaluating during an interval."""
    initial_design: int = 10
    """Random architectures evaluated first."""
    queue_capacity: int = 32
    """Screened architectures that wait for evaluation."""
    screen_per_interval: int = 512
    """Most candidates drawn in an interval."""
    window_h: int = 24
    """Hours of past intensities that observations are relative to."""
    forecast_h: int = 0
    """Hours of forecast intensity in an observation, the current one being the first. 0: no forecast."""
    capacity: int = 1024
    """Most evaluations of one search; more are an error."""
    reward: Literal["budgeted", "paper"] = "budgeted"

    def __post_init__(self):
        check_choices(self)
        for name in ("slots", "initial_design", "queue_capacity", "screen_per_interval", "window_h", "capacity"):
            if getattr(self, name) < 1:
                raise ValueError(f"ClusterConfig: {name} must be at least 1, got {getattr(self, name)}")
        if self.forecast_h < 0:
            raise ValueError(f"ClusterConfig: forecast_h must be at least 0, got {self.forecast_h}")


class ClusterParams(NamedTuple):
    """What may differ between searches of one compilation."""

    intensity_g_per_kwh: Float[Array, "*batch hours"]
    """The `window_h` hours before the start (NaN where unknown), then the hours of the search."""
    forecast_g_per_kwh: Float[Array, "*batch intervals forecast_h"]
    """Row i: what is forecast at the start of interval i for the hours i, i + 1, ...; `[intervals, 0]` without one."""
    power: PowerParams
    budget: BudgetParams
    charge_initial_design: Bool[Array, "*batch"]
    """False: the initial design is there at the start, for nothing."""
    screens_on: Bool[Array, "*batch"] | bool = False
    """Candidates are screened every hour, whether any can be evaluated then or not: what one-shot does."""


class Jobs(NamedTuple):
    """Architectures waiting for an evaluation slot."""

    index: Int[Array, " j"]
    remaining_s: Float[Array, " j"]
    initial: Bool[Array, " j"]
    """True: one of the initial design, for the ledger."""
    valid: Bool[Array, " j"]


class ClusterState(NamedTuple):
    """One search between two intervals."""

    key: Key[Array, ""]
    searcher: Any
    interval: Int[Array, ""]
    half_finished: Jobs
    initial: Jobs
    queue: Jobs
    estimated: Bool[Array, " size"]  # architectures whose estimate is known and paid for
    supernet_left_s: Float[Array, ""]
    screened_at: Int[Array, ""]  # evaluations there were when all candidates of an hour were screened last; -1: never
    evaluated: Int[Array, " capacity"]  # index of every evaluated architecture, in order
    count: Int[Array, ""]
    hypervolume: Float[Array, ""]
    initial_hypervolume: Float[Array, ""]  # 0 until the initial design has a result
    recent_gain: Float[Array, ""]
    ledger: Ledger
    stopped: Bool[Array, ""]


class IntervalInfo(NamedTuple):
    """What happened in one interval; all zeros once the search has stopped."""

    running: Bool[Array, ""]
    evaluation_slots: Int[Array, ""]
    screened: Int[Array, ""]
    finished: Int[Array, ""]
    evaluations: Int[Array, ""]
    queue: Int[Array, ""]
    half_finished: Int[Array, ""]
    duration_s: Float[Array, ""]
    hypervolume_share: Float[Array, ""]
    charge: Charge
    overflow: Int[Array, ""]
