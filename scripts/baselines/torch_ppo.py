"""PPO in PyTorch, as CleanRL writes it, acting on environments in NumPy: the rival of scripts/bench_ppo.py.

The same network, losses, advantages, epochs, minibatches, moments of the inputs and schedules as
`cenas_jax.allocation.ppo`, for discrete actions. What no weight changes (the features of the splits) is computed once
for all epochs, and one thread acts: the networks are small.
"""

import time
from typing import NamedTuple

import numpy as np
import torch
from baselines.numpy_environment import Environments
from baselines.numpy_view import View
from torch import Tensor, nn

from cenas_jax.allocation.agent import PLAN_DISTANCE, PLAN_WEIGHTS, PLANS, SPLIT_FEATURES, AgentConfig
from cenas_jax.allocation.ppo import Hyperparameters, PPOConfig


class TorchActorCritic(nn.Module):
    """`forward(inputs[n, i]) -> (actor[n, outputs], value[n])`."""

    def __init__(self, width: int, layers: int, inputs: int, outputs: int):
        super().__init__()
        self.actor = _head(width, layers, inputs, outputs, 0.01)
        self.critic = _head(width, layers, inputs, 1, 1.0)

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        return self.actor(inputs), self.critic(inputs).squeeze(-1)


def _head(width: int, layers: int, inputs: int, outputs: int, scale: float) -> nn.Sequential:
    sizes = [inputs, *[width] * layers]
    hidden = [_dense(size, width, 2**0.5) for size in sizes[:-1]]
    parts = [part for layer in hidden for part in (layer, nn.Tanh())]
    return nn.Sequential(*parts, _dense(sizes[-1], outputs, scale))


def _dense(inputs: int, outputs: int, scale: float) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.orthogonal_(layer.weight, scale)
    nn.init.zeros_(layer.bias)
    return layer


def copy_weights(network: TorchActorCritic, weights: dict) -> None:
    """Copies Flax parameters: the actor's layers come first."""
    dense = [layer for head in (network.actor, network.critic) for layer in head if isinstance(layer, nn.Linear)]
    if len(dense) != len(weights["params"]):
        raise ValueError("the Flax network has other layers")
    with torch.no_grad():
        for number, layer in enumerate(dense):
            layer.weight.copy_(torch.tensor(np.asarray(weights["params"][f"Dense_{number}"]["kernel"]).T))
            layer.bias.copy_(torch.tensor(np.asarray(weights["params"][f"Dense_{number}"]["bias"])))


class Moments:
    """Running moments of the inputs, by which they are normalised (Chan et al. 1983)."""

    def __init__(self, inputs: int):
        self.count, self.mean, self.squares = torch.zeros(()), torch.zeros(inputs), torch.zeros(inputs)

    def normalised(self, inputs: Tensor) -> Tensor:
        variance = self.squares / self.count if self.count > 0 else torch.ones_like(self.squares)
        return ((inputs - self.mean) / torch.sqrt(variance + 1e-4)).clamp(-10, 10)

    def see(self, inputs: Tensor) -> None:
        count, mean = len(inputs), inputs.mean(dim=0)
        squares, change, total = ((inputs - mean) ** 2).sum(dim=0), mean - self.mean, self.count + count
        self.mean = self.mean + change * count / total
        self.squares = self.squares + squares + change**2 * self.count * count / total
        self.count = total


def split_features(view: View, slots: int) -> Tensor:
    """`[n, slots + 1, features]`: what tells the splits apart."""
    split = torch.arange(slots + 1.0)
    share, rows = split / slots, len(view.affordable_share)
    affordable = torch.log((split + 0.5) / (torch.as_tensor(view.affordable_share)[:, None] * slots + 0.5))
    constant = torch.stack([share, share**2, share.sqrt(), (split == 0) * 1.0], dim=1).expand(rows, -1, -1)
    distance = PLAN_DISTANCE * (share[:, None] - torch.as_tensor(view.plans)[:, None]).abs()
    return torch.cat([constant, affordable[..., None], affordable[..., None] ** 2, distance], dim=2)


def split_logits(actor: Tensor, features: Tensor, anchor: float) -> Tensor:
    """Logarithms of the probabilities of the splits, `[n, slots + 1]`."""
    logits = torch.einsum("nsf,nf->ns", features, actor)
    if anchor > 0:
        logits = logits + torch.logsumexp(torch.log(torch.tensor(PLAN_WEIGHTS)) - anchor * features[..., -PLANS:-1], -1)
    return torch.log_softmax(logits, dim=-1)


def generalised_advantages(
    reward: Tensor,
    value: Tensor,
    next_value: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    discount: float,
    decay: float,
) -> Tensor:
    """`[T, n]`, as `cenas_jax.allocation.ppo.generalised_advantages` of every column."""
    error = reward + discount * next_value.masked_fill(terminated, 0.0) - value
    keep = discount * decay * (~(terminated | truncated)).float()
    advantage, carried = torch.empty_like(error), torch.zeros_like(error[0])
    for step in reversed(range(len(error))):
        carried = error[step] + keep[step] * carried
        advantage[step] = carried
    return advantage


def beside_replicas(advantage: Tensor, valid: Tensor, replicas: int) -> Tensor:
    """`[T, n]` less their mean over the replicas that still run, `replicas` columns in a row being of one task."""
    grouped, counts = (part.reshape(len(part), -1, replicas) for part in (advantage, valid.float()))
    mean = (grouped * counts).sum(dim=2, keepdim=True) / counts.sum(dim=2, keepdim=True).clamp(min=1)
    return (grouped - mean).reshape(advantage.shape)


class LossTerms(NamedTuple):
    policy: Tensor
    value: Tensor
    entropy: Tensor


