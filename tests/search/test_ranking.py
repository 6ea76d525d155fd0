"""Which candidates come first: by dominance number, and by greedy hypervolume gain."""

import jax
import jax.numpy as jnp
import moocore
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cenas_jax.search import ranking
from cenas_jax.search.base import Candidates

REFERENCE = np.zeros(2)
by_dominance = jax.jit(ranking.by_dominance, static_argnums=1)
by_hypervolume_gain = jax.jit(ranking.by_hypervolume_gain, static_argnames="n")


def candidates(estimates, valid=None) -> Candidates:
    rows = len(estimates)
    return Candidates(
        jnp.asarray(np.zeros((rows, 3), np.int32)),
        jnp.asarray(estimates, jnp.float32),
        jnp.asarray(np.ones(rows, bool) if valid is None else valid),
    )


def test_order_by_dominance_by_hand():
    # Dominance numbers: (1, 1) 3, (3, 3) 0, NaN last, (2, 2) 1, (4, 0) 0, (2, 2) 1; the row (9, 9) is not valid.
    estimates = [(1, 1), (3, 3), (np.nan, 5), (2, 2), (4, 0), (2, 2), (9, 9)]
    valid = [True] * 6 + [False]
    rows, real = by_dominance(candidates(estimates, valid), 7)
    assert rows.tolist() == [1, 4, 3, 5, 0, 2, 6]
    assert real.tolist() == [True] * 6 + [False]
    rows, real = by_dominance(candidates(estimates, valid), 2)
    assert rows.tolist() == [1, 4] and real.tolist() == [True, True]


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**31))
def test_order_by_dominance_against_counting(seed):
    random = np.random.default_rng(seed)
    estimates = random.integers(0, 5, (30, 2)).astype(float)
    estimates[random.random(30) < 0.1, 0] = np.nan
    valid = random.random(30) < 0.8
    counts = [
        sum(bool(valid[j]) and all(estimates[j] >= row) and any(estimates[j] > row) for j in range(30))
        if not np.isnan(row).any()
        else 30
        for row in estimates
    ]
    expected = sorted(range(30), key=lambda i: (not valid[i], counts[i], -estimates[i, 1]))
    rows, real = by_dominance(candidates(estimates, valid), 30)
    assert rows.tolist()[: valid.sum()] == expected[: valid.sum()]
    assert real.tolist() == [True] * valid.sum() + [False] * (30 - valid.sum())


def test_greedy_gain_by_hand():
    # The evaluated front is (4, 1). Gains: (3, 3) adds 3 x 2 = 6, (1, 4) adds 3, (5, 1) adds 1, (2, 1) nothing.
    # After (3, 3), the point (1, 4) adds only 1 and (5, 1) still 1; of ties the one that gains more alone is picked.
    predicted = jnp.asarray([[(1.0, 4.0), (2.0, 1.0), (3.0, 3.0), (5.0, 1.0), (9.0, 9.0)]])
    valid = jnp.asarray([True, True, True, True, False])
    evaluated = jnp.asarray([(4.0, 1.0), (1.0, 1.0), (50.0, 50.0)])
    rows, real = by_hypervolume_gain(predicted, valid, evaluated, jnp.asarray([True, True, False]), jnp.zeros(2), n=5)
    assert rows.tolist()[:4] == [2, 0, 3, 1]
    assert real.tolist() == [True] * 4 + [False]


def test_expected_gain_by_hand():
    # The evaluated front is (4, 1). The bold row gains 0, 0 and (10 - 4) x 1 = 6, on average 2, by its median nothing;
    # the sure one 1.5 at each level. The bold pick counts as its median, so that the sure one still gains 1.5.
    bold, sure = [(1.0, 1.0), (2.0, 1.0), (10.0, 1.0)], [(5.5, 1.0)] * 3
    predicted = np.array([sure, bold, [(4.0, 1.0)] * 3], np.float32).transpose(1, 0, 2)
    rows, _ = by_hypervolume_gain(
        predicted, np.ones(3, bool), jnp.asarray([(4.0, 1.0)]), np.ones(1, bool), np.zeros(2), n=3
    )
    assert rows.tolist() == [1, 0, 2]
    rows, _ = by_hypervolume_gain(
        predicted[1:2], np.ones(3, bool), jnp.asarray([(4.0, 1.0)]), np.ones(1, bool), np.zeros(2), n=3
    )
    assert rows.tolist() == [0, 1, 2]


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**31))
def test_greedy_gain_against_brute_force(seed):
    random = np.random.default_rng(seed)
    predicted = random.uniform(-0.2, 1, (3, 20, 2))
    evaluated = random.uniform(-0.2, 0.8, (15, 2))
    valid, known = random.random(20) < 0.8, random.random(15) < 0.7
    rows, real = by_hypervolume_gain(predicted, valid, evaluated, known, REFERENCE, n=6)
    picks = np.asarray(rows)[np.asarray(real)]
    assert len(set(picks.tolist())) == len(picks) == min(6, valid.sum()) and valid[picks].all()

    def volume(points):
        above = points[(points > 0).all(axis=1)]
        return moocore.hypervolume(above, ref=REFERENCE, maximise=True) if len(above) else 0.0

    have = evaluated[known]
    left = valid.copy()
    for pick in picks:
        gains = np.array(
            [
                np.mean([volume(np.vstack([have, box])) - volume(have) for box in row])
                for row in predicted.swapaxes(0, 1)
            ]
        )
        assert gains[pick] >= gains[left].max() - 1e-5
        left[pick] = False
        have = np.vstack([have, predicted[1, pick]])
