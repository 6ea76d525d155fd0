"""Traces by name. Host only: jax is imported where a synthetic trace is asked for."""

import functools
from pathlib import Path

import numpy as np

from cenas_jax.carbon.readers import parse_trace, read_compact_traces
from cenas_jax.carbon.trace import (
    FACTORS,
    IntensityTrace,
    TimeLike,
    fill_gaps,
    utc_hour,
)
from cenas_jax.choices import check_choice

PAPER_TRACE = "us-cal-ciso"
COMPACT_ZONES = ("US-CAL-CISO", "US-MIDA-PJM", "US-TEX-ERCO", "US-NY-NYIS", "DE", "FR", "SE", "NL", "ES", "PL")
SYNTHETIC_PROFILES = ("ciso", "de", "pjm")
SYNTHETIC_START, SYNTHETIC_HOURS = np.datetime64("2020-01-01T00", "h"), 26304
"""Synthetic traces by name cover the hours of the paper's trace, so that one `start` serves both."""

COMPACT_TRACES = {f"em-{zone.lower()}": zone for zone in COMPACT_ZONES}
"""Name of a trace in the compact file -> its zone there."""
KNOWN_TRACES = (
    PAPER_TRACE,
    *COMPACT_TRACES,
    *(f"synthetic-{profile}" for profile in SYNTHETIC_PROFILES),
)


def load_trace(
    name_or_path: str | Path,
    data: Path | None = None,
    *,
    factor: str = "lifecycle",
    start: TimeLike | None = None,
    hours: int | None = None,
    gap_policy: str | None = "error",
    max_gap_h: int = 3,
    seed: int = 0,
    **csv_options: str,
) -> IntensityTrace:
    """A trace by name (`KNOWN_TRACES`) or from a CSV file, cut to the window `start`, `hours` and free of gaps.

    The gap policy is applied to the window only: the paper's trace has one gap, 7 h from 2021-04-07 00:00 UTC, which
    no window of the paper's touches; a window over it needs e.g. `gap_policy="interpolate", max_gap_h=7`. None leaves
    missing readings NaN, for who may not look past them. Without `start` the window begins with the trace, without
    `hours` it runs to its end.

    Args:
        data: the folder of real data that holds `carbon/`; only the names that are not synthetic need it.
        seed: of a synthetic trace.
        csv_options: `zone`, `timezone`, `unit`, `column` of `readers.read_trace`, for files only.
    """
    name = str(name_or_path)
    check_choice("factor", factor, FACTORS)
    if name in KNOWN_TRACES and csv_options:
        raise ValueError(f"trace {name}: {', '.join(csv_options)} apply to CSV files only: leave them out")
    if name.startswith("synthetic-") and name in KNOWN_TRACES:
        trace = _synthetic(name, factor, seed)
    elif name == PAPER_TRACE:
        path = _carbon_folder(name, data) / "us_cal_ciso_2020_2022.csv.gz"
        trace = _parsed(path, zone="US-CAL-CISO", factor=factor)
    elif name in COMPACT_TRACES:
        path = _carbon_folder(name, data) / "em_hourly_2021_2023.npz"
        trace = read_compact_traces(path, COMPACT_TRACES[name], factor)
    elif Path(name).is_file() or Path(name).suffix or len(Path(name).parts) > 1:
        trace = _parsed(Path(name), factor=factor, **csv_options)
    else:
        raise ValueError(f"trace {name!r} is unknown: give a CSV file or one of {', '.join(KNOWN_TRACES)}")
    return _settled_window(trace, start, hours, gap_policy, max_gap_h)


def _parsed(path: Path, **options: str) -> IntensityTrace:
    """`parse_trace`, once as long as the file stays the same: a search reads several windows of it."""
    return _parse_version(path, path.stat().st_mtime_ns if path.is_file() else 0, **options)


@functools.lru_cache(maxsize=4)
def _parse_version(path: Path, modified_ns: int, **options: str) -> IntensityTrace:
    return parse_trace(path, **options)


def _settled_window(
    trace: IntensityTrace, start: TimeLike | None, hours: int | None, gap_policy: str | None, max_gap_h: int
) -> IntensityTrace:
    first_hour = trace.start if start is None else utc_hour(start)
    first = trace.row(first_hour)
    hours = trace.hours - first if hours is None else hours
    window = trace.window(first_hour, hours)  # Refuses a bad window before any gap is looked at.
    if gap_policy is None:
        return window
    return fill_gaps(trace, gap_policy, max_gap_h, first=first, last=first + hours).window(first_hour, hours)


def _carbon_folder(name: str, data: Path | None) -> Path:
    if data is None:
        raise ValueError(f"trace {name} needs real data: set CENAS_DATA or --data to its folder, or use synthetic-ciso")
    if not (data / "carbon").is_dir():
        raise ValueError(
            f"{data / 'carbon'}: no such folder (for trace {name}): correct CENAS_DATA or --data, or use synthetic-ciso"
        )
    return data / "carbon"


def _synthetic(name: str, factor: str, seed: int) -> IntensityTrace:
    if factor != "lifecycle":
        raise ValueError(f"trace {name}: synthetic traces are fitted on life-cycle intensity: choose factor lifecycle")
    from cenas_jax.carbon.synthetic import synthetic_trace

    return synthetic_trace(name.removeprefix("synthetic-"), SYNTHETIC_START, SYNTHETIC_HOURS, seed)
