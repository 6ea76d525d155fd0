"""`cenas policy`."""

import json
import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from cenas_jax.cli.common import print_document
from cenas_jax.config import (
    LEARNED_POLICIES,
    MOST_SLOTS,
    PolicyTrainOptions,
    check_count,
    data_folder,
)
from cenas_jax.runs.folder import check_checkpoints, check_new_file, default_folder

MOST = 10_000
"""Updates, environments or tasks: more are a slip of the keyboard, or do not fit into memory."""


@dataclass(frozen=True)
class PolicyTrain:
    """Train an allocation policy by PPO on many benchmarks, grids, windows and limits; it is written to one file.

    Tasks are synthetic, and where there is a data folder also CIFAR-100 tables and real grids before July 2021. No
    table of CIFAR-10 and no real hour from July 2021 on is read: these are for tests.
    """

    options: Annotated[PolicyTrainOptions, tyro.conf.arg(name="")] = field(default_factory=PolicyTrainOptions)
    data: Path | None = None
    """Folder of real data, with nas/ and carbon/. None: the environment variable CENAS_DATA, if set."""
    out: Path | None = None
    """File to write (.npz); it must not exist. None: policies/TIME-policy.npz."""
    checkpoints: Path | None = None
    """Folder for checkpoints; a training that finds its own there goes on from them, to the same bits."""
    json: bool = False
    """Print JSON."""


@dataclass(frozen=True)
class PolicyEvaluate:
    """Compare a policy with plain rules on other draws of the training's tasks: paired, with intervals.

    The grids and CIFAR-100 are those of the training: a check of it, no test. Test windows are for cenas simulate.
    """

    policy: str = "ce-nas"
    """ce-nas, ce-nas-continuous, or a file that cenas policy train wrote."""
    data: Path | None = None
    """Folder of real data, with nas/ and carbon/. None: the environment variable CENAS_DATA, if set."""
    tasks: int = 64
    """How many tasks."""
    seed: int = 0
    """Root of all random draws."""
    json: bool = False
    """Print JSON."""


@dataclass(frozen=True)
class PolicyShow:
    """Draw what a policy decides over a day, against the intensity and what the budget affords."""

    policy: str = "ce-nas"
    """ce-nas, ce-nas-continuous, or a file that cenas policy train wrote."""
    slots: int = 8
    """Device slots."""
    plot: Path = Path("policy.png")
    """PNG file to draw; it must not exist."""
    json: bool = False
    """Print JSON."""


@dataclass(frozen=True)
class Policy:
    """Train, evaluate and look at allocation policies."""

    command: (
        Annotated[PolicyTrain, tyro.conf.subcommand("train")]
        | Annotated[PolicyEvaluate, tyro.conf.subcommand("evaluate")]
        | Annotated[PolicyShow, tyro.conf.subcommand("show")]
    )


def run(command: PolicyTrain | PolicyEvaluate | PolicyShow) -> int:
    if isinstance(command, PolicyTrain):
        return _train(command)
    if isinstance(command, PolicyEvaluate):
        return _evaluate(command)
    return _show(command)


def _train(command: PolicyTrain) -> int:
    options = command.options
    for name in ("updates", "environments", "replicas"):
        check_count(name, getattr(options, name), MOST)
    for name in ("learning_rate", "entropy", "decay"):
        value, highest = getattr(options, name), 1 if name == "decay" else math.inf
        if not (math.isfinite(value) and 0 <= value <= highest):
            bound = "to 1" if highest == 1 else "on"
            raise ValueError(f"--{name.replace('_', '-')} {value}: give a number from 0 {bound}")
    if options.environments % options.replicas:
        raise ValueError(f"--environments {options.environments}: give a multiple of --replicas {options.replicas}")
    if not 0 <= options.seed < 2**21:
        raise ValueError(f"--seed {options.seed}: give a whole number from 0 to {2**21 - 1}")
    data = data_folder(command.data, os.environ)
    out = command.out or Path("policies") / f"{default_folder('policy').name}.npz"
    check_new_file("out", out, ".npz", make_folder=True)
    check_checkpoints(command.checkpoints)
    console = Console(stderr=True)
    with console.status("tasks: making benchmarks and grids") as status:
        from cenas_jax.runs import policies

        def progress(done, metrics) -> None:
            reward, steps = float(metrics.episode_reward.mean()), float(metrics.episode_steps.mean())
            status.update(f"train: update {done} of {options.updates}, reward {reward:.3f}, {steps:.0f} h an episode")

        status.update("compile, and the first updates")
        document = policies.train(options, data, out, checkpoints=command.checkpoints, progress=progress)
    print_document(command.json, document, "\n".join(f"{name}: {value}" for name, value in document.items()), {})
    return 0


def _evaluate(command: PolicyEvaluate) -> int:
    if not 2 <= command.tasks <= MOST:
        raise ValueError(f"--tasks {command.tasks}: give a whole number from 2 to {MOST}")
    if not 0 <= command.seed < 2**21:
        raise ValueError(f"--seed {command.seed}: give a whole number from 0 to {2**21 - 1}")
    _check_learned(command.policy)
    data = data_folder(command.data, os.environ)
    console = Console(stderr=True)
    with console.status("load: starting jax") as status:
        from cenas_jax.report.policies import comparison_document, print_comparison
        from cenas_jax.runs import policies
        from cenas_jax.runs.policy_tasks import training_tasks
        from cenas_jax.training.saved_policy import load_named

        learned = load_named(command.policy)
        status.update("tasks: making benchmarks and grids")
        tasks = training_tasks(data, policies.EVALUATION_SEED + command.seed)
        status.update(f"play {command.tasks} tasks with {len(policies.COMPARED) + 1} policies")
        results = policies.compare(learned, tasks, command.tasks, command.seed)
    document = {"policy": command.policy, "tasks_from": list(tasks.sources), **comparison_document(results)}
    if command.json:
        print(json.dumps(document, ensure_ascii=False, allow_nan=False))
    else:
        print_comparison(Console(), document)
    return 0


def _check_learned(policy: str) -> None:
    if policy not in LEARNED_POLICIES and not Path(policy).is_file():
        shipped = ", ".join(LEARNED_POLICIES)
        raise ValueError(f"--policy {policy}: no such file: name one written by `cenas policy train`, or {shipped}")


def _show(command: PolicyShow) -> int:
    plot = command.plot
    check_count("slots", command.slots, MOST_SLOTS)
    check_new_file("plot", plot, ".png")
    _check_learned(command.policy)
    with Console(stderr=True).status("load: starting jax"):
        from cenas_jax.report.policies import decisions_figure
        from cenas_jax.runs.policies import decisions
        from cenas_jax.training.saved_policy import load_named

        learned = load_named(command.policy)
        seen = decisions(learned, command.slots)
    decisions_figure(seen, command.slots, Path(command.policy).stem).savefig(plot, dpi=150, format="png")
    document = {
        "policy": command.policy,
        "action": learned.config.action,
        **learned.info,
        "slots_shown": command.slots,
        "figure": str(plot),
    }
    shown = {name: value for name, value in document.items() if name != "history"}
    print_document(command.json, document, "\n".join(f"{name}: {value}" for name, value in shown.items()), {})
    return 0
