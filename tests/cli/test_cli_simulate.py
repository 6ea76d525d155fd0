"""A small simulation from the command line to its run folder, and back again from its config.toml."""

import contextlib
import io
import json
import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cenas_jax import cli
from cenas_jax.pareto import hypervolume_host
from cenas_jax.report import figures
from cenas_jax.runs.folder import default_folder, new_folder

SMALL = (
    "simulate --policy vanilla heuristic one-shot fixed-1 --seeds 2 --hours 6 --slots 2 --initial-design 3 "
    "--queue-capacity 8 --screen-per-interval 64 --carbon-limit-g 600 --capacity 32"
).split()
FILES = {"config.toml", "environment.json", "history.csv", "ledger.csv", "pareto.csv", "result.json"}
FIGURES = {"progress.png", "slots.png", "pareto.png"}
ACTIVITIES = ("evaluation", "sampling", "supernet", "initial_design", "idle")


def succeed(arguments):
    with pytest.raises(SystemExit) as leaving:
        cli.main([str(argument) for argument in arguments])
    assert leaving.value.code == 0


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """One run, shared as compiling takes most of the time here: its folder, and what it printed."""
    path = tmp_path_factory.mktemp("cli") / "deep" / "run"
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.delenv("CENAS_DATA", raising=False)
        succeed([*SMALL, "--out", path])
    return path, printed.getvalue()


@pytest.fixture
def folder(shown):
    return shown[0]


def test_all_files_are_there(folder):
    assert {path.name for path in folder.iterdir()} == FILES | FIGURES
    assert [path.name for path in folder.parent.iterdir()] == ["run"]  # nothing half-written is left


def test_figures_are_drawn(folder):
    for name in FIGURES:
        with Image.open(folder / name) as image:
            grey = np.asarray(image.convert("L"))
        assert min(grey.shape) > 300
        assert 0.01 < (grey < 250).mean() < 0.9


def test_sums_agree(folder):
    """history.csv by interval = ledger.csv by activity = result.json = power x time x intensity."""
    history, ledger = pd.read_csv(folder / "history.csv"), pd.read_csv(folder / "ledger.csv")
    result = json.loads((folder / "result.json").read_text())
    assert len(history) == 4 * 2 * 6 and len(ledger) == 4 * 2 * 5
    watts = {name.removesuffix("_w"): value for name, value in result["power"].items() if name.endswith("_w")}
    watts |= {"initial_design": watts["evaluation"], "idle": 0.0}
    for (policy, seed), rows in history.groupby(["policy", "seed"]):
        booked = ledger[(ledger.policy == policy) & (ledger.seed == seed)].set_index("activity")
        search = result["policies"][policy]["searches"][seed]
        for activity in ACTIVITIES:
            power_kw = watts[activity] / 1000 * result["power"]["pue"]
            expected_g = (rows[f"{activity}_busy_h"] * power_kw * rows.intensity_g_per_kwh).sum()
            np.testing.assert_allclose(rows[f"{activity}_emissions_g"].sum(), expected_g, rtol=1e-6)
            for quantity in ("busy_h", "energy_kwh", "emissions_g"):
                total = rows[f"{activity}_{quantity}"].sum()
                np.testing.assert_allclose(booked.loc[activity, quantity], total, rtol=1e-7, atol=1e-12)
            np.testing.assert_allclose(search[f"{activity}_emissions_g"], expected_g, rtol=1e-6)
        np.testing.assert_allclose(search["emissions_g"], booked.emissions_g.sum(), rtol=1e-7)
        np.testing.assert_allclose(search["hours_run"], rows.duration_h.sum(), rtol=1e-6)
        assert booked.emissions_g.sum() <= 600
        assert rows.finished.sum() == rows.evaluations.iloc[-1] == search["evaluations"]


def test_fronts_reach_the_reported_hypervolume(folder):
    fronts = pd.read_csv(folder / "pareto.csv")
    result = json.loads((folder / "result.json").read_text())
    benchmark = result["benchmark"]
    assert list(fronts.columns[4:]) == ["synthetic_accuracy_percent", "synthetic_cost_0_arbitrary"]
    assert (fronts.iloc[:, 4:] > 0).all(axis=None)
    assert fronts.architecture.str.match(r"\|\w+~0\|\+\|").all()
    for (policy, seed), rows in fronts.groupby(["policy", "seed"]):
        points = rows.iloc[:, 4:].to_numpy() * [1, -1]
        share = hypervolume_host(points, np.asarray(benchmark["reference_point"])) / benchmark["max_hypervolume"]
        np.testing.assert_allclose(share, result["policies"][policy]["searches"][seed]["hypervolume_share"], rtol=1e-5)


