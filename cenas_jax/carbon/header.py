"""Which columns of a CSV hold time, intensity and zone, and in what unit. Host only.

Known layouts, told apart by their header: Electricity Maps hourly (`Datetime (UTC)`, `Carbon intensity gCO2eq/kWh
(direct)` and `(LCA)` or `(Life cycle)`, with the subscript 2 or without), the CE-NAS release (`datetime,
carbon_intensity_avg, ...`), CarbonCast (unnamed index column, `UTC time, carbon_intensity, ...`) and any table with
one time and one intensity column, or two columns without a header.
"""

import re
from typing import NamedTuple

from cenas_jax.carbon.stamps import parse_stamp

GRAMS_PER_KWH = {"g/kWh": 1.0, "kg/kWh": 1000.0, "kg/MWh": 1.0, "t/MWh": 1000.0, "lb/MWh": 0.45359237}
"""Accepted units and what one of them is in g/kWh (pound: exactly 453.59237 g; t: metric)."""

# A mass, then anything that is no letter of another word (CO2eq, a slash, "per"), then an energy. Longest mass first.
_UNIT = re.compile(
    r"(?:^|[^a-z])(kg|lbs?|tonnes?|t|g)[ _]?(?:co2?(?:[ _-]?eq?)?)?[ _]?(?:/|per)[ _]?(kwh|mwh)(?![a-z])"
)
_TIME = re.compile(r"(utc[ _])?(date[ _]?time|time ?stamp|time|date|hour)([ _]?\(?utc\)?)?$")
_INTENSITY = re.compile(r"intensity|co2|(^|[ _])ci([ _]|$)")
_NOT_INTENSITY = re.compile(r"forecast|estimat|percent|source")


class Columns(NamedTuple):
    """Where to look in a row. `zone` is None without a zone column; `unit` is None where the header names none."""

    time: int
    intensity: int
    zone: int | None
    unit: str | None
    times_are_utc: bool
    has_header: bool


def find_columns(header: list[str], factor: str, column: str | None) -> Columns:
    """Read the first row. `ValueError` (without the file's name) says which column is missing or ambiguous."""
    if len(header) < 2:
        raise ValueError("one column only: a trace needs a time and an intensity column, separated by , ; or tab")
    if _is_stamp(header[0]):
        if len(header) != 2 or column is not None:
            raise ValueError("the first row is data: add a header line that names the time and the intensity column")
        return Columns(0, 1, None, None, False, False)
    names = [_normal(cell) for cell in header]
    times = [index for index, name in enumerate(names) if _TIME.match(name)]
    if not times:
        raise ValueError(f"no time column in ({_listing(header)}): call it 'datetime'")
    intensity = _intensity_column(header, names, factor, column)
    zones = [index for index, name in enumerate(names) if name in ("zone id", "zone")]
    return Columns(
        time=times[0],
        intensity=intensity,
        zone=zones[0] if zones else None,
        unit=_unit_of(names[intensity]),
        times_are_utc="utc" in names[times[0]],
        has_header=True,
    )


def grams_per_kwh(unit: str) -> float:
    """Conversion factor of a unit given by the user; `ValueError` lists the accepted ones."""
    if unit not in GRAMS_PER_KWH:
        raise ValueError(f"unit {unit!r} is unknown: choose one of {', '.join(GRAMS_PER_KWH)}")
    return GRAMS_PER_KWH[unit]


def _intensity_column(header: list[str], names: list[str], factor: str, column: str | None) -> int:
    if column is not None:
        if column not in header:
            raise ValueError(f"no column {column!r} in ({_listing(header)}): correct column")
        if header.count(column) > 1:
            raise ValueError(f"{header.count(column)} columns are called {column!r}: rename one")
        return header.index(column)
    found = [index for index, name in enumerate(names) if _INTENSITY.search(name) and not _NOT_INTENSITY.search(name)]
    if not found:
        raise ValueError(
            f"no carbon intensity column in ({_listing(header)}): is this a trace? if so, name its column with column"
        )
    kinds = {index: _factor_of(names[index]) for index in found}
    matching = [index for index, kind in kinds.items() if kind == factor]
    unmarked = [index for index, kind in kinds.items() if kind is None]
    choice = matching or unmarked
    if not choice:
        raise ValueError(f"no {factor} column, only ({_listing([header[i] for i in found])}): choose the other factor")
    if len(choice) > 1:
        raise ValueError(f"several intensity columns ({_listing([header[i] for i in choice])}): name one with column")
    return choice[0]


def _factor_of(name: str) -> str | None:
    """The emission factor a column name speaks of. The CE-NAS release's average is life-cycle, as its data are."""
    if re.search(r"lca|life[ _-]?cycle", name) or name == "carbon_intensity_avg":
        return "lifecycle"
    return "direct" if "direct" in name else None


def _unit_of(name: str) -> str | None:
    found = list(_UNIT.finditer(name))
    # Every "/" or "per" is that of a unit, and there is one unit; half of one that is not known would pass for none.
    quotients = re.findall(r"/|(?<![a-z])per(?![a-z])", name)
    if len(quotients) != len(found) or len(found) > 1:
        raise ValueError(f"the unit in {name!r} is unknown: write one of {', '.join(GRAMS_PER_KWH)} in the header")
    if not found:
        return None
    match = found[0]
    mass = {"lbs": "lb", "tonne": "t", "tonnes": "t"}.get(match[1], match[1])
    unit = f"{mass}/{'kWh' if match[2] == 'kwh' else 'MWh'}"
    if unit not in GRAMS_PER_KWH:
        raise ValueError(f"unit {unit!r} in the header is unknown: give one of {', '.join(GRAMS_PER_KWH)} by unit")
    return unit


def _is_stamp(text: str) -> bool:
    try:
        parse_stamp(text.strip())
    except ValueError:
        return False
    return True


def _normal(cell: str) -> str:
    return cell.strip().lower().replace("\N{SUBSCRIPT TWO}", "2")


def _listing(cells: list[str]) -> str:
    shown = [cell.strip() or "(unnamed)" for cell in cells]
    return ", ".join(shown[:6] + ([f"... {len(shown) - 6} more"] if len(shown) > 6 else []))
