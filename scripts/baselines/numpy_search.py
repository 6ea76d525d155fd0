"""The simulated carbon-aware search in NumPy, scikit-learn and moocore: the rival to time against, and an oracle.

The same rules as `cenas_jax.cluster.simulated`, written the way NumPy likes it: arrays of the size that is needed,
lists where there are few things, a region only when results have arrived, no work for a slot that has none. Float64
throughout.
"""

import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from baselines.numpy_correction import Correction, by_gain, own_first
from baselines.numpy_lamoo import PartitionConfig, RegionScorer, dominance_counts, hypervolume, partition

from cenas_jax.carbon import BudgetParams, PowerParams

INTERVAL_S = 3600.0
JOULES_PER_KWH = 3.6e6
BUDGET_MARGIN = 1e-6


@dataclass(frozen=True)
class Problem:
    """A benchmark table as float64 arrays; objectives are maximised, all finite."""

    features: np.ndarray  # [size, f]
    predictor_features: np.ndarray  # [size, p], what the corrections see
    objectives: np.ndarray  # [size, m]
    estimates: np.ndarray  # [size, m]; NaN where there is none
    train_time_s: np.ndarray  # [size]
    estimate_time_s: float
    supernet_time_s: float
    reference_point: np.ndarray  # [m]
    max_hypervolume: float
    isomorph: np.ndarray  # [size], the representative of each class

    @classmethod
    def of(cls, benchmark) -> "Problem":
        """From a `cenas_jax.benchmarks.Benchmark`."""
        return cls.of_table(benchmark.space, benchmark.table)

    @classmethod
    def of_table(cls, space, table) -> "Problem":
        """From a `SearchSpace` and its `BenchmarkTable`."""
        import jax.numpy as jnp  # The search itself needs no jax.

        from cenas_jax.search.gaussian_process import features_of

        codes = space.codes(jnp.arange(space.size))
        return cls(
            features=np.asarray(space.features(codes), float),
            predictor_features=np.asarray(features_of(space)(codes), float),
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
class SearchConfig(PartitionConfig):
    """As `ClusterConfig` and `LamooConfig`."""

    slots: int = 8
    initial_design: int = 10
    queue_capacity: int = 32
    screen_per_interval: int = 512
    window_h: int = 24
    choice: str = "estimate"
    """Order of the screened: `estimate` or `corrected`."""
    whole_space_share: float = 0.5


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
    for end_s in [*sorted(min(busy, horizon_s) for busy in busy_s), horizon_s]:
        if end_s <= now_s:
            continue
        if power_w * (end_s - now_s) > left_j:
            return now_s + max(left_j, 0.0) / power_w
        left_j -= power_w * (end_s - now_s)
        power_w += sum(idle_power_w - other for busy, other in zip(busy_s, busy_power_w, strict=True) if busy == end_s)
        now_s = end_s
    return horizon_s


def charge(
    duration_s: np.ndarray, power: PowerParams, intensity_g_per_kwh: np.ndarray | float
) -> tuple[np.ndarray, np.ndarray]:
    """Energy (kWh) and emissions (g) of slot seconds by activity; leading axes are intervals."""
    energy_kwh = duration_s * np.array(power[:5], float) * np.asarray(power.pue, float) / JOULES_PER_KWH
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


Draw = Callable[[int, np.ndarray, int, int], np.ndarray]
"""`(interval, mask[size], n, part) -> index`: the representatives of up to `n` classes, as architectures are drawn
uniformly where the mask holds. The initial design is drawn in interval -1. Part 0 is drawn in the region, part 1 in
the whole space."""


class Search:
    """The state of one search between two intervals."""

    def __init__(self, problem, config, power, budget, draw, charge_initial_design, scorer):
        self.problem, self.config, self.power, self.budget, self.draw = problem, config, power, budget, draw
        self.scorer = scorer
        size = len(problem.features)
        first = draw(-1, np.ones(size, bool), config.initial_design, 0)
        self.half_finished: list[Job] = []
        self.initial = [Job(int(i), problem.train_time_s[i], True) for i in first] if charge_initial_design else []
        self.queue: list[int] = []
        self.evaluated: list[int] = [] if charge_initial_design else first.tolist()
        self.estimated = np.zeros(size, bool)
        self.occupied = np.zeros(size, bool)  # by class representative
        self.occupied[problem.isomorph[self.evaluated]] = True
        self.supernet_left_s = problem.supernet_time_s
        self.screened_at = -1  # evaluations there were when all candidates of an hour were screened last
        self.used_kwh = self.emitted_g = 0.0
        self.stopped = False
        self.gain = 0.0  # ln of the hypervolume's growth over the last interval
        self.results_arrived()
        self.initial_hypervolume = self.hypervolume  # 0 until the initial design has a result

    def results_arrived(self) -> None:
        self.news = True
        self.hypervolume = hypervolume(self.problem.objectives[self.evaluated], self.problem.reference_point)

    def learn(self) -> None:
        """The region and the corrections are what follows from the evaluated architectures."""
        problem, evaluated = self.problem, np.asarray(self.evaluated, int)
        objectives = problem.objectives[evaluated]
        leaf = partition(objectives, problem.reference_point, self.config)
        self.depth = self.scorer.depth(leaf.path, evaluated)
        if self.config.choice == "corrected":
            known, features = self.known_estimates(evaluated), problem.predictor_features[evaluated]
            self.corrections = [
                Correction(features, own_first(known, own), target) for own, target in enumerate(objectives.T)
            ]
        self.news = False

    def known_estimates(self, index: np.ndarray) -> np.ndarray:
        return np.where(self.estimated[index][:, None], self.problem.estimates[index], np.nan)

    @property
    def log_hypervolume(self) -> float:
        """Over the initial design's; 0 while there is none."""
        return log_ratio(self.hypervolume, self.initial_hypervolume)

    def candidates(self, interval: int) -> np.ndarray:
        """Draws from the region, whose deepest constraints are dropped where too few are left, then from the space."""
        taken = self.occupied.copy()
        pending = [job.index for job in (*self.half_finished, *self.initial)] + self.queue
        taken[self.problem.isomorph[pending]] = True
        depth = np.where(taken[self.problem.isomorph], -1, self.depth)
        share = self.config.whole_space_share if self.config.choice == "corrected" else 0.0
        anywhere = int(self.config.screen_per_interval * share)
        n = self.config.screen_per_interval - anywhere
        deepest = self.depth.max()
        left = [np.count_nonzero(np.bincount(self.problem.isomorph[depth >= least])) for least in range(deepest + 1)]
        least = max((least for least in range(deepest + 1) if left[least] >= n), default=0)
        drawn = self.draw(interval, depth >= least, n, 0)
        if not anywhere:
            return drawn
        taken[self.problem.isomorph[drawn]] = True
        return np.concatenate([drawn, self.draw(interval, ~taken[self.problem.isomorph], anywhere, 1)])

    def sample(self, interval: int, evaluation_slots: int, horizon_s: float, left_kwh: float) -> tuple[int, float]:
        """Trains the supernet, learns, screens, and fills the queue; the number screened and the supernet's seconds."""
        problem, power = self.problem, self.power
        sampling_slots = self.config.slots - evaluation_slots
        time_s = sampling_slots * horizon_s
        supernet_s = min(self.supernet_left_s, time_s, _seconds(left_kwh, power.supernet_w * power.pue))
        self.supernet_left_s -= supernet_s
        left_kwh -= power.supernet_w * power.pue * supernet_s / JOULES_PER_KWH
        can_screen = sampling_slots > 0 and self.supernet_left_s <= 0
        time_s = min(time_s - supernet_s, _seconds(left_kwh, power.sampling_w * power.pue))
        self.queue = [index for index in self.queue if self.estimated[index]]
        results = len(self.evaluated)
        due = results != self.screened_at or len(self.queue) < self.config.slots
        due &= sum(job.remaining_s for job in (*self.half_finished, *self.initial)) < evaluation_slots * horizon_s
        wanted = can_screen and (due or power.sampling_w * power.pue <= 0)
        room = int(time_s / problem.estimate_time_s * (1 + 1e-6)) if wanted else 0
        count = 0
        if self.config.choice == "corrected":
            count = self.screen(np.asarray(self.evaluated, int), room)
            self.news |= count > 0
        if self.news:
            self.learn()
        drawn = self.candidates(interval)
        if can_screen:
            count += self.screen(drawn, room - count)
            if wanted and self.estimated[drawn].all():
                self.screened_at = results
            drawn = drawn[self.estimated[drawn]]
        self.queue = self.ranked(np.concatenate([np.array(self.queue, int), drawn])).tolist()
        return count, supernet_s

    def screen(self, index: np.ndarray, room: int) -> int:
        """Screens the first of them that were not yet; how many."""
        new = index[~self.estimated[index]][:room]
        self.estimated[new] = True
        return len(new)

    def ranked(self, index: np.ndarray) -> np.ndarray:
        """The first of them by gain of their corrected estimates, or by dominance number of their estimates.

        Corrected ones only once enough of the evaluated had estimates. Those without an estimate come last, and by
        dominance of ties the better last objective first.
        """
        if self.config.choice == "corrected" and all(one.told for one in self.corrections):
            known = self.known_estimates(index)
            screened = ~np.isnan(known).any(axis=1)
            first, features = index[screened], self.problem.predictor_features[index[screened]]
            predicted = [
                one.posterior_quantiles(features, own_first(known[screened], own))
                for own, one in enumerate(self.corrections)
            ]
            predicted = np.stack(predicted, axis=-1)
            evaluated = self.problem.objectives[self.evaluated]
            rows = by_gain(predicted, evaluated, self.problem.reference_point, self.config.queue_capacity)
            return np.concatenate([first[rows], index[~screened]])[: self.config.queue_capacity]
        known = self.estimated[index]
        if known.any():
            estimates = self.problem.estimates[index]
            known &= ~np.isnan(estimates).any(axis=1)
            counts = np.full(len(index), len(index))
            counts[known] = dominance_counts(estimates[known])
            index = index[np.lexsort((np.where(known, -estimates[:, -1], np.inf), counts))]
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
        before = self.hypervolume
        horizon_s = min(max((budget.hours - number) * INTERVAL_S, 0.0), INTERVAL_S)
        left_kwh = budget.energy_kwh * (1 - BUDGET_MARGIN) - self.used_kwh
        if intensity_g_per_kwh > 0:
            by_carbon = (budget.carbon_g * (1 - BUDGET_MARGIN) - self.emitted_g) / intensity_g_per_kwh
            left_kwh = min(left_kwh, by_carbon)
        left_kwh = max(left_kwh, 0.0)
        screened, supernet_s = self.sample(number, evaluation_slots, horizon_s, left_kwh)
        sampling_s = screened * self.problem.estimate_time_s
        sampling_w_s = sampling_s * power.sampling_w + supernet_s * power.supernet_w
        left_kwh -= sampling_w_s * power.pue / JOULES_PER_KWH
        sampling_end_s = (sampling_s + supernet_s) / max(self.config.slots - evaluation_slots, 1)
        evaluation_s, initial_s, idle_s = self.evaluate(evaluation_slots, sampling_end_s, horizon_s, left_kwh)
        duration_s = np.array([evaluation_s, sampling_s, supernet_s, initial_s, idle_s])
        energy_kwh, emissions_g = charge(duration_s, power, intensity_g_per_kwh)
        self.used_kwh += energy_kwh.sum()
        self.emitted_g += emissions_g.sum()
        self.initial_hypervolume = self.initial_hypervolume or self.hypervolume
        self.gain = log_ratio(self.hypervolume, before)
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
    alone = bool((problem.isomorph == np.arange(len(problem.isomorph))).all())

    def draw_by_seed(interval: int, mask: np.ndarray, n: int, part: int) -> np.ndarray:
        positions = np.flatnonzero(mask)
        if alone:
            return generator.choice(positions, min(n, len(positions)), replace=False)
        of_class = problem.isomorph[generator.permutation(positions)]
        return of_class[np.sort(np.unique(of_class, return_index=True)[1])[:n]]

    scorer = scorer or RegionScorer(problem.features, config)
    state = Search(problem, config, power, budget, draw or draw_by_seed, charge_initial_design, scorer)
    hours = len(intensity_g_per_kwh) - config.window_h
    share, slots, screened = np.zeros(hours), np.zeros(hours, int), np.zeros(hours, int)
    duration_s = np.zeros((hours, 5))
    for hour in range(hours):
        if not state.stopped and hour < float(np.asarray(budget.hours)):
            window = intensity_g_per_kwh[hour : hour + config.window_h + 1]
            slots[hour] = evaluation_slots_of(policy, config.slots, window)
            screened[hour], duration_s[hour] = state.interval(hour, int(slots[hour]), float(window[-1]))
        share[hour] = state.hypervolume / problem.max_hypervolume
    energy_kwh, emissions_g = charge(duration_s, power, intensity_g_per_kwh[config.window_h :, None])
    return Result(state.evaluated, share, slots, screened, duration_s, energy_kwh, emissions_g)


def log_ratio(value: float, base: float) -> float:
    """`ln(value / base)`; 0 while the base is 0."""
    return math.log(value / base) if base > 0 else 0.0


def _seconds(energy_kwh: float, power_w: float) -> float:
    return max(energy_kwh, 0.0) * JOULES_PER_KWH / power_w if power_w > 0 else math.inf


def region(problem: Problem, config: PartitionConfig, evaluated: np.ndarray, scorer: RegionScorer) -> np.ndarray:
    """`bool[size]`: which architectures lie in the region that the evaluated ones lead to."""
    leaf = partition(problem.objectives[evaluated], problem.reference_point, config)
    return scorer.depth(leaf.path, evaluated) == len(leaf.path)
