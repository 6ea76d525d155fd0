"""Fitting the transformer forecaster: an ensemble trained side by side, stopped early, resumable.

A chunk of steps is one jitted scan, vmapped over the members; each member draws its own windows. The forecast comes
from a running average of the weights, so that the best moment to stop needs no learning-rate schedule.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key

from cenas_jax.forecast import transformer
from cenas_jax.forecast.base import POINT, Forecaster
from cenas_jax.forecast.features import Scales, features_of, hide_forecasts, scales_of
from cenas_jax.forecast.grid import LOWEST_G_PER_KWH, GridRecord
from cenas_jax.forecast.transformer import LossConfig, TransformerState
from cenas_jax.forecast.windows import HORIZON_H, GridArrays, actual_at, to_device, window_at
from cenas_jax.nets import CarbonTransformerConfig, Network, carbon_transformer
from cenas_jax.training.checkpoints import digest, latest, save


@dataclass(frozen=True)
class FitConfig:
    """How a forecaster is fitted. The defaults were chosen on January to June 2021 of CISO, DE and PJM."""

    network: CarbonTransformerConfig = field(default_factory=CarbonTransformerConfig)
    loss: LossConfig = field(default_factory=lambda: LossConfig(shape=1.0))
    members: int = 5
    """Networks in the ensemble."""
    batch: int = 32
    """Windows a step and member."""
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    average: float = 0.98
    """Share of the running average of the weights that a step keeps."""
    warm_up_steps: int = 20
    hide_share: float = 0.15
    """Share of windows that lose their source forecasts, so that the network can do without."""
    most_steps: int = 800
    chunk_steps: int = 50
    """Steps between two looks at the validation error (and two checkpoints)."""
    patience: int = 4
    """Chunks without a better validation error before the fit stops."""


def history_only() -> FitConfig:
    """For intensities alone, of many grids together: wider, and with a linear path from the history."""
    network = CarbonTransformerConfig(width=64, hour_width=16, hidden=64, dropout=0.2, direct=True)
    return FitConfig(network=network, loss=LossConfig(), members=3, batch=64, most_steps=1200)


def fine_tuning() -> FitConfig:
    """To go on from a `history_only` forecaster on one grid."""
    return replace(history_only(), learning_rate=1e-3, chunk_steps=25, most_steps=400)


class FitState(NamedTuple):
    """Everything a fit needs to go on; arrays of networks have a leading axis of members."""

    step: Int[Array, ""]
    params: Any
    optimiser: Any
    average: Any
    best: Any
    """The average at the least validation error."""
    best_error: Float[Array, ""]
    best_step: Int[Array, ""]


class FitInfo(NamedTuple):
    """After a chunk. `error` is the validation MAPE in percent over all 96 h; NaN without validation rows."""

    step: int
    loss: float
    error: float
    best_step: int


class Fitted(NamedTuple):
    forecaster: Forecaster
    state: TransformerState
    config: FitConfig
    factor_g_per_kwh: tuple[float, ...]
    """Emission factors of the grid's sources; empty for a forecaster of intensities alone."""
    info: dict[str, Any]
    """Plain data: what it was fitted on (`zone`, `fitted_until`, ...) and how (`steps`, `validation_mape`, ...)."""


def fitted(config: FitConfig, factor_g_per_kwh: tuple[float, ...], state: TransformerState, info) -> Fitted:
    """A forecaster from its parts; its own `fit` raises, as it is fitted already."""

    return Fitted(_forecaster(config, factor_g_per_kwh), state, config, factor_g_per_kwh, info)


@functools.cache
def _forecaster(config: FitConfig, factor_g_per_kwh: tuple[float, ...]) -> Forecaster:
    def no_fit(key, grid, rows):
        raise TypeError("this forecaster is fitted already: use its state")

    network = network_of(config, len(factor_g_per_kwh))
    return Forecaster(no_fit, functools.partial(transformer.predict, network, factor_g_per_kwh))


