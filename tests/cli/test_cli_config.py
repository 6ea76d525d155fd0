"""The options: what they default to, and their way through TOML."""

import inspect
from dataclasses import fields, replace
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from cenas_jax import cli, config
from cenas_jax.allocation import RULES
from cenas_jax.benchmarks import nas_bench_201_benchmark
from cenas_jax.benchmarks.catalogue import IMPORT_KINDS
from cenas_jax.cluster.state import ClusterConfig
from cenas_jax.config import BenchmarkOptions, ClusterOptions, GridOptions, SearcherOptions, SimulateConfig, settled
from cenas_jax.runs.config_file import config_to_toml, read_config
from cenas_jax.search import LamooConfig
from cenas_jax.search.base import isomorphism_classes
from cenas_jax.search.lamoo import SVMConfig
from cenas_jax.spaces.nas_bench_201 import nas_bench_201


def test_defaults_are_those_of_the_library():
    """The command line cannot import them, as they live beside jax."""
    for name in ("slots", "queue_capacity", "screen_per_interval", "initial_design", "window_h"):
        assert getattr(ClusterOptions(), name) == getattr(ClusterConfig(), name)
    assert SearcherOptions().choice == LamooConfig().choice
    assert get_type_hints(SearcherOptions)["choice"] == get_type_hints(LamooConfig)["choice"]
    assert get_type_hints(SearcherOptions)["kernel"] == get_type_hints(SVMConfig)["kernel"]
    assert SearcherOptions().kernel == SVMConfig().kernel
    parameters = inspect.signature(nas_bench_201_benchmark).parameters
    assert parameters["objectives"].default == config.NAS_BENCH_201_OBJECTIVES
    assert parameters["estimate"].default == config.NAS_BENCH_201_ESTIMATE
    assert nas_bench_201().size == config.ARCHITECTURES
    assert isomorphism_classes(nas_bench_201()).none().shape[0] == config.DIFFERENT_ARCHITECTURES
    assert set(config.POLICIES) == {"vanilla", *RULES} - {"fixed"}
    assert get_args(get_type_hints(cli.data.DataImport)["kind"]) == tuple(IMPORT_KINDS)


def test_data_decide_benchmark_and_trace(tmp_path):
    bare = settled(SimulateConfig(), {})
    assert (bare.benchmark.benchmark, bare.benchmark.estimate) == ("synthetic", "noise-0.5")
    assert (bare.grid.trace, bare.grid.start) == ("synthetic-ciso", config.PAPER_START)
    assert (bare.power.gpu, bare.power.pue) == ("a100", 1.2)
    with_data = settled(SimulateConfig(), {"CENAS_DATA": str(tmp_path)})
    assert (with_data.benchmark.benchmark, with_data.benchmark.data) == ("nas-bench-201", tmp_path)
    assert (with_data.grid.trace, with_data.benchmark.estimate) == ("us-cal-ciso", "one-shot")
    assert settled(bare, {}) == bare and settled(with_data, {}) == with_data


@pytest.mark.parametrize(
    "changed",
    [
        SimulateConfig(),
        replace(
            SimulateConfig(),
            grid=GridOptions(trace='a "quoted"\\path\n.csv', start="2021-07-02T06:00Z", unit="g/kWh", zone="Ö"),
            benchmark=BenchmarkOptions(Path("/some where/é"), "nas-bench-201", ("c10_test_200", "macs_c10")),
            policies=replace(SimulateConfig().policies, policy=("fixed-3",), threshold=1.0, seeds=3),
            limits=replace(SimulateConfig().limits, carbon_limit_g=1e-7, evaluation_limit=12),
            power=replace(SimulateConfig().power, idle_slots=True, pue=1.05),
        ),
    ],
)
def test_toml_round_trip(changed, tmp_path):
    path = tmp_path / "config.toml"
    path.write_text(config_to_toml(changed), encoding="utf-8")
    assert read_config(path) == changed
    text = path.read_text(encoding="utf-8")
    for group in fields(changed):
        assert f"[{group.name}]" in text
        assert all(f"{option.name}" in text for option in fields(getattr(changed, group.name)))


def test_the_command_line_takes_precedence_over_the_file(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text('[policies]\npolicy = ["fixed-2"]\nseeds = 3\n[limits]\ncarbon_limit_g = 100\n')
    command = cli._parsed(["simulate", "--seeds", "5", "--config", str(path)])
    assert command.options.policies.policy == ("fixed-2",)
    assert command.options.policies.seeds == 5
    assert command.options.limits.carbon_limit_g == 100.0
    assert command.options.limits.hours == SimulateConfig().limits.hours


def test_help_gives_units(capsys):
    with pytest.raises(SystemExit) as leaving:
        cli.main(["simulate", "--help"])
    assert leaving.value.code == 0
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for phrase in ("in hours", "in gCO2eq", "in kWh", "--carbon-limit-g", "--no-figures", "UTC"):
        assert phrase in text
