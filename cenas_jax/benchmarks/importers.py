"""Import of official benchmark files: HW-NAS-Bench pickle, NATS-Bench topology archive, few-shot-NAS JSON.

Each reader returns the arrays of one compact table (`tables.TABLES`). Host only; every file is checked by content.
Layouts: Li et al., HW-NAS-Bench (ICLR 2021); Dong et al., NATS-Bench (TPAMI 2021); Zhao et al., few-shot NAS (ICML
2021).
"""

import bz2
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from cenas_jax.benchmarks.tables import COUNTS, DEVICE_COSTS, percentages
from cenas_jax.benchmarks.unpickling import load_plain_pickle
from cenas_jax.spaces import nas_bench_201_cells as cells

SEEDS = (777, 888, 999)
_HW_DATASETS = {"c10": "cifar10", "c100": "cifar100"}
_SUPERNET_FILES = {
    "oneshot_acc": "one-shot-supernet",
    "fewshot_acc": "few-shot-supernet",
    "c10_test_ref": "nasbench201",
}


def read_hw_nas_bench(path: Path) -> dict[str, np.ndarray]:
    """`hwnasbench.npz` from the official `HW-NAS-Bench-v1_0.pickle`; latencies in ms, energies in mJ, float64[N].

    `ValueError` names the column and row that is missing, misplaced (`config` gives each row's architecture), or not a
    finite positive number.
    """
    root = load_plain_pickle(_read(path), path)
    arrays = {}
    for short, dataset in _HW_DATASETS.items():
        columns = _item(_item(root, "nasbench201", path), dataset, path)
        where = f"{path}: nasbench201/{dataset}"
        _check_configs(_item(columns, "config", path), where)
        for name in DEVICE_COSTS:
            if name.startswith(f"{short}_"):
                column = name.removeprefix(f"{short}_")
                arrays[name] = _cost_column(_item(columns, column, path), f"{where}/{column}")
    return arrays


def _check_configs(configs: Any, where: str) -> None:
    strings = cells.canonical_strings()
    if not hasattr(configs, "__len__") or len(configs) != cells.SIZE:
        raise ValueError(f"{where}/config: {cells.SIZE} entries are expected; is this NAS-Bench-201's part?")
    for row, (config, expected) in enumerate(zip(configs, strings, strict=True)):
        found = config.get("arch_str") if isinstance(config, Mapping) else config
        if found != expected:
            raise ValueError(f"{where}/config, row {row}: {found!r} is not the canonical architecture, {expected!r}")


