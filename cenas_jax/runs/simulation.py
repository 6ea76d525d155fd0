"""All searches of `cenas simulate` as one compiled call: policies and seeds are data, under `vmap`."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool

from cenas_jax.allocation import plain_params, plain_policy
from cenas_jax.allocation.policies import Policy, one_of
from cenas_jax.benchmarks import Benchmark, SyntheticBenchmarkConfig, nas_bench_201_benchmark, synthetic_benchmark
from cenas_jax.carbon.ledger import JOULES_PER_KWH
from cenas_jax.cluster.simulated import INTERVAL_S, simulated_cluster
from cenas_jax.cluster.simulation import SimulationResult, check_overflow, simulate
from cenas_jax.cluster.state import ClusterConfig, ClusterParams
from cenas_jax.config import SimulateConfig, is_learned, synthetic_tau
from cenas_jax.pareto import non_dominated_mask
from cenas_jax.runs.inputs import Inputs
from cenas_jax.search import LamooConfig, Searcher, lamoo_search, random_search
from cenas_jax.search.lamoo import SVMConfig, TreeConfig
from cenas_jax.spaces.nas_bench_201 import nas_bench_201

if TYPE_CHECKING:
    from cenas_jax.training.saved_policy import LearnedPolicy

LARGEST_RESERVE_SHARE = 0.9
SMALLEST_CAPACITY, SPARE_CAPACITY = 64, 1.5


class Simulation(NamedTuple):
    """Searches that are ready to compile: `batch(*arguments)`, with leading axes (policies, seeds)."""

    inputs: Inputs
    benchmark: Benchmark
    reserve_share: float
    """Of the policy one-shot."""
    batch: Callable[..., tuple[SimulationResult, jax.Array]]
    arguments: tuple


class SimulationRun(NamedTuple):
    """Finished searches on the host; arrays have leading axes (policies, seeds)."""

    inputs: Inputs
    benchmark: Benchmark
    reserve_share: float
    result: SimulationResult
    on_front: Bool[np.ndarray, "policies seeds capacity"]
    """Which of the evaluated architectures (rows of `result.evaluated`) no other one of the search dominates."""
    table_front: Bool[np.ndarray, " size"]
    """Which architectures of the whole table no other one dominates."""


def load_benchmark(config: SimulateConfig) -> Benchmark:
    """The benchmark of a settled config; `ValueError` for unknown names, missing or unsound files."""
    options = config.benchmark
    assert options.estimate is not None  # settled
    if options.benchmark == "synthetic":
        synthetic = SyntheticBenchmarkConfig(estimate_tau=synthetic_tau(options.estimate))
        return synthetic_benchmark(options.data_seed, nas_bench_201(), synthetic)
    assert options.data is not None and options.objectives is not None
    return nas_bench_201_benchmark(options.data, options.objectives, options.estimate, seed=options.data_seed)


def prepare(inputs: Inputs, benchmark: Benchmark) -> Simulation:
    """Searcher, cluster and policies of the inputs' config, its capacity decided; `ValueError` where they clash."""
    inputs = inputs._replace(config=with_capacity(inputs.config, benchmark))
    config, capacity = inputs.config, int(inputs.config.cluster.capacity or 0)
    reserve_share = reserve_for_one_shot(inputs, benchmark)
    policy, policy_params = policies_of(config, reserve_share)
    search = search_function(config, benchmark, policy, inputs.forecast_g_per_kwh.shape[1])

    def batch(keys, params, policy_params):
        by_seed = jax.vmap(search, (0, None, None))
        by_policy = jax.tree.map(lambda _: None, params)._replace(screens_on=0)
        result = jax.vmap(by_seed, (None, by_policy, 0))(keys, params, policy_params)
        valid = jnp.arange(capacity)[None, None, :] < result.count[:, :, None]
        fronts = jax.vmap(jax.vmap(non_dominated_mask))
        return result, fronts(benchmark.table.objectives[result.evaluated], valid)

    screens_on = jnp.array([screens_every_hour(name) for name in config.policies.policy])
    arguments = (search_keys(config), cluster_params(inputs)._replace(screens_on=screens_on), policy_params)
    return Simulation(inputs, benchmark, reserve_share, batch, arguments)


def with_capacity(config: SimulateConfig, benchmark: Benchmark) -> SimulateConfig:
    """The config, its capacity decided."""
    capacity = config.cluster.capacity or _enough_capacity(config, benchmark)
    return replace(config, cluster=replace(config.cluster, capacity=capacity))


def search_function(
    config: SimulateConfig, benchmark: Benchmark, policy: Policy, forecast_h: int
) -> Callable[[jax.Array, ClusterParams, Any], SimulationResult]:
    """`(key, params, policy_params) -> result` of one search; pure, under `jit` and `vmap`. The config has a capacity.

    `ValueError` where config and benchmark clash.
    """
    assert config.cluster.capacity is not None
    cluster = ClusterConfig(
        slots=config.cluster.slots,
        initial_design=config.cluster.initial_design,
        queue_capacity=config.cluster.queue_capacity,
        screen_per_interval=config.cluster.screen_per_interval,
        window_h=config.cluster.window_h,
        forecast_h=forecast_h,
        capacity=config.cluster.capacity,
    )
    hours, searcher = config.limits.hours, _searcher(config, benchmark, config.cluster.capacity)
    environment = simulated_cluster(benchmark.space, benchmark.table, searcher, cluster, hours)
    return lambda key, params, policy_params: simulate(key, environment, policy, params, policy_params, hours)


