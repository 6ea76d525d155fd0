"""Rewards by hand."""

import math

import jax.numpy as jnp
import pytest

from cenas_jax.allocation.reward import budgeted_reward, paper_reward


@pytest.mark.parametrize(
    ("now", "before", "expected"),
    [
        (0.9, 0.9, 0.0),
        (0.96, 0.92, math.log(0.081 / 0.041)),  # about halved
        (0.999, 0.0, math.log(1.001 / 0.002)),
        (1.0, 0.999, math.log(2)),  # all that is left
    ],
)
def test_budgeted_reward_is_the_fall_of_the_log_regret(now, before, expected):
    reward = float(budgeted_reward(jnp.float32(now - before), jnp.float32(1 - now)))
    assert reward == pytest.approx(expected, abs=1e-6) and (now != before or reward == 0)


@pytest.mark.parametrize(
    ("gain", "time", "emissions_g", "evaluations", "expected"),
    [
        (0.0, 0.0, 0.0, 0, 0.0),
        (0.01, 1.0, 0.0, 0, 0.32),  # 20 x 0.01 x 1.6
        (0.01, 0.0, 0.0, 0, 0.16),  # early hours count double
        (0.0, 0.5, 1000.0, 0, -0.5),  # a quarter of what all slots can emit
        (0.0, 0.5, 0.0, 7, 0.35),
        (0.02, 0.5, 4000.0, 3, 20 * 0.02 * 1.2 - 2 + 0.15),
    ],
)
def test_paper_reward(gain, time, emissions_g, evaluations, expected):
    numbers = [jnp.float32(value) for value in (gain, time, emissions_g, 4000.0, evaluations)]
    assert float(paper_reward(*numbers)) == pytest.approx(expected, abs=1e-6)
