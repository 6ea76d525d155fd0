"""Checkpoints of a training state: a folder of Orbax checkpoints, one a step, the last few kept."""

import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

KEPT = 2


def save(folder: str | Path, state: Any, identity: dict[str, Any]) -> None:
    """Saves `state` (a NamedTuple with a `step`) atomically; `identity` is plain data that tells runs apart."""
    keep: Any = ocp.training.preservation_policies.LatestN(KEPT)
    with ocp.training.Checkpointer(str(Path(folder).absolute()), preservation_policy=keep) as checkpointer:
        checkpointer.save(int(state.step), state._asdict(), custom_metadata={"identity": json.dumps(identity)})


def latest(folder: str | Path, start: Any, identity: dict[str, Any]) -> Any:
    """The last state saved in `folder`, or `start` where there is none; `ValueError` where it is of another run."""
    path = Path(folder).absolute()
    if not path.is_dir():
        return start
    with ocp.training.Checkpointer(str(path)) as checkpointer:
        if checkpointer.latest is None:
            return start
        found = json.loads((checkpointer.metadata().custom_metadata or {}).get("identity", "null"))
        if found != json.loads(json.dumps(identity)):
            raise ValueError(f"{path}: holds checkpoints of another run: name a new folder")
        abstract = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), start._asdict()
        )
        return type(start)(**checkpointer.load(abstract_state=abstract))


def digest(tree: Any) -> str:
    """Of all that a training reads, for its identity: what is not the same to the bit is another training."""
    found = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        found.update(np.asarray(leaf).tobytes())
    return found.hexdigest()
