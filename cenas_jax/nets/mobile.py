"""The networks of space `mobile`: one architecture's, or the supernet that shares weights.

Sources: Sandler et al., MobileNetV2 (CVPR 2018); Tan & Le, EfficientNet (ICML 2019), whose SiLU all activations are;
Cai et al., Once-for-All (ICLR 2020), for kernels that are the centres of larger ones and blocks that are left out. What
a block is stands in `spaces/mobile.py`. The blocks of a stage after its first are one scan over their weights.

In the supernet an image lies in the top left corner of a canvas that fits the largest; around it, and in channels that
an architecture does not have, all is zero and counts in no mean.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from cenas_jax.nets.base import Network, candidate_of, check_codes, supernet_of
from cenas_jax.nets.conv_norm import ConvNorm, conv_norm, he_normal, inherited, leading, unused_statistics
from cenas_jax.nets.operations import Mode, depthwise_convolution
from cenas_jax.spaces.mobile import EXPANSIONS, KERNELS, MobileConfig, mobile


def mobile_supernet(config: MobileConfig) -> Network:
    """The network of every architecture: `codes[d]` (of space `mobile`, 36 of the default config) are data, so all of
    them are one compilation.

    `init(key, images) -> variables` and `apply(variables, images, codes, mode, momentum=0.1) -> (logits, statistics)`,
    all as `nas_bench_201_supernet` has them, but that images may have any size: they are resized to the architecture's
    resolution, linearly, with antialiasing where they shrink; those of that resolution stay as they are. Weights are
    the leading channels of the widest, and the centre of the largest kernel; statistics of what an architecture does
    not have stay as they were.
    """
    example = jnp.zeros(len(mobile(config).num_choices), jnp.int32)
    return supernet_of(functools.partial(_Network, config, None), example)


def mobile_candidate(config: MobileConfig, codes: tuple[int, ...]) -> Network:
    """The network of one architecture alone, which has its own weights and no others.

    As `mobile_supernet`, but `apply(variables, images, mode, momentum=0.1)`. `ValueError` where the codes are none of
    the config's space.
    """
    check_codes("mobile", mobile(config).num_choices, codes)
    return candidate_of(functools.partial(_Network, config, _architecture(config, tuple(map(int, codes)))))


def mobile_inherited(config: MobileConfig, variables, codes: tuple[int, ...]):
    """The variables of a candidate, from those of a supernet: its leading blocks and channels, centres of kernels."""
    return inherited(mobile_candidate(config, codes), variables, config.resolutions[codes[0]])


class _Choice(NamedTuple):
    """Of a stage, or of a block: arrays in a supernet, numbers in a candidate."""

    depth: Any
    """Blocks."""
    kernel: Any
    """Place among `KERNELS`."""
    expansion: Any
    """Factor; at 1 there is no convolution that expands."""
    squeezes: Any
    """0 or 1."""
    inputs: Any
    """Channels before."""
    width: Any
    """Channels after."""
    before: Any
    """Height and width of what comes in."""
    after: Any


class _Architecture(NamedTuple):
    resolution: Any
    stages: tuple[_Choice, ...]


def _architecture(config: MobileConfig, codes) -> _Architecture:
    def chosen(table, code):
        return table[code] if isinstance(code, int) else jnp.asarray(table)[code]

    resolution = chosen(config.resolutions, codes[0])
    before, inputs, stages = -(-resolution // 2), config.stem, []
    for place, stage in enumerate(config.stages):
        depth, kernel, expansion, width, squeezes = codes[1 + 5 * place : 6 + 5 * place]
        after, width = -(-before // stage.stride), chosen(stage.widths, width)
        numbers = chosen(stage.depths, depth), kernel, chosen(EXPANSIONS, expansion), squeezes
        stages.append(_Choice(*numbers, inputs, width, before, after))
        before, inputs = after, width
    return _Architecture(resolution, tuple(stages))


def _resized(images, side, canvas: int):
    """To `side` x `side` pixels in the top left corner of the canvas."""
    count, height, width, channels = images.shape
    if not isinstance(side, jax.Array) and height == width == side:
        return images
    scale = jnp.stack([jnp.asarray(side / size, jnp.float32) for size in (height, width)])
    shape = count, canvas, canvas, channels
    return jax.image.scale_and_translate(images, shape, (1, 2), scale, jnp.zeros(2), "linear", antialias=True)


def _mean(x, side) -> Float[Array, "n c"]:
    """Over the image, in float32; around it all is zero."""
    canvas = x.shape[1] * x.shape[2]
    return x.mean(axis=(1, 2), dtype=jnp.float32) * (canvas / side**2)


def _where(condition, there: Callable, otherwise: Callable, x):
    """One of two branches; in a candidate, the other is not there."""
    if isinstance(condition, jax.Array):
        return jax.lax.cond(condition, there, otherwise, x)
    return there(x) if condition else otherwise(x)


class _Network(nn.Module):
    config: MobileConfig
    fixed: _Architecture | None
    mode: Mode

    @nn.compact
    def __call__(self, images, codes, momentum):
        config, fixed = self.config, self.fixed
        chosen = fixed or _architecture(config, codes)
        x = _resized(images, chosen.resolution, fixed.resolution if fixed else config.resolutions[-1])
        x = self._conv_norm(x, "stem", config.stem, 3, chosen.stages[0].before, momentum, stride=2)
        for place, (stage, choice) in enumerate(zip(config.stages, chosen.stages, strict=True)):
            first, others = choice, choice._replace(inputs=choice.width, before=choice.after)
            depth, width = (choice.depth, choice.width) if fixed else (stage.depths[-1], stage.widths[-1])
            traced = (None, None) if fixed else (first, others)
            alone = _Block(
                x.shape[-1], width, stage.stride, first if fixed else None, self.mode, name=f"stage_{place}_first"
            )
            x, _ = alone(x, None, traced[0], momentum)
            if depth > 1:
                blocks = _scanned(depth - 1)(
                    width, width, 1, others if fixed else None, self.mode, name=f"stage_{place}"
                )
                x, _ = blocks(x, jnp.arange(1, depth), traced[1], momentum)
        x = self._conv_norm(x, "last", config.head, 1, chosen.stages[-1].after, momentum)
        return nn.Dense(config.num_classes, name="head")(_mean(x, chosen.stages[-1].after))

    def _conv_norm(self, x, name: str, features: int, kernel_size: int, side, momentum, stride: int = 1):
        module = ConvNorm((kernel_size, kernel_size, x.shape[-1], features), features, name=name)
        y, statistics = conv_norm(x, module.arrays(), self.mode, stride, side=side)
        if self.mode == "train":
            module.keep(statistics, len(y) * side**2, momentum)
        return nn.silu(y)


def _scanned(length: int):
    return nn.scan(
        _Block,
        variable_axes={"params": 0, "statistics": 0},
        split_rngs={"params": True},
        in_axes=(0, nn.broadcast, nn.broadcast),  # pyright: ignore[reportArgumentType]
        length=length,
    )


class _Linear(nn.Module):
    """Weights and biases, handed out as those of `ConvNorm` are."""

    inputs: int
    features: int

    def setup(self):
        self.weights = self.param("weights", he_normal, (self.inputs, self.features))
        self.bias = self.param("bias", nn.initializers.zeros, (self.features,))

    def arrays(self):
        return self.weights, self.bias


def _linear(x, arrays):
    weights, bias = (leaf.astype(x.dtype) for leaf in arrays)
    return x @ weights + bias[None, :]


class _Block(nn.Module):
    inputs: int
    """Channels, the most that there can be; so is `width`."""
    width: int
    stride: int
    fixed: _Choice | None
    mode: Mode

    @nn.compact
    def __call__(self, x, place, traced, momentum):
        """`place` within the stage is None for the first block, which is always there; `traced` in a candidate."""
        choice: Any = self.fixed if traced is None else traced
        inside = self.inputs * (max(EXPANSIONS) if self.fixed is None else self.fixed.expansion)
        kernel_size = KERNELS[-1] if self.fixed is None else KERNELS[self.fixed.kernel]
        there = True if place is None or traced is None else place < choice.depth
        channels = choice.inputs * choice.expansion
        parts = [  # name, whether it is there, shape of its kernel, its channels
            ("expand", there & (choice.expansion > 1), (1, 1, self.inputs, inside), channels),
            ("depthwise", there, (kernel_size, kernel_size, 1, inside), channels),
            ("project", there, (1, 1, inside, self.width), choice.width),
        ]
        modules = {
            name: ConvNorm(shape, shape[-1], depthwise=name == "depthwise", name=name)
            for name, used, shape, _ in parts
            if used is not False
        }
        arrays: dict[str, Any] = {name: module.arrays() for name, module in modules.items()}
        if isinstance(choice.squeezes, jax.Array) or choice.squeezes:
            squeezed = max(self.inputs // 4, 1)
            arrays["squeeze"] = _Linear(inside, squeezed, name="squeeze").arrays()
            arrays["excite"] = _Linear(squeezed, inside, name="excite").arrays()
        run = functools.partial(self._computed, arrays, choice, channels, inside)
        unused = tuple(unused_statistics(shape[-1]) for _, _, shape, _ in parts)
        x, statistics = _where(there, run, lambda x: (x, unused), x)
        if self.mode == "train":
            for (name, used, shape, own), batch in zip(parts, statistics, strict=True):
                if name in modules:
                    side = choice.before if name == "expand" else choice.after
                    modules[name].keep(batch, len(x) * side**2, momentum, used & (jnp.arange(shape[-1]) < own))
        return x, None

    def _computed(self, arrays: dict, choice, channels, inside: int, x):
        """The block, and the statistics of its three convolutions."""
        kernel, *norm = arrays["depthwise"]

        def expand(x):
            y, statistics = conv_norm(x, arrays["expand"], self.mode, channels=channels, side=choice.before)
            return nn.silu(y), statistics

        def convolved(size: int, y):
            margin = (kernel.shape[0] - size) // 2
            centre = kernel[margin : margin + size, margin : margin + size]
            return depthwise_convolution(y, centre.astype(y.dtype), self.stride)

        def excited(y):
            hidden = nn.silu(_linear(_mean(y, choice.after).astype(y.dtype), arrays["squeeze"]))
            hidden = leading(hidden, jnp.maximum(choice.inputs // 4, 1))
            return y * nn.sigmoid(_linear(hidden, arrays["excite"]))[:, None, None, :]

        y, expanded = _where(
            choice.expansion > 1, expand, lambda x: (_with_channels(x, inside), unused_statistics(inside)), x
        )
        sizes = [functools.partial(convolved, size) for size in KERNELS]
        y = jax.lax.switch(choice.kernel, sizes, y) if self.fixed is None else sizes[choice.kernel](y)
        y, depthwise = conv_norm(y, (None, *norm), self.mode, channels=channels, side=choice.after)
        y = _where(choice.squeezes == 1, excited, lambda y: y, nn.silu(y))
        y, projected = conv_norm(y, arrays["project"], self.mode, channels=choice.width, side=choice.after)
        if self.stride == 1:
            equal = choice.inputs == choice.width
            y += _where(equal, lambda x: _with_channels(x, self.width), lambda x: jnp.zeros_like(y), x)
        return y, (expanded, depthwise, projected)


def _with_channels(x, channels: int):
    """Cut, or filled up by zeros, to so many."""
    return jnp.pad(x[..., :channels], ((0, 0),) * 3 + ((0, max(channels - x.shape[-1], 0)),))
