"""NAS-Bench-101: published counts, channels by hand, and isomorphism against brute force."""

import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cenas_jax.spaces import space
from cenas_jax.spaces.nas_bench_101 import NasBench101Config, nas_bench_101
from cenas_jax.spaces.nas_bench_101_graphs import EDGES, OPERATIONS, VERTICES, canonical_hash, matrix_of

SPACE = space("nas-bench-101")
POOL, CONV_1X1, CONV_3X3 = range(3)
counts = jax.jit(lambda codes: (SPACE.parameters(codes), SPACE.multiply_adds(codes)))
canonical = jax.jit(SPACE.canonical)
is_valid = jax.jit(SPACE.is_valid)


def graph(edges, operations=(CONV_3X3,) * 5):
    return np.asarray([*(int(edge in edges) for edge in EDGES), *operations], np.int32)


# The cell in the README of the benchmark's release, whose record has 2,694,282 trained parameters.
README_CELL = graph(
    {(0, 1), (0, 2), (0, 3), (0, 5), (1, 6), (2, 6), (3, 4), (4, 6), (5, 6)},
    (CONV_1X1, CONV_3X3, CONV_3X3, CONV_3X3, POOL),
)
# The most parameters of all: a chain of 3x3 convolutions of full width, with as many further edges from the input.
LARGEST = graph({(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 6), (0, 2), (0, 3), (0, 4)})


def test_published_counts():
    parameters, _ = counts(jnp.asarray([README_CELL, LARGEST]))
    assert parameters[0] == 2_694_282
    np.testing.assert_allclose(parameters[1], 49_979_274, rtol=1e-6)


def test_counts_by_hand():
    """One module a stack, 3 channels in the first; 4x4 images, one class."""
    small = nas_bench_101(NasBench101Config(channels=3, modules=1, num_classes=1, image_size=4))
    alone = graph({(0, 6)}, (POOL,) * 5)
    # Two vertices share the output: of 3 channels 2 and 1, of 6 and 12 one half each. Vertex 1 (3x3) leads to the
    # output; vertex 2 (1x1) too, and to nothing else; the input leads to both, and to the output.
    shared = graph({(0, 1), (0, 2), (1, 6), (2, 6), (0, 6)}, (CONV_3X3, CONV_1X1, POOL, POOL, POOL))
    # Vertex 1 is as wide as the wider of those it leads to.
    wide = graph({(0, 1), (1, 2), (1, 3), (2, 6), (3, 6)}, (CONV_1X1, POOL, POOL, POOL, POOL))
    rows = jnp.asarray([alone, shared, wide])
    parameters, multiply_adds = small.parameters(rows), small.multiply_adds(rows)
    # Stem 27*3 + 6, head 12 + 1. Projections 3 to 3, 3 to 6, 6 to 12, each with a normalisation of twice its width.
    base, base_multiply_adds = 87 + 13, 81 * 16 + 13
    # Inner: 3x3 of widths 2, 3, 6 and 1x1 of widths 1, 3, 6. Projections to both and to the output: twice the width.
    inner = [9 * w * w + 2 * w + v * v + 2 * v for w, v in ((2, 1), (3, 3), (6, 6))]
    inner_multiply_adds = [(9 * w * w + v * v) * p for w, v, p in ((2, 1, 16), (3, 3, 4), (6, 6, 1))]
    # wide: vertex 1 has widths 2, 3, 6, read once from the input.
    expected = [
        base + (9 + 6) + (18 + 12) + (72 + 24),
        base + sum(inner) + 2 * ((9 + 6) + (18 + 12) + (72 + 24)),
        base + sum(w * w + 2 * w + i * w + 2 * w for w, i in ((2, 3), (3, 3), (6, 6))),
    ]
    np.testing.assert_array_equal(parameters, expected)
    expected = [
        base_multiply_adds + 9 * 16 + 18 * 4 + 72,
        base_multiply_adds + sum(inner_multiply_adds) + 2 * (9 * 16 + 18 * 4 + 72),
        base_multiply_adds + sum((w * w + i * w) * p for w, i, p in ((2, 3, 16), (3, 3, 4), (6, 6, 1))),
    ]
    np.testing.assert_array_equal(multiply_adds, expected)


