"""`cenas forecast`: forecasts and scores of small files, and one clear line for what cannot be."""

import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from cenas_jax import cli
from cenas_jax.report.forecasts import print_scores

START = np.datetime64("2022-03-01T00:00", "m")
DAYS = 40


def write_csv(path, values, step_min=60, skip=()):
    rows = [f"{START + step_min * place}Z,{value:.3f}" for place, value in enumerate(values) if place not in set(skip)]
    path.write_text("\n".join(["datetime,carbon_intensity", *rows]) + "\n")
    return str(path)


def cycle(count, per_day=24):
    return 300 + 100 * np.sin(np.arange(count) / per_day * 2 * np.pi)


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as leaving:
        cli.main(["forecast", *arguments])
    out = capsys.readouterr()
    return leaving.value.code, out.out, out.err


def predicted(capsys, path, *arguments):
    code, out, err = run(capsys, "predict", "--trace", path, "--json", *arguments)
    assert code == 0, err
    return json.loads(out)


def test_predict_a_daily_cycle_and_its_figure(tmp_path, capsys):
    """With the shipped forecaster; 5 % is far below the cycle's 33 %."""
    path = write_csv(tmp_path / "trace.csv", cycle(24 * DAYS))
    figure = tmp_path / "fan.png"
    document = predicted(capsys, path, "--at", "2022-04-05T00:00Z", "--hours", "48", "--plot", str(figure))
    quantiles = np.array([hour["g_per_kwh"] for hour in document["hours"]])
    assert quantiles.shape == (48, 5) and (np.diff(quantiles, axis=1) >= 0).all()
    actual = cycle(24 * DAYS)[24 * 35 :][:48]
    assert np.abs(quantiles[:, 2] / actual - 1).mean() < 0.05
    assert document["calibrated_on_days"] == 25 and document["issued"] == "2022-04-05 00:00 UTC"
    assert figure.read_bytes().startswith(b"\x89PNG")


def test_nothing_after_the_issue_hour_is_read(tmp_path, capsys):
    values = cycle(24 * DAYS)
    at = ("--at", "2022-04-05T07:00Z", "--hours", "5")
    before = predicted(capsys, write_csv(tmp_path / "one.csv", values), *at)
    values[24 * 35 + 7 :] = 900
    after = predicted(capsys, write_csv(tmp_path / "two.csv", values), *at)
    assert before["hours"] == after["hours"]


def test_half_hours_are_averaged_and_short_gaps_filled(tmp_path, capsys):
    whole = write_csv(tmp_path / "hours.csv", np.repeat(cycle(24 * DAYS), 2).reshape(-1, 2).mean(axis=1))
    halves = write_csv(tmp_path / "halves.csv", np.repeat(cycle(24 * DAYS), 2), step_min=30)
    gaps = write_csv(tmp_path / "gaps.csv", cycle(24 * DAYS), skip=range(900, 910))  # the day before was the same
    expected = predicted(capsys, whole, "--hours", "3")["hours"]
    for path in (halves, gaps):
        found = predicted(capsys, path, "--hours", "3")["hours"]
        np.testing.assert_allclose(
            [hour["g_per_kwh"] for hour in found], [hour["g_per_kwh"] for hour in expected], rtol=1e-3
        )


def test_a_constant_trace_is_forecast_as_it_is(tmp_path, capsys):
    document = predicted(capsys, write_csv(tmp_path / "flat.csv", np.full(24 * DAYS, 250.0)))
    median = np.array([hour["g_per_kwh"][2] for hour in document["hours"]])
    assert np.isfinite(median).all() and np.abs(median / 250 - 1).max() < 0.1


def test_evaluate_stands_beside_plain_forecasters(capsys):
    arguments = ("--trace", "synthetic-ciso", "--start", "2022-05-01T00:00Z", "--end", "2022-06-10T00:00Z")
    code, out, err = run(capsys, "evaluate", "--json", *arguments)
    assert code == 0, err
    document = json.loads(out)
    assert document["issues"] == 37 and not document["seen_in_the_fit"]
    scores = document["scores"]
    assert set(scores) == {"forecaster", "repeat yesterday", "weekly average"}
    first_day = {name: found["mape_by_day_percent"][0] for name, found in scores.items()}
    # It has learnt from real grids; of a synthetic one it surely knows better how the next day goes on.
    assert first_day["forecaster"] < 0.95 * first_day["repeat yesterday"]
    assert len(scores["forecaster"]["coverage_90_by_day_percent"]) == 4
    print_scores(Console(), document)
    assert "MAPE, day 1" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("predict", "--hours", "97"), "--hours 97: give a whole number from 1 to 96"),
        (("predict", "--at", "2019-01-01T00:00Z"), "outside synthetic-ciso"),
        (("predict", "--at", "2020-01-03T00:00Z"), "168 h of history"),
        (("predict", "--at", "yesterday"), "not a time"),
        (("predict", "--trace", "nope"), "--trace: 'nope' is unknown"),
        (("predict", "--forecaster", "nope.npz"), "nope.npz: no such file"),
        (("predict", "--grid", "CISO", "--data", "."), "protocol_CISO.npz: no such file"),
        (("predict", "--grid", "CISO", "--trace", "em-de"), "--trace does not apply to --grid"),
        (("predict", "--plot", "no/such/folder/fan.png"), "--plot"),
        (("predict", "--plot", "fan.pdf"), "--plot fan.pdf: name a .png file"),
        (("fit", "--seed", "10000000000000000000000000"), "--seed 1"),
        (("fit", "--checkpoints", "pyproject.toml"), "--checkpoints pyproject.toml: is a file"),
        (("fit", "--out", "pyproject.toml/x.npz"), "pyproject.toml is no folder that may be written to"),
        (("fit", "--validation-days", "2000"), "--validation-days 2000"),
        (("fit", "--out", "pyproject.toml"), "--out pyproject.toml: exists already"),
        (("evaluate", "--start", "2022-12-30T00:00Z"), "no forecast can be issued"),
        (("predict", "--grid", "XX"), "--grid"),
    ],
)
def test_bad_input_is_one_line_and_status_2(capsys, monkeypatch, arguments, words):
    monkeypatch.delenv("CENAS_DATA", raising=False)
    monkeypatch.chdir(Path(__file__).parents[2])
    code, out, err = run(capsys, *arguments)
    assert code == 2 and out == ""
    lines = [line for line in err.splitlines() if line.startswith("cenas: ")]
    assert len(lines) == 1 and words in lines[0] and "Traceback" not in err


