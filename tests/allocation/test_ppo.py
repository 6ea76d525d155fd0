"""Advantages and losses by hand and by NumPy; a carbon bandit solved; the same bits again; a kill and a resume."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from carbon_bandit import HOURS, SLOTS, best, carbon_bandit, observe, worth

from cenas_jax.allocation.agent import AgentConfig, agent
from cenas_jax.allocation.ppo import (
    Hyperparameters,
    PPOConfig,
    generalised_advantages,
    ppo,
    ppo_loss,
)
from cenas_jax.allocation.ppo.advantages import beside_replicas
from cenas_jax.allocation.ppo.train import rollout
from cenas_jax.nets import ActorCriticConfig

FALSE, HALF = jnp.zeros(3, bool), jnp.float32(0.5)


def test_advantages_by_hand():
    """Discount 1/2, lambda 1/2: errors 1 + 2/2 - 0 = 2, 2 + 4/2 - 2 = 2, 3 + 8/2 - 4 = 3; 3, 2 + 3/4, 2 + 2.75/4."""
    reward, value = jnp.array([1.0, 2.0, 3.0]), jnp.array([0.0, 2.0, 4.0])
    next_value = jnp.array([2.0, 4.0, 8.0])
    last = jnp.array([False, False, True])
    cut = generalised_advantages(reward, value, next_value, FALSE, last, HALF, HALF)
    assert cut.tolist() == [2.6875, 2.75, 3.0]
    # Where the episode terminated, what would have followed counts nothing: 3 - 4 = -1.
    ended = generalised_advantages(reward, value, next_value, last, FALSE, HALF, HALF)
    assert ended.tolist() == [2 + 1.75 / 4, 1.75, -1.0]
    # An end in the middle lets nothing through; a cut there still has a value after it.
    middle = jnp.array([False, True, False])
    assert generalised_advantages(reward, value, next_value, FALSE, middle, HALF, HALF).tolist() == [2.5, 2.0, 3.0]
    assert generalised_advantages(reward, value, next_value, middle, FALSE, HALF, HALF).tolist() == [2.0, 0.0, 3.0]


@pytest.mark.parametrize("seed", range(3))
def test_advantages_are_sums_of_discounted_errors(seed):
    """The definition, term by term, in NumPy."""
    draw = np.random.default_rng(seed)
    reward, value, next_value = draw.normal(size=(3, 12)).astype(np.float32)
    terminated, truncated = draw.random((2, 12)) < 0.15
    discount, decay = 0.97, 0.9
    error = reward + discount * np.where(terminated, 0, next_value) - value
    expected = np.zeros(12)
    for first in range(12):
        for later in range(first, 12):
            expected[first] += (discount * decay) ** (later - first) * error[later]
            if terminated[later] or truncated[later]:
                break
    arrays = map(jnp.asarray, (reward, value, next_value, terminated, truncated))
    found = generalised_advantages(*arrays, jnp.float32(discount), jnp.float32(decay))
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=1e-5)


def test_losses_by_hand():
    """Two valid rows, advantages 1 and 3: normalised -1 and 1. Ratios 2 and 2, clipped to 1.2 where that gains."""
    two = jnp.log(jnp.array([2.0, 2.0, 9.0]))
    terms = ppo_loss(
        log_prob=two,
        old_log_prob=jnp.zeros(3),
        advantage=jnp.array([1.0, 3.0, 99.0]),
        value=jnp.array([1.0, 0.0, 7.0]),
        old_value=jnp.array([0.0, 0.0, 0.0]),
        target=jnp.array([1.0, 1.0, 0.0]),
        entropy=jnp.array([0.5, 1.5, 9.0]),
        valid=jnp.array([True, True, False]),
        clip=jnp.float32(0.2),
    )
    # min(2 x -1, 1.2 x -1) = -2 and min(2 x 1, 1.2 x 1) = 1.2: their mean, negated.
    assert float(terms.policy) == pytest.approx(0.4, abs=1e-5)
    # Clipped to 0.2 the first value is .8 off, unclipped it would be right; the second is 1 off.
    assert float(terms.value) == pytest.approx(0.5 * (0.64 + 1.0) / 2, rel=1e-5)
    assert float(terms.entropy) == pytest.approx(1.0)
    assert float(terms.approximate_kl) == pytest.approx(1 - np.log(2), rel=1e-5)
    assert float(terms.clipped_share) == 1.0


def test_losses_equal_numpy():
    draw = np.random.default_rng(0)
    n, clip = 64, 0.15
    log_prob, old, advantage, value, old_value, target, entropy = draw.normal(size=(7, n)).astype(np.float32) * 0.4
    valid = draw.random(n) < 0.7
    arguments = map(jnp.asarray, (log_prob, old, advantage, value, old_value, target, entropy, valid))
    terms = ppo_loss(*arguments, jnp.float32(clip))
    kept = [part[valid] for part in (log_prob, old, advantage, value, old_value, target, entropy)]
    log_prob, old, advantage, value, old_value, target, entropy = kept
    advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    policy, error = [], []
    for row in range(valid.sum()):
        ratio = np.exp(log_prob[row] - old[row])
        policy.append(-min(ratio * advantage[row], min(max(ratio, 1 - clip), 1 + clip) * advantage[row]))
        near = min(max(value[row], old_value[row] - clip), old_value[row] + clip)
        error.append(max((value[row] - target[row]) ** 2, (near - target[row]) ** 2) / 2)
    found = [float(terms.policy), float(terms.value), float(terms.entropy)]
    np.testing.assert_allclose(found, [np.mean(policy), np.mean(error), entropy.mean()], rtol=1e-4, atol=1e-6)


def training(action, updates, environments=64):
    trained = agent(AgentConfig(action=action, anchor=0.0), SLOTS)
    learner = ppo(carbon_bandit(), lambda key: (), trained, PPOConfig(environments=environments, steps=HOURS))

    def train(key, hyper):
        return jax.lax.scan(lambda state, _: learner.update(state, key, hyper), learner.init(key), None, length=updates)

    return trained, learner, train


def share_of_the_optimum(trained, params):
    """What the most likely actions earn over all intensities, of the best that could be earned."""
    ratio = jnp.linspace(0.5, 2.0, 301)
    acted = jax.vmap(lambda ratio: trained.evaluate(params, trained.view(observe(ratio, 3)))[0].mode())(ratio)
    return worth(jax.vmap(trained.evaluation_slots)(acted), ratio).mean() / jax.vmap(best)(ratio).mean()


@pytest.mark.parametrize(
    ("action", "updates", "entropy", "seeds", "environments"),
    [
        ("discrete", 40, 0.01, 1, 32),
        pytest.param("discrete", 100, 0.01, 8, 64, marks=pytest.mark.slow),
        pytest.param("continuous", 200, 0.02, 8, 64, marks=pytest.mark.slow),
    ],
)
def test_bandit_is_solved_by_every_seed(action, updates, entropy, seeds, environments):
    trained, _, train = training(action, updates, environments)
    hyper = Hyperparameters(learning_rate=1e-3, entropy=entropy, last_update=updates, discount=0.0)
    state, metrics = jax.jit(jax.vmap(train, (0, None)))(jax.random.split(jax.random.key(0), seeds), hyper)
    shares = jax.jit(jax.vmap(lambda params: share_of_the_optimum(trained, params)))(state.params)
    metrics = jax.device_get(metrics)
    assert np.min(shares) >= 0.98, shares
    assert (metrics.episode_reward[:, -1] > metrics.episode_reward[:, 0] + 1).all()
    assert (metrics.episode_steps == HOURS).all()


SMALL = AgentConfig(network=ActorCriticConfig(width=8, layers=1))


@pytest.fixture(scope="module")
def small_params():
    return jax.jit(agent(SMALL, SLOTS).init)(jax.random.key(2))


def small_training(environments=4):
    config = PPOConfig(environments=environments, steps=HOURS, epochs=2, minibatches=2)
    return ppo(carbon_bandit(), lambda key: (), agent(SMALL, SLOTS), config)


def test_one_compilation_the_same_bits_and_a_sweep_in_one_call():
    learner = small_training()
    compiled = 0

    def train(key, hyper):
        nonlocal compiled
        compiled += 1
        return jax.lax.scan(lambda state, _: learner.update(state, key, hyper), learner.init(key), None, length=6)

    run, key = jax.jit(train), jax.random.key(3)
    rates = (1e-3, 3e-3, 1e-2)
    each = [run(key, Hyperparameters(learning_rate=jnp.float32(rate)))[0].params.weights for rate in (*rates, rates[0])]
    assert compiled == 1
    assert jax.tree.all(jax.tree.map(np.array_equal, each[0], each[3]))
    sweep = jax.jit(jax.vmap(lambda rate: train(key, Hyperparameters(learning_rate=rate))[0].params.weights))
    one_by_one = jax.tree.map(lambda *parts: np.stack(parts), *each[:3])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4), sweep(jnp.array(rates)), one_by_one)
    assert not jax.tree.all(jax.tree.map(np.array_equal, each[0], each[1]))


def test_replicas_are_compared_with_each_other_while_they_run():
    advantage = jnp.asarray([[1.0, 2.0], [3.0, 9.0], [5.0, 6.0], [5.0, 8.0]])
    valid = jnp.asarray([[True, True], [True, False], [True, True], [True, True]])
    expected = [[-1.0, 0.0], [1.0, 7.0], [0.0, -1.0], [0.0, 1.0]]  # 7: of a row that is over, and counts nothing
    np.testing.assert_allclose(beside_replicas(advantage, valid, 2), expected)


def test_replicas_share_a_task_and_its_draws_but_not_their_actions(small_params):
    config = PPOConfig(environments=4, replicas=2, steps=HOURS, minibatches=1)
    tasks, acts = jax.random.split(jax.random.key(0), 2)[np.array([0, 0, 1, 1])], jax.random.split(jax.random.key(1), 4)

    def play(task, act):
        return rollout(task, act, carbon_bandit(), lambda key: (), agent(SMALL, SLOTS), small_params, config)

    played = jax.device_get(jax.jit(jax.vmap(play))(tasks, acts))
    intensity = played.view.inputs[:, :, 5]
    np.testing.assert_array_equal(intensity[::2], intensity[1::2])
    assert not (intensity[0] == intensity[2]).all() and not (played.action[0] == played.action[1]).all()


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="8 environments are no multiple of 3 replicas"):
        PPOConfig(environments=8, replicas=3)
    with pytest.raises(ValueError, match="3 environments x 5 steps must be a multiple of the 4 minibatches"):
        PPOConfig(environments=3, steps=5)


def test_the_next_value_is_that_of_what_a_step_led_to(small_params):
    """Also after the last step; and the bandit's last interval ends the task or cuts it off, as the config says."""

    @functools.partial(jax.jit, static_argnums=2)
    def play(task, act, bootstrap):
        config = PPOConfig(environments=1, steps=HOURS, minibatches=1, bootstrap_truncated=bootstrap)
        return rollout(task, act, carbon_bandit(), lambda key: (), agent(SMALL, SLOTS), small_params, config)

    for bootstrap in (False, True):
        played = jax.device_get(play(jax.random.key(1), jax.random.key(2), bootstrap))
        np.testing.assert_array_equal(played.next_value[:-1], played.value[1:])
        np.testing.assert_array_equal(played.terminated, [False] * (HOURS - 1) + [not bootstrap])
        np.testing.assert_array_equal(played.truncated, [False] * (HOURS - 1) + [bootstrap])
        assert played.valid.all() and float(played.next_value[-1]) != float(played.value[-1])
