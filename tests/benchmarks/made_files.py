"""Made-up files in the layouts of the official ones, and a made-up data folder; all numbers are random."""

import bz2
import functools
import json
import pickle
from pathlib import Path

import numpy as np

from cenas_jax.spaces import nas_bench_201_cells as cells

SIZE = cells.SIZE
HW_COLUMNS = ("edgegpu_latency", "edgegpu_energy", "raspi4_latency", "fpga_latency", "fpga_energy", "edgetpu_latency")


def hw_columns(rng):
    """Positive costs; energy on the FPGA is 7 W times its latency; edge TPU has -1 where it could not compile."""
    columns = {name: rng.uniform(1.0, 40.0, SIZE) for name in HW_COLUMNS}
    columns["fpga_energy"] = 7.0 * columns["fpga_latency"]
    columns["edgetpu_latency"][::100] = -1.0
    return columns


def hw_nas_bench(container=lambda values: values.tolist()):
    """The content of the official pickle: `container` turns float64[N] into the column type to try."""
    rng = np.random.default_rng(0)
    content = {}
    for dataset, classes in (("cifar10", 10), ("cifar100", 100), ("ImageNet16-120", 120)):
        content[dataset] = {name: container(values) for name, values in hw_columns(rng).items()}
        content[dataset]["config"] = [
            {"name": "infer.tiny", "C": 16, "N": 5, "arch_str": text, "num_classes": classes}
            for text in cells.canonical_strings()
        ]
    return {"nasbench201": content, "fbnet": {"edgegpu_latency": {"Skip_H32_W32_Cin16_Cout16_stride1": 0.01}}}


def _trial(dataset, seed, epochs, splits, last_epoch_only, latency):
    first = epochs - 1 if last_epoch_only else 0
    accuracy = {
        f"{split}@{epoch}": 50.0 + 0.1 * epoch + 0.01 * seed + number
        for number, split in enumerate(splits)
        for epoch in range(first, epochs)
    }
    return {
        "name": dataset,
        "net_state_dict": None,
        "train_acc1es": {epoch: 60.0 for epoch in range(epochs)},
        "train_losses": {epoch: np.float64(0.5) for epoch in range(epochs)},
        "train_acc5es": None,
        "train_times": {epoch: 7.0 + 0.001 * seed for epoch in range(epochs)},
        "arch_config": {"channel": 16, "num_cells": 5, "class_num": 10},
        "params": 0.129306,
        "flop": 15.65,
        "seed": seed,
        "epochs": epochs,
        "latency": latency,
        "eval_names": list(splits),
        "eval_acc1es": accuracy,
        "eval_losses": {key: 1.0 for key in accuracy},
        "eval_times": {key: 2.0 for key in accuracy},
    }


SPLITS = {
    "cifar10-valid": ("x-valid", "ori-test"),
    "cifar10": ("ori-test",),
    "cifar100": ("x-valid", "x-test", "ori-test"),
}


def nats_architecture(index, *, last_epoch_only=False, latency=(0.01, 0.02), seeds=(777, 888)):
    budgets = {}
    for budget, run_seeds in (("12", (777,)), ("200", seeds)):
        latency_s = None if latency is None else list(latency)
        budgets[budget] = {
            "arch_index": index,
            "arch_str": cells.canonical_strings()[index],
            "all_results": {
                (dataset, seed): _trial(dataset, seed, int(budget), splits, last_epoch_only, latency_s)
                for dataset, splits in SPLITS.items()
                for seed in run_seeds
            },
            "dataset_seed": {dataset: list(run_seeds) for dataset in SPLITS},
            "clear_net_done": True,
        }
    return budgets


def write_bz2_pickle(path: Path, content):
    path.write_bytes(_packed(content))


def _packed(content) -> bytes:
    return bz2.compress(pickle.dumps(content, protocol=4))


