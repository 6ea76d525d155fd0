"""What is recorded of one grid, hour by hour, with the time at which each value becomes known. NumPy alone."""

import json
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32

from cenas_jax.carbon.trace import HOUR, IntensityTrace, hour_text, utc_hour

GRIDS = ("CISO", "DE", "PJM")
"""Grids with generation, weather runs and source forecasts in the data folder (`forecast/protocol_GRID.npz`)."""
RUN_H = 96
"""Hours that a weather run and a source forecast cover."""
WEATHER = ("wind_m_per_s", "temperature_k", "dewpoint_k", "radiation_w_per_m2", "precipitation_mm_per_3h")
DAY_H, WEEK_H = 24, 168
FIRST_MONDAY_H = 4 * DAY_H
"""1970-01-05, in hours since 1970-01-01T00:00 UTC."""
LONGEST_FILL_H = 24
"""Missing readings are replaced by the value 24 h earlier, which was known; longer gaps are refused."""
LOWEST_G_PER_KWH = 0.1
"""An intensity below this is taken for a missing reading: no grid of any size is without emissions."""


@dataclass(frozen=True, eq=False)
class GridRecord:
    """The hours of one grid from `start` on, and the forecasts of others that were published meanwhile.

    Arrays are float32. S sources and W weather variables may be 0: then forecasts rest on history and calendar alone.
    """

    zone: str
    start: np.datetime64
    """First hour, UTC, `datetime64[h]`; row d of the daily arrays belongs to the d-th UTC day, `start`'s being 0."""
    intensity_g_per_kwh: Float32[np.ndarray, " hours"]
    """Mean of every hour, known at its end. Missing hours hold the value 24 h earlier (`valid` is False there)."""
    valid: Bool[np.ndarray, " hours"]
    generation_mw: Float32[np.ndarray, "hours sources"]
    """Known at the end of its hour."""
    weather_runs: Float32[np.ndarray, "days run weather"]
    """Row d: the run dated 00:00 UTC of day d, for its hours 0..95 (columns `WEATHER`). NaN: no run."""
    source_forecast_mw: Float32[np.ndarray, "days run sources"]
    """Row d: generation by source forecast for 00:00 UTC of day d on, hours 0..95. NaN: none."""
    sources: tuple[str, ...] = ()
    factor_g_per_kwh: tuple[float, ...] = ()
    """Emission factor of each source."""
    source: str = field(default="array", kw_only=True)

    @property
    def hours(self) -> int:
        return self.intensity_g_per_kwh.size

    @property
    def first_hour(self) -> int:
        """Hours from 1970-01-01T00:00 UTC to `start`."""
        return int(self.start.astype("datetime64[h]").astype(int))

    def row(self, when) -> int:
        """Row of a full hour, UTC; the row after the last is allowed, as a forecast may be issued then."""
        row = int((utc_hour(when) - self.start) / HOUR)
        if not 0 <= row <= self.hours:
            last = hour_text(self.start + self.hours * HOUR)
            raise ValueError(f"{when} is outside {self.zone}, {hour_text(self.start)} to {last}")
        return row


def from_trace(trace: IntensityTrace) -> GridRecord:
    """A record of intensities alone, which ends after the last reading. `ValueError` for a gap longer than 24 h or one
    in the first 24 h."""
    known = np.flatnonzero(np.isfinite(trace.intensity_g_per_kwh))
    values = trace.intensity_g_per_kwh[: known[-1] + 1] if known.size else trace.intensity_g_per_kwh
    values, valid = fill_from_yesterday(values, trace.source, trace.start)
    days = _days(trace.start, values.size)
    return GridRecord(
        zone=trace.zone,
        start=trace.start,
        intensity_g_per_kwh=values,
        valid=valid,
        generation_mw=np.zeros((values.size, 0), np.float32),
        weather_runs=np.zeros((days, RUN_H, 0), np.float32),
        source_forecast_mw=np.zeros((days, RUN_H, 0), np.float32),
        source=trace.source,
    )


def pooled(records: list[GridRecord]) -> tuple[GridRecord, list[int]]:
    """Records of intensities one after another, each cut to whole weeks from a Monday on, so that the calendar fits.

    Also the pooled row of each record's own row 0 (before its first kept row, so perhaps in the record before): an
    issue row of a record, plus that, is its row in the pool. A window must not begin before the first Monday, nor its
    horizon end after the last whole week: issue rows of at least 336 and at most `hours - 264` are safe.
    `ValueError` where a record has sources or weather, or holds no whole week.
    """
    kept, begins, rows = [], [], 0
    for record in records:
        if record.sources or record.weather_runs.shape[-1]:
            raise ValueError(f"{record.source}: only records of intensities alone can be pooled")
        first = (FIRST_MONDAY_H - record.first_hour) % WEEK_H
        last = first + (record.hours - first) // WEEK_H * WEEK_H
        if last <= first:
            raise ValueError(f"{record.source}: {record.hours} h hold no whole week from Monday on: leave it out")
        begins.append(rows - first)
        kept.append((record.intensity_g_per_kwh[first:last], record.valid[first:last]))
        rows += last - first
    days = rows // DAY_H + 1
    pool = GridRecord(
        zone="+".join(record.zone for record in records),
        start=np.datetime64(FIRST_MONDAY_H, "h"),
        intensity_g_per_kwh=np.concatenate([values for values, _ in kept]),
        valid=np.concatenate([valid for _, valid in kept]),
        generation_mw=np.zeros((rows, 0), np.float32),
        weather_runs=np.zeros((days, RUN_H, 0), np.float32),
        source_forecast_mw=np.zeros((days, RUN_H, 0), np.float32),
        source="; ".join(record.source for record in records),
    )
    return pool, begins


