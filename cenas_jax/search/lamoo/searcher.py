"""LaMOO as an ask/tell searcher: partition by what was evaluated, draw in the best region, rank what was screened."""

import functools
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Int8

from cenas_jax.choices import check_choices
from cenas_jax.pareto import Archive, archive_add, archive_init, archive_valid
from cenas_jax.search.base import (
    Candidates,
    Searcher,
    at_smallest_size,
    first_valid,
    isomorphism_classes,
    shared_maximum,
)
from cenas_jax.search.gaussian_process import (
    Correction,
    by_first_rows,
    features_of,
    fit_correction,
    no_correction,
    posterior_quantiles,
)
from cenas_jax.search.lamoo.svm import Kernel
from cenas_jax.search.lamoo.tree import PartitionInfo, Region, TreeConfig, partition, space_kernel
from cenas_jax.search.ranking import LEVELS, by_dominance, by_hypervolume_gain, first_front
from cenas_jax.spaces.base import SearchSpace


@dataclass(frozen=True)
class LamooConfig:
    """The searcher: its partition, its choice inside the region, and how many evaluations it can hold."""

    capacity: int = 1024
    """Most evaluations of one search; more are an error."""
    choice: Literal["random", "estimate", "corrected"] = "estimate"
    """Order of the screened candidates: as drawn, by dominance number of their estimates (as published), or by the
    expected hypervolume gain of estimates corrected by a Gaussian process (two objectives)."""
    whole_space_share: float = 0.5
    """Of the candidates, how many are drawn in the whole space, where the choice is `corrected`: its process knows what
    is good outside of the region, too. They come last, so where as many stay unscreened, all that count are the
    region's. The other choices draw all of them in the region, as published."""
    tree: TreeConfig = field(default_factory=TreeConfig)

    def __post_init__(self):
        check_choices(self)
        if self.capacity < 1:
            raise ValueError(f"LamooConfig: capacity must be positive, got {self.capacity}")
        if not 0 <= self.whole_space_share < 1:
            raise ValueError(f"LamooConfig: whole_space_share must be in [0, 1), got {self.whole_space_share}")


class LamooState(NamedTuple):
    """What was evaluated, and what the last fit learnt from it."""

    archive: Archive
    estimates: Float[Array, "capacity m"]  # of the archive's rows; NaN where never screened
    evaluated: Bool[Array, " classes"]
    news: Bool[Array, ""]  # told or informed since the last fit
    depth: Int8[Array, " size"]  # constraints of the best region that an architecture satisfies, from the root on
    corrections: tuple[Correction, ...]  # of every objective; none unless the choice is by corrected estimates


class LamooInfo(NamedTuple):
    overflow: Int[Array, ""]


