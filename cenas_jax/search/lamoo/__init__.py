"""LaMOO: learning space partitions for multi-objective optimisation."""

from cenas_jax.search.lamoo.searcher import LamooConfig, LamooState, lamoo_search
from cenas_jax.search.lamoo.svm import SVM, SVMConfig, make_kernel, svm_decision, svm_fit
from cenas_jax.search.lamoo.tree import Region, TreeConfig, partition, region_depth, space_kernel

__all__ = [
    "SVM",
    "LamooConfig",
    "LamooState",
    "Region",
    "SVMConfig",
    "TreeConfig",
    "lamoo_search",
    "make_kernel",
    "partition",
    "region_depth",
    "space_kernel",
    "svm_decision",
    "svm_fit",
]
