"""What happens inside a search: jobs, screening, observations, the end."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_cluster import (
    CONFIG,
    ENVIRONMENT,
    HOURS,
    SEARCHER,
    SPACE,
    TABLE,
    cluster_params,
    reset,
    simulate_one,
    step,
)

from cenas_jax.allocation import plain_params, plain_policy
from cenas_jax.benchmarks import benchmark_table
from cenas_jax.carbon import Budget
from cenas_jax.carbon.power import measured, paper
from cenas_jax.cluster.simulated import simulated_cluster
from cenas_jax.cluster.simulation import check_overflow, simulate
from cenas_jax.cluster.state import ClusterConfig
from cenas_jax.pareto import hypervolume
from cenas_jax.search import LamooConfig, lamoo_search, random_search
from cenas_jax.search.lamoo import TreeConfig
from cenas_jax.spaces import tabular_space

EVALUATION, SAMPLING, SUPERNET, INITIAL, IDLE = range(5)
TRAIN_S = np.asarray(TABLE.train_time_s, np.float64)


def jobs(*lists):
    """`{architecture: remaining seconds}` of the valid jobs."""
    return {
        int(index): float(remaining_s)
        for part in lists
        for index, remaining_s, valid in zip(part.index, part.remaining_s, part.valid, strict=True)
        if valid
    }


def play(key, params, actions):
    """`(state before, action, state after, time step)` of every interval."""
    state, _ = reset(key, params)
    for action in actions:
        after, time_step = step(state, jnp.asarray(action), params)
        yield state, action, after, time_step
        state = after


@pytest.mark.parametrize("actions", [[4] * 8, [2] * 8, [3, 1, 4, 0, 2, 1, 3, 4], [0, 0, 4, 1, 1, 4, 0, 2]])
def test_jobs_run_to_their_end_on_one_slot_at_a_time(actions):
    done = set()
    for before, action, after, time_step in play(jax.random.key(0), cluster_params(), actions):
        info = time_step.info
        started, left = jobs(before.half_finished), jobs(after.half_finished)
        finished = set(np.asarray(after.evaluated)[int(before.count) : int(after.count)].tolist())
        assert not finished & done and not set(left) & (done | finished)
        done |= finished
        # Half-finished jobs are finished, continued or (with fewer slots) kept; never lost.
        assert set(started) <= finished | set(left)
        ran_s = 0.0
        for job in finished | set(left):
            had_s = started.get(job, float(TRAIN_S[job]))
            this_hour_s = had_s - left.get(job, 0.0)
            assert -1e-2 <= this_hour_s <= 3600 + 1e-2  # one slot at a time
            ran_s += this_hour_s
        busy_s = np.asarray(info.charge.busy_s)
        assert ran_s == pytest.approx(busy_s[EVALUATION] + busy_s[INITIAL], abs=0.1)
        assert len(left) <= CONFIG.slots and int(info.finished) == len(finished)
        # Half-finished jobs come first: where one of them waited, nothing new began.
        waited = [job for job in started if left.get(job) == started[job]]
        if waited and action > 0:
            assert not (set(left) | finished) - set(started)
        assert len(waited) == max(0, len(started) - action) or action > 0


def test_the_best_screened_architectures_come_first():
    params = cluster_params(screens_on=True)
    states = list(play(jax.random.key(1), params, [0, 2, 1]))
    _, _, after, _ = states[0]
    queue = jobs(after.queue)
    assert len(queue) == CONFIG.queue_capacity and set(jobs(after.initial)) == set(
        np.asarray(after.initial.index).tolist()
    )
    assert all(after.estimated[index] for index in queue)
    # All that was screened: nothing outside the queue may have a better dominance number.
    _, _, later, _ = states[2]
    assert set(jobs(later.half_finished)) <= set(
        jobs(states[1][2].initial, states[1][2].half_finished, states[1][2].queue)
    )


def test_vanilla_screens_nothing_and_pays_no_supernet():
    result = simulate_one(jax.random.key(0), cluster_params(), plain_params("vanilla", CONFIG.slots))
    busy_s = np.asarray(result.ledger.busy_s)
    assert busy_s[SAMPLING] == 0 and busy_s[SUPERNET] == 0 and int(result.history.screened.sum()) == 0
    assert busy_s[INITIAL] > 0 and int(result.count) > 20
    # Every slot is busy all the time.
    assert busy_s[EVALUATION] + busy_s[INITIAL] == pytest.approx(CONFIG.slots * HOURS * 3600, rel=1e-5)


def test_the_supernet_is_trained_once_and_before_the_first_estimate():
    result = simulate_one(jax.random.key(0), cluster_params(), plain_params("fixed-3", CONFIG.slots))
    busy_s, screened = np.asarray(result.history.charge.busy_s), np.asarray(result.history.screened)
    # 5,000 s on one slot: an hour, then 1,400 s and 2,200 s of estimates of 20 s, at most 24 of them.
    assert busy_s[:3, SUPERNET].tolist() == pytest.approx([3600, 1400, 0], abs=0.01)
    assert screened[0] == 0 and screened[1] == 24 and screened[1:].max() <= 24
    np.testing.assert_allclose(busy_s[:, SAMPLING], screened * 20.0, rtol=1e-6)


CORRECTED = lamoo_search(
    SPACE,
    TABLE.reference_point,
    LamooConfig(capacity=CONFIG.capacity, choice="corrected", tree=TreeConfig(depth=2, min_samples=6)),
)


@jax.jit
def correcting_reset(table, params):
    return simulated_cluster(SPACE, table, CORRECTED, CONFIG, HOURS).reset(jax.random.key(0), params)


@jax.jit
def correcting_step(table, state, params):
    return simulated_cluster(SPACE, table, CORRECTED, CONFIG, HOURS).step(state, jnp.asarray(0), params)


@pytest.mark.parametrize("limited", ["time", "carbon"])
def test_a_searcher_that_corrects_has_the_evaluated_screened_first_and_pays_for_it(limited):
    """Time, or carbon, for three estimates and a half in the first hour."""
    estimate_s = float(TABLE.estimate_time_s)
    supernet_s = 4 * 3600 - 3.5 * estimate_s if limited == "time" else 0.0
    table = TABLE._replace(supernet_time_s=jnp.float32(supernet_s))
    power = dataclasses.replace(measured(), charge_initial_design=False)  # the initial design is there at the start
    one_g = estimate_s * power.sampling_w * power.pue / 3.6e6 * 300
    budget = Budget(carbon_g=3.5 * one_g) if limited == "carbon" else None
    params = cluster_params(power=power, budget=budget, screens_on=True)
    state, _ = correcting_reset(table, params)
    first = np.asarray(state.evaluated[: CONFIG.initial_design])
    state, time_step = correcting_step(table, state, params)
    charge = time_step.info.charge
    assert int(time_step.info.screened) == 3 and np.asarray(state.estimated)[first].sum() == 3
    assert float(charge.busy_s[SAMPLING]) == pytest.approx(3 * estimate_s)
    assert float(charge.emissions_g[SAMPLING]) == pytest.approx(3 * one_g, rel=1e-5)
    if limited == "time":  # the rest of them follows in the next hour, before the candidates
        state, time_step = correcting_step(table, state, params)
        np.testing.assert_array_equal(state.searcher.estimates[: len(first)], TABLE.estimates[first])
        assert int(time_step.info.screened) == CONFIG.initial_design - 3 + CONFIG.screen_per_interval


@pytest.mark.parametrize("charged", [True, False])
def test_while_it_is_charged_screening_waits_for_results(charged):
    power = dataclasses.replace(measured(), sampling_w=measured().sampling_w if charged else 0.0)
    actions = [2, 2, 3, 3, 0, 0, 3, 0]
    hours = list(play(jax.random.key(0), cluster_params(power=power), actions))
    screened = [int(time_step.info.screened) for *_, time_step in hours]
    results = [int(before.count) for before, *_ in hours]
    assert results[3] < results[4] == results[6] > CONFIG.initial_design
    if not charged:
        assert min(screened[1:]) > 0, "the first hour trains the supernet"
        return
    assert screened[4:6] == [0, 0], "waiting is free, though there are results that no candidate was chosen by"
    assert screened[6] > 0 and screened[7] == 0
    assert int(hours[6][2].screened_at) == results[6]
    assert hours[6][2].queue.valid.any()
    for (before, action, *_), number in zip(hours, screened, strict=True):
        first_s = sum(jobs(before.half_finished, before.initial).values())
        assert number == 0 or first_s < action * 3600, "no candidates before it is their turn"


def test_screening_that_is_charged_is_finished_in_later_hours():
    """An hour and two slots hold 4 of the 24 estimates."""
    table = TABLE._replace(supernet_time_s=jnp.float32(1.0), estimate_time_s=jnp.float32(1700.0))
    environment = simulated_cluster(SPACE, table, SEARCHER, CONFIG, HOURS)
    state, _ = jax.jit(environment.reset)(jax.random.key(0), cluster_params())
    step, seen = jax.jit(environment.step), []
    for _ in range(HOURS):
        state, time_step = step(state, jnp.asarray(2), cluster_params())
        seen.append((int(time_step.info.screened), int(state.screened_at)))
    assert [screened for screened, _ in seen[-4:]] == [4] * 4
    assert {screened_at for _, screened_at in seen} == {-1}


@pytest.mark.parametrize("screens_on", [True, False])
def test_where_nothing_is_evaluated_one_shot_alone_screens(screens_on):
    hours = play(jax.random.key(0), cluster_params(screens_on=screens_on), [0] * HOURS)
    screened = [int(time_step.info.screened) for *_, time_step in hours]
    assert min(screened) > 0 if screens_on else max(screened) == 0


@pytest.mark.parametrize("queue_capacity", [3, CONFIG.queue_capacity])
def test_while_it_is_charged_screening_goes_on_where_the_queue_runs_out(queue_capacity):
    """Three are fewer than there are slots."""
    config = dataclasses.replace(CONFIG, queue_capacity=queue_capacity)
    environment = simulated_cluster(SPACE, TABLE, SEARCHER, config, HOURS)
    state, _ = jax.jit(environment.reset)(jax.random.key(0), cluster_params())
    step = jax.jit(environment.step)
    for action in (2, 2, 3, 3, 1):
        state, _ = step(state, jnp.asarray(action), cluster_params())
    _, time_step = step(state._replace(screened_at=state.count), jnp.asarray(1), cluster_params())
    assert (int(time_step.info.screened) > 0) == (queue_capacity < CONFIG.slots)


def test_one_shot_samples_until_the_reserve():
    params = cluster_params(screens_on=True)
    result = simulate_one(jax.random.key(0), params, plain_params("one-shot", CONFIG.slots, reserve_share=0.4))
    # Shares of time left: 1, 7/8 .. 3/8: the fourth last hour has 0.5, the third last 0.375.
    assert result.history.evaluation_slots.tolist() == [0] * 5 + [4] * 3
    assert int(result.history.evaluations[4]) == 0 and int(result.count) > 4


def test_a_free_initial_design_is_there_at_the_start():
    state, observation = reset(jax.random.key(0), cluster_params(power=paper()))
    assert int(state.count) == CONFIG.initial_design and not state.initial.valid.any()
    rows = TABLE.objectives[state.evaluated[: CONFIG.initial_design]]
    expected = hypervolume(rows, jnp.ones(len(rows), bool), TABLE.reference_point)
    assert float(state.hypervolume) == pytest.approx(float(expected), rel=1e-5)
    assert float(observation.log_hypervolume) == 0
    charged, _ = reset(jax.random.key(0), cluster_params())
    assert int(charged.count) == 0 and set(jobs(charged.initial)) == set(state.evaluated[:5].tolist())


def test_hypervolume_is_of_all_that_was_evaluated():
    result = simulate_one(jax.random.key(5), cluster_params(), plain_params("heuristic", CONFIG.slots))
    rows = TABLE.objectives[result.evaluated]
    expected = hypervolume(rows, jnp.arange(CONFIG.capacity) < result.count, TABLE.reference_point)
    assert float(result.hypervolume) == pytest.approx(float(expected), rel=1e-6)
    assert float(result.history.hypervolume_share[-1]) == pytest.approx(
        float(expected / TABLE.max_hypervolume), rel=1e-6
    )
    # The budgeted rewards add up to the fall of the log-regret since the first result.
    values = np.asarray(result.history.hypervolume_share, np.float64)
    first = values[values > 0][0]
    assert float(result.reward.sum()) == pytest.approx(np.log((1.001 - first) / (1.001 - values[-1])), abs=1e-4)


def test_observation_by_hand():
    intensity = [100, 200, 300, 400, 250, 150, 300, 600] + [50] * 6
    params = cluster_params(intensity, budget=Budget(hours=4.0, carbon_g=1000.0, energy_kwh=1e6))
    state, first = reset(jax.random.key(0), params)
    # The window holds the six hours before the start and the current one: 100 .. 400, now 300 after 150.
    assert float(first.relative_intensity) == pytest.approx((300 - 100) / 300)
    assert float(first.intensity_change) == pytest.approx(1.0)
    assert (float(first.remaining_time_share), float(first.remaining_carbon_share)) == (1, 1)
    assert float(first.supernet_share) == 0 and float(first.queue_fill) == 0
    window = np.array(intensity[:7])
    np.testing.assert_allclose(first.relative_past, (window[:-1] - 100) / 300, rtol=1e-6)
    ratios = [float(first.lowest_ratio), float(first.highest_ratio)]
    assert ratios == pytest.approx([100 / window.mean(), 400 / window.mean()])
    all_slots_g = CONFIG.slots * float(params.power.evaluation_w * params.power.pue) / 1000 * 4 * window.mean()
    assert float(first.affordable_share) == pytest.approx(1000 / all_slots_g) and 1000 < all_slots_g
    assert float(first.remaining_h) == 4
    state, time_step = step(state, jnp.asarray(2), params)
    second = time_step.observation
    assert float(second.remaining_h) == 3
    assert float(second.relative_intensity) == 1.0 and float(second.intensity_change) == pytest.approx(1.0)
    assert float(second.remaining_time_share) == 0.75
    used_g = float(state.ledger.emissions_g.sum())
    assert float(second.remaining_carbon_share) == pytest.approx(1 - used_g / 1000, rel=1e-5)
    assert float(second.log_evaluations) == pytest.approx(np.log1p(int(state.count)))
    assert float(second.queue_fill) == pytest.approx(int(state.queue.valid.sum()) / CONFIG.queue_capacity)
    assert float(second.half_finished_share) == pytest.approx(int(state.half_finished.valid.sum()) / CONFIG.slots)
    assert float(second.supernet_share) == 1.0  # two slots, 7,200 s


def test_observation_with_unknown_or_flat_hours():
    _, observation = reset(jax.random.key(0), cluster_params([np.nan] * 6 + [300.0] * 8))
    assert float(observation.relative_intensity) == 0.5 and float(observation.intensity_change) == 0
    assert observation.relative_past.tolist() == [0.5] * 6 and float(observation.lowest_ratio) == 1
    assert float(observation.affordable_share) == 1  # nothing is limited


def test_a_step_after_the_end_changes_nothing_that_matters():
    for budget in (Budget(hours=2.0), Budget(evaluations=3), Budget(carbon_g=100.0)):
        params = cluster_params(budget=budget)
        *_, (_, _, ended, last) = play(jax.random.key(0), params, [2] * HOURS)
        assert bool(last.terminated) or bool(last.truncated)
        for action in (0, 4):
            after, time_step = step(ended, jnp.asarray(action), params)
            assert float(time_step.reward) == 0 and not bool(time_step.info.running)
            assert bool(time_step.terminated) == bool(ended.stopped) and bool(
                time_step.terminated | time_step.truncated
            )
            for name in (
                "count",
                "hypervolume",
                "evaluated",
                "ledger",
                "estimated",
                "supernet_left_s",
                "half_finished",
            ):
                same = jax.tree.map(np.array_equal, getattr(after, name), getattr(ended, name))
                assert all(jax.tree.leaves(same)), name


def test_terminated_and_truncated_are_kept_apart():
    steps = list(play(jax.random.key(0), cluster_params(budget=Budget(hours=3.0)), [2] * 4))
    assert [(bool(s[3].terminated), bool(s[3].truncated)) for s in steps] == [
        (False, False),
        (False, False),
        (False, True),
        (False, True),
    ]
    steps = list(play(jax.random.key(0), cluster_params(budget=Budget(evaluations=1)), [2] * 3))
    assert bool(steps[-1][3].terminated) and not bool(steps[-1][3].truncated)


def test_reward_of_the_paper_counts_every_finished_job():
    config = dataclasses.replace(CONFIG, reward="paper")
    environment = simulated_cluster(SPACE, TABLE, random_search(SPACE), config, HOURS)
    params = cluster_params(500.0, paper())
    state, _ = jax.jit(environment.reset)(jax.random.key(0), params)
    after, time_step = jax.jit(environment.step)(state, jnp.asarray(4), params)
    gain = (after.hypervolume - state.hypervolume) / TABLE.max_hypervolume
    tau = 7 / 8
    expected = 20 * gain * (0.8 * tau + 0.8) - 2 * (4 * 500) / (4 * 500) + 0.05 * time_step.info.finished
    assert float(time_step.reward) == pytest.approx(float(expected), rel=1e-4)


@jax.jit
def randomly(table, params):
    """A random search of a table, with room for 8 evaluations."""
    config = dataclasses.replace(CONFIG, capacity=8)
    environment = simulated_cluster(SPACE, table, random_search(SPACE), config, HOURS)
    return simulate(jax.random.key(0), environment, plain_policy(4), params, plain_params("vanilla", 4), HOURS)


def test_equal_training_times_do_not_exceed_the_evaluations():
    # Four jobs finish in the same second, but only two more evaluations are allowed.
    table = TABLE._replace(train_time_s=jnp.full_like(TABLE.train_time_s, 1800.0))
    result = randomly(table, cluster_params(power=paper(), budget=Budget(evaluations=CONFIG.initial_design + 2)))
    assert int(result.count) == CONFIG.initial_design + 2


def test_a_space_that_is_used_up_ends_without_work():
    space = tabular_space("tiny", (tuple("abc"),) * 3)
    rows = np.random.default_rng(0)
    table = benchmark_table(
        objectives=rows.uniform(size=(space.size, 2)),
        estimates=rows.uniform(size=(space.size, 2)),
        train_time_s=rows.uniform(300, 900, space.size),
        estimate_time_s=10.0,
        supernet_time_s=0.0,
        reference_point=np.zeros(2),
    )
    config = ClusterConfig(
        slots=4, initial_design=5, queue_capacity=12, screen_per_interval=24, window_h=6, capacity=32
    )
    environment = simulated_cluster(space, table, random_search(space), config, HOURS)
    result = jax.jit(
        lambda key: simulate(key, environment, plain_policy(4), cluster_params(), plain_params("vanilla", 4), HOURS)
    )(jax.random.key(0))
    assert sorted(result.evaluated[:27].tolist()) == list(range(27)) and int(result.count) == 27
    assert float(result.history.hypervolume_share[-1]) == pytest.approx(1.0, rel=1e-5)
    assert not result.history.charge.busy_s[-1, :4].any()
    check_overflow(result.overflow, 32)


def test_more_evaluations_than_the_capacity_are_an_error():
    result = randomly(TABLE, cluster_params())
    assert int(result.count) == 8
    with pytest.raises(ValueError, match="more than its capacity of 8: raise the capacity"):
        check_overflow(result.overflow, 8)


@pytest.mark.parametrize("choice", ["random", "estimate", "corrected"])
def test_states_keep_their_types_under_x64(choice):
    """Types alone, nothing is compiled; the ledger has float64 there, seconds and objectives do not."""
    config = LamooConfig(capacity=CONFIG.capacity, choice=choice, tree=TreeConfig(depth=2, min_samples=6))
    with jax.enable_x64(True):
        searcher = lamoo_search(SPACE, TABLE.reference_point, config)
        environment = simulated_cluster(SPACE, TABLE, searcher, CONFIG, HOURS)
        arguments = jax.random.key(0), cluster_params(), plain_params("heuristic", CONFIG.slots)
        result = jax.eval_shape(lambda *of: simulate(of[0], environment, plain_policy(4), *of[1:], HOURS), *arguments)
    assert result.history.duration_s.dtype == result.history.hypervolume_share.dtype == jnp.float32
    assert result.history.charge.emissions_g.dtype == jnp.float32


def test_bad_options_are_refused():
    with pytest.raises(ValueError, match="slots must be at least 1, got 0"):
        ClusterConfig(slots=0)
    with pytest.raises(ValueError, match=r"initial_design 10 exceeds the space \(4 architectures, isomorphs once\)"):
        small = tabular_space("four", (("a", "b"),) * 2)
        simulated_cluster(small, TABLE, random_search(small), ClusterConfig(), HOURS)
    assert ENVIRONMENT.slots == CONFIG.slots and SEARCHER.init is not None
