"""Ask/tell searchers: random search and LaMOO."""

from cenas_jax.search.base import Candidates, Searcher
from cenas_jax.search.lamoo import LamooConfig, lamoo_search
from cenas_jax.search.random import random_search

__all__ = ["Candidates", "LamooConfig", "Searcher", "lamoo_search", "random_search"]
