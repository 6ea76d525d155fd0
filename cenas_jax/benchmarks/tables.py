"""The compact tables of NAS-Bench-201 on disk: what each file holds, reading it, and checking it by content.

Host only: NumPy, no jax. Every file is `<data>/nas/<name>.npz` with one row per architecture in canonical order.
"""

import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cenas_jax.spaces import nas_bench_201_cells as cells

Arrays = Mapping[str, np.ndarray]

ACCURACIES = tuple(f"{data}_{split}_{e}" for data in ("c10", "c100") for split in ("test", "valid") for e in (200, 12))
DEVICE_COSTS = tuple(
    f"{data}_{cost}"
    for data in ("c10", "c100")
    for cost in ("edgegpu_latency", "edgegpu_energy", "fpga_latency", "fpga_energy", "raspi4_latency")
)
PER_SEED = ("c10_valid_200_seeds", "c100_valtest_200_seeds")
"""Columns [N, 3] for the seeds 777, 888, 999; NaN = this seed was not run."""
COUNTS = {"params_c10": 10, "params_c100": 100, "macs_c10": 10, "macs_c100": 100}
"""Exact counts and the number of classes that each belongs to."""
FPGA_POWER_W = 7.0
"""HW-NAS-Bench gives the FPGA's energy (mJ) as 7 W times its latency (ms)."""


class Table(NamedTuple):
    """One file: the columns it must have, and its check (arrays that have them -> problems)."""

    file: str
    columns: tuple[str, ...]
    purpose: str
    check: Callable[[Arrays], list[str]]


def read_table(name: str, folder: Path) -> dict[str, np.ndarray]:
    """Arrays of `<folder>/nas/<name>.npz`; `ValueError` in one line if it is missing, unreadable or fails a check."""
    path = folder / "nas" / TABLES[name].file
    arrays = open_arrays(path)
    problems = check_table(name, arrays)
    if problems:
        more = f" (and {len(problems) - 1} more problems: cenas data check)" if len(problems) > 1 else ""
        raise ValueError(f"{path}: {problems[0]}{more}")
    return arrays


