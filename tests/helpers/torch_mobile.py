"""An independent PyTorch build of a mobile network, from its name (choices joined by `|`)."""

import numpy as np
import torch
from torch import nn

STRIDES = (1, 2, 2, 2, 1, 2, 1)


def _conv(inputs: int, features: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, features, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(features))


class SqueezeExcite(nn.Module):
    def __init__(self, channels: int, squeezed: int):
        super().__init__()
        self.down, self.up = nn.Linear(channels, squeezed), nn.Linear(squeezed, channels)

    def forward(self, x):
        gate = torch.sigmoid(self.up(nn.functional.silu(self.down(x.mean(dim=(2, 3))))))
        return x * gate[:, :, None, None]


class Block(nn.Module):
    def __init__(self, inputs: int, width: int, kernel: int, expansion: int, squeeze: bool, stride: int):
        super().__init__()
        inside = inputs * expansion
        layers = [_conv(inputs, inside), nn.SiLU()] if expansion > 1 else []
        layers += [_conv(inside, inside, kernel, stride, groups=inside), nn.SiLU()]
        layers += [SqueezeExcite(inside, max(inputs // 4, 1))] if squeeze else []
        self.layers = nn.Sequential(*layers, _conv(inside, width))
        self.residual = stride == 1 and inputs == width

    def forward(self, x):
        return x + self.layers(x) if self.residual else self.layers(x)


def _copy(target, array):
    assert target.shape == array.shape
    target.data = torch.from_numpy(np.array(array))


def _member(tree, place: tuple[int, int]):
    """Of a collection of variables, those of a block: `(stage, block)`."""
    stage, block = place
    if block == 0:
        return tree[f"stage_{stage}_first"]

    def row(part):
        if isinstance(part, dict):
            return {name: row(leaf) for name, leaf in part.items()}
        return tuple(leaf[block - 1] for leaf in part) if isinstance(part, tuple) else part[block - 1]

    return row(tree[f"stage_{stage}"])


class TorchMobile(nn.Module):
    def __init__(self, name: str, num_classes: int = 1000, stem: int = 32, head: int = 1280, strides=STRIDES):
        super().__init__()
        resolution, *stages = name.split("|")
        self.resolution = int(resolution[1:])
        self.places = []
        inputs, layers = stem, [_conv(3, stem, 3, 2), nn.SiLU()]
        for stage, stride in enumerate(strides):
            depth, kernel, expansion, width, squeeze = stages[5 * stage : 5 * stage + 5]
            for block in range(int(depth[1:])):
                numbers = int(width[1:]), int(kernel[1:]), int(expansion[1:])
                layers.append(Block(inputs, *numbers, squeeze == "se", stride if block == 0 else 1))
                inputs = int(width[1:])
                self.places.append((stage, block))
        self.layers = nn.Sequential(*layers, _conv(inputs, head), nn.SiLU())
        self.head = nn.Linear(head, num_classes)

    def norms(self, variables):
        """`(own, statistics)` of every normalisation, from the variables of a candidate."""
        return [(norm, statistics) for _, norm, _, statistics in self._units(variables)]

    def _units(self, variables):
        """`(convolution, norm, params, statistics)`; the blocks of a stage after its first are stacked there."""
        params, statistics = variables["params"], variables["statistics"]
        blocks = [layer for layer in self.layers if isinstance(layer, Block)]
        yield *self.layers[0], params["stem"], statistics["stem"]
        for block, place in zip(blocks, self.places, strict=True):
            names = [name for name in ("expand", "depthwise", "project") if name in _member(params, place)]
            units = [layer for layer in block.layers if isinstance(layer, nn.Sequential)]
            for unit, name in zip(units, names, strict=True):
                yield *unit, _member(params, place)[name], _member(statistics, place)[name]
        yield *self.layers[-2], params["last"], statistics["last"]

    def load(self, variables):
        """Copies the variables of a candidate."""
        for convolution, norm, params, statistics in self._units(variables):
            _copy(convolution.weight, np.transpose(params["kernel"], (3, 2, 0, 1)))
            _copy(norm.weight, params["scale"])
            _copy(norm.bias, params["shift"])
            _copy(norm.running_mean, statistics["running"][0])
            _copy(norm.running_var, statistics["running"][1])
        blocks = [layer for layer in self.layers if isinstance(layer, Block)]
        for block, place in zip(blocks, self.places, strict=True):
            for layer in block.layers:
                if isinstance(layer, SqueezeExcite):
                    for linear, name in ((layer.down, "squeeze"), (layer.up, "excite")):
                        own = _member(variables["params"], place)[name]
                        _copy(linear.weight, own["weights"].T)
                        _copy(linear.bias, own["bias"])
        head = variables["params"]["head"]
        _copy(self.head.weight, head["kernel"].T)
        _copy(self.head.bias, head["bias"])

    def forward(self, images):
        return self.head(self.layers(images).mean(dim=(2, 3)))
