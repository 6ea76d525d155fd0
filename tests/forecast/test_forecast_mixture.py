"""Online combination: by hand, against a slow loop, and that nothing is known before it is over."""

import math

import jax
import numpy as np
import pytest
from arrays import replaced

from cenas_jax.forecast import mixture
from cenas_jax.forecast.base import POINT, QUANTILES
from cenas_jax.forecast.mixture import MixtureConfig, mix, observe, start, weights

UNCORRECTED = MixtureConfig(prior=(0.6, 0.3, 0.1), level_days=math.inf)


def series(seed: int, issues: int, others: int = 2):
    """Forecasts of a wandering level, each expert with errors and a bias of its own."""
    draw = np.random.default_rng(seed)
    actual = 300 * np.exp(0.2 * draw.normal(size=(issues, 96)))
    bias = np.linspace(-0.1, 0.2, others + 1)[:, None, None]
    experts = actual * np.exp(bias + draw.normal(size=(others + 1, issues, 96)) * 0.1)
    spread = np.exp(np.linspace(-0.2, 0.2, len(QUANTILES)))
    table = experts[0, ..., None] * spread
    return [part.astype(np.float32) for part in (table, experts[1:], actual)] + [np.ones((issues, 96), bool)]


def combine(*given, **options):
    return mixture.combine(*given, **options)[0]


