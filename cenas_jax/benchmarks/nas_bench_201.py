"""NAS-Bench-201 with HW-NAS-Bench costs as a tabular benchmark; objectives and estimates are chosen by name."""

from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from cenas_jax.benchmarks.base import Benchmark, benchmark_table, cheapest_isomorphs
from cenas_jax.benchmarks.noise import noisy_estimates
from cenas_jax.benchmarks.tables import ACCURACIES, COUNTS, DEVICE_COSTS, read_table
from cenas_jax.spaces.nas_bench_201 import nas_bench_201

SUPERNET_ESTIMATE_TIME_S = 10.0
"""Assumed seconds of one supernet estimate: a forward pass over the validation images with recalibrated statistics."""
ZERO_COST_TIME_S = 3.0
"""Assumed seconds of one zero-cost proxy: a few minibatches at initialisation."""
ONE_SHOT_EPOCHS = 600
"""Epochs of the one-shot supernet (Zhao et al., few-shot NAS, ICML 2021). A single path is trained in a step, so an
epoch is taken to last as long as the average architecture's on 50,000 images: 2 x mean(train_time_200_c10valid_s) / 200
= 18.3 s. Together 600 x 18.3 s = 3.05 slot-hours."""
FEW_SHOT_EPOCHS = ONE_SHOT_EPOCHS + 5 * 300
"""Few-shot: the one-shot supernet, then 300 epochs for each of 5 sub-supernets: 2,100 x 18.3 s = 10.7 slot-hours."""
COST_MARGIN = 1.02
"""The reference point of a cost without a customary one lies 2 % above the table's maximum."""
CUSTOMARY_REFERENCES = {
    "c10_edgegpu_energy": -50.0,
    "c100_edgegpu_energy": -50.0,
    "c10_fpga_energy": -61.0,
    "c100_fpga_energy": -61.0,
}
"""mJ; c10_edgegpu_energy is the CE-NAS experiments' own."""

_FULL_EPOCHS = 200
_SCHEDULED_ACCURACIES = (*ACCURACIES, "c10_acc_cenas")
"""`c10_acc_cenas` is the faulty field of the CE-NAS release (sum of the seeds' accuracies over 3), to reproduce it."""
OBJECTIVES = (*_SCHEDULED_ACCURACIES, *DEVICE_COSTS, *COUNTS)
ESTIMATES = ("one-shot", "few-shot", "12-epochs", "zc-<proxy>", "noise-<tau>", "exact")


class _Estimate(NamedTuple):
    accuracies: Float[np.ndarray, "N k"]
    """One column for every accuracy among the objectives."""
    time_s: float
    supernet_epochs: int


def nas_bench_201_benchmark(
    data: Path,
    objectives: tuple[str, ...] = ("c10_test_200", "c10_edgegpu_energy"),
    estimate: str = "one-shot",
    *,
    seed: int = 0,
) -> Benchmark:
    """The benchmark on the tables in `<data>/nas` (see `cenas data check`).

    `objectives`, one accuracy at least: accuracies in per cent `{c10,c100}_{test,valid}_{200,12}` (data set, split,
    epochs); costs, negated, `{c10,c100}_{edgegpu_latency,edgegpu_energy,fpga_latency,fpga_energy,raspi4_latency}` in ms
    or mJ, `params_{c10,c100}`, `macs_{c10,c100}`.
    `estimate`, for every accuracy: `one-shot`, `few-shot` (published CIFAR-10 supernets); `12-epochs` (the same
    accuracy after a 12-epoch schedule); `zc-<proxy>`: a zero-cost proxy as percentile 0 .. 100, as its unit means
    nothing; an architecture without one takes that of its isomorphism class (lowest index), else NaN = no estimate
    (704 of them); `noise-<tau>`: the accuracy plus noise of this Kendall tau, drawn from `seed`; `exact`. Costs are
    exact.

    Training time: 200 epochs on CIFAR-10's 25,000 training images of the valid split as measured by the benchmark,
    twice that on all 50,000 images (CIFAR-10 test, CIFAR-100), in proportion for 12 epochs; the sum where objectives
    need several trainings. Estimates cost what the constants of this module say; noise and exact cost as one-shot.
    Reference point: accuracy 0, `CUSTOMARY_REFERENCES`, otherwise `COST_MARGIN` times the table's maximum.

    `ValueError` for unknown names, missing or unsound files.
    """
    _refuse_unknown(objectives)
    nb201 = read_table("nb201", data)
    costs = read_table("hwnasbench", data) if any(name in DEVICE_COSTS for name in objectives) else {}
    values = np.stack([_objective(name, {**nb201, **costs}) for name in objectives], axis=1)
    is_accuracy = np.asarray([name in _SCHEDULED_ACCURACIES for name in objectives])

    time_200_s = nb201["train_time_200_c10valid_s"]
    accuracies = tuple(name for name in objectives if name in _SCHEDULED_ACCURACIES)
    estimated = _estimate(estimate, accuracies, values[:, is_accuracy], nb201, data, seed)
    estimates = values.copy()
    estimates[:, is_accuracy] = estimated.accuracies
    table = benchmark_table(
        objectives=values,
        estimates=estimates,
        train_time_s=time_200_s * _trainings(accuracies),
        estimate_time_s=estimated.time_s,
        supernet_time_s=estimated.supernet_epochs * 2 * float(time_200_s.mean()) / _FULL_EPOCHS,
        reference_point=np.asarray([_reference(name, values[:, i]) for i, name in enumerate(objectives)]),
    )
    return Benchmark(
        space=cheapest_isomorphs(nas_bench_201(), values[:, ~is_accuracy]),
        table=table,
        objective_names=tuple(objectives),
        units=tuple(_unit(name) for name in objectives),
        estimate_name=estimate,
        source="NAS-Bench-201 and HW-NAS-Bench (compact tables)",
        synthetic=False,
    )