def open_arrays(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an npz file, without unpickling; `ValueError` where it is missing, unreadable or holds objects."""
    if not path.is_file():
        raise ValueError(
            f"{path}: no such file; name the data folder by CENAS_DATA or --data, or run cenas data import"
        )
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}
    except (OSError, ValueError, EOFError, KeyError, AttributeError, zipfile.BadZipFile) as error:
        why = "no zip archive, or a cut one" if "pickle" in str(error) and not zipfile.is_zipfile(path) else error
        raise ValueError(f"{path}: not a readable npz file of plain arrays ({why}); import it again") from None


def check_table(name: str, arrays: Arrays) -> list[str]:
    """Problems of a table's content, one line each; empty when it is sound."""
    missing = [column for column in TABLES[name].columns if column not in arrays]
    if missing:
        return [f"columns {', '.join(missing)} are missing"]
    return TABLES[name].check(arrays)


def _rows(arrays: Arrays, column: str, width: tuple[int, ...] = ()) -> list[str]:
    if arrays[column].shape != (cells.SIZE, *width):
        return [f"column {column} has shape {arrays[column].shape}, not {(cells.SIZE, *width)}"]
    return []


def _numbers(arrays: Arrays, column: str, low: float, high: float, width: tuple[int, ...] = ()) -> list[str]:
    """Right shape, real numbers, and every value in low .. high (beyond `low` where it is 0 and high infinite)."""
    values = arrays[column]
    if problems := _rows(arrays, column, width):
        return problems
    if values.dtype.kind not in "fiu":
        return [f"column {column} holds {values.dtype}, not numbers"]
    bad = ~(values > 0 if (low, high) == (0, np.inf) else (values >= low) & (values <= high))
    bad |= ~np.isfinite(values)
    if bad.any():
        row = int(np.argwhere(bad)[0][0])
        expected = "positive and finite" if high == np.inf else f"{low:g} .. {high:g}"
        return [f"column {column}, row {row}: {values[row]} is not {expected} ({bad.sum()} such values)"]
    return []


def _equal(arrays: Arrays, column: str, expected: np.ndarray, what: str) -> list[str]:
    if problems := _rows(arrays, column, expected.shape[1:]):
        return problems
    differs = arrays[column] != expected
    if differs.any():
        row = int(np.argwhere(differs)[0][0])
        return [f"column {column}, row {row}: {arrays[column][row]} is not {what}, {expected[row]}"]
    return []


def _check_architectures(arrays: Arrays) -> list[str]:
    strings = np.asarray([text.encode() for text in cells.canonical_strings()])
    codes = cells.canonical_codes()
    problems = _equal(arrays, "arch_str", strings, "the canonical architecture")
    problems += _equal(arrays, "arch_ops", codes, "the canonical architecture's codes")
    problems += _equal(arrays, "iso_rep", cells.isomorphism_classes(), "the lowest index of its isomorphism class")
    for column, num_classes in COUNTS.items():
        count = cells.params if column.startswith("params") else cells.macs
        problems += _equal(arrays, column, count(codes, num_classes=num_classes), "the exact count")
    return problems


def _check_nb201(arrays: Arrays) -> list[str]:
    problems = _check_architectures(arrays)
    for column in ACCURACIES:
        problems += _numbers(arrays, column, 0.0, 100.0)
    for column in PER_SEED:
        problems += _numbers({column: np.nan_to_num(arrays[column], nan=0.0)}, column, 0.0, 100.0, (3,))
    problems += _numbers(arrays, "train_time_200_c10valid_s", 0.0, np.inf)
    problems += _numbers(arrays, "n_seeds", 1.0, 3.0)
    return problems


def _check_hwnasbench(arrays: Arrays) -> list[str]:
    problems = [problem for column in DEVICE_COSTS for problem in _numbers(arrays, column, 0.0, np.inf)]
    for data in ("c10", "c100"):
        if problems:
            break
        energy, latency = arrays[f"{data}_fpga_energy"], arrays[f"{data}_fpga_latency"]
        differs = np.abs(energy - FPGA_POWER_W * latency) > 1e-6 * energy
        if differs.any():
            problems.append(
                f"column {data}_fpga_energy, row {differs.argmax()}: {energy[differs.argmax()]} mJ is not 7 W times "
                f"{data}_fpga_latency, {latency[differs.argmax()]} ms: check the columns' units and order"
            )
    return problems


def _check_supernet(arrays: Arrays) -> list[str]:
    return [
        problem for column in ("oneshot_acc", "fewshot_acc", "c10_test_ref") for problem in percentages(arrays, column)
    ]


def percentages(arrays: Arrays, column: str) -> list[str]:
    """Problems of a column of accuracies in per cent, one a row; refuses fractions."""
    if problems := _numbers(arrays, column, 0.0, 100.0):
        return problems
    if arrays[column].max() <= 1:
        return [f"column {column}: no value above 1; accuracies are per cent, multiply fractions by 100"]
    return []


def _check_zc_proxies(arrays: Arrays) -> list[str]:
    index, values, names = arrays["index"], arrays["values"], arrays["proxy_names"]
    if values.shape != (len(index), len(names)):
        return [f"column values has shape {values.shape}, not {(len(index), len(names))} (index, proxy_names)"]
    problems = []
    if len(set(index.tolist())) != len(index) or np.any((index < 0) | (index >= cells.SIZE)):
        problems.append(f"column index: give every row a different index 0 .. {cells.SIZE - 1}")
    if len(set(names.tolist())) != len(names):
        problems.append("column proxy_names: a name occurs twice")
    if not np.all(np.isfinite(values)):
        row, proxy = np.argwhere(~np.isfinite(values))[0]
        problems.append(f"column values, row {row}: {names[proxy]} is {values[row, proxy]}, not finite")
    return problems


TABLES = {
    "nb201": Table(
        "nb201.npz",
        ("arch_ops", "op_names", "edge_order", "arch_str", *ACCURACIES, *PER_SEED, "train_time_200_c10valid_s")
        + (*COUNTS, "params_c10_reported", "iso_rep", "n_seeds"),
        "accuracies, training times and sizes on CIFAR-10 and CIFAR-100",
        _check_nb201,
    ),
    "hwnasbench": Table(
        "hwnasbench.npz",
        DEVICE_COSTS,
        "latency (ms) and energy (mJ) on edge GPU, FPGA, Raspberry Pi",
        _check_hwnasbench,
    ),
    "supernet": Table(
        "supernet.npz",
        ("oneshot_acc", "fewshot_acc", "c10_test_ref"),
        "accuracy with weights inherited from one-shot and few-shot supernets",
        _check_supernet,
    ),
    "zc_proxies": Table("zc_proxies.npz", ("index", "values", "proxy_names"), "zero-cost proxies", _check_zc_proxies),
}
