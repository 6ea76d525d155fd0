"""Learned allocation policies as files."""

import dataclasses
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import jax

from cenas_jax.allocation.agent import AgentConfig, AgentParams, agent
from cenas_jax.nets import ActorCriticConfig
from cenas_jax.training.saved import Kind, load_learnt, save_learnt

SHIPPED = ("ce-nas", "ce-nas-continuous")
"""Names of the policies that ship with the package."""
KIND = Kind("allocation policy", 3, "cenas policy train")


class LearnedPolicy(NamedTuple):
    config: AgentConfig
    params: AgentParams
    info: dict[str, Any]
    """Plain data: what it was trained on, and how."""


def save_policy(path: str | Path, policy: LearnedPolicy) -> Path:
    """Writes the policy to a new file `path` (.npz); `ValueError` where it exists."""
    return save_learnt(path, KIND, {"config": dataclasses.asdict(policy.config), "info": policy.info}, policy.params)


def load_policy(path: str | Path) -> LearnedPolicy:
    """Reads a policy; `ValueError`, one line, where the file is missing, damaged, foreign or of another version."""

    def abstract(description, arrays):
        return jax.eval_shape(agent(_config(description["config"]), 1).init, jax.random.key(0))

    description, params = load_learnt(path, KIND, abstract)
    return LearnedPolicy(_config(description["config"]), params, description["info"])


def load_named(name: str) -> LearnedPolicy:
    """A policy that ships with the package (`SHIPPED`), or a file (.npz)."""
    if name not in SHIPPED:
        return load_policy(name)
    with resources.as_file(resources.files("cenas_jax.training") / "shipped" / "policies" / f"{name}.npz") as path:
        return load_policy(path)


def _config(document: dict[str, Any]) -> AgentConfig:
    """`AgentConfig` from its JSON form; `TypeError` for unknown fields."""
    return AgentConfig(**{**document, "network": ActorCriticConfig(**document["network"])})