def _refuse_unknown(objectives: tuple[str, ...]) -> None:
    for name in objectives:
        if name not in OBJECTIVES:
            raise ValueError(f"objective {name!r} is unknown: choose from {', '.join(OBJECTIVES)}")
    if len(set(objectives)) != len(objectives):
        raise ValueError(f"objectives {', '.join(objectives)}: name each only once")
    if not any(name in _SCHEDULED_ACCURACIES for name in objectives):
        raise ValueError(f"objectives {', '.join(objectives)}: add an accuracy, such as c10_test_200, to train for")


def _objective(name: str, arrays: dict[str, np.ndarray]) -> Float[np.ndarray, " N"]:
    if name not in arrays:
        raise ValueError(f"objective {name!r}: this table has no such column; choose another")
    return arrays[name].astype(np.float64) * (1.0 if name in _SCHEDULED_ACCURACIES else -1.0)


def _unit(name: str) -> str:
    if name in _SCHEDULED_ACCURACIES:
        return "%"
    if name in COUNTS:
        return "parameters" if name.startswith("params") else "multiply-adds"
    return "ms" if name.endswith("latency") else "mJ"


def _reference(name: str, values: Float[np.ndarray, " N"]) -> float:
    if name in _SCHEDULED_ACCURACIES:
        return 0.0
    return CUSTOMARY_REFERENCES.get(name, COST_MARGIN * float(values.min()))


def _trainings(accuracies: tuple[str, ...]) -> float:
    """Time of all trainings that the accuracies need, in units of 200 epochs on 25,000 images."""
    # One training serves the test and the valid half of CIFAR-100; CIFAR-10's two splits are trained apart.
    trainings = {
        (name.split("_")[0], name.startswith("c10_valid"), 12 if name.endswith("_12") else _FULL_EPOCHS)
        for name in accuracies
    }
    return sum((1 if half else 2) * epochs / _FULL_EPOCHS for _, half, epochs in trainings)


def _estimate(
    name: str,
    accuracies: tuple[str, ...],
    values: Float[np.ndarray, "N k"],
    nb201: dict[str, np.ndarray],
    data: Path,
    seed: int,
) -> _Estimate:
    kind, _, option = name.partition("-")
    if name == "exact":
        return _Estimate(values, SUPERNET_ESTIMATE_TIME_S, ONE_SHOT_EPOCHS)
    if name in ("one-shot", "few-shot"):
        column = read_table("supernet", data)["oneshot_acc" if name == "one-shot" else "fewshot_acc"]
        epochs = ONE_SHOT_EPOCHS if name == "one-shot" else FEW_SHOT_EPOCHS
        return _Estimate(_repeat(column, values), SUPERNET_ESTIMATE_TIME_S, epochs)
    if name == "12-epochs":
        short = tuple(_after_12_epochs(accuracy) for accuracy in accuracies)
        time_s = float(nb201["train_time_200_c10valid_s"].mean()) * _trainings(short)
        return _Estimate(np.stack([nb201[column] for column in short], axis=1), time_s, 0)
    if kind == "zc":
        return _Estimate(_repeat(_zero_cost(option, data), values), ZERO_COST_TIME_S, 0)
    if kind == "noise":
        return _Estimate(_noisy(name, option, values, seed), SUPERNET_ESTIMATE_TIME_S, ONE_SHOT_EPOCHS)
    raise ValueError(f"estimate {name!r} is unknown: choose from {', '.join(ESTIMATES)}")


def _after_12_epochs(accuracy: str) -> str:
    return "c10_test_12" if accuracy == "c10_acc_cenas" else accuracy.removesuffix("_200").removesuffix("_12") + "_12"


def _repeat(column: Float[np.ndarray, " N"], values: Float[np.ndarray, "N k"]) -> Float[np.ndarray, "N k"]:
    return np.repeat(column[:, None].astype(np.float64), values.shape[1], axis=1)


def _noisy(name: str, option: str, values: Float[np.ndarray, "N k"], seed: int) -> Float[np.ndarray, "N k"]:
    try:
        tau = float(option)
    except ValueError:
        tau = np.nan
    if not 0 < tau < 1:
        raise ValueError(f"estimate {name!r}: give a Kendall tau between 0 and 1, such as noise-0.6")
    keys = jax.random.split(jax.random.key(seed), values.shape[1])
    columns = jnp.asarray(values.T, jnp.float32)
    return np.stack([noisy_estimates(key, column, tau) for key, column in zip(keys, columns, strict=True)], axis=1)


def _zero_cost(proxy: str, data: Path) -> Float[np.ndarray, " N"]:
    """A proxy's percentile for every architecture that has one itself or through its class; NaN elsewhere."""
    table = read_table("zc_proxies", data)
    names = table["proxy_names"].tolist()
    if proxy not in names:
        raise ValueError(f"estimate 'zc-{proxy}' is unknown: choose from {', '.join(f'zc-{name}' for name in names)}")
    space = nas_bench_201()
    # Descending, so that the lowest index of a class is written last and stays.
    order = np.argsort(table["index"])[::-1]
    index, values = table["index"][order], table["values"][order, names.index(proxy)]
    by_class = np.full(space.size, np.nan)
    by_class[space.isomorph[index]] = values
    filled = by_class[space.isomorph]
    filled[index] = values
    known = np.isfinite(filled)
    filled[known] = 100.0 * np.searchsorted(np.sort(filled[known]), filled[known], side="right") / known.sum()
    return filled
