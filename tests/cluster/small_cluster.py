"""A small simulated cluster whose searches compile once and run in milliseconds."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cenas_jax.allocation import PlainParams, plain_params, plain_policy
from cenas_jax.benchmarks import SyntheticBenchmarkConfig, synthetic_benchmark
from cenas_jax.carbon import Budget, PowerModel
from cenas_jax.carbon.power import measured
from cenas_jax.cluster.simulated import simulated_cluster
from cenas_jax.cluster.simulation import simulate
from cenas_jax.cluster.state import ClusterConfig, ClusterParams
from cenas_jax.search import LamooConfig, lamoo_search
from cenas_jax.search.lamoo import TreeConfig
from cenas_jax.spaces import tabular_space

HOURS = 8
SEARCHES = 125
"""Of one batch: every test uses the same size, so that it compiles once."""
CONFIG = ClusterConfig(slots=4, initial_design=5, queue_capacity=12, screen_per_interval=24, window_h=6, capacity=64)
SPACE = tabular_space("small", (tuple("abcde"),) * 4)
TABLE = synthetic_benchmark(
    3, SPACE, SyntheticBenchmarkConfig(supernet_time_s=5000.0, estimate_time_s=20.0, mean_train_time_s=4000.0)
).table
SEARCHER = lamoo_search(
    SPACE, TABLE.reference_point, LamooConfig(capacity=CONFIG.capacity, tree=TreeConfig(depth=2, min_samples=6))
)
ENVIRONMENT = simulated_cluster(SPACE, TABLE, SEARCHER, CONFIG, HOURS)


def search(key, params, policy_params):
    return simulate(key, ENVIRONMENT, plain_policy(CONFIG.slots), params, policy_params, HOURS)


simulate_one = jax.jit(search)
simulate_many = jax.jit(jax.vmap(search))
reset, step = jax.jit(ENVIRONMENT.reset), jax.jit(ENVIRONMENT.step)


def cluster_params(
    intensity: Any = 300.0, power: PowerModel | None = None, budget: Budget | None = None, screens_on: bool = False
) -> ClusterParams:
    """`intensity`: of every hour, or one value for each hour of the window and the search."""
    power, budget = power or measured(), budget or Budget()
    hours = np.broadcast_to(np.asarray(intensity, np.float32), CONFIG.window_h + HOURS)
    return ClusterParams(
        intensity_g_per_kwh=jnp.asarray(hours),
        forecast_g_per_kwh=jnp.zeros((HOURS, CONFIG.forecast_h)),
        power=jax.tree.map(jnp.float32, power.params()),
        budget=jax.tree.map(jnp.float32, budget.params()),
        charge_initial_design=jnp.asarray(power.charge_initial_design),
        screens_on=jnp.asarray(screens_on),
    )


def random_searches(seed: int, count: int = SEARCHES) -> tuple[jax.Array, ClusterParams, PlainParams]:
    """Keys, cluster and policy parameters of `count` searches in which everything that may differ does."""
    random = np.random.default_rng(seed)
    slots, kinds = CONFIG.slots, ("vanilla", "heuristic", "threshold", "one-shot", "fixed-0", "fixed-1", "fixed-3")
    params, policies = [], []
    for _ in range(count):
        intensity = random.uniform(10, 900) * random.uniform(0.3, 1.7, CONFIG.window_h + HOURS)
        intensity[: random.integers(CONFIG.window_h + 1)] = np.nan
        watts = np.round(random.uniform(0, 1000, 4) * (random.random(4) < 0.8), 1)
        power = PowerModel(
            *watts,
            pue=random.uniform(1, 2),
            idle_slots=random.random() < 0.5,
            charge_initial_design=random.random() < 0.7,
        )
        limited = random.random(4) < 0.4
        budget = Budget(
            hours=float(random.uniform(0.2, HOURS)) if limited[0] else None,
            carbon_g=math.exp(random.uniform(math.log(5), math.log(6000))) if limited[1] else None,
            energy_kwh=math.exp(random.uniform(math.log(0.05), math.log(15))) if limited[2] else None,
            evaluations=int(random.integers(CONFIG.initial_design, 60)) if limited[3] else None,
        )
        params.append(cluster_params(intensity, power, budget))
        name = kinds[random.integers(len(kinds))]
        params[-1] = params[-1]._replace(screens_on=jnp.asarray(name == "one-shot"))
        policies.append(plain_params(name, slots, threshold=random.uniform(0, 1), reserve_share=random.uniform(0, 0.9)))
    stack = lambda trees: jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *trees)  # noqa: E731
    return jax.random.split(jax.random.key(seed), count), stack(params), stack(policies)
