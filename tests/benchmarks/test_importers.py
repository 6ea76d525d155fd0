"""Importers of official files, on made-up files in their layouts."""

import bz2
import json
import pickle
import re

import numpy as np
import pytest
from made_files import (
    SIZE,
    genotype,
    hw_nas_bench,
    nats_architecture,
    write_bz2_pickle,
    write_nats_archive,
    write_supernet_info,
)

from cenas_jax.benchmarks.importers import read_accuracy_json, read_few_shot, read_hw_nas_bench, read_nats_bench
from cenas_jax.spaces import nas_bench_201_cells as cells


@pytest.mark.parametrize(
    ("container", "protocol"),
    [
        (lambda values: values.tolist(), 4),
        (lambda values: values, 2),
        (lambda values: values.astype(np.float32), 5),
        (lambda values: [np.float64(value) for value in values], 4),
        (lambda values: tuple(values.tolist()), 3),
    ],
    ids=["list", "float64", "float32", "scalars", "tuple"],
)
def test_hw_nas_bench_columns(container, protocol, tmp_path):
    content = hw_nas_bench(container)
    path = tmp_path / "HW-NAS-Bench-v1_0.pickle"
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    arrays = read_hw_nas_bench(path)
    assert len(arrays) == 10
    assert all(values.shape == (SIZE,) and values.dtype == np.float64 for values in arrays.values())
    for name, dataset in (("c10", "cifar10"), ("c100", "cifar100")):
        expected = np.asarray(content["nasbench201"][dataset]["fpga_energy"])
        np.testing.assert_array_equal(arrays[f"{name}_fpga_energy"], expected)


def _without_fpga(content):
    del content["nasbench201"]["cifar100"]["fpga_latency"]


def _with_nan(content):
    content["nasbench201"]["cifar10"]["edgegpu_energy"][7] = float("nan")


def _with_minus_one(content):
    content["nasbench201"]["cifar10"]["raspi4_latency"][3] = -1.0


def _too_short(content):
    content["nasbench201"]["cifar10"]["edgegpu_latency"].pop()


def _with_text(content):
    content["nasbench201"]["cifar10"]["edgegpu_latency"][0] = "fast"


def _with_swapped_rows(content):
    configs = content["nasbench201"]["cifar100"]["config"]
    configs[0], configs[1] = configs[1], configs[0]


def _with_short_config(content):
    content["nasbench201"]["cifar10"]["config"].pop()


def _other_file(content):
    content["fbnet"] = content.pop("nasbench201")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_without_fpga, "entry 'fpga_latency' is missing"),
        (_with_nan, "nasbench201/cifar10/edgegpu_energy, row 7: nan is not a finite positive cost"),
        (_with_minus_one, "nasbench201/cifar10/raspi4_latency, row 3: -1.0 is not a finite positive cost"),
        (_too_short, "nasbench201/cifar10/edgegpu_latency: shape (15624,), 15625 numbers are expected"),
        (_with_text, "nasbench201/cifar10/edgegpu_latency: not a column of numbers"),
        (_with_swapped_rows, "nasbench201/cifar100/config, row 0:"),
        (_with_short_config, "nasbench201/cifar10/config: 15625 entries are expected"),
        (_other_file, "entry 'nasbench201' is missing; is this the official file?"),
    ],
)
def test_malformed_hw_nas_bench(damage, message, tmp_path):
    content = hw_nas_bench()
    damage(content)
    path = tmp_path / "hw.pickle"
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        read_hw_nas_bench(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_partial_nats_archive(tmp_path):
    folder = tmp_path / "NATS-tss-v1_0-3ffb9-simple"
    write_nats_archive(folder)
    arrays = read_nats_bench(folder, partial=True)
    # A made-up accuracy is 50 + 0.1 epoch + 0.01 seed + number of the split; seeds 777 and 888 have the mean 832.5.
    np.testing.assert_allclose(arrays["c10_test_200"][:2], 50 + 19.9 + 8.325, rtol=1e-6)
    np.testing.assert_allclose(arrays["c100_test_200"][2], 50 + 19.9 + 0.01 * (777 + 888 + 999) / 3 + 1, rtol=1e-6)
    np.testing.assert_allclose(arrays["c100_valid_12"][:3], 50 + 1.1 + 7.77, rtol=1e-6)
    np.testing.assert_allclose(arrays["c10_valid_200_seeds"][0], [77.67, 78.78, np.nan], rtol=1e-6)
    np.testing.assert_allclose(arrays["c100_valtest_200_seeds"][2], [79.67, 80.78, 81.89], rtol=1e-6)
    np.testing.assert_allclose(arrays["train_time_200_c10valid_s"][0], 200 * (7 + 0.8325))
    np.testing.assert_array_equal(arrays["n_seeds"][:4], [2, 2, 3, 0])
    np.testing.assert_array_equal(arrays["params_c10"][:1], [129_306])
    assert arrays["params_c10_reported"][0] == 129_306
    np.testing.assert_array_equal(arrays["arch_ops"], cells.canonical_codes())
    assert np.isnan(arrays["c10_test_200"][3:]).all() and np.isnan(arrays["train_time_200_c10valid_s"][3:]).all()


def _wrong_architecture():
    return nats_architecture(1)


def _without_last_epoch():
    content = nats_architecture(0)
    del content["200"]["all_results"][("cifar10", 888)]["eval_acc1es"]["ori-test@199"]
    return content


def _without_times():
    content = nats_architecture(0)
    content["200"]["all_results"][("cifar10-valid", 777)]["train_times"] = None
    return content


def _fractions():
    content = nats_architecture(0)
    content["200"]["all_results"][("cifar10", 777)]["eval_acc1es"]["ori-test@199"] = 9000.0
    return content


def _none_accuracy():
    content = nats_architecture(0)
    content["200"]["all_results"][("cifar10", 777)]["eval_acc1es"]["ori-test@199"] = None
    return content


def _unknown_seed():
    return nats_architecture(0, seeds=(777, 111))


def _no_short_budget():
    content = nats_architecture(0)
    del content["12"]
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (_wrong_architecture, "not architecture 0"),
        (_without_last_epoch, "entry 'ori-test@199' is missing"),
        (_without_times, "train_times of cifar10-valid does not hold all of 200 epochs"),
        (_fractions, "cifar10, seed 777, ori-test@199: accuracy 9000.0 is not 0 .. 100 per cent"),
        (_none_accuracy, "an entry has the wrong type"),
        (_unknown_seed, "cifar10-valid has seed 111; the known seeds are (777, 888, 999)"),
        (_no_short_budget, "entry '12' is missing"),
    ],
)
def test_malformed_nats_architecture(content, message, tmp_path):
    folder = tmp_path / "archive"
    write_nats_archive(folder)
    write_bz2_pickle(folder / "000000.pickle.pbz2", content())
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        read_nats_bench(folder, partial=True)
    assert "000000.pickle.pbz2" in str(error.value) and "\n" not in str(error.value)