def cluster_params(inputs: Inputs) -> ClusterParams:
    """Of any policy; `screens_on` is for who knows which, by `screens_every_hour`."""
    return ClusterParams(
        intensity_g_per_kwh=jnp.asarray(inputs.intensity_g_per_kwh),
        forecast_g_per_kwh=jnp.asarray(inputs.forecast_g_per_kwh),
        power=jax.tree.map(jnp.float32, inputs.power.params()),
        budget=jax.tree.map(jnp.float32, inputs.budget.params()),
        charge_initial_design=jnp.asarray(inputs.power.charge_initial_design),
    )


def screens_every_hour(policy: str) -> bool:
    """Whether searches by that policy are to have `ClusterParams.screens_on`."""
    return policy == "one-shot"


def search_keys(config: SimulateConfig) -> jax.Array:
    """One key a seed."""
    root = jax.random.key(config.policies.seed)
    return jax.vmap(lambda seed: jax.random.fold_in(root, seed))(jnp.arange(config.policies.seeds))


def compile_simulation(simulation: Simulation) -> Callable[[], SimulationRun]:
    """Compile once; the call that is returned carries the searches out and brings the results to the host."""
    compiled = jax.jit(simulation.batch).lower(*simulation.arguments).compile()

    def run() -> SimulationRun:
        result, on_front = jax.device_get(compiled(*simulation.arguments))
        objectives = simulation.benchmark.table.objectives
        table_front = non_dominated_mask(objectives, jnp.ones(objectives.shape[0], bool))
        return SimulationRun(
            simulation.inputs,
            simulation.benchmark,
            simulation.reserve_share,
            result,
            np.asarray(on_front),
            np.asarray(table_front),
        )

    return run


def refuse_overflow(run: SimulationRun) -> None:
    """`ValueError` where a search outgrew its capacity: its results would be wrong."""
    check_overflow(run.result.overflow, int(run.inputs.config.cluster.capacity or 0))


def reserve_for_one_shot(inputs: Inputs, benchmark: Benchmark) -> float:
    """What one-shot keeps back for the end: the share of time, carbon or energy that evaluating a full queue takes.

    At the mean training time and the hours' mean intensity; the greatest of the three, at most 0.9.
    """
    config, budget, power = inputs.config, inputs.budget, inputs.power
    train_s = config.cluster.queue_capacity * float(benchmark.table.train_time_s.mean())
    energy_kwh = train_s * power.evaluation_w * power.pue / JOULES_PER_KWH
    emissions_g = energy_kwh * float(inputs.trace.intensity_g_per_kwh.mean())
    shares = (
        train_s / config.cluster.slots / (config.limits.hours * INTERVAL_S),
        emissions_g / (budget.carbon_g or math.inf),
        energy_kwh / (budget.energy_kwh or math.inf),
    )
    return min(max(shares), LARGEST_RESERVE_SHARE)


def policies_of(config: SimulateConfig, reserve_share: float) -> tuple[Policy, Any]:
    """All policies of the config as one, and their params, stacked."""
    options, slots = config.policies, config.cluster.slots
    learned = [name for name in options.policy if is_learned(name)]
    policies, params = [plain_policy(slots)], []
    if learned:
        from cenas_jax.training.saved_policy import load_named  # with flax, which nothing else here needs

        policies += [enclosed_policy(load_named(name), slots) for name in learned]
    for name in options.policy:
        plain = plain_params(
            "fixed-0" if name in learned else name,
            slots,
            threshold=options.threshold,
            reserve_share=reserve_share,
            diminishing=options.diminishing,
        )
        which = jnp.asarray(1 + learned.index(name) if name in learned else 0, jnp.int32)
        params.append((which, (plain, *((),) * len(learned))))
    return one_of(policies), jax.tree.map(lambda *values: jnp.asarray(np.stack(values)), *params)


def enclosed_policy(learned: "LearnedPolicy", slots: int) -> Policy:
    """A learned policy, its weights enclosed: its params are `()`."""
    from cenas_jax.allocation.agent import agent, agent_policy

    inner = agent_policy(agent(learned.config, slots))
    return Policy(
        lambda nothing: (), lambda key, nothing, observation: (inner.act(key, learned.params, observation)[0], ())
    )


def _searcher(config: SimulateConfig, benchmark: Benchmark, capacity: int) -> Searcher:
    if config.search.searcher == "random":
        return random_search(benchmark.space)
    tree = TreeConfig(svm=SVMConfig(kernel=config.search.kernel))
    lamoo = LamooConfig(capacity=capacity, choice=config.search.choice, tree=tree)
    return lamoo_search(benchmark.space, benchmark.table.reference_point, lamoo)


def _enough_capacity(config: SimulateConfig, benchmark: Benchmark) -> int:
    """Room for 1.5 x the evaluations that the slots finish at the mean training time."""
    mean_s = float(benchmark.table.train_time_s.mean())
    finished = config.cluster.slots * config.limits.hours * INTERVAL_S / mean_s
    enough = max(SMALLEST_CAPACITY, math.ceil(SPARE_CAPACITY * finished), config.cluster.initial_design)
    return min(enough, benchmark.space.size)
