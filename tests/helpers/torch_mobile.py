"""An independent PyTorch build of a mobile network, from its name (choices joined by `|`)."""

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
        layers += [SqueezeExcite(inside, inputs // 4)] if squeeze else []
        self.layers = nn.Sequential(*layers, _conv(inside, width))
        self.residual = stride == 1 and inputs == width

    def forward(self, x):
        return x + self.layers(x) if self.residual else self.layers(x)


class TorchMobile(nn.Module):
    def __init__(self, name: str, num_classes: int = 1000):
        super().__init__()
        resolution, *stages = name.split("|")
        self.resolution = int(resolution[1:])
        inputs, layers = 32, [_conv(3, 32, 3, 2), nn.SiLU()]
        for stage, stride in enumerate(STRIDES):
            depth, kernel, expansion, width, squeeze = stages[5 * stage : 5 * stage + 5]
            for block in range(int(depth[1:])):
                numbers = int(width[1:]), int(kernel[1:]), int(expansion[1:])
                layers.append(Block(inputs, *numbers, squeeze == "se", stride if block == 0 else 1))
                inputs = int(width[1:])
        self.layers = nn.Sequential(*layers, _conv(inputs, 1280), nn.SiLU())
        self.head = nn.Linear(1280, num_classes)

    def forward(self, images):
        return self.head(self.layers(images).mean(dim=(2, 3)))
