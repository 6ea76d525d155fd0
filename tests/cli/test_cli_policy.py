"""`cenas policy`: what it draws and prints, what it refuses; a learned policy among others in `cenas simulate`."""

import contextlib
import io
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from cenas_jax import cli
from cenas_jax.allocation.agent import AgentConfig, agent
from cenas_jax.runs.policies import decisions
from cenas_jax.training.saved_policy import LearnedPolicy, load_policy, save_policy

SIMULATE = (
    "--seeds 2 --hours 4 --slots 3 --initial-design 2 --queue-capacity 4 --screen-per-interval 32 --capacity 32 "
    "--no-figures"
)


@pytest.fixture(scope="module")
def params():
    return jax.jit(agent(AgentConfig(), 8).init)(jax.random.key(0))


@pytest.fixture
def untrained(tmp_path, monkeypatch, params):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CENAS_DATA", raising=False)
    return save_policy(tmp_path / "untrained.npz", LearnedPolicy(AgentConfig(), params, {"trained_on": ["nothing"]}))


def run(arguments) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as leaving:
        cli.main([str(argument) for argument in arguments])
    assert isinstance(leaving.value.code, int)
    return leaving.value.code, out.getvalue(), err.getvalue()


def test_show_draws_the_decisions(untrained, tmp_path):
    status, printed, _ = run(["policy", "show", "--policy", untrained, "--plot", "seen.png", "--json"])
    document = json.loads(printed)
    assert status == 0 and document["action"] == "discrete" and document["trained_on"] == ["nothing"]
    with Image.open(tmp_path / "seen.png") as figure:
        assert min(figure.size) > 500
    seen = decisions(load_policy(untrained), 8)
    assert seen.slots.shape == (50, 24) and 0 <= seen.slots.min() and seen.slots.max() <= 8
    cleanest, dirtiest = seen.intensity_ratio.argmin(), seen.intensity_ratio.argmax()
    assert (seen.slots[:, cleanest] >= seen.slots[:, dirtiest]).all()
    assert np.all(np.diff(seen.slots.sum(axis=1)) >= 0)  # an untrained agent spends what it has


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("policy show --policy none.npz", "no such file: name one written by `cenas policy train`"),
        ("policy show --slots 0", "--slots 0: give a whole number from 1 to 1024"),
        ("policy show --slots 99999999999", "--slots 99999999999: give a whole number from 1 to 1024"),
        ("policy show --plot figure.pdf", "--plot figure.pdf: name a .png file"),
        ("policy show --plot none/figure.png", "none is no folder that may be written to: name another file"),
        ("policy train --updates 0", "--updates 0: give a whole number from 1 to 10000"),
        ("policy train --environments 30", "--environments 30: give a multiple of --replicas 4"),
        ("policy train --learning-rate nan", "--learning-rate nan: give a number from 0 on"),
        ("policy train --decay 2", "--decay 2.0: give a number from 0 to 1"),
        ("policy train --out untrained.npz", "--out untrained.npz: exists already, and nothing is overwritten"),
        ("policy train --out untrained.npz/a.npz", "untrained.npz is no folder that may be written to"),
        pytest.param(
            "policy train --out /proc/a.npz",
            "/proc is no folder that may be written to",
            marks=pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc"),
        ),
        ("policy train --data none", "--data: none is not a folder"),
        ("policy evaluate --tasks 1", "--tasks 1: give a whole number from 2 to 10000"),
        ("policy evaluate --policy none.npz", "no such file"),
        ("simulate --policy none.npz", "--policy none.npz: there is no such file: make one with cenas policy train"),
        ("simulate --policy ce-nsa", "'ce-nsa' is unknown: did you mean ce-nas"),
        ("simulate --policy ce-nas --window-h 12", "--policy ce-nas looks 24 h ahead: give a --window-h from 24 on"),
    ],
)
def test_bad_input_is_one_line(untrained, arguments, told):
    status, printed, refusal = run(arguments.split())
    assert (status, printed) == (2, "") and told in refusal and refusal.count("\n") == 1


def test_a_learned_policy_races_others_and_savings_add_up(untrained):
    policies = f"simulate --policy vanilla {untrained} ce-nas"
    status, printed, _ = run([*policies.split(), *SIMULATE.split(), "--json"])
    document = json.loads(printed)
    assert status == 0 and set(document["policies"]) == {"vanilla", str(untrained), "ce-nas"}
    vanilla = document["policies"]["vanilla"]["searches"]
    for policy in document["policies"].values():
        for search, other in zip(policy["searches"], vanilla, strict=True):
            saved = sum(search[f"{kind}_work_g"] for kind in ("less", "cheaper", "later"))
            assert saved == pytest.approx(other["emissions_g"] - search["emissions_g"], abs=0.1)


@pytest.mark.slow
def test_train_and_evaluate(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CENAS_DATA", raising=False)
    status, printed, _ = run("policy train --updates 2 --environments 4 --replicas 2 --out new.npz --json".split())
    document = json.loads(printed)
    assert status == 0 and document["real_data"] is False and document["episodes"] == 8
    status, printed, _ = run("policy evaluate --policy new.npz --tasks 4 --json".split())
    policies = json.loads(printed)["policies"]
    assert status == 0 and {"learned", "vanilla", "forecast-greedy"} < set(policies)
    for name, row in policies.items():
        assert 0 < row["hypervolume_share"][0] <= 1 and ("learned_minus_this" in row) == (name != "learned")
