"""Listing, checking and importing the data folder; malformed tables give one clear line."""

import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from made_files import hw_nas_bench, write_nats_archive, write_supernet_info, write_tables

from cenas_jax.benchmarks.catalogue import check_data, import_data, list_data
from cenas_jax.benchmarks.tables import read_table


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_tables(folder)
    return folder


@pytest.fixture
def folder(sound, tmp_path):
    """A folder of links to the sound tables, so that one can be replaced."""
    (tmp_path / "nas").mkdir()
    for path in (sound / "nas").iterdir():
        (tmp_path / "nas" / path.name).symlink_to(path)
    return tmp_path


def replace(folder, name, change):
    path = folder / "nas" / f"{name}.npz"
    arrays = {key: values.copy() for key, values in np.load(path, allow_pickle=False).items()}
    change(arrays)
    path.unlink()
    np.savez(path, **arrays)


def test_sound_folder(sound):
    assert check_data(sound) == []
    listed = {row.file: row for row in list_data(sound)}
    assert listed["nas/nb201.npz"].present and listed["nas/nb201.npz"].rows == 15_625
    assert "oneshot_acc" in listed["nas/supernet.npz"].columns
    assert listed["nas/zc_proxies.npz"].rows == 9000
    absent = listed["carbon/em_hourly_2021_2023.npz"]
    assert (absent.present, absent.rows, absent.columns) == (False, 0, ())


def setter(column, row, value):
    def change(arrays):
        arrays[column][row] = value

    return change


def dropper(column):
    def change(arrays):
        del arrays[column]

    return change


def cutter(column):
    def change(arrays):
        arrays[column] = arrays[column][:-1]

    return change


def with_text(arrays):
    arrays["train_time_200_c10valid_s"] = np.full(15_625, "long")


def reversed_order(arrays):
    for column in ("arch_str", "arch_ops", "iso_rep"):
        arrays[column] = arrays[column][::-1]


def in_milliwatts(arrays):
    arrays["c10_fpga_energy"] *= 1000


def fractions(arrays):
    arrays["oneshot_acc"] /= 100


MALFORMED = [
    ("nb201", dropper("c10_test_200"), "columns c10_test_200 are missing"),
    ("nb201", cutter("c10_test_200"), "column c10_test_200 has shape (15624,), not (15625,)"),
    ("nb201", setter("c10_test_200", 12, np.nan), "column c10_test_200, row 12: nan is not 0 .. 100 (1 such values)"),
    ("nb201", setter("c100_valid_12", 4, 101.5), "column c100_valid_12, row 4: 101.5 is not 0 .. 100"),
    ("nb201", setter("train_time_200_c10valid_s", 3, 0.0), "row 3: 0.0 is not positive and finite"),
    ("nb201", with_text, "column train_time_200_c10valid_s holds <U4, not numbers"),
    ("nb201", setter("params_c10", 9, 1), "column params_c10, row 9: 1 is not the exact count"),
    ("nb201", setter("iso_rep", 15_000, 15_000), "column iso_rep, row 15000: 15000 is not the lowest index"),
    ("nb201", reversed_order, "column arch_str, row 0:"),
    ("nb201", setter("c10_valid_200_seeds", 5, 200.0), "column c10_valid_200_seeds, row 5"),
    ("nb201", setter("n_seeds", 0, 0), "column n_seeds, row 0: 0 is not 1 .. 3"),
    ("hwnasbench", setter("c10_edgegpu_energy", 2, -1.0), "column c10_edgegpu_energy, row 2: -1.0 is not positive"),
    ("hwnasbench", setter("c100_raspi4_latency", 2, np.inf), "row 2: inf is not positive and finite"),
    ("hwnasbench", in_milliwatts, "is not 7 W times c10_fpga_latency"),
    ("supernet", fractions, "column oneshot_acc: no value above 1; accuracies are per cent"),
    ("supernet", cutter("fewshot_acc"), "column fewshot_acc has shape (15624,), not (15625,)"),
    ("zc_proxies", setter("index", 1, 15_625), "column index: give every row a different index 0 .. 15624"),
    ("zc_proxies", cutter("proxy_names"), "column values has shape (9000, 2), not (9000, 1)"),
    ("zc_proxies", setter("values", 3, np.nan), "column values, row 3: first is nan, not finite"),
]


