"""Traces from files: hourly CSVs in every known layout (see `header`), plain or .gz, and the compact npz.

Host only: neither jax nor pandas is imported. Every error is one line that names the file, the line or option, and
the mend.
"""

import csv
import gzip
import io
import math
import re
import zipfile
import zlib
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from cenas_jax.carbon.header import GRAMS_PER_KWH, Columns, find_columns, grams_per_kwh
from cenas_jax.carbon.stamps import StampError, to_utc
from cenas_jax.carbon.trace import FACTORS, IntensityTrace, fill_gaps, utc_hour
from cenas_jax.choices import check_choice

MISSING = ("", "nan", "na", "n/a", "null", "none", "-")
"""Cells read as a missing reading, in any case."""

_NUMBER = re.compile(r"[-+]?(\d+([.,]\d*)?|[.,]\d+)(e[-+]?\d+)?$", re.IGNORECASE)
_LONGEST_JUMP = timedelta(days=366)
# Without a stated unit, readings outside this range are taken for another unit and refused. No grid's yearly maximum
# is below the one or above the other in g/kWh.
_PLAUSIBLE_MAXIMUM_G_PER_KWH = (3.0, 3000.0)


def read_trace(
    path: str | Path,
    *,
    zone: str | None = None,
    factor: str = "lifecycle",
    gap_policy: str = "error",
    max_gap_h: int = 3,
    timezone: str = "UTC",
    unit: str | None = None,
    column: str | None = None,
) -> IntensityTrace:
    """A trace from a CSV, its gaps settled by `gap_policy` (see `trace.fill_gaps`).

    Args:
        zone: which zone of a file that holds several; the trace's name where the file has no zone column (default:
            the file's name).
        factor: `lifecycle` or `direct`: chooses the column where the file has both, else must agree with the file.
        timezone: of stamps without an offset (IANA name); a file whose header says UTC takes none.
        unit: of the intensity where the header names none (default g/kWh): g/kWh, kg/kWh, kg/MWh, t/MWh, lb/MWh.
        column: header of the intensity column where it cannot be told.

    Rows may be in any order; identical duplicates collapse. Rows of 5 to 30 minutes are averaged to the hour (an hour
    with a missing part is missing), which `source` mentions.
    """
    trace = parse_trace(path, zone=zone, factor=factor, timezone=timezone, unit=unit, column=column)
    return fill_gaps(trace, gap_policy, max_gap_h)


def parse_trace(
    path: str | Path,
    *,
    zone: str | None = None,
    factor: str = "lifecycle",
    timezone: str = "UTC",
    unit: str | None = None,
    column: str | None = None,
) -> IntensityTrace:
    """As `read_trace`, gaps left as NaN."""
    path = Path(path)
    check_choice("factor", factor, FACTORS)
    rows = _read_rows(path)
    try:
        columns = find_columns(rows[0].cells, factor, column)
        stated_unit = _stated_unit(columns, unit)
        if columns.times_are_utc and timezone != "UTC":
            raise ValueError(f"the header says the times are UTC: leave out timezone {timezone!r}")
        _check_file_name(path, factor)
    except ValueError as error:
        raise ValueError(f"{path}: line {rows[0].line}: {error}") from None
    body = rows[1:] if columns.has_header else rows
    body, zone = _of_zone(path, body, columns, zone)
    try:
        times = to_utc([row.cells[columns.time].strip() for row in body], timezone)
    except StampError as error:
        raise ValueError(f"{path}: line {body[error.index].line}: {error.reason}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    with np.errstate(over="ignore"):  # what is too large is refused in a line of its own
        values = _numbers(path, body, columns.intensity) * GRAMS_PER_KWH[stated_unit or "g/kWh"]
    highest = np.nanmax(values, initial=-np.inf)
    low, high = _PLAUSIBLE_MAXIMUM_G_PER_KWH
    if stated_unit is None and not low <= highest <= high:
        raise ValueError(f"{path}: the highest intensity is {highest:g}, which is not g/kWh: state the unit with unit")
    start, hourly, step_min = _hourly(path, [row.line for row in body], times, values)
    source = path.name if step_min == 60 else f"{path.name}; {step_min}-minute rows averaged to the hour"
    return IntensityTrace(hourly, start, zone, factor, source)


def read_compact_traces(path: str | Path, zone: str, factor: str = "lifecycle") -> IntensityTrace:
    """One zone of the compact npz: `zones`, `start`, `{direct,lifecycle}_x20` (u2[hours, zones] = 20 x g/kWh, 65535
    missing) and `estimated` (bits along the hours). `source` tells the share of estimated hours."""
    check_choice("factor", factor, FACTORS)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            zones = [str(name) for name in arrays["zones"]]
            start = utc_hour(str(arrays["start"]))
            scaled, estimated = arrays[f"{factor}_x20"], arrays["estimated"]
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror or error}): check the path") from None
    except (KeyError, ValueError, EOFError, zipfile.BadZipFile):
        raise ValueError(
            f"{path}: not a compact trace file: expected an npz with the keys zones, start, {factor}_x20, estimated"
        ) from None
    if zone not in zones:
        raise ValueError(f"{path}: zone {zone!r} is not in it: choose one of {', '.join(zones)}")
    index = zones.index(zone)
    values = np.where(scaled[:, index] == 65535, np.nan, scaled[:, index] / 20.0)
    share = np.unpackbits(estimated, axis=0)[: len(scaled), index].mean()
    source = f"{Path(path).name} (Electricity Maps, {100 * share:.1f} % of the hours estimated)"
    return IntensityTrace(values, start, zone, factor, source)


