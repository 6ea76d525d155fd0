"""An independent PyTorch build of a NAS-Bench-101 network, with weights copied from a candidate's Flax variables."""

import numpy as np
import torch
from torch import nn

KERNELS = {"conv1x1-bn-relu": 1, "conv3x3-bn-relu": 3}


class ConvNormRelu(nn.Module):
    def __init__(self, inputs: int, features: int, size: int):
        super().__init__()
        self.convolution = nn.Conv2d(inputs, features, size, padding=size // 2, bias=False)
        self.norm = nn.BatchNorm2d(features)

    def load(self, params, statistics):
        def copy(target, array):
            assert target.shape == array.shape
            target.data = torch.from_numpy(np.array(array))

        copy(self.convolution.weight, np.transpose(params["kernel"], (3, 2, 0, 1)))
        copy(self.norm.weight, params["scale"])
        copy(self.norm.bias, params["shift"])
        copy(self.norm.running_mean, statistics["running"][0])
        copy(self.norm.running_var, statistics["running"][1])

    def forward(self, x):
        return torch.relu(self.norm(self.convolution(x)))


class Module(nn.Module):
    def __init__(self, matrix, names, inputs: int, outputs: int):
        super().__init__()
        self.sources = {v: np.flatnonzero(matrix[:, v]).tolist() for v in range(len(matrix))}
        self.last = len(matrix) - 1
        direct = [v for v in self.sources[self.last] if v]
        widths = {self.last: outputs}
        for place, vertex in enumerate(direct):  # as even as can be, the first ones take what remains
            widths[vertex] = outputs // len(direct) + (place < outputs % len(direct))
        for vertex in range(self.last - 1, 0, -1):
            if vertex not in direct and self.sources[vertex]:
                widths[vertex] = max(widths[w] for w in range(vertex + 1, self.last) if vertex in self.sources[w])
        self.widths, self.units = widths, nn.ModuleDict()
        for vertex, width in widths.items():
            if 0 in self.sources[vertex]:
                self.units[f"projection_{vertex}_1x1"] = ConvNormRelu(inputs, width, 1)
            if names[vertex] in KERNELS and self.sources[vertex]:
                size = KERNELS[names[vertex]]
                self.units[f"vertex_{vertex}_{size}x{size}"] = ConvNormRelu(width, width, size)
        self.names, self.pool = names, nn.MaxPool2d(3, 1, 1)

    def operate(self, vertex: int, x):
        size = KERNELS.get(self.names[vertex])
        return self.units[f"vertex_{vertex}_{size}x{size}"](x) if size else self.pool(x)

    def forward(self, x):
        values = {}
        for vertex in range(1, self.last):
            if self.sources[vertex]:
                read = [values[s][:, : self.widths[vertex]] for s in self.sources[vertex] if s]
                if 0 in self.sources[vertex]:
                    read.append(self.units[f"projection_{vertex}_1x1"](x))
                values[vertex] = self.operate(vertex, sum(read))
        direct = [values[s] for s in self.sources[self.last] if s]
        projected = self.units[f"projection_{self.last}_1x1"](x) if 0 in self.sources[self.last] else 0
        return (torch.cat(direct, dim=1) if direct else 0) + projected


class TorchNasBench101(nn.Module):
    """`graph` is `adjacency|operations` of 7 vertices; those on no path from the first to the last are left out."""

    def __init__(self, graph: str, channels: int, modules: int, num_classes: int):
        super().__init__()
        digits, names = graph.split("|")
        matrix, names = np.array([int(d) for d in digits]).reshape(7, 7), names.split(",")
        for _ in range(5):  # dead ends, one after the other
            idle = (matrix.sum(axis=0) == 0) | (matrix.sum(axis=1) == 0)
            idle[[0, 6]] = False
            matrix[idle] = matrix[:, idle] = 0
        self.stem, self.body, self.places = ConvNormRelu(3, channels, 3), nn.ModuleList(), []
        inputs = channels
        for stack in range(3):
            width = channels * 2**stack
            for module in range(modules):
                self.body.append(Module(matrix, names, inputs, width))
                self.places.append((stack, module))
                inputs = width
        self.head, self.down = nn.Linear(inputs, num_classes), nn.MaxPool2d(2)

    def units(self, variables):
        """`(own, params, statistics)` of every convolution; the equal modules of a stack are stacked there."""
        yield self.stem, variables["params"]["stem"], variables["statistics"]["stem"]
        for module, (stack, place) in zip(self.body, self.places, strict=True):
            alone = stack > 0 and place == 0
            collection = f"stack_{stack}_first" if alone else f"stack_{stack}"
            for name, unit in module.units.items():
                params, statistics = (variables[kind][collection][name] for kind in ("params", "statistics"))
                if not alone:
                    row = place - (stack > 0)
                    params = {key: leaf[row] for key, leaf in params.items()}
                    statistics = {"running": [leaf[row] for leaf in statistics["running"]]}
                yield unit, params, statistics

    def load(self, variables):
        for unit, params, statistics in self.units(variables):
            unit.load(params, statistics)
        head = variables["params"]["head"]
        self.head.weight.data = torch.from_numpy(np.array(head["kernel"]).T.copy())
        self.head.bias.data = torch.from_numpy(np.array(head["bias"]))

    def forward(self, images):
        x = self.stem(images)
        for module, (stack, place) in zip(self.body, self.places, strict=True):
            x = module(self.down(x) if stack and not place else x)
        return self.head(x.mean(dim=(2, 3)))