def test_what_is_on_no_path_does_not_count():
    kept = {(0, 1), (1, 6)}
    more = kept | {(0, 2), (2, 3), (3, 4), (4, 5), (2, 4), (2, 5), (3, 5), (0, 3), (0, 4)}  # none leads to the output
    rows = jnp.asarray([graph(kept, (CONV_3X3, 0, 0, 0, 0)), graph(more, (CONV_3X3, 1, 2, 1, 2))])
    np.testing.assert_array_equal(is_valid(rows), [True, True])
    first, second = np.asarray(canonical(rows))
    np.testing.assert_array_equal(first, second)
    assert canonical_hash(np.asarray(rows[0])) == canonical_hash(np.asarray(rows[1]))
    np.testing.assert_array_equal(*np.asarray(counts(rows)[0]))


def test_validity():
    chain = {(v, v + 1) for v in range(6)}
    full = chain | {(0, 2), (0, 3), (0, 4)}
    rows = [graph(full), graph(full | {(0, 5)}), graph({(0, 1), (2, 6)}), graph(set()), graph({(0, 6)})]
    np.testing.assert_array_equal(is_valid(jnp.asarray(rows)), [True, False, False, False, True])
    with pytest.raises(ValueError, match="no path from the input to the output"):
        canonical_hash(rows[2])


def brute_force_isomorphic(first, second) -> bool:
    """Some order of the inner vertices makes one pruned graph the other."""
    (matrix, names), (other, other_names) = (pruned(codes) for codes in (first, second))
    if matrix.shape != other.shape:
        return False
    inner = range(1, len(matrix) - 1)
    for order in itertools.permutations(inner):
        order = [0, *order, len(matrix) - 1]
        if [names[v] for v in order] == other_names and np.array_equal(matrix[np.ix_(order, order)], other):
            return True
    return False


def pruned(codes):
    matrix = matrix_of(codes)
    used = sorted({vertex for path in all_paths(matrix, 0) for vertex in path})
    names = ["input", *(OPERATIONS[code] for code in codes[len(EDGES) :]), "output"]
    return matrix[np.ix_(used, used)], [names[v] for v in used]


def all_paths(matrix, vertex):
    if vertex == VERTICES - 1:
        return [(vertex,)]
    return [(vertex, *path) for target in np.flatnonzero(matrix[vertex]) for path in all_paths(matrix, int(target))]


def relabelled(codes, random):
    """An isomorph: inner vertices in another order that keeps every edge upward, where there is one."""
    matrix, operations = matrix_of(codes), codes[len(EDGES) :]
    for _ in range(50):
        order = [0, *(1 + random.permutation(5)), 6]
        moved = matrix[np.ix_(order, order)]
        if not np.tril(moved).any():
            return graph({edge for edge in EDGES if moved[edge]}, operations[np.asarray(order[1:-1]) - 1])
    return codes


def test_hash_and_canonical_codes_agree_with_brute_force():
    random = np.random.default_rng(0)
    drawn = np.asarray(SPACE.sample(jax.random.key(0), 64))
    others = [relabelled(codes, random) for codes in drawn]
    # Near ones, of which some are isomorphs: changes of one entry, and operations in another order.
    others += list(np.asarray(SPACE.mutate(jax.random.key(1), jnp.asarray(drawn))))
    others += [np.concatenate([codes[:21], random.permutation(codes[21:])]) for codes in drawn]
    pairs = [(drawn[place % 64], other) for place, other in enumerate(others)]
    expected = [brute_force_isomorphic(*pair) for pair in pairs]
    assert all(expected[:64]) and 0.05 < np.mean(expected[64:]) < 0.95
    assert sum(not np.array_equal(*pair) for pair in pairs[:64]) > 16
    assert [canonical_hash(first) == canonical_hash(second) for first, second in pairs] == expected
    first, second = (np.asarray(canonical(jnp.asarray(side))) for side in zip(*pairs, strict=True))
    assert np.all(first == second, axis=1).tolist() == expected


