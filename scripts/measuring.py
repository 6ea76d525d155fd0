"""What the benchmarks share: the machine, and the median of a call."""

import importlib.metadata
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine(*packages: str) -> dict[str, Any]:
    """The cores, the processor, and the versions of Python, these packages and what both sides always need."""
    cpus = Path("/proc/cpuinfo")
    lines = cpus.read_text().splitlines() if cpus.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    needed = ("jax", "jaxlib", "numpy", "scikit-learn", "moocore", *packages)
    return {
        "cores": CORES,
        "processor": names[0] if names else platform.machine(),
        "python": platform.python_version(),
    } | {package: importlib.metadata.version(package) for package in needed}


def median_s(call: Callable[[], Any], repeats: int) -> float:
    """Median wall-clock seconds after one warm-up call."""
    return medians_s((call,), repeats)[0]


def medians_s(calls: Sequence[Callable[[], Any]], repeats: int) -> list[float]:
    """Of several calls by turns, so that a slow minute of the machine is all of theirs; after one warm-up of each."""
    seconds: list[list[float]] = [[] for _ in calls]
    for _ in range(1 + repeats):
        for call, taken in zip(calls, seconds, strict=True):
            begin = time.perf_counter()
            jax.block_until_ready(call())
            taken.append(time.perf_counter() - begin)
    return [statistics.median(taken[1:]) for taken in seconds]
