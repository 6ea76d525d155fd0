"""Fitted forecasters as files: an .npz of plain arrays and a JSON description; and those that ship with the package."""

import dataclasses
import json
import zipfile
import zlib
from importlib import resources
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cenas_jax.forecast.features import Scales, features_of
from cenas_jax.forecast.transformer import LossConfig, TransformerState
from cenas_jax.forecast.windows import HISTORY_H, HORIZON_H, History, KnownFuture, Window
from cenas_jax.nets import CarbonTransformerConfig
from cenas_jax.training.forecaster import FitConfig, Fitted, fitted, network_of

KIND, VERSION = "cenas_jax carbon forecaster", 1
SHIPPED = ("ciso", "de", "pjm", "generic")
_SHIPPED_OF_ZONE = {
    "ciso": "ciso",
    "us-cal-ciso": "ciso",
    "de": "de",
    "pjm": "pjm",
    "us-mida-pjm": "pjm",
}


def save_forecaster(path: str | Path, fit: Fitted) -> Path:
    """Writes the forecaster to a new file `path` (.npz); `ValueError` where it exists."""
    path = Path(path)
    if path.exists():
        raise ValueError(f"{path}: exists already, and forecasters are never overwritten: name a new file")
    description = {
        "kind": KIND,
        "version": VERSION,
        "config": dataclasses.asdict(fit.config),
        "factor_g_per_kwh": list(fit.factor_g_per_kwh),
        "info": fit.info,
    }
    arrays = {name: np.asarray(leaf) for name, leaf in _named(fit.state).items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, description=np.array(json.dumps(description)), **arrays)
    part.rename(path)
    return path


def load_forecaster(path: str | Path) -> Fitted:
    """Reads a forecaster; `ValueError`, one line, where the file is missing, damaged, foreign or of another version."""
    try:
        with Path(path).open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        description = json.loads(str(arrays.pop("description")))
        if description["kind"] != KIND or description["version"] != VERSION:
            raise ValueError(f"{description['kind']}, version {description['version']}")
        config, factor = _config(description["config"]), tuple(description["factor_g_per_kwh"])
        state = _abstract_state(config, len(factor), arrays)
        expected = _named(state)
        if {name: leaf.shape for name, leaf in expected.items()} != {name: leaf.shape for name, leaf in arrays.items()}:
            raise ValueError("its arrays do not fit its description")
        if not all(np.isfinite(leaf).all() for leaf in arrays.values()):
            raise ValueError("it holds values that are not finite")
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file: name a forecaster written by `cenas forecast fit`") from None
    except (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(
            f"{path}: damaged, or not a forecaster of this version ({' '.join(str(error).split())}): "
            "fit it again with `cenas forecast fit`"
        ) from None
    leaves = [jnp.asarray(arrays[name]) for name in expected]
    state = jax.tree.unflatten(jax.tree.structure(state), leaves)
    return fitted(config, factor, state, description["info"])


def load_shipped(zone: str) -> Fitted:
    """The forecaster of intensities alone that ships with the package: that of the zone, or the generic one.

    CISO, DE and PJM (also by their Electricity Maps names, and the synthetic traces like them) have their own.
    """
    name = _SHIPPED_OF_ZONE.get(zone.lower().removeprefix("synthetic-"), "generic")
    with resources.as_file(resources.files("cenas_jax.training") / "shipped" / f"{name}.npz") as path:
        return load_forecaster(path)


def _config(document: dict) -> FitConfig:
    """`FitConfig` from its JSON form; `TypeError` for unknown fields."""
    parts = {"network": CarbonTransformerConfig(**document["network"]), "loss": LossConfig(**document["loss"])}
    return FitConfig(**{**document, **parts})


def _named(state: TransformerState) -> dict[str, Any]:
    """Arrays, or their shapes, by their path in the state."""
    leaves, _ = jax.tree.flatten_with_path(state)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _abstract_state(config: FitConfig, sources: int, arrays) -> TransformerState:
    """Shapes of the state of such a forecaster; the number of weather variables is that of the file."""
    weather = arrays["scales/weather_mean"].shape[0]

    def make(key):
        scales = Scales(jnp.zeros(()), jnp.ones(()), jnp.zeros(weather), jnp.ones(weather))
        window = Window(
            jnp.zeros((), jnp.int32),
            History(
                jnp.ones(HISTORY_H),
                jnp.ones((HISTORY_H, sources)),
                jnp.zeros((HISTORY_H, weather)),
                jnp.ones((HISTORY_H, sources)),
            ),
            KnownFuture(jnp.zeros((HORIZON_H, weather)), jnp.ones((HORIZON_H, sources))),
        )
        features = features_of(window, scales)
        network = network_of(config, sources)
        params = jax.vmap(lambda key: network.init(key, features.history, features.future))
        return TransformerState(params(jax.random.split(key, config.members)), scales)

    return jax.eval_shape(make, jax.random.key(0))
