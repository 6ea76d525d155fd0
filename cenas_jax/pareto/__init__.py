"""Pareto mathematics (maximisation) on masked, fixed-shape arrays: dominance, hypervolume and the archive."""

from cenas_jax.pareto.archive import Archive, archive_add, archive_init, archive_valid
from cenas_jax.pareto.dominance import dominance_counts, non_dominated_mask
from cenas_jax.pareto.hypervolume import (
    area_above,
    grouped_hypervolume_2d,
    heights_above,
    hypervolume,
    hypervolume_host,
    hypervolume_improvement,
    staircase,
)

__all__ = [
    "Archive",
    "archive_add",
    "archive_init",
    "archive_valid",
    "area_above",
    "dominance_counts",
    "grouped_hypervolume_2d",
    "heights_above",
    "hypervolume",
    "hypervolume_host",
    "hypervolume_improvement",
    "non_dominated_mask",
    "staircase",
]