class _Row(NamedTuple):
    line: int
    cells: list[str]


def _read_rows(path: Path) -> list[_Row]:
    """Non-empty rows with their line numbers, all as long as the header; at least two."""
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
    except (EOFError, gzip.BadGzipFile, zlib.error):
        raise ValueError(f"{path}: damaged gzip file: fetch it again") from None
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror or error}): check the path") from None
    if content[:2] == b"PK":
        raise ValueError(f"{path}: a zip archive (npz, xlsx?), not a CSV: save the table as CSV")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ValueError(f"{path}: line {line}: not UTF-8 text: save the table as CSV in UTF-8") from None
    if "\0" in text:
        raise ValueError(f"{path}: a binary file, not a CSV: save the table as CSV in UTF-8")
    head = text.lstrip().partition("\n")[0]
    if not head:
        raise ValueError(f"{path}: the file is empty: expected a header line and one row an hour")
    delimiter = max(",;\t", key=head.count)
    reader = csv.reader(io.StringIO(text), delimiter=delimiter)
    try:
        rows = [_Row(reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells)]
    except csv.Error as error:
        raise ValueError(
            f"{path}: line {reader.line_num}: not a CSV ({error}): save the table as CSV in UTF-8"
        ) from None
    if len(rows) < 2:
        raise ValueError(f"{path}: line {rows[0].line}: no row after the first: expected one row an hour")
    for row in rows:
        if len(row.cells) != len(rows[0].cells):
            raise ValueError(
                f"{path}: line {row.line}: {len(row.cells)} cells where the first line has {len(rows[0].cells)}: "
                "is the line cut short, or a decimal comma unquoted?"
            )
    return rows


def _stated_unit(columns: Columns, unit: str | None) -> str | None:
    if unit is None:
        return columns.unit
    grams_per_kwh(unit)
    if columns.unit is not None and GRAMS_PER_KWH[unit] != GRAMS_PER_KWH[columns.unit]:
        raise ValueError(f"the header says {columns.unit}, unit says {unit}: leave out unit or correct the header")
    return unit


def _check_file_name(path: Path, factor: str) -> None:
    """CarbonCast tells the factor only in the file's name (`CISO_direct_emissions.csv`)."""
    named = re.search(r"_(direct|lifecycle)_emissions", path.name)
    if named and named[1] != factor:
        raise ValueError(f"the file's name says {named[1]} emissions, factor says {factor}: choose factor {named[1]}")


