"""The environments of `cenas_jax.runs.policy_tasks` and of the carbon bandit in NumPy, vectorised as NumPy can be: one
process a core steps a share of the searches, and makes the policy's inputs of all its observations at once.
"""

from collections.abc import Callable
from dataclasses import replace
from multiprocessing import get_context
from typing import Any, NamedTuple, Protocol

import numpy as np
from baselines.numpy_lamoo import RegionScorer
from baselines.numpy_search import INTERVAL_S, Draw, Problem, Search, SearchConfig
from baselines.numpy_view import Observation, View, view
from threadpoolctl import threadpool_limits

from cenas_jax.allocation.environment import FORECAST_HIGHEST, FORECAST_LOWEST
from cenas_jax.allocation.reward import REGRET_FLOOR
from cenas_jax.carbon import BudgetParams, PowerParams
from cenas_jax.runs import policy_tasks
from cenas_jax.spaces.nas_bench_201 import nas_bench_201


class Task(NamedTuple):
    """One episode, as `policy_tasks.Task`."""

    problem: Problem
    intensity_g_per_kwh: np.ndarray  # [window_h + hours]
    forecast_g_per_kwh: np.ndarray  # [hours, forecast_h]
    power: Any  # `PowerParams` of floats
    budget: Any  # `BudgetParams` of floats
    charge_initial_design: bool


class Answer(NamedTuple):
    """Of many environments; what an episode answers after its end means nothing."""

    view: View
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray


class Environments(Protocol):
    """Several environments side by side; `reset(seeds)` starts an episode in each: equal seeds, equal episodes."""

    def reset(self, seeds: np.ndarray) -> View: ...
    def step(self, evaluation_slots: np.ndarray) -> Answer: ...


class SearchEpisode:
    """One search with the reward of `budgeted`; what follows its end costs nothing."""

    def __init__(self, task: Task, config: SearchConfig, draw: Draw, scorer: RegionScorer):
        self.task, self.config, self.hour = task, config, 0
        free = (task.problem, config, task.power, task.budget, draw, task.charge_initial_design, scorer)
        self.search, self.hours = Search(*free), len(task.forecast_g_per_kwh)
        self.ends_h = min(float(np.asarray(task.budget.hours)), self.hours)
        self.observation = self.observe()

    def step(self, evaluation_slots: int) -> tuple[float, bool, bool]:
        """Reward, terminated, truncated."""
        search, before = self.search, self.search.hypervolume
        if search.stopped or self.hour >= self.ends_h:
            return 0.0, search.stopped, True
        search.interval(self.hour, evaluation_slots, self.task.intensity_g_per_kwh[self.config.window_h + self.hour])
        self.hour += 1
        self.observation = self.observe()
        most = self.task.problem.max_hypervolume
        gain_share, regret = (search.hypervolume - before) / most, 1 - search.hypervolume / most
        reward = np.log1p(gain_share / (regret + REGRET_FLOOR)) if before > 0 else 0.0
        return reward, search.stopped, self.hour >= self.ends_h

    def observe(self) -> Observation:
        """As `cenas_jax.cluster.observation.observe`."""
        task, search, slots = self.task, self.search, self.config.slots
        power, budget, problem = task.power, task.budget, task.problem
        last = min(self.hour, self.hours - 1)
        known = task.intensity_g_per_kwh[last : last + self.config.window_h + 1]
        now, low, high, mean = known[-1], np.nanmin(known), np.nanmax(known), max(np.nanmean(known), 1e-6)
        previous = now if np.isnan(known[-2]) else known[-2]
        remaining_h = max(self.ends_h - self.hour, 0.0)
        used = max(search.emitted_g / budget.carbon_g, search.used_kwh / budget.energy_kwh)
        affordable_kwh = min((budget.carbon_g - search.emitted_g) / mean, budget.energy_kwh - search.used_kwh)
        all_slots_kwh = slots * power.evaluation_w * power.pue / 1000 * remaining_h
        screening_h = min(self.config.screen_per_interval * problem.estimate_time_s / INTERVAL_S, float(slots))
        supernet_s = max(problem.supernet_time_s, 1.0)

        def relative(values):
            return (values - low) / (high - low) if high > low else np.full_like(values, 0.5)

        past = relative(known[:-1])
        return Observation(
            remaining_h=remaining_h,
            remaining_time_share=remaining_h / self.ends_h,
            remaining_carbon_share=min(max(1 - used, 0.0), 1.0),
            affordable_share=min(max(affordable_kwh / max(all_slots_kwh, 1e-9), 0.0), 1.0),
            sampling_cost=screening_h * power.sampling_w / max(power.evaluation_w, 1e-9),
            relative_intensity=relative(now),
            relative_forecast=np.clip(relative(task.forecast_g_per_kwh[last]), FORECAST_LOWEST, FORECAST_HIGHEST),
            relative_past=np.where(np.isnan(past), 0.5, past),
            lowest_ratio=low / mean,
            highest_ratio=high / mean,
            intensity_change=now / max(previous, 1e-6) - 1,
            log_hypervolume=search.log_hypervolume,
            recent_gain=search.gain,
            log_evaluations=np.log1p(len(search.evaluated)),
            queue_fill=len(search.queue) / self.config.queue_capacity,
            half_finished_share=len(search.half_finished) / slots,
            supernet_share=1 - search.supernet_left_s / supernet_s,
        )


