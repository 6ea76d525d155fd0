"""Fitted forecasters as files, and those that ship with the package."""

import dataclasses
from importlib import resources
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from cenas_jax.forecast.features import Scales, features_of
from cenas_jax.forecast.transformer import LossConfig, TransformerState
from cenas_jax.forecast.windows import HISTORY_H, HORIZON_H, History, KnownFuture, Window
from cenas_jax.nets import CarbonTransformerConfig
from cenas_jax.training.forecaster import FitConfig, Fitted, fitted, network_of
from cenas_jax.training.saved import Kind, load_learnt, save_learnt

KIND = Kind("carbon forecaster", 1, "cenas forecast fit")
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
    description = {
        "config": dataclasses.asdict(fit.config),
        "factor_g_per_kwh": list(fit.factor_g_per_kwh),
        "info": fit.info,
    }
    return save_learnt(path, KIND, description, fit.state)


def load_forecaster(path: str | Path) -> Fitted:
    """Reads a forecaster; `ValueError`, one line, where the file is missing, damaged, foreign or of another version."""

    def abstract(description, arrays):
        np.datetime64(description["info"]["fitted_until"].removesuffix("Z"))  # scores of a forecaster depend on it
        return _abstract_state(_config(description["config"]), len(description["factor_g_per_kwh"]), arrays)

    description, state = load_learnt(path, KIND, abstract)
    return fitted(_config(description["config"]), tuple(description["factor_g_per_kwh"]), state, description["info"])


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
