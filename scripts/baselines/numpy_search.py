"""The simulated carbon-aware search in NumPy, scikit-learn and moocore: the rival to time against, and an oracle.

The same rules as `cenas_jax.cluster.simulated` with `choice="estimate"`, written the way NumPy likes it: arrays of the
size that is needed, lists where there are few things, a region only when results have arrived, SVMs only on the path to
the chosen leaf, no work for a slot that has none. All in float64, except that the space is scored in float32.

Scoring 15,625 architectures by `SVC.decision_function` costs 20 ms (poly) or 44 ms (rbf) at 200 samples, a kernel matrix
1.1 or 6.4 ms, the monomials of the polynomial kernel 0.3 ms (one thread): the faster ones are used here.
"""

import heapq
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.pool import Pool
from typing import NamedTuple

import moocore
import numpy as np
from sklearn.svm import SVC
from threadpoolctl import threadpool_limits

from cenas_jax.carbon import BudgetParams, PowerParams

INTERVAL_S = 3600.0
JOULES_PER_KWH = 3.6e6
BUDGET_MARGIN = 1e-6


@dataclass(frozen=True)
class Problem:
    """A benchmark table as float64 arrays; objectives are maximised, all finite."""

    features: np.ndarray  # [size, f]
    objectives: np.ndarray  # [size, m]
    estimates: np.ndarray  # [size, m]; NaN where there is none
    train_time_s: np.ndarray  # [size]
    estimate_time_s: float
    supernet_time_s: float
    reference_point: np.ndarray  # [m]
    max_hypervolume: float
    isomorph: np.ndarray  # [size], the lowest index of each class

    @classmethod
    def of(cls, benchmark) -> "Problem":
        """From a `cenas_jax.benchmarks.Benchmark`."""
        import jax.numpy as jnp  # The search itself needs no jax.

        space, table = benchmark.space, benchmark.table
        return cls(
            features=np.asarray(space.features(space.codes(jnp.arange(space.size))), float),
            objectives=np.asarray(table.objectives, float),
            estimates=np.asarray(table.estimates, float),
            train_time_s=np.asarray(table.train_time_s, float),
            estimate_time_s=float(table.estimate_time_s),
            supernet_time_s=float(table.supernet_time_s),
            reference_point=np.asarray(table.reference_point, float),
            max_hypervolume=float(table.max_hypervolume),
            isomorph=np.asarray(space.isomorph),
        )


@dataclass(frozen=True)
class SearchConfig:
    """As `ClusterConfig`, `TreeConfig` and `SVMConfig`."""

    slots: int = 8
    initial_design: int = 10
    queue_capacity: int = 32
    screen_per_interval: int = 512
    window_h: int = 24
    depth: int = 3
    min_samples: int = 10
    exploration: float = 0.1
    kernel: str = "poly"
    degree: int = 4
    penalty: float = 1.0


class Job(NamedTuple):
    index: int
    remaining_s: float
    initial: bool


class Result(NamedTuple):
    """A finished search; activities in the order of `cenas_jax.carbon.ledger.ACTIVITIES`."""

    evaluated: list[int]
    hypervolume_share: np.ndarray  # [hours], after each
    evaluation_slots: np.ndarray  # [hours]
    screened: np.ndarray  # [hours]
    duration_s: np.ndarray  # [hours, 5]
    energy_kwh: np.ndarray  # [hours, 5]
    emissions_g: np.ndarray  # [hours, 5]


def dominance_counts(objectives: np.ndarray) -> np.ndarray:
    """How many rows strictly dominate each row: those no worse in all objectives, less its duplicates and itself."""
    no_worse = np.ones((len(objectives), len(objectives)), bool)
    for column in objectives.T:
        no_worse &= column[:, None] <= column[None, :]
    _, group, sizes = np.unique(objectives, axis=0, return_inverse=True, return_counts=True)
    return np.count_nonzero(no_worse, axis=1) - sizes[group]


def hypervolume(objectives: np.ndarray, reference_point: np.ndarray) -> float:
    return float(moocore.hypervolume(objectives, ref=reference_point, maximise=True))


class Split(NamedTuple):
    """One constraint of a region: the samples of a node, their labels, and which half the path takes."""

    rows: np.ndarray
    good: np.ndarray
    takes_good: bool


class Leaf(NamedTuple):
    place: int  # in heap order among `2**depth`; an early leaf stands at its leftmost descendant
    rows: np.ndarray
    path: tuple[Split, ...]