@functools.lru_cache
def network_of(config: FitConfig, sources: int) -> Network:
    """The network of a grid of so many sources."""
    return carbon_transformer(config.network, transformer.output_size(sources))


def fit(
    key: Key[Array, ""],
    grid: GridRecord,
    rows: np.ndarray,
    config: FitConfig = FitConfig(),  # noqa: B008 (frozen)
    *,
    validation_rows: np.ndarray | None = None,
    steps: int | None = None,
    initial: Fitted | None = None,
    checkpoints: str | Path | None = None,
    progress: Callable[[FitInfo], None] = lambda info: None,
) -> Fitted:
    """Fits an ensemble on the windows issued at `rows`; their horizons are learnt from, so they must be over.

    Args:
        validation_rows: issue rows whose error decides when to stop; the weights of least error are kept.
        steps: instead of validation rows, how long to train; rounded up to whole chunks.
        initial: a forecaster with a network of the same config, to go on from.
        checkpoints: a folder; the state is saved there after every chunk, and a fit that finds one goes on from it, to
            the very weights of an uninterrupted one. `ValueError` where it belongs to another fit.
    """
    if (validation_rows is None) == (steps is None):
        raise ValueError("fit: give either validation_rows (stop early) or steps (train so long)")
    arrays, factor, learnt = to_device(grid), grid.factor_g_per_kwh, jnp.asarray(rows)
    program = _program(config, factor)
    scales = scales_of(grid, int(np.max(rows)) + HORIZON_H)
    state = program.start(key, arrays, learnt, scales)
    if initial is not None:
        weights = initial.state.params
        state = state._replace(params=weights, average=weights, best=weights)
        if validation_rows is not None:  # going on may not help at all
            state = state._replace(best_error=program.error(weights, arrays, jnp.asarray(validation_rows), scales))
    if checkpoints is not None:
        identity = {
            "zone": grid.zone,
            "config": repr(config),
            "steps": steps,
            "key": jax.random.key_data(key).tolist(),
            "read": digest((arrays, factor, rows, validation_rows, None if initial is None else initial.state)),
        }
        state = latest(checkpoints, state, identity)
    while int(state.step) < (config.most_steps if steps is None else steps):
        if int(state.step - state.best_step) >= config.patience * config.chunk_steps and steps is None:
            break
        state, loss = program.chunk(state, key, arrays, learnt, scales)
        error = np.nan
        if validation_rows is not None:
            error = program.error(state.average, arrays, jnp.asarray(validation_rows), scales)
            if error < state.best_error:
                state = state._replace(best=state.average, best_error=error, best_step=state.step)
        if checkpoints is not None:
            save(checkpoints, state, identity)
        progress(FitInfo(int(state.step), float(loss), float(error), int(state.best_step)))
    info = {
        "zone": grid.zone,
        "source": grid.source,
        "fitted_until": f"{grid.start + np.timedelta64(int(np.max(rows)) + HORIZON_H, 'h')}Z",
        "windows": len(rows),
        "steps": int(state.step if validation_rows is None else state.best_step),
        "validation_mape": None if validation_rows is None else round(float(state.best_error), 3),
    }
    chosen = state.average if validation_rows is None else state.best
    return fitted(config, factor, TransformerState(chosen, scales), info)


class _Program(NamedTuple):
    """The compiled parts of a fit, one a config and number of sources."""

    start: Callable[..., FitState]
    chunk: Callable[..., tuple[FitState, Array]]
    """`chunk_steps` steps of all members: `(state, key, grid, rows, scales) -> (state, mean loss)`."""
    error: Callable[..., Array]
    """MAPE (%) of the ensemble over the valid hours of the rows' horizons: `(params, grid, rows, scales)`."""


