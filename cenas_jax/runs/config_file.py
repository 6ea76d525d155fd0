"""`config.toml`: a `SimulateConfig` as text and back, checked key by key. Host only."""

import json
import tomllib
from dataclasses import fields
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from cenas_jax.config import SimulateConfig, unknown_name


def config_to_toml(config: SimulateConfig) -> str:
    """Every option; those that are None stand as comments, as TOML has no null."""
    lines = ["# cenas simulate --config FILE repeats this run; options on the command line take precedence."]
    for group in fields(config):
        lines += ["", f"[{group.name}]"]
        options = getattr(config, group.name)
        for option in fields(options):
            value = getattr(options, option.name)
            lines.append(f"# {option.name}: none" if value is None else f"{option.name} = {_toml(value)}")
    return "\n".join(lines) + "\n"


def read_config(path: Path) -> SimulateConfig:
    """The config in a TOML file; what it leaves out has its default. `ValueError` names file, key and mend."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ValueError(f"--config {path}: cannot be read ({error.strerror})") from error
    except RecursionError:
        raise ValueError(f"--config {path}: not a config (nested too deeply): write tables of options") from None
    except ValueError as error:  # of TOML, of UTF-8, of numbers with thousands of digits
        reason = str(error).split(";")[0]
        raise ValueError(f"--config {path}: not a TOML file ({reason}): see config.toml of any run") from error
    groups = get_type_hints(SimulateConfig)
    settings = {}
    for name, table in document.items():
        if name not in groups:
            raise ValueError(f"{path}: table {unknown_name(name, groups)}")
        if not isinstance(table, dict):
            raise ValueError(f"{path}: {name} must be a table, written as [{name}]")
        hints = get_type_hints(groups[name])
        options = {}
        for key, value in table.items():
            if key not in hints:
                raise ValueError(f"{path}: [{name}] {unknown_name(key, hints)}")
            options[key] = _checked(value, hints[key], f"{path}: [{name}] {key}")
        settings[name] = groups[name](**options)
    return SimulateConfig(**settings)


def _toml(value: Any) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    # JSON's strings, numbers and booleans are TOML's.
    return json.dumps(str(value) if isinstance(value, Path) else value, ensure_ascii=False)


def _checked(value: Any, hint: Any, where: str) -> Any:
    """`value` in the type that `hint` asks for."""
    accepted = [kind for kind in (get_args(hint) if NoneType in get_args(hint) else (hint,)) if kind is not NoneType]
    kind = accepted[0]
    if get_origin(kind) is Literal:
        if value in get_args(kind):
            return value
        raise ValueError(f"{where}: {unknown_name(str(value), get_args(kind))}")
    if get_origin(kind) is tuple:
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return tuple(value)
        raise ValueError(f'{where}: {value!r} is not a list of texts, such as ["a", "b"]')
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(str(value))  # infinite where it is too large for a float, and refused as such
    if kind is Path and isinstance(value, str):
        return Path(value)
    if type(value) is not kind:
        words = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", Path: "a path"}
        raise ValueError(f"{where}: {value!r} is not {words[kind]}")
    return value
