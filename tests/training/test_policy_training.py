"""Training a policy with checkpoints: killed anywhere, it ends with the same bits; policies as files."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from carbon_bandit import HOURS, SLOTS, carbon_bandit, observe

from cenas_jax.allocation.agent import AgentConfig, agent, agent_policy
from cenas_jax.allocation.ppo import Hyperparameters, PPOConfig, ppo
from cenas_jax.config import LEARNED_POLICIES
from cenas_jax.nets import ActorCriticConfig
from cenas_jax.training import policy as training
from cenas_jax.training.policy import train_policy
from cenas_jax.training.saved_policy import SHIPPED, LearnedPolicy, load_named, load_policy, save_policy

CONFIG = AgentConfig(network=ActorCriticConfig(width=8, layers=1))
AGENT = agent(CONFIG, SLOTS)
LEARNER = ppo(carbon_bandit(), lambda key: (), AGENT, PPOConfig(environments=2, steps=HOURS, epochs=1, minibatches=2))
HYPER = Hyperparameters(learning_rate=1e-2)


def train(**options):
    return train_policy(jax.random.key(5), LEARNER, HYPER, chunk_updates=2, **options)


class Killed(Exception):
    pass


def kill_after(update):
    def progress(done, metrics):
        assert np.isfinite(metrics.episode_reward).all() and metrics.episode_reward.shape == (2,)
        if done >= update:
            raise Killed

    return progress


def test_killed_at_a_random_update_it_ends_with_the_same_bits(tmp_path):
    whole = train(updates=8)
    assert int(whole.step) == 8
    kept = {"checkpoints": tmp_path / "checkpoints", "identity": {"tasks": "a bandit"}}
    update = 2 * int(np.random.default_rng().integers(1, 4))
    with pytest.raises(Killed):
        train(updates=8, **kept, progress=kill_after(update))
    first = []
    resumed = train(updates=8, **kept, progress=lambda done, _: first.append(done))
    assert first[0] == update + 2
    jax.tree.map(np.testing.assert_array_equal, whole, resumed)


def test_checkpoints_of_another_training_are_refused(tmp_path):
    train(updates=2, checkpoints=tmp_path / "checkpoints", identity={"tasks": "a"})
    with pytest.raises(ValueError, match="checkpoints of another run"):
        train(updates=4, checkpoints=tmp_path / "checkpoints", identity={"tasks": "b"})
    with pytest.raises(ValueError, match="checkpoints need an identity"):
        train(updates=4, checkpoints=tmp_path / "checkpoints")


def test_a_policy_as_a_file(tmp_path):
    state = train(updates=2)
    path = save_policy(tmp_path / "policy.npz", LearnedPolicy(CONFIG, state.params, {"trained_on": "a bandit"}))
    loaded = load_policy(path)
    assert loaded.config == CONFIG and loaded.info == {"trained_on": "a bandit"}
    jax.tree.map(np.testing.assert_array_equal, loaded.params, state.params)
    act = jax.jit(agent_policy(agent(loaded.config, 4)).act)
    assert 0 <= int(act(jax.random.key(0), loaded.params, observe(jnp.float32(1.0), 0))[0]) <= 4
    with pytest.raises(ValueError, match="never overwritten"):
        save_policy(path, loaded)
    with pytest.raises(ValueError, match="no such file: name one written by `cenas policy train`"):
        load_policy(tmp_path / "none.npz")
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match="damaged, or no allocation policy of this version.*`cenas policy train`"):
        load_policy(path)


def test_shipped_policies_are_small_and_saw_nothing_held_out():
    folder = Path(training.__file__).parent / "shipped" / "policies"
    sizes = [path.stat().st_size for path in folder.glob("*.npz")]
    assert len(sizes) == len(SHIPPED) and max(sizes) < 1e6
    assert SHIPPED == LEARNED_POLICIES  # the command line's own list, which starts no jax
    for name in SHIPPED:
        learned = load_named(name)
        assert learned.info["trained_on"] and not any("CIFAR-10 " in source for source in learned.info["trained_on"])