def _cost_column(column: Any, where: str) -> np.ndarray:
    try:
        values = np.asarray(column, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: not a column of numbers ({error})") from error
    if values.shape != (cells.SIZE,):
        raise ValueError(f"{where}: shape {values.shape}, {cells.SIZE} numbers are expected")
    bad = ~(np.isfinite(values) & (values > 0))
    if bad.any():
        raise ValueError(f"{where}, row {bad.argmax()}: {values[bad.argmax()]} is not a finite positive cost")
    return values


def read_nats_bench(folder: Path, *, partial: bool = False) -> dict[str, np.ndarray]:
    """`nb201.npz` from the unpacked simple archive `NATS-tss-v1_0-3ffb9-simple`, a folder of 15,626 `.pickle.pbz2`.

    Means are over the seeds that the archive has. `partial`: rows of architectures without a file become NaN (`n_seeds`
    0), to look into an unfinished download; `cenas data check` reports such a table and benchmarks refuse it. Without
    it a missing file is an error. `ValueError` names the file and the entry that is missing or misplaced.
    """
    meta_path = folder / "meta.pickle.pbz2"
    names = _item(load_plain_pickle(_read_bz2(meta_path), meta_path), "meta_archs", meta_path)
    if list(names) != list(cells.canonical_strings()):
        raise ValueError(f"{meta_path}: meta_archs is not the canonical list of {cells.SIZE} architectures")
    present = {entry.name for entry in os.scandir(folder) if entry.is_file()}  # much faster than asking for each
    files = [_architecture_file(folder, index, present) for index in range(cells.SIZE)]
    absent = [index for index, file in enumerate(files) if file is None]
    if absent and not partial or len(absent) == cells.SIZE:
        raise ValueError(
            f"{folder}: {len(absent)} of {cells.SIZE} architectures have no file, first {absent[0]:06d}.pickle.pbz2; "
            "finish the download, or import with partial=True (--partial) to leave their rows NaN"
        )
    arrays = _empty_nb201()
    for index, file in enumerate(files):
        if file is None:
            continue
        try:
            row = _architecture_row(file, index)
        except TypeError as error:
            raise ValueError(f"{file}: an entry has the wrong type ({error}); is this the official file?") from error
        for column, value in row.items():
            arrays[column][index] = value
    return arrays


def _architecture_file(folder: Path, index: int, present: set[str]) -> Path | None:
    for name in (f"{index:06d}.pickle.pbz2", f"{index}.pickle.pbz2"):
        if name in present:
            return folder / name
    return None


def _empty_nb201() -> dict[str, np.ndarray]:
    """The columns that follow from the space, and NaN (0 for integers) where an architecture's file fills in."""
    codes = cells.canonical_codes()
    measured = ("c10_test_200", "c100_test_200", "c10_valid_200", "c100_valid_200")
    measured += ("c10_test_12", "c10_valid_12", "c100_test_12", "c100_valid_12")
    arrays: dict[str, np.ndarray] = {column: np.full(cells.SIZE, np.nan, np.float32) for column in measured}
    arrays |= {
        column: np.full((cells.SIZE, 3), np.nan, np.float32)
        for column in ("c10_valid_200_seeds", "c100_valtest_200_seeds")
    }
    arrays["train_time_200_c10valid_s"] = np.full(cells.SIZE, np.nan, np.float64)
    arrays["params_c10_reported"] = np.zeros(cells.SIZE, np.int32)
    arrays["n_seeds"] = np.zeros(cells.SIZE, np.uint8)
    arrays["arch_ops"] = codes.astype(np.uint8)
    arrays["op_names"] = np.asarray(cells.OPERATIONS)
    arrays["edge_order"] = np.asarray([f"{source}>{target}" for source, target in cells.EDGES])
    arrays["arch_str"] = np.asarray([text.encode() for text in cells.canonical_strings()])
    arrays["iso_rep"] = cells.isomorphism_classes()
    for column, num_classes in COUNTS.items():
        count, dtype = (cells.params, np.int32) if column.startswith("params") else (cells.macs, np.int64)
        arrays[column] = count(codes, num_classes=num_classes).astype(dtype)
    return arrays


def _architecture_row(path: Path, index: int) -> dict[str, Any]:
    """What one architecture's file adds to `nb201.npz`."""
    budgets = load_plain_pickle(_read_bz2(path), path)
    full, short = _item(budgets, "200", path), _item(budgets, "12", path)
    for results in (full, short):
        if _item(results, "arch_str", path) != cells.canonical_strings()[index]:
            raise ValueError(f"{path}: holds {results['arch_str']!r}, not architecture {index}")
    valid_seeds = _item(_item(full, "dataset_seed", path), "cifar10-valid", path)
    seconds = [_training_seconds(_trial(full, "cifar10-valid", seed, path), 200, path) for seed in valid_seeds]
    reported = float(_item(_trial(full, "cifar10-valid", valid_seeds[0], path), "params", path))
    return {
        "c10_test_200": _mean(full, "cifar10", "ori-test@199", path),
        "c10_valid_200": _mean(full, "cifar10-valid", "x-valid@199", path),
        "c100_test_200": _mean(full, "cifar100", "x-test@199", path),
        "c100_valid_200": _mean(full, "cifar100", "x-valid@199", path),
        "c10_valid_200_seeds": _per_seed(full, "cifar10-valid", "x-valid@199", path),
        "c100_valtest_200_seeds": _per_seed(full, "cifar100", "ori-test@199", path),
        "c10_test_12": _mean(short, "cifar10", "ori-test@11", path),
        "c10_valid_12": _mean(short, "cifar10-valid", "x-valid@11", path),
        "c100_test_12": _mean(short, "cifar100", "x-test@11", path),
        "c100_valid_12": _mean(short, "cifar100", "x-valid@11", path),
        "train_time_200_c10valid_s": np.mean(seconds),
        "params_c10_reported": round(1e6 * reported),
        "n_seeds": len(valid_seeds),
    }


def _trial(results: Any, dataset: str, seed: int, path: Path) -> Any:
    return _item(_item(results, "all_results", path), (dataset, seed), path)


def _training_seconds(trial: Any, epochs: int, path: Path) -> float:
    times = _item(trial, "train_times", path)
    if not isinstance(times, Mapping) or any(epoch not in times for epoch in range(epochs)):
        raise ValueError(f"{path}: train_times of cifar10-valid does not hold all of {epochs} epochs")
    return float(sum(times[epoch] for epoch in range(epochs)))


def _accuracy(results: Any, dataset: str, seed: int, evaluation: str, path: Path) -> float:
    value = float(_item(_item(_trial(results, dataset, seed, path), "eval_acc1es", path), evaluation, path))
    if not 0 <= value <= 100:
        raise ValueError(f"{path}: {dataset}, seed {seed}, {evaluation}: accuracy {value} is not 0 .. 100 per cent")
    return value


def _mean(results: Any, dataset: str, evaluation: str, path: Path) -> float:
    seeds = _item(_item(results, "dataset_seed", path), dataset, path)
    if not seeds:
        raise ValueError(f"{path}: dataset_seed of {dataset} is empty")
    return float(np.mean([_accuracy(results, dataset, seed, evaluation, path) for seed in seeds]))


def _per_seed(results: Any, dataset: str, evaluation: str, path: Path) -> list[float]:
    seeds = _item(_item(results, "dataset_seed", path), dataset, path)
    if unknown := [seed for seed in seeds if seed not in SEEDS]:
        raise ValueError(f"{path}: {dataset} has seed {unknown[0]}; the known seeds are {SEEDS}")
    return [_accuracy(results, dataset, seed, evaluation, path) if seed in seeds else np.nan for seed in SEEDS]


def read_few_shot(folder: Path) -> dict[str, np.ndarray]:
    """`supernet.npz` from few-shot-NAS's folder `supernet_info`, per cent, float32[N].

    Its files: `one-shot-supernet`, `few-shot-supernet`, `nasbench201` (true accuracy), each with or without `.json`.
    """
    arrays: dict[str, np.ndarray] = {}
    for column, name in _SUPERNET_FILES.items():
        path = folder / name
        arrays[column] = read_accuracy_json(path if path.is_file() else folder / f"{name}.json")
    arrays["origin"] = np.asarray(f"imported from {folder.resolve().name}: {', '.join(_SUPERNET_FILES.values())}")
    return arrays


def read_accuracy_json(path: Path) -> Float32[np.ndarray, " N"]:
    """Accuracies in per cent from JSON that gives one for each of the 15,625 architectures.

    Either an object whose keys are official strings, few-shot-NAS's genotype texts (`[(('none', 0),), ...]`), or
    canonical indices; or an array in canonical order. Anything else is refused: other keys, a missing or doubled
    architecture, values that are not numbers or not per cent.
    """
    try:
        content = json.loads(_read(path), object_pairs_hook=_refuse_doubles)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not readable as JSON ({error})") from error
    if isinstance(content, list):
        content = dict(enumerate(content))
    if not isinstance(content, dict):
        raise ValueError(f"{path}: an object (architecture: accuracy) or an array is expected")
    known = _known_keys()
    values = np.full(cells.SIZE, np.nan, np.float32)
    for key, value in content.items():
        if str(key) not in known:
            raise ValueError(f"{path}: {key!r} is no architecture string, genotype or index 0 .. {cells.SIZE - 1}")
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{path}: {key!r} has {value!r}, a number is expected")
        values[known[str(key)]] = value
    if len(content) != cells.SIZE or np.isnan(values).any():
        missing = cells.canonical_strings()[int(np.isnan(values).argmax())]
        raise ValueError(f"{path}: {len(content)} entries for {cells.SIZE} architectures; check for example {missing}")
    if problems := percentages({"accuracy": values}, "accuracy"):
        raise ValueError(f"{path}: {problems[0]}")
    return values


def _known_keys() -> dict[str, int]:
    strings = cells.canonical_strings()
    genotypes = (_genotype(text) for text in strings)
    return {key: row for row, keys in enumerate(zip(strings, genotypes, strict=True)) for key in (*keys, str(row))}


def _genotype(text: str) -> str:
    """The nested tuples (operation, source) of an architecture as Python prints them: few-shot-NAS's keys."""
    nodes = [[pair.split("~") for pair in node.strip("|").split("|")] for node in text.split("+")]
    return str([tuple((operation, int(source)) for operation, source in node) for node in nodes])


def _refuse_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError("a key occurs twice")
    return content


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from error


def _read_bz2(path: Path) -> bytes:
    try:
        return bz2.decompress(_read(path))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read as bz2 ({error}); unpack or download the archive again") from error


def _item(container: Any, key: Any, path: Path) -> Any:
    if not isinstance(container, Mapping) or key not in container:
        raise ValueError(f"{path}: entry {key!r} is missing; is this the official file?")
    return container[key]