def graphs_of(vertices: int) -> np.ndarray:
    """Codes of every matrix and every operation of so many vertices; the output is vertex 6."""
    place = [*range(vertices - 1), VERTICES - 1]
    ends = [(place[i], place[j]) for i in range(vertices) for j in range(i + 1, vertices)]
    columns = [EDGES.index(edge) for edge in ends] + [len(EDGES) + v for v in range(vertices - 2)]
    choices = itertools.product(*[(0, 1)] * len(ends), *[range(3)] * (vertices - 2))
    filled = np.asarray(list(choices), np.int32).reshape(-1, len(columns))
    codes = np.zeros((len(filled), len(EDGES) + 5), np.int32)
    codes[:, columns] = filled
    return codes


def unique(vertices: int, size: int = 2048) -> np.ndarray:
    """The classes of valid graphs whose paths use all vertices."""
    codes = graphs_of(vertices)
    codes = np.concatenate([codes, np.repeat(codes[:1], -len(codes) % size, axis=0)])  # no edges: not valid
    found = np.concatenate(
        [
            np.asarray(canonical(chunk))[np.asarray(is_valid(chunk))]
            for chunk in map(jnp.asarray, np.split(codes, len(codes) // size))
        ]
    )
    found = np.unique(found, axis=0)
    return found[[len(pruned(row)[0]) == vertices for row in found]]


@pytest.mark.parametrize(
    ("vertices", "classes"), [(2, 1), (3, 6), (4, 84), pytest.param(5, 2441, marks=pytest.mark.slow)]
)
def test_published_numbers_of_classes(vertices, classes):
    found = unique(vertices)
    assert len(found) == classes
    assert len({canonical_hash(row) for row in found}) == classes


def test_names():
    text = SPACE.to_string(README_CELL)
    assert text == (
        "0111010000000100000010000100000000100000010000000|"
        "input,conv1x1-bn-relu,conv3x3-bn-relu,conv3x3-bn-relu,conv3x3-bn-relu,maxpool3x3,output"
    )
    small = SPACE.from_string("011001000|input,conv1x1-bn-relu,output")
    np.testing.assert_array_equal(small, graph({(0, 1), (0, 6), (1, 6)}, (CONV_1X1, 0, 0, 0, 0)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "give 2 .. 7 operations after |, from input to output, by commas"),
        ("0110|input,output,output,x", "from input to output"),
        ("01|input,output", "give 4 digits 0 or 1 for 2 vertices"),
        ("0120|input,output", "give 4 digits 0 or 1 for 2 vertices"),
        ("0110|input,output", "an edge must lead from an earlier to a later vertex"),
        ("011001000|input,conv5x5,output", "operation 'conv5x5' is none of maxpool3x3, conv1x1-bn-relu"),
        ("0000|input,output", "no path from the input to the output"),
        (
            f"{'01111110011111000111100001110000011' + '0000001' + '0' * 7}|input{',maxpool3x3' * 5},output",
            "21 edges are in use, 9 at most may be",
        ),
    ],
)
def test_malformed_names_are_refused(text, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        SPACE.from_string(text)


def test_malformed_codes_and_sizes_are_refused():
    with pytest.raises(ValueError, match="21 of 0 .. 1 and 5 of 0 .. 2"):
        SPACE.to_string(np.full(26, 2))
    with pytest.raises(ValueError, match="must be positive"):
        NasBench101Config(modules=0)
    with pytest.raises(ValueError, match="image_size 6: give a positive multiple of 4"):
        NasBench101Config(image_size=6)
