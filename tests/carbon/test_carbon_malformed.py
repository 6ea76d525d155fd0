"""Malformed trace files: each gives one line that names the file, the line or option, and the mend."""

import gzip

import pytest

from cenas_jax.carbon import read_compact_traces, read_trace

HEAD = "time,intensity\n"
OK = HEAD + "2021-01-01 00:00,300\n2021-01-01 01:00,310\n"
BERLIN = {"timezone": "Europe/Berlin"}

MALFORMED = {
    "empty file": (b"", {}, "the file is empty: expected a header line"),
    "only blank lines": (b"\n\n \n", {}, "the file is empty"),
    "header only": (HEAD, {}, "line 1: no row after the first"),
    "binary": (b"\x00\x01\x02", {}, "a binary file, not a CSV: save the table as CSV"),
    "zip archive": (b"PK\x03\x04rest", {}, "a zip archive .*save the table as CSV"),
    "not UTF-8": (HEAD.encode() + b"2021-01-01 00:00,\xff\n", {}, "line 2: not UTF-8 text"),
    "damaged gzip": (gzip.compress(OK.encode())[:-12], {}, "damaged gzip file: fetch it again"),
    "one column": ("intensity\n300\n", {}, "line 1: one column only"),
    "no time column": ("place,intensity\nx,300\n", {}, "line 1: no time column in .place, intensity.: call it"),
    "no intensity column": ("time,price\n2021-01-01,3\n", {}, "line 1: no carbon intensity column in .time, price."),
    "several columns": ("time,co2 a,co2 b\n2021-01-01,3,4\n", {}, "several intensity columns .co2 a, co2 b.: name one"),
    "no header, three columns": ("2021-01-01,3,4\n2021-01-02,3,4\n", {}, "the first row is data: add a header line"),
    "short line": (OK + "2021-01-01 02:00\n", {}, "line 4: 1 cells where the first line has 2"),
    "unquoted decimal comma": (HEAD + "2021-01-01 00:00,300,5\n", {}, "line 2: 3 cells .*decimal comma unquoted"),
    "words": (HEAD + "2021-01-01 00:00,high\n", {}, "line 2: intensity 'high' is not a number: correct it"),
    "infinite": (HEAD + "2021-01-01 00:00,inf\n", {}, "line 2: intensity 'inf' is not a number"),
    "thousands": ("time;intensity\n2021-01-01 00:00;1.300,5\n", {}, "line 2: intensity '1.300,5' is not a number"),
    "point and comma": ("time;ci\n2021-01-01 00:00;1.300\n2021-01-01 01:00;300,5\n", {}, "point in line 2, comma"),
    "negative": (HEAD + "2021-01-01 00:00,-999\n", {}, "line 2: intensity '-999' is negative: correct it, or"),
    "no reading": (HEAD + "2021-01-01 00:00,\n", {}, "the intensity column holds no reading: check column"),
    "kg without a unit": (HEAD + "2021-01-01 00:00,0.3\n", {}, "highest intensity is 0.3, .*state the unit with unit"),
    "mg without a unit": (HEAD + "2021-01-01 00:00,300000\n", {}, "the highest intensity is 300000"),
    "unknown unit": (OK, {"unit": "g/MJ"}, "unit 'g/MJ' is unknown: choose one of g/kWh, kg/kWh"),
    "unknown unit in header": ("time,CO2 (lb/kWh)\n2021-01-01,1\n", {}, "unit 'lb/kWh' in the header is unknown"),
    "milligrams in header": ("time,CO2 (mg/kWh)\n2021-01-01,300\n", {}, "the unit in .* is unknown: write one of"),
    "short tons in header": ("time,CO2 (short tons/MWh)\n2021-01-01,300\n", {}, "the unit in .* is unknown: write one"),
    "watt-hours in header": ("time,CO2 (g/Wh)\n2021-01-01,300\n", {}, "the unit in .* is unknown: write one of g/kWh"),
    "joules in header": ("time,intensity (g/MJ)\n2021-01-01,300\n", {}, "the unit in .* is unknown: write one of"),
    "two units in header": ("time,co2 (g/kWh) [lb/MWh]\n2021-01-01,300\n", {}, "the unit in .* is unknown: write one"),
    "column twice": ("time,co2,co2\n2021-01-01,3,4\n", {"column": "co2"}, "line 1: 2 columns are called 'co2': rename"),
    "overflow": (HEAD + "2021-01-01 00:00,1e308\n", {"unit": "kg/kWh"}, "bad.csv: .*is infinite"),
    "before year 1": (HEAD + "0001-01-01T00:00+05:00,300\n", {}, "line 2: .*outside of the years 1 to 9999 in UTC"),
    "after year 9999": (HEAD + "9999-12-31T23:00-05:00,300\n", {}, "line 2: .*outside of the years 1 to 9999 in UTC"),
    "local, before year 1": (HEAD + "0001-01-01 00:00,300\n", BERLIN, "line 2: .*outside of the years 1 to 9999"),
    "timezone of absolute times": (
        HEAD + "2021-01-01T00:00Z,300\n", {"timezone": "Mars/X"}, "timezone 'Mars/X' is unknown: give an IANA name"),
    "two units": ("time,CO2 (kg/kWh)\n2021-01-01,1\n", {"unit": "g/kWh"}, "the header says kg/kWh, unit says g/kWh"),
    "unknown column": (OK, {"column": "b"}, "no column 'b' in .time, intensity.: correct column"),
    "unknown factor": (OK, {"factor": "marginal"}, "factor 'marginal' is unknown: choose one of lifecycle, direct"),
    "other factor": ("time,co2 direct\n2021-01-01,300\n", {}, "no lifecycle column, only .co2 direct."),
    "unknown gap policy": (OK, {"gap_policy": "zero"}, "gap policy 'zero' is unknown: choose one of error"),
    "bad time": (HEAD + "noon,300\n", {}, "line 2: time 'noon' cannot be read: .*write it like 2021-07-02T06:00Z"),
    "day first": (HEAD + "31/01/2021 00:00,300\n", {}, "line 2: time '31/01/2021 00:00' .*month first"),
    "day first, early in the month": (HEAD + "01/01/2021,300\n02/01/2021,300\n", {}, "743 h missing from 2021-01-01"),
    "hour 24": (HEAD + "2021-01-01 24:00,300\n", {}, "line 2: time '2021-01-01 24:00' cannot be read"),
    "some offsets": (OK + "2021-01-01T02:00Z,300\n", {}, "line 4: .*some stamps have a UTC offset and some do not"),
    "wrong year": (OK + "2201-01-01 02:00,300\n", {}, "line 4: .*days after the row before it .line 3.: correct"),
    "gap": (OK + "2021-01-01 04:00,300\n", {}, "2 h missing from 2021-01-01 02:00 UTC .*choose gap policy"),
    "conflicting duplicate": (OK + "2021-01-01 00:00,999\n", {}, "line 4: .*twice .*line 2 has 300, this 999.: keep"),
    "off the grid": (HEAD + "2021-01-01 00:00,1e2\n2021-01-01 00:07,1e2\n", {}, "rows 0:07:00 apart: resample to"),
    "half hours": (HEAD + "2021-01-01 00:30,300\n2021-01-01 01:30,300\n", {}, "line 2: .*off the 60-minute grid"),
    "unknown timezone": (OK, {"timezone": "Berlin"}, "timezone 'Berlin' is unknown: give an IANA name"),
    "UTC header, local option": (
        "UTC time,intensity\n2021-01-01 00:00,300\n", BERLIN, "the header says the times are UTC: leave out timezone"),
    "spring hour": (HEAD + "2021-03-28 02:00,300\n", BERLIN, "line 2: local time 2021-03-28 02:00:00 does not exist"),
    "autumn hour once": (HEAD + "2021-10-31 02:00,300\n", BERLIN, "line 2: local time .*stands 1 time.s. here"),
    "autumn hour, unsorted": (
        HEAD + "2021-10-31 02:00,300\n2021-10-31 06:00,300\n2021-10-31 02:00,310\n", BERLIN,
        "line 4: .*not in order of time.*sort the file, or give UTC stamps"),
}  # fmt: skip


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed(tmp_path, case):
    content, options, message = MALFORMED[case]
    path = tmp_path / "bad.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message) as caught:
        read_trace(path, **options)
    text = str(caught.value)
    assert "\n" not in text
    assert "bad.csv" in text or set(options) & {"factor", "gap_policy"}


def test_malformed_paths_and_npz(tmp_path):
    with pytest.raises(ValueError, match="no.csv: cannot be read .No such file or directory.: check the path"):
        read_trace(tmp_path / "no.csv")
    with pytest.raises(ValueError, match="cannot be read .Is a directory"):
        read_trace(tmp_path)
    wrong = tmp_path / "wrong.npz"
    wrong.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="wrong.npz: not a compact trace file: expected an npz with the keys zones"):
        read_compact_traces(wrong, "DE")
    with pytest.raises(ValueError, match="no.npz: cannot be read"):
        read_compact_traces(tmp_path / "no.npz", "DE")


@pytest.mark.data
def test_unknown_zone_of_the_npz(data_dir):
    with pytest.raises(ValueError, match="zone 'UK' is not in it: choose one of US-CAL-CISO, US-MIDA-PJM"):
        read_compact_traces(data_dir / "carbon" / "em_hourly_2021_2023.npz", "UK")