def _of_zone(path: Path, body: list[_Row], columns: Columns, zone: str | None) -> tuple[list[_Row], str]:
    if columns.zone is None:
        return body, zone or re.sub(r"(\.csv)?(\.gz)?$", "", path.name)
    index = columns.zone
    zones = list(dict.fromkeys(row.cells[index].strip() for row in body))
    if zone is None and len(zones) > 1:
        raise ValueError(f"{path}: {len(zones)} zones: choose one with zone ({', '.join(zones[:8])})")
    chosen = zones[0] if zone is None else zone
    if chosen not in zones:
        raise ValueError(f"{path}: zone {chosen!r} is not in it: choose one of {', '.join(zones[:8])}")
    return [row for row in body if row.cells[index].strip() == chosen], chosen


def _numbers(path: Path, body: list[_Row], index: int) -> Float64[np.ndarray, " rows"]:
    """The intensity column as float64, NaN where a cell is missing. A column uses point or comma, not both."""
    values = np.empty(len(body))
    mark = {}
    for position, row in enumerate(body):
        cell = row.cells[index].strip()
        where = f"{path}: line {row.line}: intensity {cell!r}"
        if cell.lower() in MISSING:
            values[position] = math.nan
            continue
        if not _NUMBER.match(cell):
            raise ValueError(f"{where} is not a number: correct it, or leave the cell empty and choose a gap policy")
        for sign in ".,":
            if sign in cell:
                mark.setdefault(sign, row.line)
        if len(mark) > 1:
            raise ValueError(
                f"{where}: decimal point in line {mark['.']}, comma in line {mark[',']}: use one of them, and "
                "no thousands separator"
            )
        values[position] = float(cell.replace(",", "."))
        if values[position] < 0:
            raise ValueError(f"{where} is negative: correct it, or leave the cell empty and choose a gap policy")
    if np.isnan(values).all():
        raise ValueError(f"{path}: the intensity column holds no reading: check column")
    return values


def _hourly(
    path: Path, lines: list[int], times: list[datetime], values: Float64[np.ndarray, " rows"]
) -> tuple[np.datetime64, Float64[np.ndarray, " hours"], int]:
    """Sort, collapse identical duplicates, average sub-hourly rows: `(start, hourly values, spacing in minutes)`."""
    order = sorted(range(len(times)), key=times.__getitem__)
    kept = [order[0]]
    smallest = timedelta(hours=1)
    for index in order[1:]:
        step = times[index] - times[kept[-1]]
        if step:
            if step > _LONGEST_JUMP:
                raise ValueError(
                    f"{path}: line {lines[index]}: {times[index]} lies {step.days} days after the row before it "
                    f"(line {lines[kept[-1]]}): correct the date"
                )
            smallest = min(smallest, step)
            kept.append(index)
        elif not np.array_equal(values[index], values[kept[-1]], equal_nan=True):
            first, second = sorted((lines[kept[-1]], lines[index]))
            raise ValueError(
                f"{path}: line {second}: {times[index]} stands twice with different values (line {first} has "
                f"{values[lines.index(first)]:g}, this {values[lines.index(second)]:g}): keep one of them"
            )
    step_min = int(smallest.total_seconds() // 60)
    if smallest.total_seconds() % 60 or step_min not in (5, 10, 15, 20, 30, 60):
        raise ValueError(f"{path}: rows {smallest} apart: resample to hours (or 5, 10, 15, 20, 30 minutes)")
    first_hour = times[kept[0]].replace(minute=0, second=0, microsecond=0)
    slots = []
    for index in kept:
        slot, rest = divmod(times[index] - first_hour, smallest)
        if rest:
            raise ValueError(
                f"{path}: line {lines[index]}: {times[index]} is off the {step_min}-minute grid: correct it"
            )
        slots.append(slot)
    per_hour = 60 // step_min
    hours = slots[-1] // per_hour + 1
    grid = np.full(hours * per_hour, np.nan)
    grid[slots] = values[kept]
    return np.datetime64(first_hour, "h"), grid.reshape(hours, per_hour).mean(axis=1), step_min
