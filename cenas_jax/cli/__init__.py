"""The command line, `cenas`. jax and everything slow is imported once the arguments are known to be good."""

import contextlib
import io
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import tyro

from cenas_jax import __version__
from cenas_jax.cli import data, forecast, policy, simulate
from cenas_jax.cli.common import bad_input, keep_compiled_programs, refuse
from cenas_jax.cli.data import Data
from cenas_jax.cli.forecast import Forecast
from cenas_jax.cli.policy import Policy
from cenas_jax.cli.simulate import Simulate
from cenas_jax.config import SimulateConfig
from cenas_jax.runs.config_file import read_config


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run one command. Exit status: 0 well done, 1 `data check` found problems or the system refused (nobody reads the
    output, the disk is full), 2 bad input (one line on stderr), 130 interrupted."""
    if sys.stdout is None:  # as Python has it where the shell closed it
        print("cenas: stopped by the system: stdout is closed", file=sys.stderr)
        sys.exit(1)
    try:
        try:
            sys.exit(_run(list(sys.argv[1:] if argv is None else argv)))
        finally:
            print(end="", flush=True)  # here, where it may fail in one line
    except KeyboardInterrupt:
        print("cenas: interrupted", file=sys.stderr)
        sys.exit(130)
    except OSError as error:
        # Python would write what is left once more when it ends, and fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            print(f"cenas: stopped by the system: {error}", file=sys.stderr)
        sys.exit(1)


def _run(arguments: list[str]) -> int:
    if arguments == ["--version"]:
        print(f"cenas {__version__}")
        return 0
    command = _parsed(arguments)
    keep_compiled_programs()
    if isinstance(command, Simulate):
        simulate.run(command)
        return 0
    with bad_input():
        if isinstance(command, Data):
            return data.run(command.command)
        return policy.run(command.command) if isinstance(command, Policy) else forecast.run(command.command)


def _parsed(arguments: list[str]) -> Simulate | Data | Forecast | Policy:
    with bad_input():
        start = Simulate(options=_config_file(arguments))
    commands = (
        Annotated[Simulate, tyro.conf.subcommand("simulate", default=start)]
        | Annotated[Data, tyro.conf.subcommand("data")]
        | Annotated[Forecast, tyro.conf.subcommand("forecast")]
        | Annotated[Policy, tyro.conf.subcommand("policy")]
    )
    refusal = io.StringIO()
    try:
        with contextlib.redirect_stderr(refusal):
            return tyro.cli(
                commands,  # pyright: ignore[reportArgumentType]
                args=arguments,
                prog="cenas",
                description="Carbon-efficient neural architecture search. cenas --version prints the version.",
                config=(tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes),
            )
    except SystemExit as leaving:
        if leaving.code:
            refuse(_one_line(refusal.getvalue()))
        raise


def _config_file(arguments: list[str]) -> SimulateConfig:
    """The config that `--config` names, which the other options are read on top of."""
    for place, argument in enumerate(arguments):
        name, given, path = argument.partition("=")
        if name == "--config" and (given or place + 1 < len(arguments)):
            return read_config(Path(path if given else arguments[place + 1]))
    return SimulateConfig()


def _one_line(box: str) -> str:
    """tyro's message as one line: what is wrong, and the options that were perhaps meant.

    A title, then sections parted by rules; drawn with box characters where the terminal knows them, with colours on a
    terminal.
    """
    lines = [line.strip("│ ") for line in re.sub(r"\x1b\[[0-9;]*m", "", box).splitlines()[1:]]
    parts = "\n".join("\0" if set(line) <= set("-─╰╯ ") else line for line in lines).split("\0")
    message, *rest = [" ".join(part.split()) for part in parts if part.strip()]
    near = sorted(set(re.findall(r"--[a-z-]+", " ".join(rest[:1])))) if message.startswith("Unrecognized") else []
    meant = [name for name in near if name != "--help"]
    return message + (f" (did you mean {' or '.join(meant)}?)" if meant else "") + "; see cenas COMMAND --help"
