"""Synthetic benchmarks: tables with the shape of real ones for any enumerable space, from a seed.

For tests, for users without data, and for training policies on many benchmarks. The recipe is this project's own; its
default coefficients were set by eye so that a NAS-Bench-201-sized space has the percentiles of real CIFAR-10 tables.
"""

import functools
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from cenas_jax.benchmarks.base import Benchmark, benchmark_table
from cenas_jax.benchmarks.noise import noisy_estimates
from cenas_jax.spaces.base import SearchSpace, with_distinct_isomorphs


@dataclass(frozen=True)
class SyntheticBenchmarkConfig:
    """Shape of a synthetic benchmark. Accuracies in per cent, costs in arbitrary units."""

    best_accuracy: float = 94.4
    """What accuracy saturates towards."""
    median_accuracy: float = 90.7
    """Of the architectures outside the broken region."""
    chance_accuracy: float = 10.0
    """What architectures in the broken region score."""
    accuracy_spread: float = 0.75
    """Standard deviation of the logarithm of the distance to `best_accuracy`."""
    interaction_share: float = 0.3
    """Share of the latent quality's variance that comes from pairs of choices rather than single ones (0 .. 1)."""
    compute_effect: float = 0.5
    """How far a choice's compute, rather than luck, decides its quality (0 .. 1): the conflict with cost."""
    broken_share: float = 0.02
    """Share of architectures that barely train: those with the weakest choices at the most important entries."""
    seed_noise: float = 0.15
    """Standard deviation of accuracy between trainings, in per cent."""
    num_costs: int = 1
    """Costs beside accuracy; each has coefficients of its own."""
    cost_range: tuple[float, float] = (2.0, 48.0)
    """Lowest and highest cost of the table, before its measurement noise."""
    cost_noise: float = 0.03
    """Standard deviation of the logarithm of a measured cost."""
    estimate_tau: float = 0.5
    """Kendall tau-b between the accuracies and their estimates (0 < tau < 1)."""
    mean_train_time_s: float = 3600.0
    estimate_time_s: float = 10.0
    supernet_time_s: float = 11_000.0

    def __post_init__(self) -> None:
        if not 0 <= self.chance_accuracy < self.median_accuracy < self.best_accuracy <= 100:
            raise ValueError("synthetic benchmark: need 0 <= chance_accuracy < median_accuracy < best_accuracy <= 100")
        for name in ("interaction_share", "compute_effect", "broken_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"synthetic benchmark: {name} is {getattr(self, name)}, give 0 .. 1")
        for name in ("accuracy_spread", "seed_noise", "cost_noise"):
            if not 0 <= getattr(self, name) < np.inf:
                raise ValueError(f"synthetic benchmark: {name} is {getattr(self, name)}, give 0 or more")
        if not 0 < self.estimate_tau < 1:
            raise ValueError(f"synthetic benchmark: estimate_tau is {self.estimate_tau}, give a value between 0 and 1")
        if self.num_costs < 1:
            raise ValueError(f"synthetic benchmark: num_costs is {self.num_costs}, give 1 or more")
        if not 0 < self.cost_range[0] < self.cost_range[1]:
            raise ValueError(f"synthetic benchmark: cost_range is {self.cost_range}, give 0 < lowest < highest")
        if not (self.mean_train_time_s > 0 and self.estimate_time_s > 0 and self.supernet_time_s >= 0):
            raise ValueError("synthetic benchmark: times must be positive (supernet_time_s may be 0)")


class SyntheticColumns(NamedTuple):
    """Columns of a synthetic table, not yet negated."""

    accuracy: Float[Array, " N"]
    accuracy_estimate: Float[Array, " N"]
    costs: Float[Array, "N c"]
    train_time_s: Float[Array, " N"]


def synthetic_benchmark(
    key_or_seed: Key[Array, ""] | int, space: SearchSpace, config: SyntheticBenchmarkConfig | None = None
) -> Benchmark:
    """A benchmark generated from a seed (or key); the same seed, space and config give the same table.

    `space`: any that can be enumerated and has one ordinal feature for each entry (tabular spaces).
    Objectives: accuracy, then `num_costs` costs, negated. Reference point: accuracy 0, costs 2 % above the maximum.
    """
    config = config or SyntheticBenchmarkConfig()
    key = jax.random.key(key_or_seed) if isinstance(key_or_seed, int) else key_or_seed
    codes = space.codes(jnp.arange(space.size))
    columns = synthetic_columns(key, codes, space.features(codes), space.num_choices, config)
    accuracy, costs = np.asarray(columns.accuracy), np.asarray(columns.costs)
    table = benchmark_table(
        objectives=np.column_stack([accuracy, -costs]),
        estimates=np.column_stack([np.asarray(columns.accuracy_estimate), -costs]),
        train_time_s=np.asarray(columns.train_time_s),
        estimate_time_s=config.estimate_time_s,
        supernet_time_s=config.supernet_time_s,
        reference_point=np.concatenate([[0.0], -1.02 * costs.max(axis=0)]),
    )
    named = f"seed {key_or_seed}" if isinstance(key_or_seed, int) else "a given key"
    return Benchmark(
        space=with_distinct_isomorphs(space),  # a table that is made up tells all architectures apart
        table=table,
        objective_names=("synthetic_accuracy", *(f"synthetic_cost_{i}" for i in range(config.num_costs))),
        units=("%", *("arbitrary",) * config.num_costs),
        estimate_name=f"synthetic-{config.estimate_tau:g}",
        source=f"synthetic benchmark of cenas_jax on the space {space.name}, from {named}",
        synthetic=True,
    )


def synthetic_columns(
    key: Key[Array, ""],
    codes: Int[Array, "N d"],
    features: Float[Array, "N d"],
    num_choices: tuple[int, ...],
    config: SyntheticBenchmarkConfig,
) -> SyntheticColumns:
    """The columns for all architectures of a space (`codes` and ordinal `features`); pure, also under `vmap` over keys.

    Quality is latent: effects of single choices plus interactions of pairs of choices, standardised over the table. The
    distance to `best_accuracy` is log-normal in it, so accuracy saturates; the broken region falls to chance.
    A cost mixes the sum of its choices' costs with the largest of them (parallel paths) and with interactions; training
    time follows the first cost. Estimates are accuracies with calibrated noise and may leave 0 .. 100.

    Compiled once for a space and a number of costs, as the config's other numbers are traced.
    """
    numbers = asdict(config)
    return _columns(key, codes, features, num_choices, numbers.pop("num_costs"), numbers)


@functools.partial(jax.jit, static_argnums=(3, 4))
def _columns(key, codes, features, num_choices, num_costs: int, numbers: dict[str, Any]) -> SyntheticColumns:
    key_quality, key_broken, key_seed, key_cost, key_time, key_estimate = jax.random.split(key, 6)
    choices = _choices(codes, features, num_choices)

    latent = _latent_quality(key_quality, choices, numbers)
    best, chance = numbers["best_accuracy"], numbers["chance_accuracy"]
    distance = (best - numbers["median_accuracy"]) * jnp.exp(-numbers["accuracy_spread"] * latent)
    trained = jnp.maximum(best - distance, chance)
    accuracy = jnp.where(_is_broken(key_broken, choices, numbers["broken_share"]), chance, trained)
    noise = numbers["seed_noise"] * jax.random.normal(key_seed, accuracy.shape, jnp.float32)
    accuracy = jnp.clip(accuracy + noise, 0, 100)

    cost_keys = jax.random.split(key_cost, num_costs)
    costs = jnp.stack([_cost(cost_key, choices, numbers) for cost_key in cost_keys], axis=1)
    jitter = jnp.exp(0.1 * jax.random.normal(key_time, accuracy.shape, jnp.float32))
    train_time_s = numbers["mean_train_time_s"] * (0.3 + 0.7 * costs[:, 0] / jnp.mean(costs[:, 0])) * jitter
    return SyntheticColumns(
        accuracy=accuracy,
        accuracy_estimate=noisy_estimates(key_estimate, accuracy, numbers["estimate_tau"]),
        costs=costs,
        train_time_s=train_time_s,
    )


class _Choices(NamedTuple):
    one_hot: Float[Array, "N h"]
    """Which of the space's `h = sum(num_choices)` choices each architecture makes."""
    compute: Float[Array, "N d"]
    """Each choice's compute, 0 .. 1 within its entry."""
    choice_compute: Float[Array, " h"]
    entry: np.ndarray
    """`int[h]`: the entry that each choice belongs to."""


def _choices(codes: Int[Array, "N d"], features: Float[Array, "N d"], num_choices: tuple[int, ...]) -> _Choices:
    entry = np.repeat(np.arange(len(num_choices)), num_choices)
    choice = np.concatenate([np.arange(count) for count in num_choices])
    one_hot = (codes[:, entry] == choice[None, :]).astype(jnp.float32)
    low, high = jnp.min(features, axis=0), jnp.max(features, axis=0)
    compute = (features - low[None, :]) / jnp.where(high > low, high - low, 1.0)[None, :]
    choice_compute = jnp.sum(one_hot * compute[:, entry], axis=0) / jnp.sum(one_hot, axis=0)
    return _Choices(one_hot, compute, choice_compute, entry)


def _standardised(values: Float[Array, " n"]) -> Float[Array, " n"]:
    """Mean 0, standard deviation 1; zeros where all values are equal."""
    centred = values - jnp.mean(values)
    deviation = jnp.std(values)
    return jnp.where(deviation > 0, centred / jnp.where(deviation > 0, deviation, 1.0), 0.0)


def _interactions(key: Key[Array, ""], choices: _Choices) -> Float[Array, " N"]:
    """One random term for every pair of choices of different entries, summed per architecture and standardised."""
    num = len(choices.entry)
    different = choices.entry[:, None] < choices.entry[None, :]
    terms = jnp.where(different, jax.random.normal(key, (num, num), jnp.float32), 0.0)
    partners = jnp.matmul(choices.one_hot, terms, precision="highest")
    return _standardised(jnp.sum(partners * choices.one_hot, axis=1))


def _entry_weights(key: Key[Array, ""], choices: _Choices) -> Float[Array, " d"]:
    """How much each entry matters; log-normal."""
    return jnp.exp(0.5 * jax.random.normal(key, (choices.compute.shape[1],), jnp.float32))


def _latent_quality(key: Key[Array, ""], choices: _Choices, numbers: dict[str, Any]) -> Float[Array, " N"]:
    key_weights, key_luck, key_pairs = jax.random.split(key, 3)
    luck = jax.random.normal(key_luck, choices.choice_compute.shape, jnp.float32)
    by_compute = numbers["compute_effect"]
    effect = by_compute * _standardised(choices.choice_compute) + (1 - by_compute) * luck
    effect = effect * _entry_weights(key_weights, choices)[choices.entry]
    single = _standardised(jnp.matmul(choices.one_hot, effect, precision="highest"))
    pairs = _interactions(key_pairs, choices)
    share = numbers["interaction_share"]
    return _standardised(jnp.sqrt(1 - share) * single + jnp.sqrt(share) * pairs)


def _is_broken(key: Key[Array, ""], choices: _Choices, share: Float[Array, ""]) -> Bool[Array, " N"]:
    key_weights, key_ties = jax.random.split(key)
    weakest = (choices.compute == 0) * _entry_weights(key_weights, choices)[None, :]
    weakness = jnp.sum(weakest, axis=1) + 1e-3 * jax.random.normal(key_ties, (len(weakest),), jnp.float32)
    return weakness > jnp.quantile(weakness, 1 - share)


def _cost(key: Key[Array, ""], choices: _Choices, numbers: dict[str, Any]) -> Float[Array, " N"]:
    key_choice, key_pairs, key_noise = jax.random.split(key, 3)
    spread = jnp.exp(0.4 * jax.random.normal(key_choice, choices.choice_compute.shape, jnp.float32))
    choice_cost = (0.1 + choices.choice_compute) * spread
    paid = choices.one_hot * choice_cost[None, :]
    num_entries = choices.compute.shape[1]
    raw = 0.7 * jnp.sum(paid, axis=1) + 0.3 * num_entries * jnp.max(paid, axis=1)
    raw = raw * jnp.exp(0.1 * _interactions(key_pairs, choices))
    low, high = numbers["cost_range"]
    scaled = low + (high - low) * (raw - jnp.min(raw)) / (jnp.max(raw) - jnp.min(raw))
    return scaled * jnp.exp(numbers["cost_noise"] * jax.random.normal(key_noise, scaled.shape, jnp.float32))
