"""Strict by default: warnings are errors and shapes are checked (pyproject), rank promotion raises."""

import os
from pathlib import Path

# Programs compiled by one test process serve the others, and the next run. Before jax is imported, which reads it once.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")

# Tests compile far more than they compute, and XLA's older emitters compile in half the time; what they compile runs
# half as fast again. XLA_FLAGS="" tests with the emitters that users have.
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_use_fusion_emitters=false")

import jax
import pytest

import cenas_jax  # noqa: F401  (first: it sets a flag that XLA reads once)

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data named by `CENAS_DATA`; the test skips where it is absent."""
    folder = os.environ.get("CENAS_DATA", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("real data: set CENAS_DATA to the folder that holds nas/ and carbon/")
    return Path(folder)
