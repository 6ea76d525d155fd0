"""A space of mobile networks for ImageNet: stages of inverted residuals, as in EfficientNet and once-for-all networks.

Sources: Sandler et al., MobileNetV2 (CVPR 2018); Tan & Le, EfficientNet (ICML 2019); Cai et al., Once-for-All (ICLR
2020). Both of the first are points of the space (but for their activations, which cost nothing here).
"""

import functools
from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from cenas_jax.spaces.large import LargeSpace, large_space

KERNELS = (3, 5, 7)
EXPANSIONS = (1, 3, 4, 6)
"""Channels inside a block over those of its input; at 1 there is no convolution that expands."""
SQUEEZE_EXCITE = ("plain", "se")


class Stage(NamedTuple):
    """Equal blocks, the first of which has the stride and changes the width. Choices rise."""

    stride: int
    depths: tuple[int, ...]
    widths: tuple[int, ...]


STAGES = (
    Stage(1, (1, 2), (16, 24)),
    Stage(2, (1, 2, 3, 4, 5), (16, 24, 32)),
    Stage(2, (1, 2, 3, 4, 5), (24, 32, 40, 48)),
    Stage(2, (1, 2, 3, 4, 5), (48, 64, 80, 96)),
    Stage(1, (1, 2, 3, 4, 5), (80, 96, 112, 128)),
    Stage(2, (1, 2, 3, 4, 5), (136, 160, 192, 224)),
    Stage(1, (1, 2), (224, 320, 352)),
)

EFFICIENTNET_B0 = (
    "r224|d1|k3|e1|w16|se|d2|k3|e6|w24|se|d2|k5|e6|w40|se|d3|k3|e6|w80|se|d3|k5|e6|w112|se|d4|k5|e6|w192|se|"
    "d1|k3|e6|w320|se"
)
EFFICIENTNET_B1 = (
    "r240|d2|k3|e1|w16|se|d3|k3|e6|w24|se|d3|k5|e6|w40|se|d4|k3|e6|w80|se|d4|k5|e6|w112|se|d5|k5|e6|w192|se|"
    "d2|k3|e6|w320|se"
)
MOBILENET_V2 = (
    "r224|d1|k3|e1|w16|plain|d2|k3|e6|w24|plain|d3|k3|e6|w32|plain|d4|k3|e6|w64|plain|d3|k3|e6|w96|plain|"
    "d3|k3|e6|w160|plain|d1|k3|e6|w320|plain"
)


@dataclass(frozen=True)
class MobileConfig:
    """What is free, and what surrounds it: a 3x3 stem of stride 2, a 1x1 convolution, global mean, linear layer."""

    resolutions: tuple[int, ...] = (128, 144, 160, 176, 192, 208, 224, 240, 256)
    """Height and width of an image; a stride of 2 rounds up."""
    stages: tuple[Stage, ...] = STAGES
    stem: int = 32
    """Channels."""
    head: int = 1280
    """Channels of the last convolution."""
    num_classes: int = 1000

    def __post_init__(self) -> None:
        if min(self.stem, self.head, self.num_classes) < 1 or not self.stages:
            raise ValueError("MobileConfig: stem, head and num_classes must be positive, with one stage or more")
        for name, values in [
            ("resolutions", self.resolutions),
            *((f, getattr(s, f)) for s in self.stages for f in ("depths", "widths")),
        ]:
            if not values or min(values) < 1 or list(values) != sorted(set(values)):
                raise ValueError(f"MobileConfig: {name} {values}: give one or more positive numbers, rising")
        for stage in self.stages:
            if stage.stride not in (1, 2):
                raise ValueError(f"MobileConfig: a stage's stride is 1 or 2, not {stage.stride}")