class SearchTasks(NamedTuple):
    """What a share of the searches needs: everything that a task is drawn from, as `policy_tasks.PolicyTasks`."""

    problems: list[Problem]
    intensity_g_per_kwh: list[np.ndarray]  # of each trace
    config: SearchConfig

    @classmethod
    def of(cls, tasks: policy_tasks.PolicyTasks, slots: int) -> "SearchTasks":
        space, tables = nas_bench_201(), tasks.tables
        first = Problem.of_table(space, type(tables)(*(part[0] for part in tables)))
        # One copy of what the space alone decides.
        shared = {name: getattr(first, name) for name in ("features", "predictor_features", "isomorph")}
        problems = [
            replace(Problem.of_table(space, type(tables)(*(part[number] for part in tables))), **shared)
            for number in range(tables.train_time_s.shape[0])
        ]
        traces = np.asarray(tasks.intensity_g_per_kwh, float)
        config = SearchConfig(slots=slots, window_h=policy_tasks.WINDOW_H, screen_per_interval=256, choice="corrected")
        hours = np.asarray(tasks.hours)
        return cls(problems, [trace[:end] for trace, end in zip(traces, hours, strict=True)], config)

    def draw(self, random: np.random.Generator) -> Task:
        """As `policy_tasks.draw_task`."""
        hours_h, ahead_h, window_h = policy_tasks.HOURS, policy_tasks.FORECAST_H, self.config.window_h
        problem = self.problems[random.integers(len(self.problems))]
        trace = self.intensity_g_per_kwh[random.integers(len(self.intensity_g_per_kwh))]
        start = random.integers(len(trace) - (window_h + hours_h + ahead_h))
        whole = trace[start : start + window_h + hours_h + ahead_h - 1]
        paper, uniform = random.random() < 0.5, random.random(4)
        evaluation_w = 1000.0 if paper else 50 + 500 * uniform[0]
        charged = 0.0 if paper else 1.0
        power = PowerParams(
            evaluation_w=evaluation_w,
            sampling_w=charged * evaluation_w * (0.3 + 0.6 * uniform[1]),
            supernet_w=charged * evaluation_w,
            initial_design_w=charged * evaluation_w,
            idle_w=0.0,
            pue=1 + charged * 0.6 * uniform[2],
        )
        hours = np.round(random.uniform(24, hours_h))
        share = np.exp(random.uniform(*np.log(policy_tasks.AFFORDABLE)))
        full_g = 8 * hours * whole[window_h : window_h + hours_h].mean() * evaluation_w * power.pue / 1000
        rows = whole[window_h:][np.arange(hours_h)[:, None] + np.arange(ahead_h)]
        scale = policy_tasks.FORECAST_NOISE * random.random()
        walk = np.cumsum(random.standard_normal(rows.shape), axis=1)
        forecast = rows * np.exp(scale * (walk - walk[:, :1]) / np.sqrt(ahead_h))
        budget = BudgetParams(hours, share * full_g, np.inf, float(policy_tasks.CAPACITY))
        return Task(problem, whole[: window_h + hours_h], forecast, power, budget, not paper)