@functools.lru_cache
def _program(config: FitConfig, factor_g_per_kwh: tuple[float, ...]) -> _Program:
    network = network_of(config, len(factor_g_per_kwh))
    optimiser = _optimiser(config)
    member_step = _member_step(config, network, optimiser, factor_g_per_kwh)

    @jax.jit
    def start(key, grid: GridArrays, rows, scales: Scales) -> FitState:
        features = features_of(window_at(grid, rows[0]), scales)

        def member(key):
            params = network.init(key, features.history, features.future)
            return params, optimiser.init(params)

        params, optimiser_state = jax.vmap(member)(jax.random.split(jax.random.fold_in(key, 0), config.members))
        zero = jnp.zeros((), jnp.int32)
        return FitState(zero, params, optimiser_state, params, params, jnp.asarray(jnp.inf, jnp.float32), zero)

    @jax.jit
    def chunk(state: FitState, key, grid, rows, scales):
        def step(networks, number):
            keys = jax.random.split(jax.random.fold_in(key, 1 + number), config.members)
            params, optimiser_state, average = networks
            *networks, loss = jax.vmap(member_step, (0, 0, 0, 0, None, None, None))(
                params, optimiser_state, average, keys, grid, rows, scales
            )
            return tuple(networks), loss.mean()

        numbers = state.step + jnp.arange(config.chunk_steps)
        networks, losses = jax.lax.scan(step, (state.params, state.optimiser, state.average), numbers)
        params, optimiser_state, average = networks
        done = state.step + config.chunk_steps
        return state._replace(step=done, params=params, optimiser=optimiser_state, average=average), losses.mean()

    @jax.jit
    def error(params, grid, rows, scales):
        def of_row(row):
            actual = actual_at(grid, row)
            state = TransformerState(params, scales)
            point = transformer.predict(network, factor_g_per_kwh, state, window_at(grid, row))[:, POINT]
            relative = jnp.abs(point / jnp.maximum(actual.intensity_g_per_kwh, LOWEST_G_PER_KWH) - 1)
            return jnp.where(actual.valid, relative, 0).sum(), actual.valid.sum()

        total, count = jax.lax.map(of_row, rows, batch_size=128)
        return 100 * total.sum() / jnp.maximum(count.sum(), 1)

    return _Program(start, chunk, error)


def _member_step(config: FitConfig, network: Network, optimiser, factor_g_per_kwh: tuple[float, ...]):
    """One step of one network: `(params, optimiser, average, key, grid, rows, scales) -> (three of them, loss)`."""

    def window_loss(params, row, hidden, key, grid, scales):
        window = hide_forecasts(window_at(grid, row), hidden)
        features = features_of(window, scales)
        outputs = network.apply(params, features.history, features.future, key=key)
        prediction = transformer.read_out(outputs, features, factor_g_per_kwh)
        return transformer.forecast_loss(prediction, actual_at(grid, row), factor_g_per_kwh, config.loss)

    def step(params, optimiser_state, average, key, grid, rows, scales):
        key_rows, key_hide, key_dropout = jax.random.split(key, 3)
        drawn = jax.random.choice(key_rows, rows, (config.batch,))
        hidden = jax.random.bernoulli(key_hide, config.hide_share, (config.batch,))
        keys = jax.random.split(key_dropout, config.batch)

        def loss_of(params):
            losses = jax.vmap(window_loss, (None, 0, 0, 0, None, None))(params, drawn, hidden, keys, grid, scales)
            return losses.mean()

        loss, gradient = jax.value_and_grad(loss_of)(params)
        update, optimiser_state = optimiser.update(gradient, optimiser_state, params)
        params = optax.apply_updates(params, update)
        average = optax.incremental_update(params, average, 1 - config.average)
        return params, optimiser_state, average, loss

    return step


def _optimiser(config: FitConfig) -> optax.GradientTransformation:
    rate = optax.linear_schedule(0.0, config.learning_rate, config.warm_up_steps)
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(rate, weight_decay=config.weight_decay))