def slow_combine(table, others, actual, valid, config, every_h):
    """Hour by hour in NumPy: an outcome counts at the first issue at which its whole lead day is over."""
    table, others, actual = (np.asarray(part, np.float64) for part in (table, others, actual))
    experts = np.log(np.concatenate([table[None, ..., POINT], others]))
    issues, hours = actual.shape
    loss = np.zeros((4, len(experts)))
    error, count = np.zeros(hours), np.zeros(hours)
    mixed, combined = np.full((issues, hours), np.nan), np.full(table.shape, np.nan)
    step = every_h / 24
    for now in range(issues):
        for day in range(4):
            over = [i for i in range(now) if math.ceil(24 * (day + 1) / every_h) == now - i]
            for earlier in over:
                missed = []
                for hour in range(24 * day, 24 * day + 24):
                    if not valid[earlier, hour] or np.isnan(mixed[earlier, hour]):
                        continue
                    outcome = np.log(actual[earlier, hour])
                    own = abs(mixed[earlier, hour] - outcome)
                    found = np.abs(experts[:, earlier, hour] - outcome)
                    missed.append([own if np.isnan(value) else value for value in found])
                    error[hour] = config.level_keep**step * error[hour] + step * (mixed[earlier, hour] - outcome)
                    count[hour] = config.level_keep**step * count[hour] + step
                if missed:
                    loss[day] = config.keep**step * loss[day] + step * np.mean(missed, axis=0)
        for hour in range(hours):
            there = np.isfinite(experts[:, now, hour])
            if there.any():
                weight = there * np.array(config.prior) * np.exp(-config.rate * loss[hour // 24])
                mixed[now, hour] = (weight[there] * experts[there, now, hour]).sum() / weight.sum()
                point = np.exp(mixed[now, hour] - error[hour] / (count[hour] + config.level_days))
                combined[now, hour] = table[now, hour] * point / table[now, hour, POINT]
    return combined


@pytest.mark.parametrize("every_h", (24, 12, 7))
def test_combine_equals_a_slow_loop(every_h):
    table, others, actual, valid = series(0, 20)
    valid[4, 30:50] = valid[6] = False
    others[1, :9] = others[0, 12, 40:] = others[:, 3, 5] = np.nan
    table[11, 20] = table[3, 5] = np.nan
    config = MixtureConfig(prior=(0.5, 0.3, 0.2), rate=3.0, level_days=5.0)
    got = combine(table, others, actual, valid, config, every_h=every_h)
    np.testing.assert_allclose(got, slow_combine(table, others, actual, valid, config, every_h), rtol=2e-5)


def test_the_states_are_those_that_the_forecasts_were_made_by():
    table, others, actual, valid = series(5, 12)
    got, states = mixture.combine(table, others, actual, valid, UNCORRECTED)
    for issue in (0, 4, 11):
        state = jax.tree.map(lambda values, issue=issue: values[issue], states)
        experts = np.log(np.concatenate([table[None, issue, :, POINT], others[:, issue]]))
        np.testing.assert_allclose(np.exp(mix(state, experts, UNCORRECTED)), got[issue, :, POINT], rtol=1e-5)


def test_by_hand():
    """Day 2 of two experts, 100 and 200, prior 3 : 1; the outcome is 100 in 12 hours, 200 in 6, unknown in the rest.

    Mean errors in logarithms: 6/18 ln 2 and 12/18 ln 2, so with rate 3 the weights are 3/4 * 2^-1 and 1/4 * 2^-2,
    which is 6 : 1. The mixture was 2^(1/4) x 100: its error is 1/4 ln 2 or -3/4 ln 2, hour by hour.
    """
    config = MixtureConfig(prior=(0.75, 0.25), rate=3.0)
    experts = np.log(np.repeat(np.array([[100], [200]], np.float32), 96, axis=1))
    before = start(2, 96)
    mixed = mix(before, experts, config)
    np.testing.assert_allclose(np.exp(mixed), 100 * 2**0.25, rtol=1e-5)
    hour = np.arange(96)
    actual = np.where(hour < 36, np.float32(100), np.float32(200))
    state = jax.device_get(observe(before, experts, mixed, actual, (hour >= 24) & (hour < 42), config))
    found = np.asarray(weights(state, np.ones((2, 96), bool), config))
    np.testing.assert_allclose(found[:, 24:48], np.repeat([[6 / 7], [1 / 7]], 24, axis=1), rtol=1e-5)
    np.testing.assert_allclose(np.delete(found, hour[24:48], axis=1)[0], 0.75, rtol=1e-6)
    np.testing.assert_allclose(state.error[24:36], np.log(2) / 4, rtol=1e-5)
    np.testing.assert_allclose(state.error[36:42], -np.log(2) * 3 / 4, rtol=1e-5)
    assert not state.error[:24].any() and not state.error[42:].any() and state.count.sum() == 18


@pytest.mark.parametrize("every_h", (24, 12, 7, 48))
def test_an_outcome_moves_no_forecast_before_it_is_known(every_h):
    table, others, actual, valid = series(1, 24, others=3)
    before = np.asarray(combine(table, others, actual, valid, every_h=every_h))
    for issue, day in ((0, 0), (0, 3), (5, 1), (9, 2)):
        first = issue + math.ceil(24 * (day + 1) / every_h)
        hours = slice(24 * day, 24 * day + 24)
        other = np.asarray(combine(table, others, replaced(actual, (issue, hours), 2000.0), valid, every_h=every_h))
        np.testing.assert_array_equal(other[:first], before[:first])
        assert (other[first, hours] != before[first, hours]).all(), "known, and used at once"
        other_days = np.delete(np.arange(96), np.arange(96)[hours])
        np.testing.assert_array_equal(other[:, other_days], before[:, other_days])


def test_later_forecasts_move_no_earlier_one():
    table, others, actual, valid = series(1, 24, others=3)
    before = combine(table, others, actual, valid)
    tripled = np.concatenate([table[:12], 3 * table[12:]])
    other = combine(tripled, replaced(others, np.s_[:, 12:], np.nan), actual, valid)
    np.testing.assert_array_equal(np.asarray(other)[:12], np.asarray(before)[:12])


def test_outcomes_that_are_not_valid_are_never_seen():
    table, others, actual, valid = series(1, 24, others=3)
    valid[3:6, 10:40] = False
    tables = [combine(table, others, np.where(valid, actual, np.float32(wild)), valid) for wild in (1.0, 1e6, np.nan)]
    for other in tables[1:]:
        np.testing.assert_array_equal(other, tables[0])
    assert np.isfinite(tables[0]).all()


def test_an_expert_without_a_forecast_has_no_weight():
    table, others, actual, valid = series(2, 15)
    config = MixtureConfig(prior=(0.6, 0.3, 0.1))
    got = combine(table, replaced(others, 1, np.nan), actual, valid, config)
    without = combine(table, others[:1], actual, valid, MixtureConfig(prior=(0.6, 0.3)))
    np.testing.assert_allclose(got, without, rtol=1e-5)
    there = replaced(np.ones((3, 96), bool), 2, False)
    first = np.asarray(weights(start(3, 96), there, config))[:, 0]
    np.testing.assert_allclose(first, [2 / 3, 1 / 3, 0], rtol=1e-6)
    assert np.isnan(mix(start(3, 96), np.full((3, 96), np.nan, np.float32), config)).all()


def test_equal_experts_and_single_ones_change_nothing():
    table, _, actual, valid = series(3, 15)
    alone = combine(
        table, np.zeros((0, 15, 96), np.float32), actual, valid, MixtureConfig(prior=(1.0,), level_days=math.inf)
    )
    np.testing.assert_array_equal(alone, table)
    same = np.stack([table[..., POINT]] * 2)
    np.testing.assert_allclose(combine(table, same, actual, valid, UNCORRECTED), table, rtol=1e-5)


def test_the_better_expert_wins_and_the_level_is_found():
    """The main forecast is random; the other is right but for 30 %: weight and level follow."""
    table, others, actual, valid = series(4, 200, others=1)
    table = table * np.exp(np.random.default_rng(5).normal(size=(200, 96, 1)).astype(np.float32))
    config = MixtureConfig(prior=(0.9, 0.1), level_days=1.0)
    got = np.asarray(combine(table, actual[None] * np.float32(1.3), actual, valid, config))[-30:, :, POINT]
    assert np.abs(np.log(got / actual[-30:])).mean() < 0.03
    assert others.shape[0] == 1


def test_priors_fit_the_experts():
    with pytest.raises(ValueError, match="combine: 4 prior weights do not fit 2 experts"):
        combine(*series(0, 5, others=1))


@pytest.mark.parametrize(
    "fields", [{"prior": ()}, {"prior": (0.5, 0.0)}, {"rate": -1.0}, {"keep": 1.5}, {"level_keep": -0.1}]
)
def test_what_cannot_be_is_refused(fields):
    with pytest.raises(ValueError, match=f"MixtureConfig: .*{next(iter(fields)).split('_')[0]}"):
        MixtureConfig(**fields)