def test_result_says_what_is_synthetic_and_environment_what_ran(folder):
    result = json.loads((folder / "result.json").read_text())
    assert result["benchmark"]["synthetic"] and result["trace"]["synthetic"]
    assert "synthetic" in result["benchmark"]["source"] and "synthetic" in result["trace"]["source"]
    assert set(result["seconds"]) == {"load", "benchmark", "compile", "simulate"}
    environment = json.loads((folder / "environment.json").read_text())
    assert {"python", "jax", "numpy", "cenas_jax"} <= set(environment["versions"])
    assert environment["device"]["kind"] and environment["platform"]


def test_intervals_are_students(folder):
    """By hand for two seeds: t(1 degree of freedom, 97.5 %) = 12.7062, standard error = half their distance."""
    result = json.loads((folder / "result.json").read_text())
    for policy in result["policies"].values():
        first, second = (search["hypervolume_share"] for search in policy["searches"])
        estimate = policy["summary"]["hypervolume_share"]
        assert estimate["mean"] == pytest.approx((first + second) / 2)
        half = 12.7062 * abs(first - second) / 2
        assert estimate["low"] == pytest.approx(max(0, estimate["mean"] - half), rel=1e-4)
        assert estimate["high"] == pytest.approx(min(1, estimate["mean"] + half), rel=1e-4)  # no share exceeds 1


def test_rerun_from_config_gives_the_same_json_on_stdout_alone(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("CENAS_DATA", raising=False)
    succeed(["simulate", "--config", folder / "config.toml", "--out", tmp_path / "again", "--json", "--no-figures"])
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert captured.out.count("\n") == 1 and "simulate: 4 policies x 2 seeds x 6 h" in captured.err
    assert {path.name for path in (tmp_path / "again").iterdir()} == FILES
    before = json.loads((folder / "result.json").read_text())
    assert document.pop("folder") == str(tmp_path / "again")
    for part in ("seconds", "versions"):
        del document[part], before[part]
    assert document == before
    for name in ("history.csv", "ledger.csv", "pareto.csv", "config.toml"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()


def test_sources_and_table_are_printed(shown):
    folder, text = shown
    for phrase in (
        "SYNTHETIC",
        "power      measured (a100",
        "hypervolume share",
        "95 % interval",
        "gCO2 total",
        folder.name,
    ):
        assert phrase in text
    header = next(line for line in text.splitlines() if "vanilla" in line)
    assert "heuristic" in header and "fixed-1" in header  # one table, not cut at 80 columns
    result = json.loads((folder / "result.json").read_text())
    for policy in result["policies"].values():
        assert f"{policy['summary']['hypervolume_share']['mean']:.4f}" in text


def test_overflow_is_refused_and_leaves_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CENAS_DATA", raising=False)
    tiny = "simulate --policy fixed-2 --seeds 1 --hours 4 --slots 2 --initial-design 2 --searcher random --capacity 3"
    with pytest.raises(SystemExit) as leaving:
        cli.main([*tiny.split(), "--power", "paper"])
    assert leaving.value.code == 2
    assert "--capacity" in capsys.readouterr().err.splitlines()[-1]
    assert not list(tmp_path.iterdir())


def test_figures_lose_no_run_and_one_objective_has_no_front(tmp_path, monkeypatch):
    monkeypatch.delenv("CENAS_DATA", raising=False)
    seen = []

    def failing(run, folder):
        seen.append(run)
        raise RuntimeError("a figure")

    draw = figures.write_figures
    monkeypatch.setattr(figures, "write_figures", failing)
    tiny = "simulate --policy fixed-2 --seeds 2 --hours 2 --slots 2 --initial-design 2 --searcher random --capacity 8"
    with pytest.raises(RuntimeError):
        cli.main([*tiny.split(), "--out", str(tmp_path / "run")])
    assert {path.name for path in (tmp_path / "run").iterdir()} == FILES
    [run] = seen
    names = {"objective_names": run.benchmark.objective_names[:1], "units": run.benchmark.units[:1]}
    draw(run._replace(benchmark=run.benchmark._replace(**names)), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"run", "progress.png", "slots.png"}


def test_default_folder_is_new(tmp_path):
    first = default_folder("simulate", tmp_path)
    assert re.fullmatch(r"\d{8}T\d{6}Z-simulate", first.name)
    first.mkdir()
    assert not default_folder("simulate", tmp_path).exists()


def test_a_failed_write_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), new_folder(tmp_path / "run") as part:
        (part / "file").write_text("half")
        raise RuntimeError
    with pytest.raises(RuntimeError), new_folder(tmp_path / "deep" / "deeper" / "run"):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="--out"), new_folder(tmp_path / "file" / "run"):
        pass


def test_a_killed_run_does_not_block_and_a_living_one_does(tmp_path):
    part, again = tmp_path / ".run.part", tmp_path / "run"
    part.mkdir()
    with new_folder(again), pytest.raises(ValueError, match="another run is writing it"), new_folder(again):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    again.rename(part)
    (part / "history.csv").write_text("half")
    with pytest.raises(ValueError, match=r"killed run left .*\.run\.part: remove it"), new_folder(again):
        pass
    assert [path.name for path in part.iterdir()] == ["history.csv"]  # none of ours: whoever made it may look at it
