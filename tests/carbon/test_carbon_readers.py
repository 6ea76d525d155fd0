"""CSV layouts, units, time zones; pandas is the oracle."""

import gzip

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cenas_jax.carbon import load_trace, read_trace
from cenas_jax.carbon.header import _unit_of

SUB2 = "\N{SUBSCRIPT TWO}"
EM_HEADER = (
    "Datetime (UTC),Country,Zone Name,Zone Id,Carbon Intensity gCO\N{SUBSCRIPT TWO}eq/kWh (direct),"
    "Carbon Intensity gCO\N{SUBSCRIPT TWO}eq/kWh (LCA),Data Estimated"
)


def write(folder, text, name="trace.csv"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def values(trace):
    return trace.intensity_g_per_kwh.tolist()


SAMPLES = [
    ("electricitymaps_US-CAL-CISO_2022_hourly.csv.gz", "direct", f"Carbon Intensity gCO{SUB2}eq/kWh (direct)"),
    ("electricitymaps_US-CAL-CISO_2022_hourly.csv.gz", "lifecycle", f"Carbon Intensity gCO{SUB2}eq/kWh (LCA)"),
    ("carboncast_CISO_direct_emissions_first2000h.csv", "direct", "carbon_intensity"),
    ("carboncast_CISO_lifecycle_emissions_first500h.csv", "lifecycle", "carbon_intensity"),
    ("carboncast_DE_lifecycle_emissions_first500h.csv", "lifecycle", "carbon_intensity"),
]  # fmt: skip


@pytest.mark.data
@pytest.mark.parametrize("name, factor, column", SAMPLES)
def test_samples_agree_with_pandas(data_dir, name, factor, column):
    path = data_dir / "carbon" / "samples" / name
    trace = read_trace(path, factor=factor)
    frame = pd.read_csv(path)
    stamps = frame["UTC time" if "UTC time" in frame else "Datetime (UTC)"]
    month_first = "/" in stamps[0]
    times = pd.to_datetime(stamps, format="%m/%d/%Y %H:%M:%S" if month_first else None, utc=True)
    np.testing.assert_array_equal(trace.intensity_g_per_kwh, frame[column])
    assert trace.start == np.datetime64(str(times[0])[:19]) and trace.last == np.datetime64(str(times.iloc[-1])[:19])
    assert trace.factor == factor
    assert trace.zone == ("US-CAL-CISO" if "maps" in name else path.stem)


@pytest.mark.data
@pytest.mark.parametrize(
    "name", ["CISO_96hr_source_forecasts_first10origins", "CISO_AVG_DSWRF_first20runs", "CISO_AVG_TEMP_first20runs"]
)
def test_wrong_files_are_refused(data_dir, name):
    with pytest.raises(ValueError, match="line 1: no carbon intensity column in .*is this a trace"):
        read_trace(data_dir / "carbon" / "samples" / f"carboncast_{name}.csv")


@pytest.mark.data
def test_factor_must_agree_with_the_file(data_dir):
    samples = data_dir / "carbon" / "samples"
    with pytest.raises(ValueError, match="the file's name says direct emissions, factor says lifecycle"):
        read_trace(samples / "carboncast_CISO_direct_emissions_first2000h.csv")
    with pytest.raises(ValueError, match="no direct column, only .carbon_intensity_avg.: choose the other factor"):
        load_trace("us-cal-ciso", data_dir, factor="direct")


@pytest.mark.parametrize(
    "text",
    [
        "time,intensity\n2021-01-01T00:00Z,100.5\n2021-01-01T01:00Z,200\n",
        "2021-01-01 00:00,100.5\n2021-01-01 01:00,200\n",  # no header
        "\ufefftime,intensity\r\n2021-01-01 00:00,100.5\r\n\r\n2021-01-01 01:00,200\r\n",
        "timestamp;carbon_intensity\n01.01.2021 00:00;100,5\n01.01.2021 01:00;200\n",
        "date;CI\n01/01/2021 00:00:00;100,50\n01/01/2021 01:00:00;200,00\n",
        'time,intensity\n2021-01-01 00:00,"100,5"\n2021-01-01 01:00,200\n',
        "time\tco2\n2021-01-01 00:00\t100.5\n2021-01-01 01:00\t200\n",
        ",datetime,temperature,carbon_intensity,wind\n0,2021-01-01 00:00,3,100.5,\n1,2021-01-01 01:00,4,200,7\n",
        "time,intensity\n2021-01-01 01:00,200\n2021-01-01 00:00,100.5\n2021-01-01 01:00,200.0\n",  # order, duplicate
        "time,intensity\n2021-01-01 01:00:00+01:00,100.5\n2020-12-31 20:00:00-05:00,200\n",
        "time,intensity kgCO2/kWh\n2021-01-01 00:00,0.1005\n2021-01-01 01:00,0.2\n",
        "time,carbon intensity (t/MWh)\n2021-01-01 00:00,0.1005\n2021-01-01 01:00,0.2\n",
        f"{EM_HEADER}\n2021-01-01 00:00:00,DE,Germany,DE,1,100.5,false\n2021-01-01 01:00:00,DE,Germany,DE,2,200,true\n",
        "Datetime (UTC),Zone id,Carbon intensity gCO2eq/kWh (direct),Carbon intensity gCO2eq/kWh (Life cycle)\n"
        "2021-01-01 00:00:00,DE,1,100.5\n2021-01-01 01:00:00,DE,2,200\n",
    ],
)
def test_layouts(tmp_path, text):
    plain = read_trace(write(tmp_path, text))
    packed = read_trace(write(tmp_path, gzip.compress(text.encode()), "trace.csv.gz"))
    for trace in (plain, packed):
        np.testing.assert_allclose(values(trace), [100.5, 200])
        assert trace.start == np.datetime64("2021-01-01T00", "h") and not trace.synthetic
        assert trace.zone == ("DE" if "Zone" in text else "trace")


def test_one_zone_of_several(tmp_path):
    rows = "2021-01-01 00:00:00,x,x,{},1,{},false"
    path = write(tmp_path, "\n".join([EM_HEADER, rows.format("DE", 300), rows.format("FR", 50)]))
    assert values(read_trace(path, zone="FR")) == [50] and values(read_trace(path, zone="FR", factor="direct")) == [1]
    with pytest.raises(ValueError, match=r"2 zones: choose one with zone \(DE, FR\)"):
        read_trace(path)
    with pytest.raises(ValueError, match="zone 'UK' is not in it: choose one of DE, FR"):
        read_trace(path, zone="UK")


@pytest.mark.parametrize(
    "name, unit",
    [
        ("carbon intensity gco2eq/kwh (lca)", "g/kWh"),
        ("gco2/kwh", "g/kWh"),
        ("intensity_g_per_kwh", "g/kWh"),
        ("kg co2eq/kwh", "kg/kWh"),
        ("kg/mwh", "kg/MWh"),
        ("tco2/mwh", "t/MWh"),
        ("intensity [t/mwh]", "t/MWh"),
        ("tonnes per mwh", "t/MWh"),
        ("lbs/mwh", "lb/MWh"),
        ("intensity (lb/mwh)", "lb/MWh"),
        ("lb_co2_per_mwh", "lb/MWh"),
        ("carbon_intensity", None),
        ("direct_intensity", None),
    ],
)
def test_unit_words(name, unit):
    assert _unit_of(name) == unit


@pytest.mark.parametrize("unit, expected", [("g/kWh", 500), ("kg/MWh", 500), ("lb/MWh", 226.796185), ("t/MWh", 500e3)])
def test_unit_option(tmp_path, unit, expected):
    path = write(tmp_path, "time,intensity\n2021-01-01 00:00,500\n")
    np.testing.assert_allclose(values(read_trace(path, unit=unit)), [expected])


def test_column_option(tmp_path):
    path = write(tmp_path, "time,a,b\n2021-01-01 00:00,500,600\n")
    assert values(read_trace(path, column="b")) == [600]


@pytest.mark.parametrize("step_min", [5, 10, 15, 20, 30])
def test_sub_hourly_rows_are_averaged(tmp_path, step_min):
    times = pd.date_range("2021-01-01", periods=3 * 60 // step_min, freq=f"{step_min}min")
    series = pd.Series(np.arange(len(times)) + 10.0, times)
    path = write(tmp_path, "time,intensity\n" + "".join(f"{time},{value}\n" for time, value in series.items()))
    trace = read_trace(path)
    np.testing.assert_allclose(values(trace), series.resample("h").mean())
    assert f"{step_min}-minute rows averaged to the hour" in trace.source
    # An hour with a missing part is missing, not the mean of what is left.
    lines = path.read_text().splitlines(keepends=True)
    holey = write(tmp_path, "".join(lines[: 1 + 60 // step_min] + lines[2 + 60 // step_min :]))
    with pytest.raises(ValueError, match="1 h missing from 2021-01-01 01:00 UTC"):
        read_trace(holey)


@pytest.mark.parametrize("missing", ["", "NaN", "n/a", "null", "-"])
def test_missing_cells_and_rows_are_gaps(tmp_path, missing):
    path = write(tmp_path, f"time,intensity\n2021-01-01 00:00,100\n2021-01-01 01:00,{missing}\n2021-01-01 03:00,400\n")
    with pytest.raises(ValueError, match="2 h missing from 2021-01-01 01:00 UTC.*choose gap policy"):
        read_trace(path)
    assert values(read_trace(path, gap_policy="interpolate")) == [100, 200, 300, 400]
    assert values(read_trace(path, gap_policy="hold")) == [100, 100, 100, 400]
    with pytest.raises(ValueError, match="more than max_gap_h = 1"):
        read_trace(path, gap_policy="hold", max_gap_h=1)


@settings(deadline=None, max_examples=30)
@given(
    zone=st.sampled_from(["Europe/Berlin", "America/Los_Angeles", "Australia/Sydney", "America/New_York"]),
    day=st.integers(0, 360),
    step_min=st.sampled_from([15, 30, 60]),
    descending=st.booleans(),
)
def test_local_times_agree_with_pandas(tmp_path_factory, zone, day, step_min, descending):
    times = pd.date_range("2021-01-01", periods=24 * 60 // step_min * 20, freq=f"{step_min}min", tz="UTC")
    times = times + pd.Timedelta(days=day)
    numbers = np.arange(len(times)) % 900 + 10.0
    local = times.tz_convert(zone)
    lines = [f"{stamp:%Y-%m-%d %H:%M},{number}\n" for stamp, number in zip(local, numbers, strict=True)]
    text = "time,intensity\n" + "".join(lines[::-1] if descending else lines)
    trace = read_trace(write(tmp_path_factory.mktemp("local"), text), timezone=zone)
    assert trace.start == np.datetime64("2021-01-01") + np.timedelta64(day, "D")
    np.testing.assert_allclose(values(trace), numbers.reshape(-1, 60 // step_min).mean(1))


@pytest.mark.parametrize("separator", ["%Y-%m-%d %H:%M%z", "%Y-%m-%dT%H:%M:%S%z"])
def test_offsets_settle_daylight_saving(tmp_path, separator):
    local = pd.date_range("2021-10-30", periods=48, freq="h", tz="UTC").tz_convert("Europe/Berlin")
    text = "time,intensity\n" + "".join(f"{stamp.strftime(separator)},{i + 9}\n" for i, stamp in enumerate(local))
    assert values(read_trace(write(tmp_path, text))) == list(range(9, 57))
