"""An independent PyTorch build of a network of normal and reduction cells, from its genotype; counts by hooks."""

import numpy as np
import torch
from torch import nn


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels)


class FactorizedReduction(nn.Module):
    def __init__(self, inputs: int, features: int):
        super().__init__()
        self.even = nn.Conv2d(inputs, features // 2, 1, stride=2, bias=False)
        self.odd = nn.Conv2d(inputs, features // 2, 1, stride=2, bias=False)
        self.norm = _norm(features)

    def forward(self, x):
        x = torch.relu(x)
        return self.norm(torch.cat([self.even(x), self.odd(x[:, :, 1:, 1:])], dim=1))


def _depthwise(c: int, kernel: int, stride: int, dilation: int = 1) -> list[nn.Module]:
    padding = dilation * (kernel - 1) // 2
    spatial = nn.Conv2d(c, c, kernel, stride, padding, dilation, groups=c, bias=False)
    return [nn.ReLU(), spatial, nn.Conv2d(c, c, 1, bias=False), _norm(c)]


def operation(name: str, c: int, stride: int, pool_norm: bool = False) -> nn.Module:
    if pool_norm and "pool" in name:
        return nn.Sequential(operation(name, c, stride), nn.BatchNorm2d(c, affine=False))
    size = int(name[-1]) if name[-1].isdigit() else 0
    if name == "skip_connect":
        return nn.Identity() if stride == 1 else FactorizedReduction(c, c)
    if name.startswith("max_pool"):
        return nn.MaxPool2d(size, stride, size // 2)
    if name.startswith("avg_pool"):
        return nn.AvgPool2d(size, stride, size // 2, count_include_pad=False)
    if name.startswith("sep_conv"):
        return nn.Sequential(*_depthwise(c, size, stride), *_depthwise(c, size, 1))
    if name.startswith("dil_conv"):
        return nn.Sequential(*_depthwise(c, size, stride, 2))
    if name in ("conv_1x3_3x1", "conv_1x7_7x1"):
        size = int(name[7])
        row = nn.Conv2d(c, c, (1, size), (1, stride), (0, size // 2), bias=False)
        column = nn.Conv2d(c, c, (size, 1), (stride, 1), (size // 2, 0), bias=False)
        return nn.Sequential(nn.ReLU(), row, column, _norm(c))
    return nn.Sequential(nn.ReLU(), nn.Conv2d(c, c, size, stride, size // 2, bias=False), _norm(c))


class TorchCell(nn.Module):
    def __init__(self, edges, before: int, last: int, c: int, reduces: bool, after_reduction: bool, pool_norm: bool):
        super().__init__()
        simple = nn.Sequential(nn.ReLU(), nn.Conv2d(before, c, 1, bias=False), _norm(c))
        self.first = FactorizedReduction(before, c) if after_reduction else simple
        self.second = nn.Sequential(nn.ReLU(), nn.Conv2d(last, c, 1, bias=False), _norm(c))
        self.sources = [source for _, source in edges]
        self.edges = nn.ModuleList(
            operation(name, c, 2 if reduces and source < 2 else 1, pool_norm) for name, source in edges
        )

    def forward(self, before, last):
        states = [self.first(before), self.second(last)]
        for node in range(len(self.edges) // 2):
            pair = (2 * node, 2 * node + 1)
            states.append(sum(self.edges[edge](states[self.sources[edge]]) for edge in pair))
        return torch.cat(states[2:], dim=1)


class TorchCells(nn.Module):
    """`cells` and `channels` are those of the genotype where it names them."""

    def __init__(
        self, genotype: str, cells: int = 20, channels: int = 36, num_classes: int = 10, pool_norm: bool = False
    ):
        super().__init__()
        parts = eval(genotype, {"Genotype": dict, "range": range})  # the tests' own texts
        cells, c = parts.get("cells", cells), parts.get("channels", channels)
        self.stem = nn.Sequential(nn.Conv2d(3, 3 * c, 3, padding=1, bias=False), _norm(3 * c))
        before, last, reduced = 3 * c, 3 * c, False
        self.cells = nn.ModuleList()
        for place in range(cells):
            reduces = place in (cells // 3, 2 * cells // 3)
            c *= 2 if reduces else 1
            edges = parts["reduce" if reduces else "normal"]
            self.cells.append(TorchCell(edges, before, last, c, reduces, reduced, pool_norm))
            before, last, reduced = last, len(edges) // 2 * c, reduces
        self.head = nn.Linear(last, num_classes)

    def forward(self, images):
        before = last = self.stem(images)
        for cell in self.cells:
            before, last = last, cell(before, last)
        return self.head(last.mean(dim=(2, 3)))


def count_parameters(model: nn.Module) -> int:
    return sum(weights.numel() for weights in model.parameters())


def count_multiply_adds(model: nn.Module, image_size: int) -> int:
    """Of convolutions and linear layers, a bias being one more input; by what they put out for one image."""
    total = 0

    def count(module, _, output):
        nonlocal total
        weights = module.weight[0].numel() + (module.bias is not None)
        total += weights * output[0].numel()

    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)
    device = next(model.parameters()).device
    model.eval()(torch.zeros(1, 3, image_size, image_size, device=device))
    return total


def _units(module: nn.Module) -> list[tuple[list[nn.Conv2d], nn.BatchNorm2d]]:
    """Every normalisation with the convolutions before it."""
    units, convolutions = [], []
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            convolutions.append(part)
        elif isinstance(part, nn.BatchNorm2d):
            units.append((convolutions, part))
            convolutions = []
    return units


def named_units(model: TorchCells, genotype: str) -> list[tuple[tuple[str, ...], list[nn.Conv2d], nn.BatchNorm2d]]:
    """Units with the names that the Flax variables of a candidate have for them: `(cell, unit)`, or `(unit,)`."""
    parts = eval(genotype, {"Genotype": dict, "range": range})
    found = [(("stem",), *_units(model.stem)[0])]
    for place, cell in enumerate(model.cells):
        reduces = place in (len(model.cells) // 3, 2 * len(model.cells) // 3)
        owners = [("first", cell.first), ("second", cell.second)]
        edges = parts["reduce" if reduces else "normal"]
        for edge, (name, source) in enumerate(edges):
            twin = "1_" if edge % 2 and edges[edge - 1] == edges[edge] else ""
            owners.append((f"edge_{source}_{2 + edge // 2}_{twin}{name}", cell.edges[edge]))
        for name, owner in owners:
            for number, unit in enumerate(_units(owner)):
                suffix = f"_{number}" if name.startswith("edge") else ""
                found.append(((f"cell_{place}", name + suffix), *unit))
    return found


def load(model: TorchCells, genotype: str, params, statistics) -> None:
    """Copies NumPy weights and running statistics, whose cells are unstacked."""

    def tensor(array):
        return torch.from_numpy(np.array(array))

    for path, convolutions, norm in named_units(model, genotype):
        weights, running = params, statistics
        for name in path:
            weights, running = weights.get(name, {}), running[name]
        for number, convolution in enumerate(convolutions):
            kernel = tensor(np.transpose(weights[f"kernel_{number}"], (3, 2, 0, 1)))
            assert kernel.shape == convolution.weight.shape
            convolution.weight.data = kernel
        if norm.affine:
            norm.weight.data, norm.bias.data = tensor(weights["scale"]), tensor(weights["shift"])
        norm.running_mean, norm.running_var = map(tensor, running["running"])
    model.head.weight.data = tensor(np.transpose(params["head"]["kernel"]))
    model.head.bias.data = tensor(params["head"]["bias"])