def write_nats_archive(folder: Path):
    """Three architectures: latency None; evaluations of the last epoch only; a file name without padding."""
    folder.mkdir()
    for name, content in _nats_files().items():
        (folder / name).write_bytes(content)


@functools.cache
def _nats_files() -> dict[str, bytes]:
    """Packed once, which takes longer than what most tests do with them."""
    return {
        "meta.pickle.pbz2": _packed({"meta_archs": list(cells.canonical_strings())}),
        "000000.pickle.pbz2": _packed(nats_architecture(0, latency=None)),
        "000001.pickle.pbz2": _packed(nats_architecture(1, last_epoch_only=True)),
        "2.pickle.pbz2": _packed(nats_architecture(2, seeds=(777, 888, 999))),
    }


def genotype(index):
    """few-shot-NAS's key of an architecture, built from the codes rather than from the string."""
    names = [cells.OPERATIONS[code] for code in cells.canonical_codes()[index]]
    nodes = [names[0:1], names[1:3], names[3:6]]
    return str([tuple((name, source) for source, name in enumerate(node)) for node in nodes])


def write_supernet_info(folder: Path):
    folder.mkdir()
    accuracy = np.round(np.random.default_rng(1).uniform(10, 80, SIZE), 2).tolist()
    strings = cells.canonical_strings()
    (folder / "one-shot-supernet").write_text(json.dumps({genotype(i): accuracy[i] for i in reversed(range(SIZE))}))
    (folder / "few-shot-supernet.json").write_text(json.dumps(dict(zip(strings, accuracy, strict=True))))
    (folder / "nasbench201").write_text(json.dumps({i: accuracy[i] for i in range(SIZE)}))
    return np.asarray(accuracy, np.float32)


def write_tables(folder: Path):
    """A sound data folder: all four compact tables."""
    (folder / "nas").mkdir(parents=True)
    rng = np.random.default_rng(2)
    codes = cells.canonical_codes()
    accuracies = {
        f"{data}_{split}_{epochs}": rng.uniform(10, 94, SIZE).astype(np.float32)
        for data in ("c10", "c100")
        for split in ("test", "valid")
        for epochs in (200, 12)
    }
    seeds = rng.uniform(10, 94, (SIZE, 3)).astype(np.float32)
    seeds[::2, 1] = np.nan
    nb201 = accuracies | {
        "c10_valid_200_seeds": seeds,
        "c100_valtest_200_seeds": seeds,
        "train_time_200_c10valid_s": rng.uniform(500, 3500, SIZE),
        "params_c10": cells.params(codes).astype(np.int32),
        "params_c100": cells.params(codes, num_classes=100).astype(np.int32),
        "params_c10_reported": cells.params(codes).astype(np.int32),
        "macs_c10": cells.macs(codes),
        "macs_c100": cells.macs(codes, num_classes=100),
        "arch_ops": codes.astype(np.uint8),
        "arch_str": np.asarray([text.encode() for text in cells.canonical_strings()]),
        "op_names": np.asarray(cells.OPERATIONS),
        "edge_order": np.asarray(["0>1", "0>2", "1>2", "0>3", "1>3", "2>3"]),
        "iso_rep": cells.isomorphism_classes(),
        "n_seeds": np.full(SIZE, 2, np.uint8),
    }
    hw = {
        f"{data}_{name}": values
        for data in ("c10", "c100")
        for name, values in hw_columns(rng).items()
        if name != "edgetpu_latency"
    }
    supernet = {name: accuracies["c10_test_200"] for name in ("oneshot_acc", "fewshot_acc", "c10_test_ref")}
    proxies = {
        "index": rng.permutation(SIZE)[:9000].astype(np.int32),
        "values": rng.normal(size=(9000, 2)).astype(np.float32),
        "proxy_names": np.asarray(["first", "second"]),
    }
    for name, arrays in (("nb201", nb201), ("hwnasbench", hw), ("supernet", supernet), ("zc_proxies", proxies)):
        np.savez(folder / "nas" / f"{name}.npz", **arrays)
