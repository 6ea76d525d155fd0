"""An independent PyTorch build of a NAS-Bench-201 network, with weights copied from the Flax variables."""

import numpy as np
import torch
from torch import nn

from cenas_jax.spaces.nas_bench_201_cells import EDGES, OPERATIONS


def _tensor(array) -> torch.Tensor:
    return torch.from_numpy(np.array(array))


def _convolution(kernel, stride: int = 1) -> nn.Conv2d:
    size, _, inputs, features = kernel.shape
    module = nn.Conv2d(inputs, features, size, stride, padding=(size - 1) // 2, bias=False)
    module.weight.data = _tensor(np.transpose(kernel, (3, 2, 0, 1)))
    return module


def _norm(params, statistics) -> nn.BatchNorm2d:
    module = nn.BatchNorm2d(len(params["scale"]))
    module.weight.data, module.bias.data = _tensor(params["scale"]), _tensor(params["shift"])
    mean, variance = statistics["running"]
    module.running_mean, module.running_var = _tensor(mean), _tensor(variance)
    return module


def _running(module: nn.BatchNorm2d) -> dict:
    return {"running": (module.running_mean.numpy(), module.running_var.numpy())}


def _conv_norm(params, statistics, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(_convolution(params["kernel"], stride), _norm(params, statistics))


class _Zero(nn.Module):
    def forward(self, x):
        return x * 0


class _Cell(nn.Module):
    def __init__(self, params, statistics, codes):
        super().__init__()
        self.edges, self.names = nn.ModuleList(), []
        for (source, target), code in zip(EDGES, codes, strict=True):
            operation = OPERATIONS[code]
            name = f"edge_{source}_{target}_{operation}" if operation.startswith("nor_conv") else ""
            self.names.append(name)
            if name:
                self.edges.append(nn.Sequential(nn.ReLU(), *_conv_norm(params[name], statistics[name])))
            elif operation == "avg_pool_3x3":
                self.edges.append(nn.AvgPool2d(3, 1, 1, count_include_pad=False))
            else:
                self.edges.append(_Zero() if operation == "none" else nn.Identity())

    def statistics(self) -> dict:
        return {name: _running(edge[2]) for name, edge in zip(self.names, self.edges, strict=True) if name}

    def forward(self, x):
        nodes = [x]
        for node in (1, 2, 3):
            ends = [(edge, s) for edge, (s, t) in zip(self.edges, EDGES, strict=True) if t == node]
            nodes.append(sum(edge(nodes[source]) for edge, source in ends))
        return nodes[3]


class _Reduction(nn.Module):
    def __init__(self, params, statistics, name):
        super().__init__()
        self.first = _conv_norm(params[f"{name}_a"], statistics[f"{name}_a"], stride=2)
        self.second = _conv_norm(params[f"{name}_b"], statistics[f"{name}_b"])
        self.shortcut = nn.Sequential(nn.AvgPool2d(2), _convolution(params[f"{name}_shortcut"]))

    def forward(self, x):
        return self.shortcut(x) + self.second(torch.relu(self.first(torch.relu(x))))


class TorchNasBench201(nn.Module):
    def __init__(self, variables, codes, config):
        super().__init__()
        params, statistics = variables["params"], variables["statistics"]
        self.stem = _conv_norm(params["stem"], statistics["stem"])
        body = []
        for stage in range(3):
            if stage:
                body.append(_Reduction(params, statistics, f"reduction_{stage}"))
            for cell in range(config.cells):
                part = (_member(tree[f"stage_{stage}"], cell) for tree in (params, statistics))
                body.append(_Cell(*part, codes))
        self.body = nn.Sequential(*body)
        self.last = _norm(params["last"], statistics["last"])
        self.head = nn.Linear(*params["head"]["kernel"].shape)
        self.head.weight.data = _tensor(np.transpose(params["head"]["kernel"]))
        self.head.bias.data = _tensor(params["head"]["bias"])

    def statistics(self) -> dict:
        """As the Flax variables have them: the cells of a stage are stacked."""
        found, stage, stacks = {"stem": _running(self.stem[1]), "last": _running(self.last)}, 0, []
        for part in self.body:
            if isinstance(part, _Reduction):
                stage, stacks = stage + 1, []
                found[f"reduction_{stage}_a"] = _running(part.first[1])
                found[f"reduction_{stage}_b"] = _running(part.second[1])
            else:
                stacks.append(part.statistics())
                means, variances = (
                    {name: [s[name]["running"][i] for s in stacks] for name in stacks[0]} for i in (0, 1)
                )
                found[f"stage_{stage}"] = {
                    name: {"running": (np.stack(means[name]), np.stack(variances[name]))} for name in stacks[0]
                }
        return found

    def forward(self, images):
        features = torch.relu(self.last(self.body(self.stem(images))))
        return self.head(features.mean(dim=(2, 3)))


def _member(tree, index: int):
    if isinstance(tree, dict):
        return {name: _member(part, index) for name, part in tree.items()}
    if isinstance(tree, tuple):
        return tuple(part[index] for part in tree)
    return np.asarray(tree)[index]
