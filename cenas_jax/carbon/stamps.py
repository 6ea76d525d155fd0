"""Time stamps of CSV files to UTC: formats, offsets, and the two odd hours of daylight saving. Host only."""

import re
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_ISO = re.compile(r"\d{4}-\d{2}-\d{2}([T ]\d{2}.*)?$")
_MONTH_FIRST = re.compile(r"(?P<month>\d{1,2})/(?P<day>\d{1,2})/(?P<year>\d{4})(?P<clock> \d{1,2}:\d{2}(:\d{2})?)?$")
_DAY_FIRST = re.compile(r"(?P<day>\d{1,2})\.(?P<month>\d{1,2})\.(?P<year>\d{4})(?P<clock> \d{1,2}:\d{2}(:\d{2})?)?$")


class StampError(ValueError):
    """A stamp that cannot be placed in UTC: `index` of the offending stamp and the reason with its mend."""

    def __init__(self, index: int, reason: str):
        super().__init__(reason)
        self.index = index
        self.reason = reason


def parse_stamp(text: str) -> datetime:
    """One stamp: ISO 8601 (`2020-01-01 00:00:00`, with `Z` or an offset where it has one), `01/31/2020 00:00:00`
    (month first, as CarbonCast writes it) or `31.01.2020 00:00` (day first)."""
    if _ISO.match(text):
        return datetime.fromisoformat(text)
    match = _MONTH_FIRST.match(text) or _DAY_FIRST.match(text)
    if match is None:
        raise ValueError("no known format")
    hour, minute, second = [int(part) for part in f"{match['clock'] or '0:00'}:0".split(":")][:3]
    return datetime(int(match["year"]), int(match["month"]), int(match["day"]), hour, minute, second)


def to_utc(texts: list[str], timezone: str) -> list[datetime]:
    """The stamps in UTC (naive datetimes), in the given order.

    Stamps with an offset are absolute and need no time zone; stamps without one are local times of `timezone` (an
    IANA name). The hour that exists twice in autumn must be there twice, and the order of the rows tells which is
    which; the hour that spring leaves out is refused. `StampError` names the first stamp that does not fit.
    """
    stamps = []
    for index, text in enumerate(texts):
        try:
            stamps.append(parse_stamp(text))
        except ValueError as error:
            hint = " (dates with slashes are read month first)" if "/" in text else ""
            reason = f"time {text!r} cannot be read{hint}: {error}; write it like 2021-07-02T06:00Z"
            raise StampError(index, reason) from None
    zone = _zone(timezone)
    has_offset = [stamp.tzinfo is not None for stamp in stamps]
    if all(has_offset):
        return [_absolute(index, stamp) for index, stamp in enumerate(stamps)]
    if any(has_offset):
        odd = has_offset.index(not has_offset[0])
        raise StampError(odd, f"time {texts[odd]!r}: some stamps have a UTC offset and some do not; write all alike")
    return stamps if timezone == "UTC" else _local_to_utc(stamps, timezone, zone)


def without_offset(stamp: datetime) -> datetime:
    """A stamp in UTC, naive; as it is where it has no offset. `ValueError` outside of the years 1 to 9999 there."""
    try:
        return stamp.astimezone(UTC).replace(tzinfo=None) if stamp.tzinfo is not None else stamp
    except OverflowError:
        raise ValueError(f"time {stamp} is outside of the years 1 to 9999 in UTC: correct it") from None


def _absolute(index: int, stamp: datetime) -> datetime:
    try:
        return without_offset(stamp)
    except ValueError as error:
        raise StampError(index, str(error)) from None


def _zone(timezone: str) -> ZoneInfo:
    try:
        return ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"timezone {timezone!r} is unknown: give an IANA name such as Europe/Berlin or UTC") from None


def _local_to_utc(stamps: list[datetime], timezone: str, zone: ZoneInfo) -> list[datetime]:
    earlier = [stamp.replace(tzinfo=zone) for stamp in stamps]
    shift = [stamp.utcoffset() for stamp in earlier]
    shift_later = [stamp.replace(fold=1).utcoffset() for stamp in earlier]
    twice: dict[datetime, list[int]] = {}
    for index, stamp in enumerate(stamps):
        first, second = shift[index], shift_later[index]
        assert first is not None and second is not None
        if first < second:
            raise StampError(
                index,
                f"local time {stamp} does not exist in {timezone} (clocks go forward); "
                "are the stamps in UTC? then leave timezone out",
            )
        if first > second:
            twice.setdefault(stamp, []).append(index)
    later_of_two = 1 if _is_ascending(stamps, twice) else 0
    for stamp, indices in twice.items():
        if len(indices) != 2:
            raise StampError(
                indices[0],
                f"local time {stamp} exists twice in {timezone} (clocks go back) but stands "
                f"{len(indices)} time(s) here; give UTC stamps or offsets",
            )
        later = indices[later_of_two]
        shift[later] = shift_later[later]
    found = []
    for index, (stamp, offset) in enumerate(zip(stamps, shift, strict=True)):
        assert offset is not None
        try:
            found.append(stamp - offset)
        except OverflowError:
            raise StampError(index, f"time {stamp} is outside of the years 1 to 9999 in UTC: correct it") from None
    return found


def _is_ascending(stamps: list[datetime], twice: dict[datetime, list[int]]) -> bool:
    """Whether the file runs forward in time (or backward), which tells the two rows of a repeated hour apart.

    The clock may run against the file only where it is put back: once a year, by an hour at most (less the step of
    the rows), onto a stamp that exists twice.
    """
    ascending = stamps[0] <= stamps[-1]
    put_back = set()
    for index, (before, after) in enumerate(pairwise(stamps), start=1):
        if not twice or (after >= before if ascending else after <= before):
            continue
        if after in twice and abs(after - before) < timedelta(hours=1) and after.date() not in put_back:
            put_back.add(after.date())
            continue
        raise StampError(
            index,
            f"local time {after} is not in order of time, so that the hour that stands twice (clocks go back) "
            "cannot be told apart; sort the file, or give UTC stamps",
        )
    return ascending
