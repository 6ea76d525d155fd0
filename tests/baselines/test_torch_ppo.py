"""The PyTorch rival is the same PPO: network, logits, advantages, losses and moments agree. Skips without torch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from carbon_bandit import HOURS, PRICE, SLOTS, best

from cenas_jax.allocation.agent import INPUTS, AgentConfig, Scaling, View, agent, normalised, seen
from cenas_jax.allocation.ppo import Hyperparameters, PPOConfig, generalised_advantages, ppo_loss
from cenas_jax.allocation.ppo.advantages import beside_replicas

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")
pytest.importorskip("moocore")

rival = pytest.importorskip("baselines.torch_ppo")
from baselines.numpy_environment import BanditEnvironments  # noqa: E402  # pyright: ignore
from baselines.numpy_view import View as NumpyView  # noqa: E402  # pyright: ignore


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def draw():
    return np.random.default_rng(0)


def random_views(draw, count):
    inputs = draw.normal(size=(count, INPUTS)).astype(np.float32)
    affordable = draw.uniform(0, 1, count).astype(np.float32)
    return NumpyView(inputs, affordable, draw.uniform(0, 1, (count, 4)).astype(np.float32))


@pytest.mark.parametrize("slots", [1, 8])
def test_logits_and_value_agree_with_copied_weights(draw, slots):
    config = AgentConfig(anchor=1.0)
    ours, view = agent(config, slots), random_views(draw, 20)
    params = jax.jit(ours.init)(jax.random.key(0))
    weights = jax.tree.map(lambda leaf: leaf + 0.1 * draw.normal(size=leaf.shape).astype(np.float32), params.weights)
    scaling = seen(params.scaling, jnp.asarray(2 + 3 * view.inputs), jnp.ones(20, bool))

    def answer(view):
        distribution, value = ours.evaluate(params._replace(weights=weights, scaling=scaling), view)
        return jax.vmap(distribution.log_prob)(jnp.arange(slots + 1)), distribution.entropy(), value

    log_prob, entropy, value = jax.jit(jax.vmap(answer))(View(*map(jnp.asarray, view)))
    trainer = rival.TorchPPO(None, config, slots, PPOConfig(), INPUTS)
    rival.copy_weights(trainer.network, weights)
    trainer.moments.see(torch.tensor(2 + 3 * view.inputs))
    with torch.no_grad():
        actor, their_value = trainer.network(trainer.moments.normalised(torch.tensor(view.inputs)))
        logits = rival.split_logits(actor, rival.split_features(view, slots), config.anchor)
    np.testing.assert_allclose(value, their_value, atol=1e-5)
    np.testing.assert_allclose(log_prob, logits, atol=1e-5)
    np.testing.assert_allclose(entropy, -(logits.exp() * logits).sum(dim=1), atol=1e-5)


def test_moments_agree(draw):
    ours, theirs = Scaling(jnp.zeros(()), jnp.zeros(INPUTS), jnp.zeros(INPUTS)), rival.Moments(INPUTS)
    inputs = draw.normal(3, 2, (30, INPUTS)).astype(np.float32)
    for _ in range(3):
        np.testing.assert_allclose(
            normalised(ours, jnp.asarray(inputs[0])), theirs.normalised(torch.tensor(inputs[0])), atol=1e-5
        )
        valid = draw.random(30) < 0.6
        ours = seen(ours, jnp.asarray(inputs), jnp.asarray(valid))
        theirs.see(torch.tensor(inputs[valid]))
    np.testing.assert_allclose(ours.squares, theirs.squares, rtol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_advantages_agree(seed):
    draw, shape = np.random.default_rng(seed), (17, 8)
    reward, value, next_value = draw.normal(size=(3, *shape)).astype(np.float32)
    terminated, truncated = draw.random((2, *shape)) < 0.1
    numbers = [reward, value, next_value, terminated, truncated]
    ours = jax.vmap(generalised_advantages, (1, 1, 1, 1, 1, None, None), 1)(
        *map(jnp.asarray, numbers), jnp.float32(0.97), jnp.float32(0.9)
    )
    theirs = rival.generalised_advantages(*map(torch.tensor, numbers), 0.97, 0.9)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    valid = draw.random(shape) < 0.7
    np.testing.assert_allclose(
        beside_replicas(ours.T, jnp.asarray(valid.T), 4).T,
        rival.beside_replicas(theirs, torch.tensor(valid), 4),
        atol=1e-5,
    )


@pytest.mark.parametrize("share", [0.0, 0.6, 1.0])
def test_losses_agree(draw, share):
    columns = list(draw.normal(size=(7, 64)).astype(np.float32))
    columns[0] = columns[1] + 0.2 * columns[0]
    valid = draw.random(64) < share
    ours = ppo_loss(*map(jnp.asarray, columns), jnp.asarray(valid), jnp.float32(0.2))
    theirs = rival.ppo_loss(*map(torch.tensor, columns), torch.tensor(valid), 0.2)
    np.testing.assert_allclose(ours[:3], theirs, atol=1e-5)


def test_it_learns_the_carbon_bandit():
    """So that what is timed is a training that works: near the best that is known."""
    torch.manual_seed(0)
    config, updates = PPOConfig(environments=16, steps=HOURS), 40
    trainer = rival.TorchPPO(BanditEnvironments(SLOTS, HOURS, PRICE), AgentConfig(anchor=0.0), SLOTS, config, INPUTS)
    hyper = Hyperparameters(learning_rate=1e-2, last_update=updates, entropy=0.0, discount=0.0)
    outcomes = [trainer.update(hyper) for _ in range(updates)]
    optimum = HOURS * float(jax.vmap(best)(jnp.linspace(0.5, 2.0, 200)).mean())
    assert all(steps == 16 * HOURS for steps, _ in outcomes)
    first, last = outcomes[0][1] / optimum, np.mean([reward for _, reward in outcomes[-8:]]) / optimum
    assert first < 0.9 and last > 0.95, (first, last)
