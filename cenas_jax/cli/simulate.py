"""`cenas simulate`."""

import contextlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from rich.console import Console

from cenas_jax.cli.common import bad_input
from cenas_jax.config import SimulateConfig, settled
from cenas_jax.runs.folder import default_folder, new_folder

if TYPE_CHECKING:
    from cenas_jax.runs.simulation import SimulationRun


@dataclass(frozen=True)
class Simulate:
    """Race policies on the simulated cluster: every policy with every seed, as one compiled batch.

    Policies split the slots between sampling (screening candidates) and evaluating (training them), hour by hour.
    vanilla: all evaluate, nothing is screened. fixed-V: V evaluate. heuristic: the cleaner the grid within its window,
    the more evaluate. threshold: all but one evaluate on a clean grid, one on a dirty one. one-shot: all sample,
    and the best are evaluated at the end. yesterday-greedy, forecast-greedy: what is left of the carbon limit is spent
    in the cheapest hours ahead, as yesterday had them or as --forecast has them. ce-nas,
    ce-nas-continuous: learned by PPO on other benchmarks and hours; or name a file that cenas policy train wrote.
    """

    options: Annotated[SimulateConfig, tyro.conf.arg(name="")] = field(default_factory=SimulateConfig)
    config: Path | None = None
    """A config.toml to start from; options on the command line take precedence."""
    out: Path | None = None
    """Run folder to write; it must not exist. None: runs/TIME-simulate."""
    json: bool = False
    """Print one JSON document (the run's result.json) on stdout and nothing else there."""
    figures: bool = True
    """Draw the figures."""


@contextlib.contextmanager
def stage(console: Console, seconds: dict[str, float], name: str, what: str) -> Iterator[None]:
    """Shows what is being done while it lasts, then how long it took."""
    start = time.perf_counter()
    with console.status(f"{name}: {what}"):
        yield
    seconds[name] = round(time.perf_counter() - start, 3)
    console.print(f"{name}: {what} ({seconds[name]:.1f} s)", markup=False, highlight=False, soft_wrap=True)


def run(command: Simulate) -> None:
    progress, seconds = Console(stderr=True), {}
    out = command.out or default_folder("simulate")
    with contextlib.ExitStack() as stack:
        with bad_input():
            config = settled(command.options, os.environ)
            part = stack.enter_context(new_folder(out))
            from cenas_jax.runs.inputs import load_inputs

            with stage(progress, seconds, "load", f"trace {config.grid.trace}"):
                inputs = load_inputs(config)
            with stage(progress, seconds, "benchmark", f"{config.benchmark.benchmark}"):
                from cenas_jax.runs import simulation

                ready = simulation.prepare(inputs, simulation.load_benchmark(config))
        searches = f"{len(config.policies.policy)} policies x {config.policies.seeds} seeds x {config.limits.hours} h"
        with stage(progress, seconds, "compile", searches):
            run_all = simulation.compile_simulation(ready)
        with stage(progress, seconds, "simulate", searches):
            run = run_all()
        with bad_input():
            simulation.refuse_overflow(run)
        with stage(progress, seconds, "write", f"{out}"):
            from cenas_jax.report.files import write_files

            document = write_files(run, part, dict(seconds))
    if command.figures:  # in the folder that stands: nothing that goes wrong here loses the run
        with stage(progress, seconds, "figures", f"{out}"):
            from cenas_jax.report.figures import write_figures

            write_figures(run, out)
    _show(command, run, document, out)


def _show(command: Simulate, run: "SimulationRun", document: dict[str, Any], out: Path) -> None:
    if command.json:
        print(json.dumps({**document, "folder": str(out)}, ensure_ascii=False, allow_nan=False))
        return
    from cenas_jax.report.console import print_run

    print_run(Console(), run)
    print(f"run folder: {out}")