def test_short_and_gappy_files_are_refused(tmp_path, capsys):
    short = write_csv(tmp_path / "short.csv", cycle(100))
    code, _, err = run(capsys, "predict", "--trace", short)
    assert code == 2 and "168 h of history" in err and "100 h before" in err
    gappy = write_csv(tmp_path / "gappy.csv", cycle(24 * DAYS), skip=range(500, 540))
    code, _, err = run(capsys, "predict", "--trace", gappy)
    assert code == 2 and "missing" in err and "for more than 24 h" in err


@pytest.mark.slow
def test_fit_then_use(tmp_path, capsys):
    """A grid with a rhythm that no other has; what is fitted on it forecasts it better than the generic forecaster."""
    hours = np.arange(24 * 200)
    values = 300 + 100 * np.sign(np.sin(hours / 24 * 2 * np.pi)) + 60 * np.sign(np.sin(hours / 60 * 2 * np.pi))
    path = write_csv(tmp_path / "trace.csv", values)
    out = str(tmp_path / "fitted.npz")
    until = ("--until", "2022-08-15T00:00Z")
    code, text, err = run(capsys, "fit", "--trace", path, "--out", out, "--validation-days", "30", *until, "--json")
    assert code == 0, err
    assert json.loads(text)["fitted_until"] == "2022-08-15T00Z"
    scores = []
    for name in (out, "generic"):
        code, text, err = run(
            capsys, "evaluate", "--trace", path, "--forecaster", name, "--start", "2022-08-15T00:00Z", "--json"
        )
        assert code == 0, err
        scores.append(np.mean(json.loads(text)["scores"]["forecaster"]["mape_by_day_percent"]))
    assert scores[0] < 0.8 * scores[1]


def test_a_late_gap_is_no_reason_to_refuse_what_does_not_read_it(tmp_path, capsys):
    path = write_csv(tmp_path / "late.csv", cycle(24 * DAYS), skip=range(24 * 37, 24 * 39))
    document = predicted(capsys, path, "--at", "2022-03-30T00:00Z", "--hours", "2")
    assert document["filled_hours"] == 0
    assert run(capsys, "predict", "--trace", path)[0] == 2


def test_a_forecast_is_issued_after_the_last_reading_and_tells_of_filled_hours(tmp_path, capsys):
    count = 24 * DAYS
    path = write_csv(tmp_path / "end.csv", np.append(cycle(count - 1), 0.0), skip=range(count - 20, count - 1))
    document = predicted(capsys, path, "--hours", "1")
    assert document["issued"] == "2022-04-09 04:00 UTC" and document["filled_hours"] == 0
    path = write_csv(tmp_path / "middle.csv", cycle(count), skip=range(count - 20, count - 10))
    assert predicted(capsys, path, "--hours", "1")["filled_hours"] == 10


def test_a_constant_trace_has_no_saving_to_capture_and_its_json_is_json(tmp_path, capsys):
    path = write_csv(tmp_path / "flat.csv", np.full(24 * DAYS, 250.0))
    code, out, err = run(capsys, "evaluate", "--trace", path, "--json", "--start", "2022-03-20T00:00Z")
    assert code == 0, err
    scores = json.loads(out, parse_constant=pytest.fail)["scores"]
    assert set(scores["forecaster"]["captured_share"].values()) == {None}
    code, out, _ = run(capsys, "evaluate", "--trace", path, "--start", "2022-03-20T00:00Z")
    assert code == 0 and "nan" not in out


def test_interrupted_is_one_line(monkeypatch, capsys):
    def interrupt(command):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.forecast, "run", interrupt)
    code, out, err = run(capsys, "predict")
    assert (code, out, err) == (130, "", "cenas: interrupted\n")
