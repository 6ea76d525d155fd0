"""A NASNet-like space for CIFAR-10 (Zoph et al., CVPR 2018): more operations and nodes, free depth and width."""

import functools
from dataclasses import dataclass

from cenas_jax.spaces.cells import cell_space
from cenas_jax.spaces.large import LargeSpace

OPERATIONS = (
    "skip_connect",
    "max_pool_3x3",
    "avg_pool_3x3",
    "max_pool_5x5",
    "max_pool_7x7",
    "conv_1x1",
    "dil_conv_3x3",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "sep_conv_7x7",
    "conv_1x3_3x1",
    "conv_3x3",
    "conv_1x7_7x1",
)
"""Names of the codes 0 .. 12: the thirteen of NASNet, by compute."""
NODES = 5


@dataclass(frozen=True)
class NasNetConfig:
    """What the networks' sizes are chosen from, rising; they have one for each pair of `cells` and `channels`."""

    cells: tuple[int, ...] = (5, 8, 11, 14, 17, 20)
    """Two of them reduce, between three stages of equal length."""
    channels: tuple[int, ...] = (16, 20, 24, 28, 32, 36, 40)
    """Of a node in the first cells."""
    num_classes: int = 10
    image_size: int = 32
    """Height and width, a multiple of 4."""
    affine: bool = True
    """Of the networks: scale and shift after every normalisation; they are counted all the same."""
    auxiliary: bool = False
    """Of the networks: a second head for the training, as in `DartsNetworkConfig`; it is not counted."""

    def __post_init__(self) -> None:
        for name in ("cells", "channels"):
            values = getattr(self, name)
            if not values or list(values) != sorted(set(values)):
                raise ValueError(f"NasNetConfig: {name} {values}: give one or more numbers, rising")


@functools.cache
def nasnet(config: NasNetConfig | None = None) -> LargeSpace:
    """Two cells of five nodes, each of which reads two sources, or one twice, by two of 13 operations; cells and
    channels: 32 entries.

    The operations and pairs are NASNet's, the network around them is that of DARTS (`cell_costs`): every node is
    concatenated, where NASNet leaves out those that others read, so that all networks of a size have the same shapes.
    Names are genotypes with `cells` and `channels`. The rest is as in `darts`.
    """
    config = config or NasNetConfig()
    return cell_space(
        "nasnet",
        OPERATIONS,
        NODES,
        twice=True,
        cells=config.cells,
        channels=config.channels,
        free_size=True,
        num_classes=config.num_classes,
        image_size=config.image_size,
    )