class SearchEnvironments:
    """A share of the searches, stepped one after the other."""

    def __init__(self, tasks: SearchTasks):
        self.tasks = tasks
        self.scorer = RegionScorer(tasks.problems[0].features, tasks.config)
        self.episodes: list[SearchEpisode] = []

    def reset(self, seeds: np.ndarray) -> View:
        self.episodes = [self._episode(int(seed)) for seed in seeds]
        return self._view()

    def step(self, evaluation_slots: np.ndarray) -> Answer:
        answers = [episode.step(int(v)) for episode, v in zip(self.episodes, evaluation_slots, strict=True)]
        reward, terminated, truncated = (np.array(part) for part in zip(*answers, strict=True))
        return Answer(self._view(), reward, terminated, truncated)

    def _view(self) -> View:
        columns = zip(*(episode.observation for episode in self.episodes), strict=True)
        return view(Observation(*(np.array(column, np.float32) for column in columns)), self.tasks.config.slots)

    def _episode(self, seed: int) -> SearchEpisode:
        task = self.tasks.draw(np.random.default_rng(seed))

        def draw(interval: int, mask: np.ndarray, n: int, part: int) -> np.ndarray:  # by these numbers alone, as in JAX
            positions = np.flatnonzero(mask)
            random = np.random.default_rng((seed, interval + 1, part))
            return random.choice(positions, min(n, len(positions)), replace=False)

        return SearchEpisode(task, self.tasks.config, draw, self.scorer)


class BanditEnvironments:
    """The carbon bandit: an hour's slots earn the square root of their share and pay for its intensity."""

    def __init__(self, slots: int, hours: int, price: float):
        self.slots, self.hours, self.price = slots, hours, price

    def reset(self, seeds: np.ndarray) -> View:
        self.random, self.hour = np.random.default_rng(seeds[0]), 0
        self.ratio = self.random.uniform(0.5, 2.0, len(seeds))
        return self._view()

    def step(self, evaluation_slots: np.ndarray) -> Answer:
        share = evaluation_slots / self.slots
        reward = np.sqrt(share) - self.price * self.ratio * share
        self.hour += 1
        self.ratio = self.random.uniform(0.5, 2.0, len(share))
        over = np.full(len(share), self.hour >= self.hours)
        return Answer(self._view(), reward, np.zeros_like(over), over)

    def _view(self) -> View:
        zero = np.zeros(len(self.ratio), np.float32)
        constant = dict.fromkeys(Observation._fields, zero) | {
            "remaining_h": zero + self.hours - self.hour,
            "remaining_time_share": zero + 1 - self.hour / self.hours,
            "remaining_carbon_share": zero + 1,
            "affordable_share": zero + 1,
            "relative_intensity": np.asarray((self.ratio - 0.5) / 1.5, np.float32),
            "relative_forecast": np.zeros((len(zero), 0), np.float32),
            "relative_past": np.full((len(zero), 24), 0.5, np.float32),
            "lowest_ratio": zero + 0.5,
            "highest_ratio": zero + 2,
            "supernet_share": zero + 1,
        }
        return view(Observation(**constant), self.slots)


class ProcessEnvironments:
    """`Environments` whose rows are shared out to processes with one thread each. Close it, or use it in a `with`."""

    def __init__(self, make: Callable[..., Environments], arguments: tuple, processes: int):
        context = get_context("spawn")  # a process that runs JAX must not fork
        pairs = [context.Pipe() for _ in range(processes)]
        self.pipes: list[Any] = [here for here, _ in pairs]
        self.processes = [
            context.Process(target=_serve, args=(there, make, arguments), daemon=True) for _, there in pairs
        ]
        for process, (_, there) in zip(self.processes, pairs, strict=True):
            process.start()
            there.close()  # so that the end of a process is seen here

    def reset(self, seeds: np.ndarray) -> View:
        return View(*map(np.concatenate, zip(*self._ask("reset", seeds), strict=True)))

    def step(self, evaluation_slots: np.ndarray) -> Answer:
        views, *rest = zip(*self._ask("step", evaluation_slots), strict=True)
        return Answer(View(*map(np.concatenate, zip(*views, strict=True))), *map(np.concatenate, rest))

    def _ask(self, what: str, rows: np.ndarray) -> list[Any]:
        for pipe, part in zip(self.pipes, np.array_split(rows, len(self.pipes)), strict=True):
            pipe.send((what, part))
        return [pipe.recv() for pipe in self.pipes]

    def __enter__(self) -> "ProcessEnvironments":
        return self

    def __exit__(self, *_) -> None:
        for pipe, process in zip(self.pipes, self.processes, strict=True):
            pipe.close()
            process.join()


def _serve(pipe, make: Callable[..., Environments], arguments: tuple) -> None:
    threadpool_limits(1)
    environments = make(*arguments)
    while True:
        try:
            what, rows = pipe.recv()
        except EOFError:
            return
        pipe.send(getattr(environments, what)(rows))
