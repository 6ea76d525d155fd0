"""`cenas data list | check | import` as tables and as JSON."""

import json

import numpy as np
import pytest

from cenas_jax import cli
from cenas_jax.benchmarks.catalogue import list_data


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as leaving:
        cli.main([str(argument) for argument in arguments])
    return leaving.value.code, capsys.readouterr().out


def test_list_shows_absent_files(tmp_path, capsys):
    status, text = run(capsys, "data", "list", "--data", tmp_path)
    assert status == 0 and "nas/nb201.npz" in text and "absent" in text
    status, text = run(capsys, "data", "list", "--data", tmp_path, "--json")
    rows = json.loads(text)
    assert status == 0 and not any(row["present"] for row in rows)


@pytest.mark.parametrize("columns", ["40", "80"])
def test_no_word_of_the_list_is_broken(columns, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", columns)
    _, text = run(capsys, "data", "list", "--data", tmp_path)
    words = set(text.replace("│", " ").split())
    for file in list_data(tmp_path):
        assert {file.file, *file.purpose.split(), *file.source.split()} - words <= {f"{file.purpose.split()[-1]}"}


def test_check_exits_1_where_there_are_problems(tmp_path, monkeypatch, capsys):
    (tmp_path / "nas").mkdir()
    monkeypatch.setenv("CENAS_DATA", str(tmp_path))
    status, text = run(capsys, "data", "check")
    assert status == 1 and "1 problems" in text
    np.savez(tmp_path / "nas" / "hwnasbench.npz", c10_edgegpu_latency=np.ones(3))
    status, text = run(capsys, "data", "check", "--json")
    assert status == 1 and "hwnasbench.npz" in json.loads(text)["problems"][0]
    status, text = run(capsys, "data", "check")
    assert status == 1 and "problem" in text


@pytest.mark.data
def test_real_data_are_listed_and_sound(data_dir, capsys):
    status, text = run(capsys, "data", "list", "--data", data_dir, "--json")
    assert status == 0 and all(row["present"] and row["rows"] for row in json.loads(text))
    assert run(capsys, "data", "check", "--data", data_dir)[0] == 0