def load_grid(zone: str, data: Path | None, *, factor: str = "lifecycle") -> GridRecord:
    """A grid of `GRIDS` from `data/forecast/protocol_ZONE.npz`; `ValueError` where the file is missing or damaged."""
    if zone not in GRIDS:
        raise ValueError(f"grid {zone!r} is unknown: choose one of {', '.join(GRIDS)}, or name a trace")
    if data is None:
        raise ValueError(f"grid {zone} needs real data: set CENAS_DATA or --data to its folder, or name a trace")
    path = data / "forecast" / f"protocol_{zone}.npz"
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        return _from_protocol(zone, arrays, factor, str(path))
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file: correct CENAS_DATA or --data") from None
    except (KeyError, OSError, zipfile.BadZipFile, EOFError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: not a protocol file of a grid ({error}): fetch it again") from None


def fill_from_yesterday(values, source: str, start: np.datetime64):
    """`(filled, valid)`: missing readings take the value 24 h earlier, so that nothing after a gap is looked at."""
    values = np.array(values, np.float32)
    valid = np.isfinite(values) & (values >= LOWEST_G_PER_KWH)
    missing_h = 0
    for row in np.flatnonzero(~valid):
        missing_h = missing_h + 1 if row and not valid[row - 1] else 1
        if row < DAY_H or missing_h > LONGEST_FILL_H:
            where = f"{source}: intensity missing at {hour_text(start + row * HOUR)} (row {row})"
            what = "in the first 24 h" if row < DAY_H else f"for more than {LONGEST_FILL_H} h"
            raise ValueError(f"{where}, {what}: begin after it, or fill it in the file")
        values[row] = values[row - DAY_H]
    return values, valid


def _days(start: np.datetime64, hours: int) -> int:
    """UTC days touched, and the next one, as a forecast may be issued at the end."""
    return (int(start.astype(int)) % DAY_H + hours) // DAY_H + 1


def _from_protocol(zone: str, arrays: dict[str, np.ndarray], factor: str, source: str) -> GridRecord:
    start = np.datetime64(str(arrays["start"]).removesuffix("Z"), "h")
    intensity = np.where(arrays["hour_flag"] > 0, np.nan, arrays[f"ci_{factor}"])
    intensity, valid = fill_from_yesterday(intensity, source, start)
    generation = np.array(arrays["generation_mw"], np.float32)
    for row in np.flatnonzero(~valid):
        generation[row] = generation[row - DAY_H]
    sources = tuple(str(name) for name in arrays["sources"])
    if sources != tuple(str(name) for name in arrays["tier1_sources"]):
        raise KeyError("tier1_sources differ from sources")
    days = _days(start, intensity.size)
    return GridRecord(
        zone=zone,
        start=start,
        intensity_g_per_kwh=intensity,
        valid=valid,
        generation_mw=generation,
        weather_runs=_place(_hourly_weather(arrays), str(arrays["wx_start_day"]), start, days),
        source_forecast_mw=_place(
            np.swapaxes(arrays["tier1_src_fc_mw"], 1, 2), str(arrays["tier1_start_day"]), start, days
        ),
        sources=sources,
        factor_g_per_kwh=tuple(float(value) for value in arrays[f"factor_{factor}"]),
        source=source,
    )


def _place(rows: np.ndarray, first_day: str, start: np.datetime64, days: int) -> np.ndarray:
    """Daily rows from `first_day` on at their places among `days`; NaN elsewhere."""
    placed = np.full((days, *rows.shape[1:]), np.nan, np.float32)
    first = int((np.datetime64(first_day, "D") - start.astype("datetime64[D]")).astype(int))
    if first < 0:
        raise KeyError("daily rows begin before the hours")
    count = min(len(rows), days - first)
    placed[first : first + count] = rows[:count]
    return placed


def _hourly_weather(arrays: dict[str, np.ndarray]) -> np.ndarray:
    """Weather runs hour by hour: values at a lead are interpolated to the hour's middle, 3-hour values repeated.

    A damaged run is replaced by the rest of the run before it, which was known too; its last day repeats.
    """
    middle, lead = np.arange(RUN_H) + 0.5, arrays["wx_lead_h"]
    at_lead = [
        np.stack([np.interp(middle, lead, run) for run in arrays[name]])
        for name in ("wx_wind", "wx_temp", "wx_dewpoint")
    ]
    of_3_hours = [np.repeat(arrays[name], 3, axis=1) for name in ("wx_dswrf_3h", "wx_precip_3h")]
    runs = np.stack([*at_lead, *of_3_hours], axis=-1).astype(np.float32)
    for day in np.flatnonzero(arrays["wx_flag"]):
        earlier = runs[day - 1]
        runs[day] = np.concatenate([earlier[DAY_H:], earlier[-DAY_H:]])
    return runs