def test_malformed_nats_archive(tmp_path):
    folder = tmp_path / "archive"
    write_nats_archive(folder)
    with pytest.raises(ValueError, match="15622 of 15625 architectures have no file, first 000003.pickle.pbz2"):
        read_nats_bench(folder)
    truncated = (folder / "2.pickle.pbz2").read_bytes()[:-100]
    (folder / "2.pickle.pbz2").write_bytes(truncated)
    with pytest.raises(ValueError, match="2.pickle.pbz2: cannot be read as bz2"):
        read_nats_bench(folder, partial=True)
    write_bz2_pickle(folder / "meta.pickle.pbz2", {"meta_archs": list(cells.canonical_strings())[::-1]})
    with pytest.raises(ValueError, match="meta_archs is not the canonical list"):
        read_nats_bench(folder, partial=True)
    (folder / "meta.pickle.pbz2").write_bytes(bz2.compress(b"c__builtin__\neval\n(V1\ntR."))
    with pytest.raises(ValueError, match="meta.pickle.pbz2: refused as a pickle, it refers to __builtin__.eval"):
        read_nats_bench(folder, partial=True)
    (folder / "meta.pickle.pbz2").unlink()
    with pytest.raises(ValueError, match="meta.pickle.pbz2: cannot be read"):
        read_nats_bench(folder, partial=True)


def test_few_shot_keys(tmp_path):
    accuracy = write_supernet_info(tmp_path / "supernet_info")
    arrays = read_few_shot(tmp_path / "supernet_info")
    for column in ("oneshot_acc", "fewshot_acc", "c10_test_ref"):
        np.testing.assert_array_equal(arrays[column], accuracy)
    (tmp_path / "list.json").write_text(json.dumps(accuracy.tolist()))
    np.testing.assert_array_equal(read_accuracy_json(tmp_path / "list.json"), accuracy)


EVERY = {str(index): 50.0 for index in range(SIZE)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not readable as JSON"),
        ("3", "an object (architecture: accuracy) or an array is expected"),
        ("[50.0, 60.0]", "2 entries for 15625 architectures; check for example"),
        (json.dumps(EVERY | {"15625": 1.0}), "'15625' is no architecture string, genotype or index 0 .. 15624"),
        (json.dumps({"conv-conv": 50.0}), "'conv-conv' is no architecture string"),
        (json.dumps(EVERY | {"0": "50"}), "'0' has '50', a number is expected"),
        (json.dumps(EVERY | {"0": True}), "'0' has True, a number is expected"),
        (json.dumps(EVERY | {"5": 101.0}), "column accuracy, row 5: 101.0 is not 0 .. 100"),
        (json.dumps(EVERY | {"5": float("nan")}), "check for example"),
        (json.dumps([0.5] * SIZE), "accuracies are per cent, multiply fractions by 100"),
        (json.dumps(EVERY)[:-1] + ', "0": 50.0}', "a key occurs twice"),
        (json.dumps(EVERY | {genotype(0): 50.0}), "15626 entries for 15625 architectures"),
    ],
)
def test_malformed_accuracy_json(text, message, tmp_path):
    path = tmp_path / "accuracy.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        read_accuracy_json(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)
