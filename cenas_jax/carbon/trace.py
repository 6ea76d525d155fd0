"""Hourly carbon intensity of one grid zone, and what to do where readings are missing. Host only: no jax."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, Float64

from cenas_jax.carbon.stamps import without_offset
from cenas_jax.choices import check_choice

Factor = Literal["lifecycle", "direct"]
GapPolicy = Literal["error", "interpolate", "hold"]
TimeLike = str | datetime | np.datetime64
FACTORS, GAP_POLICIES = get_args(Factor), get_args(GapPolicy)
HOUR = np.timedelta64(1, "h")


@dataclass(frozen=True, eq=False)
class IntensityTrace:
    """Mean carbon intensity of every hour from `start` on.

    `intensity_g_per_kwh[i]` (float64, gCO2eq/kWh) holds for the hour that begins at `start + i` hours, UTC. NaN is a
    missing reading; `fill_gaps` settles it, and a simulation takes only traces without NaN (`require_complete`).
    `ValueError` where a value is negative or infinite, where there is no hour, or `factor` is unknown.
    """

    intensity_g_per_kwh: Float64[np.ndarray, " hours"]
    start: np.datetime64
    """First hour, UTC, `datetime64[h]`."""
    zone: str
    factor: str
    """Emission factors: `lifecycle` (construction and fuel supply included) or `direct` (combustion only)."""
    source: str
    """Where the numbers come from and what was done to them (averaged, filled, generated)."""
    synthetic: bool = False

    def __post_init__(self):
        values = np.array(self.intensity_g_per_kwh, dtype=np.float64)
        values.flags.writeable = False
        object.__setattr__(self, "intensity_g_per_kwh", values)
        object.__setattr__(self, "start", utc_hour(self.start))
        check_choice("factor", self.factor, FACTORS)
        if values.ndim != 1 or values.size == 0:
            raise ValueError(
                f"{self.source}: a trace needs one value an hour and at least one hour, got {values.shape}"
            )
        for bad, what in ((values < 0, "is negative"), (np.isinf(values), "is infinite")):
            if bad.any():
                row = int(np.argmax(bad))
                raise ValueError(
                    f"{self.source}: intensity at {self.time(row)} (row {row}) {what} ({values[row]:g} g/kWh): "
                    "mark a missing reading as NaN and choose a gap policy"
                )

    @property
    def hours(self) -> int:
        return self.intensity_g_per_kwh.size

    @property
    def last(self) -> np.datetime64:
        """The last hour, UTC."""
        return self.start + (self.hours - 1) * HOUR

    def time(self, row: int) -> str:
        """The UTC hour of a row, as text."""
        return hour_text(self.start + row * HOUR)

    def row(self, when: TimeLike) -> int:
        """Row of the hour that `when` falls in (naive times are UTC); `ValueError` outside the trace."""
        row = int((_utc_second(when).astype("datetime64[h]") - self.start) / HOUR)
        if not 0 <= row < self.hours:
            raise ValueError(f"{when} is outside {self._span()}: choose an hour inside it")
        return row

    def at(self, when: TimeLike) -> float:
        """Intensity (g/kWh) of the hour that `when` falls in; NaN where the reading is missing."""
        return float(self.intensity_g_per_kwh[self.row(when)])

    def window(self, start: TimeLike, hours: int) -> "IntensityTrace":
        """The `hours` hours from `start` (a full hour, UTC) on; `ValueError` where they leave the trace."""
        first = int((utc_hour(start) - self.start) / HOUR)
        if hours < 1:
            raise ValueError(f"a window of {hours} h is empty: ask for at least 1 h")
        if first < 0 or first + hours > self.hours:
            raise ValueError(
                f"{hours} h from {hour_text(utc_hour(start))} leave {self._span()}: choose another start or fewer hours"
            )
        return replace(self, intensity_g_per_kwh=self.intensity_g_per_kwh[first : first + hours], start=utc_hour(start))

    def _span(self) -> str:
        return f"the trace {self.zone}, {hour_text(self.start)} to {hour_text(self.last)} ({self.hours} h)"


def from_arrays(
    intensity_g_per_kwh,
    start: TimeLike,
    *,
    zone: str,
    factor: str = "lifecycle",
    source: str = "array",
    synthetic: bool = False,
) -> IntensityTrace:
    """A trace from any sequence of hourly values; `start` is its first hour in UTC."""
    values = np.asarray(intensity_g_per_kwh, dtype=np.float64)
    return IntensityTrace(values, utc_hour(start), zone, factor, source, synthetic)


def utc_hour(when: TimeLike) -> np.datetime64:
    """`datetime64[h]` in UTC of a time on the full hour; naive times are UTC, offsets (`Z`, `+02:00`) are applied."""
    second = _utc_second(when)
    hour = second.astype("datetime64[h]")
    if hour != second:
        raise ValueError(f"{when} is not a full hour: carbon intervals begin on the hour (UTC)")
    return hour


def hour_text(hour: np.datetime64) -> str:
    """`2021-07-02 06:00 UTC`."""
    return str(hour.astype("datetime64[m]")).replace("T", " ") + " UTC"


def require_complete(trace: IntensityTrace) -> IntensityTrace:
    """The trace itself; `ValueError` where a reading is missing."""
    return fill_gaps(trace, "error", 0)


def fill_gaps(
    trace: IntensityTrace, gap_policy: str, max_gap_h: int, *, first: int = 0, last: int | None = None
) -> IntensityTrace:
    """The trace with its gaps settled: those that touch the rows `first` to `last` (exclusive), by default all.

    `error` refuses any gap. `interpolate` draws a line between the known neighbours (it looks into the future, so a
    forecaster may not be tested on such hours); `hold` repeats the last known value. Both refuse gaps longer than
    `max_gap_h` hours and gaps without the neighbours they need. What was filled is noted in `source`.
    """
    check_choice("gap policy", gap_policy, GAP_POLICIES)
    values = trace.intensity_g_per_kwh.copy()
    last = trace.hours if last is None else last
    filled = 0
    for begin, end in _runs(np.isnan(values)):
        if end <= first or begin >= last:
            continue
        where = f"{trace.source}: {end - begin} h missing from {trace.time(begin)} (row {begin})"
        if gap_policy == "error":
            raise ValueError(f"{where}: choose gap policy interpolate or hold with max_gap_h >= {end - begin}")
        if end - begin > max_gap_h:
            raise ValueError(f"{where}, more than max_gap_h = {max_gap_h}: raise max_gap_h or leave these hours out")
        if begin == 0 or (gap_policy == "interpolate" and end == trace.hours):
            raise ValueError(
                f"{where}, at the edge, where nothing is known to {gap_policy} from: leave these hours out"
            )
        if gap_policy == "hold":
            values[begin:end] = values[begin - 1]
        else:
            values[begin:end] = np.linspace(values[begin - 1], values[end], end - begin + 2)[1:-1]
        filled += end - begin
    if not filled:
        return trace
    return replace(trace, intensity_g_per_kwh=values, source=f"{trace.source}; {filled} h filled ({gap_policy})")


def _runs(mask: Bool[np.ndarray, " hours"]) -> list[tuple[int, int]]:
    """The half-open row ranges in which `mask` is True."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], mask, [False])).astype(np.int8)))
    return [(int(begin), int(end)) for begin, end in edges.reshape(-1, 2)]


def _utc_second(when: TimeLike) -> np.datetime64:
    if isinstance(when, np.datetime64):
        return when.astype("datetime64[s]")
    if isinstance(when, str):
        try:
            when = datetime.fromisoformat(when)
        except ValueError:
            raise ValueError(f"{when!r} is not a time: write it like 2021-07-02T06:00Z") from None
    return np.datetime64(without_offset(when), "s")
