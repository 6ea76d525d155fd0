"""The simulated cluster: a carbon-aware search against a benchmark table, one carbon interval a step, in pure JAX.

Within an interval of 3,600 s the sampling slots come first (an estimate takes seconds, an evaluation an hour): they
train the supernet until it is trained, then screen the searcher's candidates, and the best by its ranking stay in the
queue. A searcher that learns what estimates are worth has first those architectures screened that were evaluated
without. Where sampling is charged, candidates are screened in hours in which the queue's turn comes, when there are
results that those in it were not chosen by, and not again before the next: so it costs nothing to wait for a cleaner
hour. One-shot, which has no results to wait for, screens every hour (`ClusterParams.screens_on`).

The evaluation slots continue half-finished jobs, then start the initial design, then the queue, best first. Where
nothing can be screened (no sampling slot, or no trained supernet) the queue is filled with unscreened draws of the
region, which live one interval: that is vanilla LaMOO. A slot without work is released.

Every second of work is charged at the interval's intensity, and carbon and energy budgets are hard: the clock stops at
the second at which the next work would exceed one.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from cenas_jax.allocation.environment import Environment, Observation, TimeStep
from cenas_jax.allocation.reward import budgeted_reward, paper_reward
from cenas_jax.benchmarks.base import BenchmarkTable
from cenas_jax.carbon.budget import BudgetParams
from cenas_jax.carbon.ledger import ACTIVITIES, JOULES_PER_KWH, Ledger, empty_ledger, ledger_charge
from cenas_jax.cluster.observation import INTERVAL_S, log_ratio, observe
from cenas_jax.cluster.schedule import list_schedule, stop_time_s
from cenas_jax.cluster.state import ClusterConfig, ClusterParams, ClusterState, IntervalInfo, Jobs
from cenas_jax.pareto import hypervolume
from cenas_jax.search.base import (
    Candidates,
    Searcher,
    SearcherState,
    at_smallest_size,
    isomorphism_classes,
    shared_maximum,
)
from cenas_jax.spaces.base import SearchSpace

BUDGET_MARGIN = 1e-6
"""Share of a budget that is left unused, so that float32 rounding never exceeds it."""


class _Sampled(NamedTuple):
    searcher: SearcherState  # fitted
    candidates: Candidates  # the old queue, then the new draws
    estimated: Bool[Array, " size"]
    supernet_s: Float[Array, ""]
    sampling_s: Float[Array, ""]
    screened: Int[Array, ""]
    screened_at: Int[Array, ""]


class _Evaluated(NamedTuple):
    work: Jobs  # in order of priority: half-finished, initial design, queue
    run_s: Float[Array, " j"]
    finished: Bool[Array, " j"]
    idle_s: Float[Array, ""]
    stop_s: Float[Array, ""]
    out_of_budget: Bool[Array, ""]


def simulated_cluster(
    space: SearchSpace, table: BenchmarkTable, searcher: Searcher, config: ClusterConfig, intervals: int
) -> Environment:
    """The environment of one search over `intervals` hours. `params` of `reset` and `step` are `ClusterParams`."""
    classes = isomorphism_classes(space)
    different = classes.none().shape[0]
    if config.initial_design > min(different, config.capacity):
        raise ValueError(
            f"initial_design {config.initial_design} exceeds the space ({different} architectures, isomorphs once) or "
            f"the capacity ({config.capacity} evaluations)"
        )

    def see(state: ClusterState, params: ClusterParams) -> Observation:
        return observe(state, params, config, intervals, table)

    def reset(key: Key[Array, ""], params: ClusterParams) -> tuple[ClusterState, Observation]:
        first, valid = classes.draw(_key(key, 0, 0), jnp.ones(space.size, bool), config.initial_design)
        free = valid & ~params.charge_initial_design
        objectives = table.objectives[first]
        given = Candidates(space.codes(first), jnp.full_like(objectives, jnp.nan), free)
        searcher_state, _ = searcher.tell(searcher.init(_key(key, 0, 1)), given, objectives)
        value = hypervolume(objectives, free, table.reference_point)
        evaluated, count = _append(jnp.zeros(config.capacity, jnp.int32), jnp.zeros((), jnp.int32), first, free)
        state = ClusterState(
            key=key,
            searcher=searcher_state,
            interval=jnp.zeros((), jnp.int32),
            half_finished=_no_jobs(config.slots),
            initial=Jobs(first, table.train_time_s[first], jnp.ones_like(valid), valid & ~free),
            queue=_no_jobs(config.queue_capacity),
            estimated=jnp.zeros(space.size, bool),
            supernet_left_s=table.supernet_time_s,
            screened_at=jnp.full((), -1, jnp.int32),
            evaluated=evaluated,
            count=count,
            hypervolume=value,
            initial_hypervolume=value,
            recent_gain=jnp.zeros((), jnp.float32),
            ledger=empty_ledger(),
            stopped=jnp.zeros((), bool),
        )
        return state, see(state, params)

    def sample(state: ClusterState, evaluation_slots, horizon_s, energy_left_kwh, params: ClusterParams) -> _Sampled:
        """Trains the supernet, fits the searcher, draws candidates and screens as many as time and budget allow."""
        power, sampling_slots = params.power, config.slots - evaluation_slots
        time_s = sampling_slots * horizon_s
        affordable_s = _seconds(energy_left_kwh, power.supernet_w * power.pue)
        supernet_s = jnp.minimum(state.supernet_left_s, jnp.minimum(time_s, affordable_s))
        energy_left_kwh = energy_left_kwh - power.supernet_w * power.pue * supernet_s / JOULES_PER_KWH
        can_screen = (sampling_slots > 0) & (state.supernet_left_s <= supernet_s)
        affordable_s = jnp.minimum(time_s - supernet_s, _seconds(energy_left_kwh, power.sampling_w * power.pue))
        # An unscreened proposal of an earlier region has no claim to stay.
        queue_valid = state.queue.valid & state.estimated[state.queue.index]
        due = (state.count != state.screened_at) | (queue_valid.sum() < config.slots)
        before_queue_s = _left_s(state.half_finished) + _left_s(state.initial)
        due &= before_queue_s < evaluation_slots * horizon_s
        charged = jnp.asarray(power.sampling_w * power.pue, jnp.float32) > 0
        wanted = can_screen & (due | ~charged | params.screens_on)
        room = jnp.where(wanted, affordable_s / table.estimate_time_s * (1 + 1e-6), 0.0)

        searcher_state, estimated, count = state.searcher, state.estimated, jnp.zeros((), jnp.int32)
        if searcher.inform is not None:
            told = (jnp.arange(config.capacity) < state.count) & ~estimated[state.evaluated]
            estimated, count = screen(estimated, state.evaluated, told, room)
            searcher_state = searcher.inform(searcher_state, known_estimates(estimated, state.evaluated))
        searcher_state = searcher.fit(searcher_state)

        codes, valid = searcher.ask(
            _key(state.key, state.interval, 2),
            searcher_state,
            config.screen_per_interval,
            space.codes(jnp.concatenate([state.half_finished.index, state.initial.index, state.queue.index])),
            jnp.concatenate([state.half_finished.valid, state.initial.valid, queue_valid]),
        )
        index = space.index(codes)
        unknown = valid & ~estimated[index]
        estimated, new = screen(estimated, index, unknown, room - count)
        screened_at = jnp.where(wanted & (new == unknown.sum()), state.count, state.screened_at)
        # Where nothing can be looked at, whatever the region holds is as good; otherwise only what was looked at.
        proposed = valid & (estimated[index] | ~can_screen)
        all_index = jnp.concatenate([state.queue.index, index])
        candidates = Candidates(
            space.codes(all_index), known_estimates(estimated, all_index), jnp.concatenate([queue_valid, proposed])
        )
        count = count + new
        sampling_s = count * table.estimate_time_s
        return _Sampled(searcher_state, candidates, estimated, supernet_s, sampling_s, count, screened_at)

    def screen(estimated, index, wanted, room):
        """Marks the first of the wanted that there is room for; and their number."""
        screened = wanted & (jnp.cumsum(wanted) <= room)
        estimated = estimated.at[jnp.where(screened, index, space.size)].set(True, mode="drop")
        return estimated, screened.sum(dtype=jnp.int32)

    def known_estimates(estimated, index):
        return jnp.where(estimated[index][:, None], table.estimates[index], jnp.nan)

    def evaluate(state, queue, evaluation_slots, sampling_end_s, horizon_s, energy_left_kwh, params) -> _Evaluated:
        """Runs the work list on the evaluation slots, cut at the second at which a budget ends."""
        work = jax.tree.map(lambda *parts: jnp.concatenate(parts), state.half_finished, state.initial, queue)
        start_s, busy_s = list_schedule(work.remaining_s, work.valid, config.slots, evaluation_slots)
        evaluates = jnp.arange(config.slots) < evaluation_slots
        busy_s = jnp.where(evaluates, busy_s, sampling_end_s)
        busy_power_w = jnp.where(
            evaluates, params.power.evaluation_w * params.power.pue, 0.0
        )  # sampling: charged already
        idle_power_w = jnp.broadcast_to(jnp.asarray(params.power.idle_w * params.power.pue, jnp.float32), busy_s.shape)
        stop_s = stop_time_s(busy_s, busy_power_w, idle_power_w, horizon_s, energy_left_kwh)
        stop_s, enough = _stop_at_evaluations(
            start_s + work.remaining_s, stop_s, params.budget.evaluations - state.count
        )
        run_s = jnp.where(work.valid, jnp.clip(stop_s - start_s, 0, work.remaining_s), 0.0)
        finished = work.valid & (run_s > 0) & (run_s >= work.remaining_s - 1e-3)
        # Where several finish in the second of the last allowed evaluation, the first in the list count.
        finished &= jnp.cumsum(finished) <= params.budget.evaluations - state.count
        return _Evaluated(
            work=work,
            run_s=run_s,
            finished=finished,
            idle_s=jnp.maximum(stop_s - busy_s, 0).sum(),
            stop_s=stop_s,
            out_of_budget=enough | (stop_s < horizon_s),
        )

    def step(state: ClusterState, evaluation_slots: Int[Array, ""], params: ClusterParams):
        horizon_s = jnp.clip((params.budget.hours - state.interval) * INTERVAL_S, 0, INTERVAL_S)
        horizon_s = jnp.where(state.stopped, 0.0, horizon_s)
        anyone = shared_maximum((horizon_s > 0).astype(jnp.int32)) > 0
        new, info = jax.lax.cond(anyone, advance, rest, state, evaluation_slots, horizon_s, params)
        truncated = new.interval >= jnp.minimum(params.budget.hours, intervals)
        return new, TimeStep(see(new, params), reward(state, new, info, params), new.stopped, truncated, info)

    def rest(state: ClusterState, evaluation_slots, horizon_s, params: ClusterParams):
        """What `advance` comes to where no search of the batch runs any more, without its cost."""
        queue = state.queue._replace(valid=jnp.zeros_like(state.queue.valid))
        new = state._replace(interval=state.interval + 1, queue=queue, recent_gain=jnp.zeros((), jnp.float32))
        nothing = jnp.zeros((), jnp.int32)
        none_s = jnp.zeros(len(ACTIVITIES), jnp.float32)
        _, charge = ledger_charge(state.ledger, none_s, params.power, none_s[0])
        info = IntervalInfo(
            running=jnp.zeros((), bool),
            evaluation_slots=nothing,
            screened=nothing,
            finished=nothing,
            evaluations=state.count,
            queue=nothing,
            half_finished=state.half_finished.valid.sum(dtype=jnp.int32),
            duration_s=none_s[0],
            hypervolume_share=state.hypervolume / table.max_hypervolume,
            charge=charge,
            overflow=nothing,
        )
        return new, info

    def advance(state: ClusterState, evaluation_slots, horizon_s, params: ClusterParams):
        running = horizon_s > 0
        intensity = params.intensity_g_per_kwh[config.window_h + state.interval]
        evaluation_slots = jnp.clip(evaluation_slots, 0, config.slots)
        left_kwh = _energy_left_kwh(state.ledger, params.budget, intensity)

        sampled = sample(state, evaluation_slots, horizon_s, left_kwh, params)
        sampling_w = sampled.sampling_s * params.power.sampling_w + sampled.supernet_s * params.power.supernet_w
        left_kwh = left_kwh - sampling_w * params.power.pue / JOULES_PER_KWH
        sampling_end_s = (sampled.sampling_s + sampled.supernet_s) / jnp.maximum(config.slots - evaluation_slots, 1)
        rows, ranked = searcher.rank(
            _key(state.key, state.interval, 3), sampled.searcher, sampled.candidates, config.queue_capacity
        )
        index = space.index(sampled.candidates.codes[rows])
        queue = Jobs(index, table.train_time_s[index], jnp.zeros_like(ranked), ranked & running)
        done = evaluate(state, queue, evaluation_slots, sampling_end_s, horizon_s, left_kwh, params)
        work, finished = done.work, done.finished
        results = Candidates(space.codes(work.index), known_estimates(sampled.estimated, work.index), finished)
        searcher_state, searcher_info = searcher.tell(sampled.searcher, results, table.objectives[work.index])
        evaluated, count = _append(state.evaluated, state.count, work.index, finished)

        def value_of(size: int):  # of the first rows, which hold all evaluations
            return hypervolume(table.objectives[evaluated[:size]], jnp.arange(size) < count, table.reference_point)

        value = at_smallest_size(count, config.capacity, value_of)
        duration_s = jnp.stack(
            [
                jnp.where(work.initial, 0, done.run_s).sum(),
                sampled.sampling_s,
                sampled.supernet_s,
                jnp.where(work.initial, done.run_s, 0).sum(),
                done.idle_s,
            ]
        )
        ledger, charge = ledger_charge(state.ledger, duration_s, params.power, intensity)
        left = Jobs(work.index, work.remaining_s - done.run_s, work.initial, work.valid & ~finished)
        begun = left.valid & ((done.run_s > 0) | (jnp.arange(finished.shape[0]) < config.slots))
        waiting = left._replace(valid=left.valid & ~begun)
        ends = (config.slots, config.slots + config.initial_design)
        new = ClusterState(
            key=state.key,
            searcher=searcher_state,
            interval=state.interval + 1,
            half_finished=_first_jobs(left._replace(valid=begun), config.slots),
            initial=jax.tree.map(lambda part: part[ends[0] : ends[1]], waiting),
            queue=_first_jobs(jax.tree.map(lambda part: part[ends[1] :], waiting), config.queue_capacity),
            estimated=sampled.estimated,
            supernet_left_s=state.supernet_left_s - sampled.supernet_s,
            screened_at=sampled.screened_at,
            evaluated=evaluated,
            count=count,
            hypervolume=value,
            initial_hypervolume=jnp.where(state.initial_hypervolume > 0, state.initial_hypervolume, value),
            recent_gain=log_ratio(value, state.hypervolume),
            ledger=ledger,
            stopped=state.stopped | done.out_of_budget,
        )
        info = IntervalInfo(
            running=running,
            evaluation_slots=jnp.where(running, evaluation_slots, 0),
            screened=sampled.screened,
            finished=finished.sum(dtype=jnp.int32),
            evaluations=count,
            queue=new.queue.valid.sum(dtype=jnp.int32),
            half_finished=new.half_finished.valid.sum(dtype=jnp.int32),
            duration_s=done.stop_s,
            hypervolume_share=value / table.max_hypervolume,
            charge=charge,
            overflow=state.count + finished.sum(dtype=jnp.int32) - count + searcher_info.overflow,
        )
        return new, info

    def reward(state, new, info, params):
        gain_share = (new.hypervolume - state.hypervolume) / table.max_hypervolume
        if config.reward == "budgeted":
            reward = budgeted_reward(gain_share, 1 - new.hypervolume / table.max_hypervolume)
            return jnp.where(state.hypervolume > 0, reward, 0.0)
        highest_kwh = config.slots * params.power.evaluation_w * params.power.pue * INTERVAL_S / JOULES_PER_KWH
        return jnp.where(
            info.running,
            paper_reward(
                gain_share,
                1 - new.interval / intervals,
                info.charge.emissions_g.sum(),
                highest_kwh * jnp.nanmax(params.intensity_g_per_kwh),
                info.finished.astype(jnp.float32),
            ),
            0.0,
        )

    return Environment(config.slots, reset, step)


def _key(root, interval, purpose: int):
    return jax.random.fold_in(jax.random.fold_in(root, interval), purpose)


def _no_jobs(size: int) -> Jobs:
    nothing = jnp.zeros(size, bool)
    return Jobs(jnp.zeros(size, jnp.int32), jnp.zeros(size, jnp.float32), nothing, nothing)


def _left_s(jobs: Jobs) -> Float[Array, ""]:
    return jnp.where(jobs.valid, jobs.remaining_s, 0).sum()


def _first_jobs(jobs: Jobs, size: int) -> Jobs:
    """The first `size` valid jobs, in order."""
    rows = jnp.argsort(~jobs.valid, stable=True)[:size]
    return jax.tree.map(lambda part: part[rows], jobs)


def _append(evaluated, count, index, valid):
    """Appends the valid rows, as far as there is room."""
    capacity = evaluated.shape[0]
    place = jnp.where(valid, count + jnp.cumsum(valid, dtype=jnp.int32) - 1, capacity)
    added = valid.sum(dtype=jnp.int32)
    return evaluated.at[place].set(index, mode="drop"), jnp.minimum(count + added, capacity)


def _seconds(energy_kwh, power_w):
    """How long an energy lasts; for ever at no power."""
    power_w = jnp.asarray(power_w, jnp.float32)
    return jnp.where(power_w > 0, jnp.maximum(energy_kwh, 0) * JOULES_PER_KWH / jnp.maximum(power_w, 1e-30), jnp.inf)


def _energy_left_kwh(ledger: Ledger, budget: BudgetParams, intensity):
    kept = 1 - BUDGET_MARGIN
    by_carbon = (jnp.asarray(budget.carbon_g, jnp.float32) * kept - ledger.emissions_g.sum()) / intensity
    by_energy = jnp.asarray(budget.energy_kwh, jnp.float32) * kept - ledger.energy_kwh.sum()
    # Seconds and joules are float32 throughout, also where x64 gives the ledger more.
    return jnp.maximum(jnp.minimum(jnp.where(intensity > 0, by_carbon, jnp.inf), by_energy), 0).astype(jnp.float32)


def _stop_at_evaluations(finish_s, stop_s, left):
    """Cuts the interval at the finish that uses up the `left` evaluations; True where one does."""
    in_order = jnp.sort(finish_s)
    allowed = jnp.clip(left, 0, finish_s.shape[0]).astype(jnp.int32)
    last_s = jnp.where(allowed > 0, in_order[jnp.maximum(allowed - 1, 0)], 0.0)
    enough = (left <= finish_s.shape[0]) & (last_s <= stop_s)
    return jnp.where(enough, last_s, stop_s), enough