@functools.cache
def mobile(config: MobileConfig | None = None) -> LargeSpace:
    """Resolution, and for each of seven stages depth, kernel, expansion, width, squeeze-excite: 36 entries.

    A block: 1x1 convolution to `expansion` times its input's channels, depthwise convolution, squeeze-excite with a
    quarter of the block input's channels between two linear layers with biases, 1x1 convolution to the stage's width;
    each convolution without bias and with a normalisation. `features` are the codes, all of which rise with compute.
    Names join the choices by `|`, like `EFFICIENTNET_B0`. `ValueError` for options that make no sense.
    """
    config = config or MobileConfig()
    choices = [_named("r", config.resolutions)]
    for stage in config.stages:
        free = _named("d", stage.depths), _named("k", KERNELS), _named("e", EXPANSIONS), _named("w", stage.widths)
        choices += [*free, SQUEEZE_EXCITE]

    def features(codes: Int[Array, "n d"]) -> Float[Array, "n f"]:
        return codes.astype(jnp.float32)

    return large_space(
        "mobile",
        tuple(choices),
        features=features,
        parameters=functools.partial(_parameters, config),
        multiply_adds=functools.partial(_multiply_adds, config),
    )


def _named(key: str, values: tuple[int, ...]) -> tuple[str, ...]:
    return tuple(f"{key}{value}" for value in values)


class _Blocks(NamedTuple):
    """Numbers of a stage's blocks, those of the first apart: what enters and what is inside of them."""

    depth: Float[Array, " n"]
    inputs: Float[Array, " n"]
    width: Float[Array, " n"]
    area: Float[Array, " n"]
    """Of the kernel."""
    expansion: Float[Array, " n"]
    squeezes: Float[Array, " n"]
    """1 or 0."""


def _stages(config: MobileConfig, codes: Int[Array, "n d"]) -> list[_Blocks]:
    inputs, stages = jnp.full(codes.shape[0], config.stem, jnp.float32), []
    for place, stage in enumerate(config.stages):
        entries = codes[:, 1 + 5 * place : 6 + 5 * place]
        tables = (stage.depths, KERNELS, EXPANSIONS, stage.widths)
        depth, kernel, expansion, width = (
            jnp.asarray(table, jnp.float32)[entries[:, entry]] for entry, table in enumerate(tables)
        )
        stages.append(_Blocks(depth, inputs, width, kernel**2, expansion, entries[:, 4].astype(jnp.float32)))
        inputs = width
    return stages


def _parameters(config: MobileConfig, codes: Int[Array, "n d"]) -> Float[Array, " n"]:
    def block(stage: _Blocks, inputs):
        inside, squeezed = inputs * stage.expansion, _squeezed(inputs)
        expand = jnp.where(stage.expansion > 1, (inputs + 2) * inside, 0)
        squeeze = stage.squeezes * ((inside + 1) * squeezed + (squeezed + 1) * inside)
        return expand + (stage.area + 2) * inside + squeeze + (inside + 2) * stage.width

    stages = _stages(config, codes)
    total = sum(block(stage, stage.inputs) + (stage.depth - 1) * block(stage, stage.width) for stage in stages)
    last = (stages[-1].width + 2) * config.head + (config.head + 1) * config.num_classes
    return total + last + (27 + 2) * config.stem


def _multiply_adds(config: MobileConfig, codes: Int[Array, "n d"]) -> Float[Array, " n"]:
    def block(stage: _Blocks, inputs, before, after):
        inside, squeezed = inputs * stage.expansion, _squeezed(inputs)
        expand = jnp.where(stage.expansion > 1, inputs * inside * before, 0)
        squeeze = stage.squeezes * ((inside + 1) * squeezed + (squeezed + 1) * inside)
        return expand + (stage.area + stage.width) * inside * after + squeeze

    sides = [-(-np.asarray(config.resolutions) // 2)]
    for stage in config.stages:
        sides.append(-(-sides[-1] // stage.stride))
    pixels = [jnp.asarray(side**2, jnp.float32)[codes[:, 0]] for side in sides]
    stages, total = _stages(config, codes), 27.0 * config.stem * pixels[0]
    for stage, before, after in zip(stages, pixels[:-1], pixels[1:], strict=True):
        total += block(stage, stage.inputs, before, after)
        total += (stage.depth - 1) * block(stage, stage.width, after, after)
    return total + stages[-1].width * config.head * pixels[-1] + (config.head + 1.0) * config.num_classes


def _squeezed(inputs: Float[Array, " n"]) -> Float[Array, " n"]:
    return jnp.maximum(jnp.floor(inputs / 4), 1)
