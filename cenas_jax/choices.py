"""A name out of a few is one of them, or an error that lists them. Host only."""

from dataclasses import fields
from typing import Any, Literal, get_args, get_origin, get_type_hints


def check_choice(option: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{option} {value!r} is unknown: choose one of {', '.join(choices)}")


def check_choices(config: Any) -> None:
    """Every field of a dataclass whose type is a `Literal`; types alone stop nobody at run time."""
    kinds = get_type_hints(type(config))
    for field in fields(config):
        if get_origin(kinds[field.name]) is Literal:
            name = f"{type(config).__name__}: {field.name}"
            check_choice(name, getattr(config, field.name), get_args(kinds[field.name]))