def lamoo_search(space: SearchSpace, reference_point: Float[Array, " m"], config: LamooConfig) -> Searcher:
    """LaMOO on a tabular space, whose architectures are all scored by the region's SVMs, so that draws are exact.

    Where fewer architectures than asked of it are left in the region, its deepest constraint is dropped, then the next:
    an empty region never stalls the search. A class of isomorphs is in the region where any member is; what is proposed
    is its representative, which itself need not be. `reference_point` is the hypervolume's, in the maximised sense.
    """
    num_objectives = reference_point.shape[0]
    if config.choice == "corrected" and num_objectives != 2:
        raise ValueError(f"choice='corrected' ranks by two-objective hypervolume gain, but there are {num_objectives}")
    classes, predictor_features = isomorphism_classes(space), features_of(space)
    with jax.ensure_compile_time_eval():  # constants, also where a searcher is made inside of `jit`
        space_codes = space.codes(jnp.arange(space.size))
        kernel, depth_of = space_kernel(config.tree.svm, space_codes, space.features(space_codes))

    def init(key):
        archive = archive_init(config.capacity, len(space.num_choices), num_objectives)
        corrections = ()
        if config.choice == "corrected":
            corrections = (no_correction(config.capacity, num_objectives),) * num_objectives
        return LamooState(
            archive,
            jnp.full_like(archive.objectives, jnp.nan),
            classes.none(),
            jnp.zeros((), bool),
            jnp.full(space.size, config.tree.depth, jnp.int8),  # nothing is known: the region is the space
            corrections,
        )

    def fit(state: LamooState) -> LamooState:
        return jax.lax.cond(shared_maximum(state.news.astype(jnp.int32)) > 0, learn, lambda state: state, state)

    def learn(state: LamooState) -> LamooState:
        archive = state.archive
        region, _ = best_region(space, kernel, archive, reference_point, config.tree)
        depth = depth_of(region).astype(jnp.int8)
        corrections = ()
        if config.choice == "corrected":
            corrections = tuple(correct(state, own) for own in range(num_objectives))
        return state._replace(news=jnp.zeros_like(state.news), depth=depth, corrections=corrections)

    def correct(state: LamooState, own: int) -> Correction:
        archive = state.archive
        features, target = predictor_features(archive.codes), archive.objectives[:, own]
        return fit_correction(features, own_first(state.estimates, own), target, archive_valid(archive))

    def own_first(estimates, own: int):
        return jnp.roll(estimates, -own, axis=1)

    def ask(key, state, n, pending_codes, pending_valid):
        taken = classes.mark(state.evaluated, pending_codes, pending_valid)
        depth = jnp.where(classes.spread(taken), -1, state.depth)
        deepest = classes.highest(depth)
        left = jnp.stack([(deepest >= least).sum() for least in range(config.tree.depth + 1)])
        anywhere = int(n * config.whole_space_share) if config.choice == "corrected" else 0
        least = jnp.max(jnp.where(left >= n - anywhere, jnp.arange(config.tree.depth + 1), 0))
        if not anywhere:
            index, valid = classes.draw(key, depth >= least, n)
            return space.codes(index), valid
        key_region, key_space = jax.random.split(key)
        index, valid = classes.draw(key_region, depth >= least, n - anywhere)
        taken = classes.mark(taken, space.codes(index), valid)
        others, others_valid = classes.draw(key_space, ~classes.spread(taken), anywhere)
        # The region's come first: where few are screened, or none, it is these that count.
        return space.codes(jnp.append(index, others)), jnp.append(valid, others_valid)

    def rank(key, state, candidates: Candidates, n: int):
        if config.choice == "random":
            return first_valid(candidates.valid, n)
        if config.choice == "estimate":
            return by_dominance(candidates, n)
        predicted, front, front_valid = at_smallest_size(
            state.archive.count, config.capacity, lambda size: look(state, candidates, size)
        )
        screened = candidates.valid & ~jnp.isnan(candidates.estimates).any(axis=1)
        rows, gains = by_hypervolume_gain(predicted, screened, front, front_valid, reference_point, n)
        others, more = first_valid(candidates.valid & ~screened, n)
        kept, real = first_valid(jnp.append(gains, more), n)
        by_gain = jnp.append(rows, others)[kept], real
        # Until some of the evaluated have estimates, nothing is known of what estimates mean but their order.
        untold = ~jnp.stack([correction.told for correction in state.corrections]).all()
        needed = shared_maximum(untold.astype(jnp.int32)) > 0
        by_estimate = jax.lax.cond(needed, lambda: by_dominance(candidates, n), lambda: by_gain)
        return jax.tree.map(functools.partial(jnp.where, untold), by_estimate, by_gain)

    def look(state, candidates: Candidates, size: int):
        """Quantiles of the candidates, and the evaluated front; `size` rows of the archive hold all evaluations."""
        evaluated, query = predictor_features(state.archive.codes[:size]), predictor_features(candidates.codes)
        predicted = [
            posterior_quantiles(
                by_first_rows(fitted, size), evaluated, query, own_first(candidates.estimates, own), LEVELS
            )
            for own, fitted in enumerate(state.corrections)
        ]
        front = first_front(state.archive.objectives[:size], archive_valid(state.archive)[:size])
        return jnp.stack(predicted, axis=-1), *front

    def tell(state, candidates: Candidates, results):
        archive, overflow = archive_add(state.archive, candidates.codes, results, candidates.valid)
        estimates = state.estimates.at[
            jnp.where(candidates.valid, state.archive.count + jnp.cumsum(candidates.valid) - 1, config.capacity)
        ].set(candidates.estimates, mode="drop")
        evaluated = classes.mark(state.evaluated, candidates.codes, candidates.valid)
        news = state.news | candidates.valid.any()
        return state._replace(archive=archive, estimates=estimates, evaluated=evaluated, news=news), LamooInfo(overflow)

    def inform(state, estimates):
        rows = min(estimates.shape[0], config.capacity)
        new, old = estimates[:rows], state.estimates[:rows]
        known = ~jnp.isnan(new) & (jnp.arange(rows) < state.archive.count)[:, None]
        merged = state.estimates.at[:rows].set(jnp.where(known, new, old))
        return state._replace(estimates=merged, news=state.news | (known & jnp.isnan(old)).any())

    return Searcher(init, fit, ask, rank, tell, inform if config.choice == "corrected" else None)


def best_region(
    space: SearchSpace,
    kernel: Kernel,
    archive: Archive,
    reference_point: Float[Array, " m"],
    config: TreeConfig,
) -> tuple[Region, PartitionInfo]:
    """The region that the evaluated architectures of `archive` lead to."""
    x = space.features(archive.codes)
    return partition(kernel, x, archive.objectives, archive_valid(archive), reference_point, config)
