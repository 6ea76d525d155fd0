"""Random search and LaMOO as ask/tell: nothing twice, nothing missed, never a stall."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arrays import replaced

from cenas_jax.benchmarks import synthetic_benchmark
from cenas_jax.cluster.tabular import tabular_search
from cenas_jax.search import Candidates, LamooConfig, lamoo_search, random_search
from cenas_jax.search.lamoo import SVMConfig, TreeConfig, make_kernel, region_depth
from cenas_jax.search.lamoo.searcher import best_region
from cenas_jax.search.ranking import by_dominance
from cenas_jax.spaces import tabular_space, with_distinct_isomorphs
from cenas_jax.spaces.base import with_representatives

TINY = tabular_space("tiny", (tuple("abc"),) * 3)
SMALL = tabular_space("small", (tuple("abcde"),) * 4)
# Classes of three: the last entry makes no difference where the first one is `a`.
ISOMORPH = np.arange(SMALL.size)
ISOMORPH[:125] = ISOMORPH[:125] // 5 * 5
FOLDED = tabular_space("folded", (tuple("abcde"),) * 4, isomorph=ISOMORPH)

NOTHING = jnp.zeros((0, 3), jnp.int32), jnp.zeros(0, bool)
NOTHING_SMALL = jnp.zeros((0, 4), jnp.int32), jnp.zeros(0, bool)


def make(kind, space, capacity: int = 64, **options):
    if kind == "random":
        return random_search(space, **options)
    choice: Any = kind.removeprefix("lamoo-")
    config = LamooConfig(capacity=capacity, choice=choice, tree=TreeConfig(min_samples=4), **options)
    return lamoo_search(space, jnp.asarray([0.0, -60.0]), config)


@functools.cache
def tiny(kind):
    """One for all tests, so that what was compiled for it serves them."""
    return make(kind, TINY, 32)


def candidates(space, index, valid=None) -> Candidates:
    index = jnp.asarray(index)
    codes = space.codes(index)
    valid = jnp.ones(len(index), bool) if valid is None else valid
    return Candidates(codes, jnp.full((len(index), 2), jnp.nan), valid)


def told(searcher, space, index, objectives, estimates=None):
    """The state of a searcher that was told of these architectures alone, and has not fitted yet."""

    @jax.jit
    def tell(index, objectives, estimates):
        rows = candidates(space, index)
        rows = rows if estimates is None else rows._replace(estimates=estimates)
        return searcher.tell(searcher.init(jax.random.key(0)), rows, objectives)[0]

    return tell(jnp.asarray(index), jnp.asarray(objectives, jnp.float32), estimates)


def indices(space, codes) -> np.ndarray:
    return np.asarray(jax.jit(space.index)(codes))


@pytest.mark.parametrize(
    ("kind", "screened"),
    [
        ("random", 0),
        ("lamoo-random", 0),
        pytest.param("lamoo-estimate", 20, marks=pytest.mark.slow),
        ("lamoo-corrected", 20),
    ],
)
def test_no_architecture_and_no_isomorph_twice_in_whole_searches(kind, screened):
    benchmark = synthetic_benchmark(1, FOLDED)
    searcher = make(kind, FOLDED)
    search = jax.jit(
        jax.vmap(
            lambda key: tabular_search(
                key, searcher, FOLDED, benchmark.table, initial=6, batch=7, rounds=8, screened=screened
            )[0]
        )
    )
    history = search(jax.random.split(jax.random.key(0), 16))
    assert bool(history.valid.all()) and not history.overflow.any()
    for row in np.asarray(history.index):
        assert len(set(ISOMORPH[row].tolist())) == 6 + 7 * 8
    share = np.asarray(history.hypervolume_share)
    assert np.all(np.diff(share, axis=1) >= 0) and share[:, -1].mean() > 0.85 and share.max() <= 1 + 1e-6


def test_no_two_isomorphs_in_one_batch():
    searcher = random_search(FOLDED)
    state = jax.jit(searcher.init)(jax.random.key(0))
    codes, valid = jax.jit(searcher.ask, static_argnums=2)(jax.random.key(0), state, 60, *NOTHING_SMALL)
    classes = ISOMORPH[indices(FOLDED, codes)][np.asarray(valid)]
    assert len(set(classes.tolist())) == len(classes)


@pytest.mark.parametrize("kind", ["random", "lamoo-estimate"])
def test_the_elected_isomorph_is_proposed_as_often_as_its_class_is_large(kind):
    """In a space of classes of 5 and of 1, a class is drawn by its members, and its elected one is what is proposed."""
    elected = with_representatives(FOLDED, 1.0 * (np.arange(FOLDED.size) % 5 == 3))
    searcher = make(kind, elected)
    state = searcher.init(jax.random.key(0))

    @jax.jit
    @jax.vmap
    def ask(key):
        codes, valid = searcher.ask(key, state, 4, jnp.zeros((0, 4), jnp.int32), NOTHING[1])
        return elected.index(codes), valid

    index, valid = map(np.asarray, ask(jax.random.split(jax.random.key(0), 2000)))
    assert valid.all()
    folded = index < 125
    assert (index[folded] % 5 == 3).all() and len(set(index[folded].tolist())) == 25
    first = folded[:, 0].mean()  # 125 of the 625 architectures
    assert abs(first - 0.2) < 4 * np.sqrt(0.2 * 0.8 / 2000)


def test_isomorphs_may_differ():
    def asked(space):
        searcher = random_search(space)
        state = told(searcher, FOLDED, np.arange(1), np.zeros((1, 2)))
        codes, valid = jax.jit(searcher.ask, static_argnums=2)(jax.random.key(1), state, 625, *NOTHING_SMALL)
        return indices(FOLDED, codes), np.asarray(valid)

    index, valid = asked(with_distinct_isomorphs(FOLDED))
    assert int(valid.sum()) == 624 and set(index[:624].tolist()) == set(range(1, 625))
    index, valid = asked(FOLDED)
    assert not np.isin(index[valid], np.arange(5)).any()


@pytest.mark.parametrize("kind", ["random", "lamoo-corrected"])
def test_a_tiny_space_is_used_up_and_then_nothing_is_valid(kind):
    searcher = tiny(kind)
    objectives = synthetic_benchmark(2, TINY).table.objectives

    @jax.jit
    def round_(key, state):
        state = searcher.fit(state)
        codes, valid = searcher.ask(key, state, 4, *NOTHING)
        index = TINY.index(codes)
        state, info = searcher.tell(state, candidates(TINY, index, valid), objectives[index])
        return state, index, valid, info.overflow

    state, seen, counts = jax.jit(searcher.init)(jax.random.key(0)), [], []
    for step in range(9):
        state, index, valid, overflow = round_(jax.random.fold_in(jax.random.key(1), step), state)
        seen += np.asarray(index)[np.asarray(valid)].tolist()
        counts.append(int(valid.sum()))
        assert int(overflow) == 0
    assert counts == [4] * 6 + [3, 0, 0]
    assert sorted(seen) == list(range(27))


@pytest.mark.parametrize("kind", ["random", "lamoo-estimate"])
def test_pending_architectures_are_not_proposed(kind):
    searcher = tiny(kind)
    state = jax.jit(searcher.fit)(told(searcher, TINY, np.arange(5), np.tile([50.0, -9.0], (5, 1))))
    pending = jax.jit(TINY.codes)(jnp.arange(5, 12))
    waiting = jnp.asarray(np.arange(7) < 6)  # the last one is no architecture at all
    codes, valid = jax.jit(searcher.ask, static_argnums=2)(jax.random.key(1), state, 27, pending, waiting)
    proposed = indices(TINY, codes)[np.asarray(valid)]
    assert sorted(proposed.tolist()) == list(range(11, 27))


@pytest.mark.parametrize("kind", ["random", "lamoo-corrected"])
def test_failed_evaluations_are_never_proposed_again(kind):
    searcher = tiny(kind)
    objectives = np.array(synthetic_benchmark(2, TINY).table.objectives)[:14]
    objectives[::2, 0] = objectives[1::4] = np.nan
    state = jax.jit(searcher.fit)(told(searcher, TINY, np.arange(14), objectives))
    codes, valid = jax.jit(searcher.ask, static_argnums=2)(jax.random.key(1), state, 20, *NOTHING)
    assert sorted(indices(TINY, codes)[np.asarray(valid)].tolist()) == list(range(14, 27))
    rank = jax.jit(searcher.rank, static_argnums=3)
    rows, real = rank(jax.random.key(2), state, Candidates(codes, jnp.zeros((20, 2)), valid), 20)
    assert int(real.sum()) == 13 and np.asarray(valid)[np.asarray(rows)[:13]].all()


def test_what_is_screened_after_its_evaluation_counts_as_if_before():
    searcher, random = tiny("lamoo-corrected"), np.random.default_rng(0)
    index = np.arange(14)
    objectives = np.asarray(synthetic_benchmark(2, TINY).table.objectives)[index]
    estimates = (objectives + random.normal(size=objectives.shape)).astype(np.float32)
    fit, inform = jax.jit(searcher.fit), jax.jit(searcher.inform)
    late = fit(told(searcher, TINY, index, objectives, jnp.asarray(estimates).at[5:].set(jnp.nan)))
    unknown = np.full((18, 2), np.nan, np.float32)  # four rows more than were told, which mean nothing
    assert not bool(inform(late, unknown).news)  # nothing learnt, nothing to fit
    unknown[:14], unknown[14:] = estimates, 7
    informed = inform(late, unknown)
    assert bool(informed.news) and np.isnan(informed.estimates[14:]).all()
    before = fit(told(searcher, TINY, index, objectives, jnp.asarray(estimates)))
    jax.tree.map(np.testing.assert_array_equal, fit(informed).corrections, before.corrections)
    assert tiny("random").inform is None and make("lamoo-estimate", TINY).inform is None


def test_an_exhausted_region_relaxes_its_deepest_constraint_first():
    table = synthetic_benchmark(3, SMALL).table
    searcher = lamoo_search(
        SMALL, table.reference_point, LamooConfig(capacity=32, choice="random", tree=TreeConfig(min_samples=4))
    )
    key = jax.random.key(0)
    evaluated = np.random.default_rng(0).permutation(SMALL.size)[:32]
    state = jax.jit(searcher.fit)(told(searcher, SMALL, evaluated, np.asarray(table.objectives)[evaluated]))
    ask = jax.jit(searcher.ask, static_argnums=2)

    def asked(n):
        codes, valid = ask(key, state, n, *NOTHING_SMALL)
        assert bool(valid.all())
        return set(indices(SMALL, codes).tolist())

    for n in (10, 300):  # a few of the region; more than any region holds
        assert len(asked(n)) == n and not asked(n) & set(evaluated.tolist())
    codes, valid = ask(key, state, 600, *NOTHING_SMALL)
    assert int(valid.sum()) == 593

    # A small draw comes from the region alone, and one that does not fit drops constraints from the deepest on.
    @jax.jit
    def depth_of_all(archive):
        tree = TreeConfig(min_samples=4)
        kernel = make_kernel(tree.svm, 4)
        region, _ = best_region(SMALL, kernel, archive, table.reference_point, tree)
        return region_depth(kernel, region, SMALL.features(SMALL.codes(jnp.arange(SMALL.size))))

    depth = np.asarray(depth_of_all(state.archive))
    depths = np.delete(depth, evaluated)
    for n in (10, 300):
        least = max(least for least in range(4) if (depths >= least).sum() >= n)
        assert depth[sorted(asked(n))].min() >= least
    assert (depths == 3).sum() >= 10


def test_overflow_is_reported_and_what_overflowed_stays_taken():
    searcher = make("lamoo-random", TINY, 8)
    searcher = searcher._replace(fit=jax.jit(searcher.fit), ask=jax.jit(searcher.ask, static_argnums=2))

    @jax.jit
    def tell(state, index, valid):
        return searcher.tell(state, candidates(TINY, index, valid), jnp.ones((6, 2)))

    state = jax.jit(searcher.init)(jax.random.key(0))
    state, info = tell(state, np.arange(6), np.ones(6, bool))
    assert int(info.overflow) == 0
    state, info = tell(state, np.arange(6, 12), np.arange(6) != 2)
    assert int(info.overflow) == 3 and int(state.archive.count) == 8
    codes, valid = searcher.ask(jax.random.key(1), searcher.fit(state), 27, *NOTHING)
    assert sorted(indices(TINY, codes)[np.asarray(valid)].tolist()) == [8, *range(12, 27)]


def test_a_tabular_search_counts_what_overflowed():
    searcher = make("lamoo-random", TINY, 8)
    table = synthetic_benchmark(4, TINY).table
    blind = searcher._replace(fit=lambda state: state)  # which overflow does not depend on
    search = jax.jit(lambda key: tabular_search(key, blind, TINY, table, initial=6, batch=2, rounds=3)[0].overflow)
    assert int(search(jax.random.key(0))) == 4


@pytest.mark.parametrize(
    ("config", "field", "message"),
    [
        (LamooConfig(), "choice", "LamooConfig: choice 'plyo' is unknown: choose one of random, estimate, corrected"),
        (TreeConfig(), "selection", "TreeConfig: selection 'plyo' is unknown: choose one of leaf, descent, greedy"),
        (TreeConfig(), "children", "TreeConfig: children 'plyo' is unknown: choose one of label, prediction"),
        (SVMConfig(), "kernel", "SVMConfig: kernel 'plyo' is unknown: choose one of poly, rbf, linear"),
    ],
)
def test_misspelt_choices_are_refused(config, field, message):
    object.__setattr__(config, field, "plyo")  # the type checker of the tests would refuse it before
    with pytest.raises(ValueError, match=message):
        config.__post_init__()


@pytest.mark.parametrize("kind", ["random", "lamoo-corrected"])
def test_compiled_equals_not_compiled(kind):
    searcher = tiny(kind)
    table = synthetic_benchmark(4, TINY).table
    evaluated = np.array([0, 4, 8, 9, 13, 17, 20, 24])
    unfitted = told(searcher, TINY, evaluated, np.asarray(table.objectives)[evaluated])
    state = jax.jit(searcher.fit)(unfitted)
    for fitted, plain in zip(jax.tree.leaves(state), jax.tree.leaves(searcher.fit(unfitted)), strict=True):
        np.testing.assert_allclose(fitted, plain, rtol=1e-3, atol=1e-4)
    ask = jax.jit(searcher.ask, static_argnums=2)
    codes, valid = ask(jax.random.key(3), state, 6, *NOTHING)
    plain_codes, plain_valid = searcher.ask(jax.random.key(3), state, 6, *NOTHING)
    np.testing.assert_array_equal(codes, plain_codes)
    np.testing.assert_array_equal(valid, plain_valid)
    screened = Candidates(codes, jnp.asarray(np.asarray(table.estimates)[indices(TINY, codes)]), valid)
    rows, _ = jax.jit(searcher.rank, static_argnums=3)(jax.random.key(3), state, screened, 4)
    plain_rows, _ = searcher.rank(jax.random.key(3), state, screened, 4)
    np.testing.assert_array_equal(rows, plain_rows)


def test_a_search_as_a_scan_equals_a_loop():
    table = synthetic_benchmark(4, SMALL).table
    searcher = make("lamoo-estimate", SMALL, 32)
    key = jax.random.key(8)
    history, _ = jax.jit(
        lambda key: tabular_search(key, searcher, SMALL, table, initial=6, batch=5, rounds=5, screened=15)
    )(key)
    # The same draws, one call at a time.
    estimates, objectives = np.asarray(table.estimates), np.asarray(table.objectives)
    first = np.asarray(history.index)[:6]
    state, seen = told(searcher, SMALL, first, objectives[first], estimates[first]), first.tolist()
    ask, rank = jax.jit(searcher.ask, static_argnums=2), jax.jit(searcher.rank, static_argnums=3)
    fit, tell = jax.jit(searcher.fit), jax.jit(searcher.tell)
    for step in range(5):
        key_ask, key_rank = jax.random.split(jax.random.fold_in(jax.random.fold_in(key, 2), step))
        state = fit(state)
        codes, valid = ask(key_ask, state, 15, *NOTHING_SMALL)
        index = indices(SMALL, codes)
        rows, real = map(np.asarray, rank(key_rank, state, Candidates(codes, jnp.asarray(estimates[index]), valid), 5))
        chosen = index[rows]
        state, _ = tell(state, Candidates(np.asarray(codes)[rows], estimates[chosen], real), objectives[chosen])
        seen += chosen.tolist()
    assert history.index.tolist() == seen


def test_corrected_choice_needs_two_objectives():
    with pytest.raises(ValueError, match="two-objective hypervolume gain, but there are 3"):
        lamoo_search(TINY, jnp.zeros(3), LamooConfig(choice="corrected"))
    with pytest.raises(ValueError, match="capacity"):
        LamooConfig(capacity=0)
    with pytest.raises(ValueError, match="whole_space_share must be in"):
        LamooConfig(whole_space_share=1.0)


def test_corrected_choice_draws_in_the_whole_space_too_and_ranks_what_was_screened_first():
    table, tree = synthetic_benchmark(3, SMALL).table, TreeConfig(min_samples=4)
    searcher = lamoo_search(SMALL, table.reference_point, LamooConfig(capacity=32, choice="corrected", tree=tree))
    ask, rank = jax.jit(searcher.ask, static_argnums=2), jax.jit(searcher.rank, static_argnums=3)
    evaluated = np.random.default_rng(0).permutation(SMALL.size)[:24]
    known, objectives = np.asarray(table.estimates)[evaluated], np.asarray(table.objectives)[evaluated]
    fit = jax.jit(searcher.fit)
    state = fit(told(searcher, SMALL, evaluated, objectives, known))
    codes, valid = ask(jax.random.key(1), state, 40, *NOTHING_SMALL)
    index = indices(SMALL, codes)
    assert bool(valid.all()) and len(set(index.tolist())) == 40
    inside = np.asarray(state.depth)[index] == np.asarray(state.depth).max()
    assert inside[:20].all() and not inside[20:].all()

    # The first half was screened. The rest comes after it, as it was drawn.
    screened = Candidates(codes, jnp.asarray(replaced(np.asarray(table.estimates)[index], np.s_[20:], np.nan)), valid)
    rows, real = map(np.asarray, rank(jax.random.key(2), state, screened, 30))
    assert real.all() and sorted(rows[:20].tolist()) == list(range(20))
    assert rows[20:].tolist() == list(range(20, 30))
    # While only one of the evaluated has an estimate, what estimates mean is unknown: they are ranked by dominance.
    untold = fit(told(searcher, SMALL, evaluated, objectives, replaced(known, np.s_[1:], np.nan)))
    rows, _ = rank(jax.random.key(2), untold, screened, 30)
    expected, _ = jax.jit(by_dominance, static_argnums=1)(screened, 30)
    np.testing.assert_array_equal(np.asarray(rows)[:20], np.asarray(expected)[:20])
