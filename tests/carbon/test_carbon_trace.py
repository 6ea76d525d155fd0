"""Traces, windows, gaps, names; and that none of it needs jax."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cenas_jax.carbon import KNOWN_TRACES, fill_gaps, from_arrays, load_trace, require_complete

NAN = float("nan")


def trace_of(*values):
    return from_arrays(values, "2021-07-02T06:00Z", zone="X")


def test_window_and_at():
    trace = trace_of(1.0, 2.0, 3.0, 4.0)
    window = trace.window("2021-07-02T07:00Z", 2)
    np.testing.assert_array_equal(window.intensity_g_per_kwh, [2, 3])
    assert window.start == np.datetime64("2021-07-02T07", "h") and window.hours == 2 and window.zone == "X"
    # 08:59:59 UTC is 10:59:59 at +02:00: the third hour, however it is written.
    assert trace.at("2021-07-02T08:59:59") == 3
    assert trace.at(datetime(2021, 7, 2, 8, 59, 59, tzinfo=UTC)) == 3
    assert trace.at(datetime(2021, 7, 2, 10, 59, 59, tzinfo=timezone(timedelta(hours=2)))) == 3
    with pytest.raises(ValueError, match="read-only"):
        trace.intensity_g_per_kwh[0] = 0


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda t: t.window("2021-07-02T05:00Z", 2), "leave the trace X, 2021-07-02 06:00 UTC to 2021-07-02 09:00 UTC"),
        (lambda t: t.window("2021-07-02T08:00Z", 3), "leave the trace X, 2021-07-02 06:00 UTC to 2021-07-02 09:00 UTC"),
        (lambda t: t.window("2021-07-02T08:30Z", 1), "not a full hour"),
        (lambda t: t.window("2021-07-02T08:00Z", 0), "at least 1 h"),
        (lambda t: t.window("yesterday", 1), "'yesterday' is not a time: write it like"),
        (lambda t: t.at("2021-07-02T10:00Z"), "outside the trace X"),
        (lambda t: fill_gaps(t, "guess", 1), "gap policy 'guess' is unknown: choose one of error, interpolate, hold"),
        (lambda t: trace_of(1.0, -2.0), r"2021-07-02 07:00 UTC \(row 1\) is negative"),
        (lambda t: trace_of(1.0, np.inf), "is infinite"),
        (lambda t: trace_of(), "at least one hour"),
        (lambda t: from_arrays([1.0], "2021-01-01", zone="X", factor="direkt"), "factor 'direkt' is unknown"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call(trace_of(1.0, 2.0, 3.0, 4.0))
    assert "\n" not in str(caught.value)


def test_gap_policies():
    trace = trace_of(1.0, NAN, NAN, 4.0, NAN)
    with pytest.raises(ValueError, match=r"2 h missing from 2021-07-02 07:00 UTC \(row 1\)"):
        require_complete(trace)
    with pytest.raises(ValueError, match="more than max_gap_h = 1"):
        fill_gaps(trace, "hold", 1)
    with pytest.raises(ValueError, match="at the edge, where nothing is known to interpolate from"):
        fill_gaps(trace, "interpolate", 3)
    np.testing.assert_array_equal(fill_gaps(trace, "hold", 2).intensity_g_per_kwh, [1, 1, 1, 4, 4])
    filled = fill_gaps(trace, "interpolate", 2, last=4)
    np.testing.assert_allclose(filled.intensity_g_per_kwh, [1, 2, 3, 4, np.nan])
    assert filled.source == "array; 2 h filled (interpolate)"
    with pytest.raises(ValueError, match="at the edge"):
        fill_gaps(trace_of(NAN, 1.0), "hold", 3)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.one_of(st.floats(0, 900), st.just(NAN)), min_size=1, max_size=40))
def test_interpolation_agrees_with_numpy(values):
    values = [100.0, *values, 300.0]
    known = np.flatnonzero(~np.isnan(values))
    expected = np.interp(np.arange(len(values)), known, np.array(values)[known])
    np.testing.assert_allclose(fill_gaps(trace_of(*values), "interpolate", 40).intensity_g_per_kwh, expected)


@pytest.mark.data
def test_paper_trace(data_dir):
    trace = load_trace("us-cal-ciso", data_dir, gap_policy="interpolate", max_gap_h=7)
    assert trace.hours == 26304 and trace.start == np.datetime64("2020-01-01T00", "h")
    assert trace.row("2021-07-02T06:00Z") == 13158 and trace.row("2021-04-07T00:00Z") == 11088
    assert trace.at("2021-07-02T07:00Z") == 340.93
    window = load_trace("us-cal-ciso", data_dir, start="2021-07-02T06:00Z")
    assert window.hours == 13146 and not np.isnan(window.intensity_g_per_kwh).any()


@pytest.mark.data
def test_gap_of_the_paper_trace_matters_only_to_windows_over_it(data_dir):
    over = {"start": "2021-04-06T20:00Z", "hours": 8}
    with pytest.raises(ValueError, match=r"7 h missing from 2021-04-07 00:00 UTC \(row 11088\).*max_gap_h >= 7"):
        load_trace("us-cal-ciso", data_dir, **over)
    assert np.isnan(load_trace("us-cal-ciso", data_dir, **over, gap_policy=None).intensity_g_per_kwh).sum() == 4
    window = load_trace("us-cal-ciso", data_dir, **over, gap_policy="interpolate", max_gap_h=7)
    # The neighbours outside the window are used: row 11087 is 159.61, row 11095 is 305.56.
    np.testing.assert_allclose(np.diff(window.intensity_g_per_kwh[4:]), (305.56 - 159.61) / 8)
    assert load_trace("us-cal-ciso", data_dir, start="2021-04-06T20:00Z", hours=4).hours == 4


@pytest.mark.data
@pytest.mark.parametrize("name", [name for name in KNOWN_TRACES if name.startswith("em-")])
def test_compact_traces(data_dir, name):
    lifecycle = load_trace(name, data_dir)
    direct = load_trace(name, data_dir, factor="direct")
    assert f"em-{lifecycle.zone.lower()}" == name and lifecycle.hours == 26280
    assert lifecycle.start == np.datetime64("2021-01-01T00", "h")
    assert (direct.intensity_g_per_kwh <= lifecycle.intensity_g_per_kwh).all()
    estimated = {"SE": "31.8 %", "FR": "4.7 %"}.get(lifecycle.zone, "0.")
    assert f"Electricity Maps, {estimated}" in lifecycle.source


def test_names_are_explained(tmp_path):
    with pytest.raises(ValueError, match="'em-uk' is unknown: give a CSV file or one of us-cal-ciso, em-us-cal-ciso"):
        load_trace("em-uk")
    with pytest.raises(ValueError, match="set CENAS_DATA or --data to its folder, or use synthetic-ciso"):
        load_trace("em-de")
    with pytest.raises(ValueError, match="no such folder.*CENAS_DATA or --data"):
        load_trace("em-de", tmp_path)
    with pytest.raises(ValueError, match="unit apply to CSV files only"):
        load_trace("em-de", tmp_path, unit="g/kWh")
    with pytest.raises(ValueError, match="missing.csv: cannot be read .No such file"):
        load_trace(tmp_path / "missing.csv")
    with pytest.raises(ValueError, match="choose factor lifecycle"):
        load_trace("synthetic-de", factor="direct")


def test_synthetic_traces_need_no_data_and_share_the_hours_of_the_paper_trace():
    whole = load_trace("synthetic-ciso", seed=1)
    window = load_trace("synthetic-ciso", seed=1, start="2021-07-02T06:00Z", hours=80)
    assert whole.synthetic and whole.zone == "synthetic-ciso" and whole.hours == 26304
    np.testing.assert_array_equal(window.intensity_g_per_kwh, whole.intensity_g_per_kwh[13158:13238])


def test_host_parts_import_neither_jax_nor_pandas():
    code = (
        "import sys, cenas_jax.carbon as carbon\n"
        "try: carbon.load_trace('typo')\n"
        "except ValueError: sys.exit('jax' in sys.modules or 'pandas' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