@pytest.mark.parametrize(("name", "change", "message"), MALFORMED)
def test_malformed_tables(folder, name, change, message):
    replace(folder, name, change)
    problems = check_data(folder)
    path = str(folder / "nas" / f"{name}.npz")
    assert problems and message in problems[0] and problems[0].startswith(path)
    assert all("\n" not in problem for problem in problems)
    with pytest.raises(ValueError, match=re.escape(path)):
        read_table(name, folder)


def test_files_that_are_no_tables(folder):
    path = folder / "nas" / "supernet.npz"
    path.unlink()
    path.write_bytes(b"PK\x03\x04 cut off")
    assert f"{path}: not a readable npz file" in check_data(folder)[0]
    np.savez(path, oneshot_acc=np.array([1, None], dtype=object))
    assert "not a readable npz file of plain arrays (Object arrays cannot be loaded" in check_data(folder)[0]
    path.write_bytes(b"neither")
    assert "plain arrays (no zip archive, or a cut one); import it again" in check_data(folder)[0]
    path.unlink()
    assert check_data(folder) == []
    with pytest.raises(ValueError, match="no such file; name the data folder by CENAS_DATA or --data"):
        read_table("supernet", folder)
    with pytest.raises(ValueError, match="no such folder"):
        check_data(folder / "nowhere")


def test_traces_are_checked_and_an_empty_folder_is_a_problem(tmp_path):
    assert "holds none of the files that cenas data list names" in check_data(tmp_path)[0]
    (tmp_path / "carbon").mkdir()
    for name in ("us_cal_ciso_2020_2022.csv.gz", "em_hourly_2021_2023.npz"):
        (tmp_path / "carbon" / name).write_bytes(b"neither")
    assert [Path(problem.split(":")[0]).name for problem in check_data(tmp_path)] == [
        "us_cal_ciso_2020_2022.csv.gz",
        "em_hourly_2021_2023.npz",
    ]


def test_imports_give_sound_tables(tmp_path):
    pickle_path = tmp_path / "hw.pickle"
    pickle_path.write_bytes(pickle.dumps(hw_nas_bench(np.asarray)))
    write_supernet_info(tmp_path / "supernet_info")
    data = tmp_path / "data"
    assert import_data("hw-nas-bench", pickle_path, data) == data / "nas" / "hwnasbench.npz"
    import_data("few-shot-nas", tmp_path / "supernet_info", data)
    assert check_data(data) == []
    assert sorted(path.name for path in (data / "nas").iterdir()) == ["hwnasbench.npz", "supernet.npz"]


def test_partial_import_is_reported(tmp_path):
    write_nats_archive(tmp_path / "archive")
    import_data("nats-bench", tmp_path / "archive", tmp_path / "data", partial=True)
    problems = check_data(tmp_path / "data")
    assert any("column c10_test_200, row 3: nan is not 0 .. 100 (15622 such values)" in problem for problem in problems)


def test_a_failed_import_leaves_the_old_table(folder, tmp_path):
    before = (folder / "nas" / "hwnasbench.npz").read_bytes()
    bad = tmp_path / "bad.pickle"
    bad.write_bytes(b"damaged")
    with pytest.raises(ValueError, match=re.escape(f"{bad}: refused as a pickle")):
        import_data("hw-nas-bench", bad, folder)
    assert (folder / "nas" / "hwnasbench.npz").read_bytes() == before


@pytest.mark.parametrize(
    ("kind", "source", "options", "message"),
    [
        ("nas-bench-101", ".", {}, "data kind 'nas-bench-101' is unknown: choose from hw-nas-bench, nats-bench"),
        ("hw-nas-bench", ".", {}, "give the .pickle file itself for hw-nas-bench"),
        ("nats-bench", "file", {}, "give the unpacked folder for nats-bench"),
        ("few-shot-nas", "nowhere", {}, "no such file or folder"),
        ("few-shot-nas", ".", {"partial": True}, "partial import is for nats-bench archives"),
        ("few-shot-nas", ".", {}, "one-shot-supernet.json: cannot be read (No such file or directory)"),
    ],
)
def test_wrong_import_arguments(kind, source, options, message, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ValueError, match=re.escape(message)):
        import_data(kind, tmp_path / source, tmp_path / "data", **options)


def test_host_only():
    code = "import sys, cenas_jax.benchmarks.catalogue; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.data
def test_real_tables_are_sound(data_dir):
    assert check_data(data_dir) == []
    assert all(row.present and row.rows for row in list_data(data_dir))
