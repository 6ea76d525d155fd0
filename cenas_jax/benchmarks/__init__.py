"""Benchmarks: objectives and costs of every architecture as device tables, from official files or synthetic.

Names load on first use: the host-only modules of this folder (`catalogue`, `importers`, `tables`) can be imported
without starting jax.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cenas_jax.benchmarks.base import Benchmark, BenchmarkTable, benchmark_table
    from cenas_jax.benchmarks.catalogue import check_data, import_data, list_data
    from cenas_jax.benchmarks.nas_bench_201 import nas_bench_201_benchmark
    from cenas_jax.benchmarks.synthetic import SyntheticBenchmarkConfig, synthetic_benchmark

__all__ = [
    "Benchmark",
    "BenchmarkTable",
    "SyntheticBenchmarkConfig",
    "benchmark_table",
    "check_data",
    "import_data",
    "list_data",
    "nas_bench_201_benchmark",
    "synthetic_benchmark",
]

_HOME = {
    "Benchmark": "base",
    "BenchmarkTable": "base",
    "SyntheticBenchmarkConfig": "synthetic",
    "benchmark_table": "base",
    "check_data": "catalogue",
    "import_data": "catalogue",
    "list_data": "catalogue",
    "nas_bench_201_benchmark": "nas_bench_201",
    "synthetic_benchmark": "synthetic",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"cenas_jax.benchmarks.{_HOME[name]}"), name)