def partition(objectives: np.ndarray, reference_point: np.ndarray, config: SearchConfig) -> Leaf:
    """The leaf with the highest upper confidence bound; children by label, so that no SVM is needed here."""
    leaves = [Leaf(0, np.arange(len(objectives)), ())]
    for _ in range(config.depth):
        leaves = [child for leaf in leaves for child in _children(leaf, objectives, config)]
    weight = config.exploration * hypervolume(objectives, reference_point)

    def bound(leaf: Leaf) -> float:
        if not len(leaf.rows):
            return -math.inf
        parent = len(leaf.path[-1].rows) if leaf.path else 1
        bonus = 2 * weight * math.sqrt(2 * math.log(parent) / len(leaf.rows))
        return hypervolume(objectives[leaf.rows], reference_point) + bonus

    return max(leaves, key=bound)


def _children(leaf: Leaf, objectives: np.ndarray, config: SearchConfig) -> list[Leaf]:
    if len(leaf.rows) <= config.min_samples:
        return [leaf._replace(place=2 * leaf.place)]
    order = np.argsort(dominance_counts(objectives[leaf.rows]), kind="stable")
    good = np.zeros(len(leaf.rows), bool)
    good[order[: (len(order) + 1) // 2]] = True
    return [
        Leaf(2 * leaf.place + side, leaf.rows[half], (*leaf.path, Split(leaf.rows, good, side == 0)))
        for side, half in enumerate((good, ~good))
    ]


class RegionScorer:
    """Fits the SVMs of a path and tells how many of its constraints, root first, each architecture satisfies."""

    def __init__(self, features: np.ndarray, config: SearchConfig):
        if config.kernel not in ("poly", "rbf"):
            raise ValueError(f"kernel {config.kernel!r} is unknown: choose poly or rbf")
        self.features, self.config = features, config
        self.features32 = features.astype(np.float32)
        self.squares32 = (self.features32**2).sum(axis=1)
        if config.kernel == "poly":
            count = features.shape[1]
            factors = np.array(list(itertools.combinations_with_replacement(range(count), config.degree)))
            multiplicity = [
                math.factorial(config.degree) / math.prod(map(math.factorial, np.bincount(row))) for row in factors
            ]
            self.monomials32 = (np.prod(features[:, factors], axis=-1) * np.sqrt(multiplicity)).astype(np.float32)

    def depth(self, path: tuple[Split, ...], evaluated: np.ndarray) -> np.ndarray:
        """`int[size]`: `len(path)` inside the region. `evaluated` are the indices of the path's samples."""
        machines = [self._fit(evaluated[split.rows], split.good) for split in path]
        depth = np.zeros(len(self.features), int)
        inside = np.arange(len(depth))
        for split, machine in zip(path, machines, strict=True):
            if self.config.kernel == "poly":  # all rows are faster than a copy of some
                decision = self._poly_decision(machine, evaluated[split.rows])[inside]
            else:
                decision = self._rbf_decision(machine, inside)
            inside = inside[(decision > 0) == split.takes_good]
            depth[inside] += 1
        return depth

    def _fit(self, index: np.ndarray, good: np.ndarray) -> SVC:
        x = self.features[index]
        variance = x.var()
        gamma = 1 / (x.shape[1] * variance) if variance > 0 else 1.0
        config = self.config
        return SVC(kernel=config.kernel, degree=config.degree, gamma=gamma, C=config.penalty).fit(x, good)

    def _poly_decision(self, machine: SVC, samples: np.ndarray) -> np.ndarray:
        weights = machine.dual_coef_[0] @ self.monomials32[samples[machine.support_]]
        return (
            self.monomials32 @ (machine.gamma**self.config.degree * weights).astype(np.float32) + machine.intercept_[0]
        )

    def _rbf_decision(self, machine: SVC, rows: np.ndarray) -> np.ndarray:
        support = machine.support_vectors_.astype(np.float32)
        exponent = self.features32[rows] @ (2 * machine.gamma * support.T)
        exponent -= machine.gamma * self.squares32[rows, None]
        exponent -= machine.gamma * (support**2).sum(axis=1)
        return np.exp(exponent, out=exponent) @ machine.dual_coef_[0].astype(np.float32) + machine.intercept_[0]


def region(problem: Problem, config: SearchConfig, evaluated: np.ndarray, scorer: RegionScorer) -> np.ndarray:
    """`bool[size]`: which architectures lie in the region that the evaluated ones lead to."""
    leaf = partition(problem.objectives[evaluated], problem.reference_point, config)
    return scorer.depth(leaf.path, evaluated) == len(leaf.path)


def list_schedule(durations_s: list[float], evaluation_slots: int) -> tuple[list[float], list[float]]:
    """Start of every job, and when each evaluation slot runs out of work."""
    if not evaluation_slots:
        return [math.inf] * len(durations_s), []
    free = [(0.0, slot) for slot in range(evaluation_slots)]
    starts_s = []
    for duration_s in durations_s:
        start_s, slot = free[0]
        starts_s.append(start_s)
        heapq.heapreplace(free, (start_s + duration_s, slot))
    return starts_s, [free_s for free_s, _ in sorted(free, key=lambda pair: pair[1])]


def stop_time_s(
    busy_s: list[float], busy_power_w: list[float], idle_power_w: float, horizon_s: float, energy_left_kwh: float
) -> float:
    """When the energy is used up, by walking along the seconds at which a slot runs out of work."""
    left_j = energy_left_kwh * JOULES_PER_KWH
    power_w = sum(watts if busy > 0 else idle_power_w for busy, watts in zip(busy_s, busy_power_w, strict=True))
    now_s = 0.0
    for end_s, watts in [*sorted(zip(busy_s, busy_power_w, strict=True)), (horizon_s, idle_power_w)]:
        end_s = min(end_s, horizon_s)
        if end_s <= now_s:
            continue
        if power_w * (end_s - now_s) > left_j:
            return now_s + max(left_j, 0.0) / power_w
        left_j -= power_w * (end_s - now_s)
        power_w += sum(idle_power_w - other for busy, other in zip(busy_s, busy_power_w, strict=True) if busy == end_s)
        now_s = end_s
    return horizon_s


def charge(duration_s: np.ndarray, power: PowerParams, intensity_g_per_kwh: float) -> tuple[np.ndarray, np.ndarray]:
    """Energy (kWh) and emissions (g) of slot seconds by activity; leading axes are intervals."""
    energy_kwh = duration_s * np.array(power[:5], float) * float(power.pue) / JOULES_PER_KWH
    return energy_kwh, energy_kwh * intensity_g_per_kwh


def evaluation_slots_of(policy: str, slots: int, window: np.ndarray) -> int:
    """`vanilla`, `fixed-V` or `heuristic`; `window` holds the past intensities and, last, the current one."""
    if policy == "vanilla":
        return slots
    if policy.startswith("fixed-"):
        return int(policy[6:])
    if policy != "heuristic":
        raise ValueError(f"policy {policy!r} is unknown: choose vanilla, fixed-V or heuristic")
    low, high = np.nanmin(window), np.nanmax(window)
    relative = (window[-1] - low) / (high - low) if high > low else 0.5
    return int(np.clip(np.round(slots * (1 - relative)), min(1, slots), max(slots - 1, 1)))


Draw = Callable[[int, np.ndarray, int], np.ndarray]
"""`(interval, mask[size], n) -> positions`: up to `n` distinct positions where the mask holds, uniformly, in random
order. The initial design is drawn in interval -1."""


class _Search:
    """The state of one search between two intervals."""

    def __init__(self, problem, config, power, budget, draw, charge_initial_design, scorer):
        self.problem, self.config, self.power, self.budget, self.draw = problem, config, power, budget, draw
        self.scorer = scorer
        size = len(problem.features)
        first = draw(-1, np.ones(size, bool), config.initial_design)
        self.half_finished: list[Job] = []
        self.initial = [Job(int(i), problem.train_time_s[i], True) for i in first] if charge_initial_design else []
        self.queue: list[int] = []
        self.evaluated: list[int] = [] if charge_initial_design else first.tolist()
        self.estimated = np.zeros(size, bool)
        self.occupied = np.zeros(size, bool)  # by class representative
        self.occupied[problem.isomorph[self.evaluated]] = True
        self.supernet_left_s = problem.supernet_time_s
        self.used_kwh = self.emitted_g = 0.0
        self.stopped = False
        self.results_arrived()

    def results_arrived(self) -> None:
        """The region and the hypervolume are what follows from the evaluated architectures."""
        objectives = self.problem.objectives[self.evaluated]
        leaf = partition(objectives, self.problem.reference_point, self.config)
        self.depth = self.scorer.depth(leaf.path, np.asarray(self.evaluated, int))
        self.hypervolume = hypervolume(objectives, self.problem.reference_point)

    def candidates(self, interval: int) -> np.ndarray:
        """Draws from the region; where too few are left in it, its deepest constraints are dropped."""
        taken = self.occupied.copy()
        pending = [job.index for job in (*self.half_finished, *self.initial)] + self.queue
        taken[self.problem.isomorph[pending]] = True
        depth = np.where(taken[self.problem.isomorph], -1, self.depth)
        n = self.config.screen_per_interval
        deepest = self.depth.max()
        left = [np.count_nonzero(depth >= least) for least in range(deepest + 1)]
        least = max((least for least in range(deepest + 1) if left[least] >= n), default=0)
        return self.draw(interval, depth >= least, n)

    def sample(self, interval: int, sampling_slots: int, horizon_s: float, left_kwh: float) -> tuple[int, float]:
        """Trains the supernet, screens, and fills the queue; the number screened and the supernet's seconds."""
        problem, power = self.problem, self.power
        time_s = sampling_slots * horizon_s
        supernet_s = min(self.supernet_left_s, time_s, _seconds(left_kwh, power.supernet_w * power.pue))
        self.supernet_left_s -= supernet_s
        left_kwh -= power.supernet_w * power.pue * supernet_s / JOULES_PER_KWH
        can_screen = sampling_slots > 0 and self.supernet_left_s <= 0
        self.queue = [index for index in self.queue if self.estimated[index]]
        drawn = self.candidates(interval)
        count = 0
        if can_screen:
            new = drawn[~self.estimated[drawn]]
            time_s = min(time_s - supernet_s, _seconds(left_kwh, power.sampling_w * power.pue))
            count = min(len(new), int(time_s / problem.estimate_time_s * (1 + 1e-6)))
            self.estimated[new[:count]] = True
            drawn = drawn[self.estimated[drawn]]
        self.queue = self.ranked(np.concatenate([np.array(self.queue, int), drawn])).tolist()
        return count, supernet_s

    def ranked(self, index: np.ndarray) -> np.ndarray:
        """The first of them by dominance number of their estimates; those without an estimate come last."""
        known = self.estimated[index]
        if known.any():
            known &= ~np.isnan(self.problem.estimates[index]).any(axis=1)
            counts = np.full(len(index), len(index))
            counts[known] = dominance_counts(self.problem.estimates[index[known]])
            index = index[np.argsort(counts, kind="stable")]
        return index[: self.config.queue_capacity]

    def evaluate(self, evaluation_slots, sampling_end_s, horizon_s, left_kwh) -> tuple[float, float, float]:
        """Runs the work; slot seconds of evaluation, of the initial design, and idle ones."""
        power, slots = self.power, self.config.slots
        queue = [Job(index, self.problem.train_time_s[index], False) for index in self.queue]
        work = [*self.half_finished, *self.initial, *queue]
        starts_s, busy_s = list_schedule([job.remaining_s for job in work], evaluation_slots)
        sampling_slots = slots - evaluation_slots
        busy_s += [sampling_end_s] * sampling_slots
        busy_power_w = [power.evaluation_w * power.pue] * evaluation_slots + [0.0] * sampling_slots
        stop_s = stop_time_s(busy_s, busy_power_w, power.idle_w * power.pue, horizon_s, left_kwh)
        enough = False
        allowed = self.budget.evaluations - len(self.evaluated)
        if allowed <= len(work):
            finishes_s = sorted(start_s + job.remaining_s for start_s, job in zip(starts_s, work, strict=True))
            last_s = finishes_s[int(allowed) - 1] if allowed > 0 else 0.0
            enough = last_s <= stop_s
            stop_s = last_s if enough else stop_s
        finished, begun, waiting = [], [], []
        seconds = [0.0, 0.0]
        for place, (start_s, job) in enumerate(zip(starts_s, work, strict=True)):
            run_s = min(max(stop_s - start_s, 0.0), job.remaining_s)
            seconds[job.initial] += run_s
            if run_s > 0 and run_s >= job.remaining_s - 1e-3:
                finished.append(job.index)
            elif run_s > 0 or place < len(self.half_finished):
                begun.append(job._replace(remaining_s=job.remaining_s - run_s))
            else:
                waiting.append(job)
        self.half_finished = begun
        self.initial = [job for job in waiting if job.initial]
        self.queue = [job.index for job in waiting if not job.initial]
        self.stopped |= enough or stop_s < horizon_s
        if finished:
            self.evaluated += finished
            self.occupied[self.problem.isomorph[finished]] = True
            self.results_arrived()
        return seconds[0], seconds[1], sum(max(stop_s - busy, 0.0) for busy in busy_s)

    def interval(self, number: int, evaluation_slots: int, intensity_g_per_kwh: float) -> tuple[int, np.ndarray]:
        """One carbon interval: the number screened, and slot seconds by activity."""
        power, budget = self.power, self.budget
        horizon_s = min(max((budget.hours - number) * INTERVAL_S, 0.0), INTERVAL_S)
        left_kwh = budget.energy_kwh * (1 - BUDGET_MARGIN) - self.used_kwh
        if intensity_g_per_kwh > 0:
            by_carbon = (budget.carbon_g * (1 - BUDGET_MARGIN) - self.emitted_g) / intensity_g_per_kwh
            left_kwh = min(left_kwh, by_carbon)
        left_kwh = max(left_kwh, 0.0)
        sampling_slots = self.config.slots - evaluation_slots
        screened, supernet_s = self.sample(number, sampling_slots, horizon_s, left_kwh)
        sampling_s = screened * self.problem.estimate_time_s
        sampling_w_s = sampling_s * power.sampling_w + supernet_s * power.supernet_w
        left_kwh -= sampling_w_s * power.pue / JOULES_PER_KWH
        sampling_end_s = (sampling_s + supernet_s) / max(sampling_slots, 1)
        evaluation_s, initial_s, idle_s = self.evaluate(evaluation_slots, sampling_end_s, horizon_s, left_kwh)
        duration_s = np.array([evaluation_s, sampling_s, supernet_s, initial_s, idle_s])
        energy_kwh, emissions_g = charge(duration_s, power, intensity_g_per_kwh)
        self.used_kwh += energy_kwh.sum()
        self.emitted_g += emissions_g.sum()
        return screened, duration_s


def search(
    problem: Problem,
    config: SearchConfig,
    intensity_g_per_kwh: np.ndarray,
    power: PowerParams,
    budget: BudgetParams,
    policy: str,
    seed: int,
    *,
    charge_initial_design: bool = True,
    draw: Draw | None = None,
    scorer: RegionScorer | None = None,
) -> Result:
    """One search over the hours of `intensity_g_per_kwh` that follow its first `window_h`, or until a budget ends.

    `scorer`: of an earlier search of the same problem and config, so that its tables are computed once.
    """
    generator = np.random.default_rng(seed)

    def draw_by_seed(interval: int, mask: np.ndarray, n: int) -> np.ndarray:
        positions = np.flatnonzero(mask)
        return generator.choice(positions, min(n, len(positions)), replace=False)

    scorer = scorer or RegionScorer(problem.features, config)
    state = _Search(problem, config, power, budget, draw or draw_by_seed, charge_initial_design, scorer)
    hours = len(intensity_g_per_kwh) - config.window_h
    share, slots, screened = np.zeros(hours), np.zeros(hours, int), np.zeros(hours, int)
    duration_s = np.zeros((hours, 5))
    for hour in range(hours):
        if not state.stopped and hour < budget.hours:
            window = intensity_g_per_kwh[hour : hour + config.window_h + 1]
            slots[hour] = evaluation_slots_of(policy, config.slots, window)
            screened[hour], duration_s[hour] = state.interval(hour, int(slots[hour]), float(window[-1]))
        share[hour] = state.hypervolume / problem.max_hypervolume
    energy_kwh, emissions_g = charge(duration_s, power, intensity_g_per_kwh[config.window_h :, None])
    return Result(state.evaluated, share, slots, screened, duration_s, energy_kwh, emissions_g)


def _seconds(energy_kwh: float, power_w: float) -> float:
    return max(energy_kwh, 0.0) * JOULES_PER_KWH / power_w if power_w > 0 else math.inf


class SearchTask(NamedTuple):
    """One search; the fields are arguments of `search`."""

    intensity_g_per_kwh: np.ndarray
    power: PowerParams
    budget: BudgetParams
    policy: str
    seed: int


def worker_pool(processes: int, problem: Problem, config: SearchConfig) -> Pool:
    """Processes with one BLAS thread each, that know the problem. Spawned: a process that runs JAX must not fork."""
    return get_context("spawn").Pool(processes, _start_worker, (problem, config))


def search_batch(pool: Pool, tasks: list[SearchTask]) -> list[Result]:
    """One search for every task."""
    return pool.map(_search_in_worker, tasks, chunksize=1)


def region_batch(pool: Pool, evaluated: list[np.ndarray]) -> list[np.ndarray]:
    """The region of all architectures for each set of evaluated ones."""
    return pool.map(_region_in_worker, evaluated, chunksize=1)


_worker: dict = {}


def _start_worker(problem: Problem, config: SearchConfig) -> None:
    threadpool_limits(1)
    _worker.update(problem=problem, config=config, scorer=RegionScorer(problem.features, config))


def _search_in_worker(task: SearchTask) -> Result:
    return search(_worker["problem"], _worker["config"], *task, scorer=_worker["scorer"])


def _region_in_worker(evaluated: np.ndarray) -> np.ndarray:
    return region(_worker["problem"], _worker["config"], evaluated, _worker["scorer"])
