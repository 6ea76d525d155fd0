"""What the benchmarks share: the machine, and the median of a call."""

import importlib.metadata
import os
import platform
import statistics
import time
from collections.abc import Callable
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
    jax.block_until_ready(call())
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        jax.block_until_ready(call())
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds)
