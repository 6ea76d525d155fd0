"""A NAS-Bench-201 supernet and its candidates in PyTorch, as one would write them there: the rival of bench_training.

Modules are called only where the path has them, images are channels-last, and only the path's weights are updated.
"""

import torch
from torch import nn
from torch.nn import functional

NONE, SKIP, CONV_1X1, CONV_3X3, POOL = range(5)
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))


def conv_norm(inputs: int, outputs: int, size: int, stride: int = 1, relu: bool = True) -> nn.Sequential:
    layers = [nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False), nn.BatchNorm2d(outputs)]
    return nn.Sequential(*([nn.ReLU()] if relu else []), *layers)


class Cell(nn.Module):
    """Has the operations of `codes`, or where these are None those of every architecture."""

    def __init__(self, width: int, codes):
        super().__init__()
        self.edges = nn.ModuleDict()
        for edge in range(len(EDGES)):
            wanted = range(5) if codes is None else [codes[edge]]
            sizes = {code: size for code, size in ((CONV_1X1, 1), (CONV_3X3, 3)) if code in wanted}
            self.edges.update({f"{edge}_{code}": conv_norm(width, width, size) for code, size in sizes.items()})

    def forward(self, x, codes):
        nodes = [x]
        for node in (1, 2, 3):
            total = None
            for edge, (source, target) in enumerate(EDGES):
                if target != node or codes[edge] == NONE:
                    continue
                y = nodes[source]
                if codes[edge] == POOL:
                    y = functional.avg_pool2d(y, 3, 1, 1, count_include_pad=False)
                elif codes[edge] != SKIP:
                    y = self.edges[f"{edge}_{codes[edge]}"](y)
                total = y if total is None else total + y
            nodes.append(torch.zeros_like(x) if total is None else total)
        return nodes[3]


class Reduction(nn.Module):
    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.body = nn.Sequential(conv_norm(inputs, outputs, 3, stride=2), conv_norm(outputs, outputs, 3))
        self.shortcut = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(inputs, outputs, 1, bias=False))

    def forward(self, x, codes):
        return self.shortcut(x) + self.body(x)


class TorchSupernet(nn.Module):
    """`forward(images[n, c, h, w], codes) -> logits[n, classes]`."""

    def __init__(self, channels: int, cells: int, classes: int, colours: int, codes=None):
        super().__init__()
        self.stem = conv_norm(colours, channels, 3, relu=False)
        body: list[nn.Module] = []
        for stage in range(3):
            width = channels * 2**stage
            body += [Reduction(width // 2, width)] if stage else []
            body += [Cell(width, codes) for _ in range(cells)]
        self.body = nn.ModuleList(body)
        self.last = nn.Sequential(nn.BatchNorm2d(width), nn.ReLU())
        self.head = nn.Linear(width, classes)

    def forward(self, images, codes):
        x = self.stem(images)
        for part in self.body:
            x = part(x, codes)
        return self.head(self.last(x).mean(dim=(2, 3)))


def computing(images, bfloat16: bool):
    return torch.autocast(images.device.type, torch.bfloat16, enabled=bfloat16)


def wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def make_steps(model: nn.Module, images, labels, batch: int, learning_rate: float, bfloat16: bool = False):
    """`steps(paths)`: one step of SGD with Nesterov momentum a path, each on a batch of its own."""
    optimiser = torch.optim.SGD(
        model.parameters(), learning_rate, momentum=0.9, weight_decay=5e-4, nesterov=True, foreach=True
    )

    def steps(paths) -> None:
        model.train()
        for codes in paths:
            rows = torch.randint(len(images), (batch,), device=images.device)
            optimiser.zero_grad(set_to_none=True)
            with computing(images, bfloat16):
                loss = functional.cross_entropy(model(images[rows], codes), labels[rows])
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimiser.step()
        wait_for(images.device)

    return steps


def screen(model: nn.Module, images, labels, paths, bfloat16: bool = False) -> list[float]:
    """The share of right answers of every path, normalised by the batch's own statistics."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.0  # normalise by the batch, keep nothing
    model.train()
    with torch.inference_mode(), computing(images, bfloat16):
        return [float((model(images, codes).argmax(dim=1) == labels).float().mean()) for codes in paths]