def ppo_loss(
    log_prob: Tensor,
    old_log_prob: Tensor,
    advantage: Tensor,
    value: Tensor,
    old_value: Tensor,
    target: Tensor,
    entropy: Tensor,
    valid: Tensor,
    clip: float,
) -> LossTerms:
    """As `cenas_jax.allocation.ppo.ppo_loss`; all `[n]`."""
    weight = valid / valid.sum().clamp(min=1)
    centred = advantage - (weight * advantage).sum()
    advantage = centred / ((weight * centred**2).sum().sqrt() + 1e-8)
    ratio = torch.exp(torch.where(valid, log_prob - old_log_prob, 0.0))
    surrogate = torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)
    near = old_value + (value - old_value).clamp(-clip, clip)
    error = torch.maximum((value - target) ** 2, (near - target) ** 2)
    return LossTerms(-(weight * surrogate).sum(), 0.5 * (weight * error).sum(), (weight * entropy).sum())


class Rollout(NamedTuple):
    """Rows are intervals and environments; those after an episode's end are not valid."""

    inputs: Tensor  # normalised
    features: Tensor
    action: Tensor
    log_prob: Tensor
    value: Tensor
    valid: Tensor
    advantage: Tensor
    target: Tensor


class TorchPPO:
    """A training; `update` plays an episode in every environment and learns from it."""

    def __init__(self, environments: Environments, agent: AgentConfig, slots: int, config: PPOConfig, inputs: int):
        if agent.action != "discrete":
            raise ValueError("the PyTorch side has discrete actions only")
        self.environments, self.agent, self.slots, self.config = environments, agent, slots, config
        self.network = TorchActorCritic(agent.network.width, agent.network.layers, inputs, SPLIT_FEATURES)
        self.moments, self.done = Moments(inputs), 0
        self.play_s = 0.0  # of the last update
        self.optimiser = torch.optim.Adam(self.network.parameters(), eps=1e-5, fused=True)

    def update(self, hyper: Hyperparameters) -> tuple[int, float]:
        """Intervals played before the ends of their episodes, and the mean sum of rewards of an episode."""
        begin = time.perf_counter()
        played, raw, reward = self.play(hyper)
        self.play_s = time.perf_counter() - begin
        left = max(1 - self.done / float(hyper.last_update), 0.0)
        for group in self.optimiser.param_groups:
            group["lr"] = float(hyper.learning_rate) * left
        for _ in range(self.config.epochs):
            order = torch.randperm(len(played.valid))
            for rows in order.chunk(self.config.minibatches):
                self.minibatch(Rollout(*(part[rows] for part in played)), hyper, float(hyper.entropy) * left)
        self.moments.see(raw[played.valid])
        self.done += 1
        return int(played.valid.sum()), reward

    def minibatch(self, batch: Rollout, hyper: Hyperparameters, entropy_weight: float) -> None:
        actor, value = self.network(batch.inputs)
        logits = split_logits(actor, batch.features, self.agent.anchor)
        log_prob = logits.gather(1, batch.action[:, None]).squeeze(1)
        entropy = -(logits.exp() * logits).sum(dim=1)
        old = batch.log_prob, batch.advantage, value, batch.value, batch.target
        terms = ppo_loss(log_prob, *old, entropy, batch.valid, float(hyper.clip))
        self.optimiser.zero_grad()
        (terms.policy + float(hyper.value) * terms.value - entropy_weight * terms.entropy).backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), float(hyper.largest_gradient))
        self.optimiser.step()

    @torch.inference_mode()
    def play(self, hyper: Hyperparameters) -> tuple[Rollout, Tensor, float]:
        """The rollout as rows, its inputs before they are normalised, and the mean sum of rewards."""
        count, config = self.config.environments, self.config
        seeds = np.repeat(np.arange(count // config.replicas) + count * self.done, config.replicas)
        view, running = self.environments.reset(seeds), torch.ones(count, dtype=torch.bool)
        steps = []
        for number in range(config.steps):
            raw = torch.as_tensor(view.inputs)
            inputs, features = self.moments.normalised(raw), split_features(view, self.slots)
            actor, value = self.network(inputs)
            logits = split_logits(actor, features, self.agent.anchor)
            action = torch.multinomial(logits.exp(), 1).squeeze(1)
            answer = self.environments.step(action.numpy())
            terminated, truncated = torch.as_tensor(answer.terminated), torch.as_tensor(answer.truncated)
            over = terminated if config.bootstrap_truncated else terminated | truncated
            cut = (truncated | (number == config.steps - 1)) & ~over
            reward = torch.as_tensor(answer.reward, dtype=torch.float32).where(running, torch.zeros(()))
            log_prob = logits.gather(1, action[:, None]).squeeze(1)
            steps.append((raw, inputs, features, action, log_prob, value, running, reward, over, cut))
            view, running = answer.view, running & ~(over | cut)
            if not running.any():
                break
        last = self.network(self.moments.normalised(torch.as_tensor(view.inputs)))[1]
        raw, inputs, features, action, log_prob, value, valid, reward, over, cut = map(
            torch.stack, zip(*steps, strict=True)
        )
        next_value = torch.cat([value[1:], last[None]])
        advantage = generalised_advantages(
            reward, value, next_value, over, cut, float(hyper.discount), float(hyper.decay)
        )
        target = advantage + value
        if config.replicas > 1:
            advantage = beside_replicas(advantage, valid, config.replicas)
        played = Rollout(inputs, features, action, log_prob, value, valid, advantage, target)
        rows = Rollout(*(part.flatten(0, 1) for part in played))
        return rows, raw.flatten(0, 1), float(reward.sum(dim=0).mean())
