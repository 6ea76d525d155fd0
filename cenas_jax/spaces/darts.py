"""The space of DARTS (Liu et al., ICLR 2019) as NAS-Bench-301 (Zela et al., ICLR 2022) has it: about 10^18 networks."""

import functools
from dataclasses import dataclass

from cenas_jax.spaces.cells import cell_space
from cenas_jax.spaces.large import LargeSpace

OPERATIONS = (
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
"""Names of the codes 0 .. 6, in NAS-Bench-301's order."""
NODES = 4
DARTS_V2 = (
    "Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('sep_conv_3x3', 1), "
    "('sep_conv_3x3', 1), ('skip_connect', 0), ('skip_connect', 0), ('dil_conv_3x3', 2)], normal_concat=range(2, 6), "
    "reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 1), ('max_pool_3x3', 0), "
    "('skip_connect', 2), ('skip_connect', 2), ('max_pool_3x3', 1)], reduce_concat=range(2, 6))"
)
"""The network that DARTS found (second order)."""


@dataclass(frozen=True)
class DartsConfig:
    """Size of the network: that which DARTS evaluates on CIFAR-10. NAS-Bench-301's has 8 cells and 32 channels."""

    cells: int = 20
    channels: int = 36
    """Of a node in the first cells."""
    num_classes: int = 10
    image_size: int = 32
    """Height and width, a multiple of 4."""


@functools.cache
def darts(config: DartsConfig | None = None) -> LargeSpace:
    """Two cells of four nodes, each of which reads two different sources by two of seven operations: 24 entries.

    Names are genotypes as DARTS prints them. Entries, features and isomorphs as in `cells.cell_space`; parameters and
    multiply-adds of the network in `cell_costs`, without the auxiliary head. `ValueError` for a size that no network
    has.
    """
    config = config or DartsConfig()
    return cell_space(
        "darts",
        OPERATIONS,
        NODES,
        twice=False,
        cells=(config.cells,),
        channels=(config.channels,),
        free_size=False,
        num_classes=config.num_classes,
        image_size=config.image_size,
    )
