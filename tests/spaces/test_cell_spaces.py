"""DARTS and NASNet cells: published and hand-made counts, an independent PyTorch build, genotypes, isomorphs."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cenas_jax.spaces import cell_costs, darts, nasnet, space
from cenas_jax.spaces.darts import DARTS_V2, DartsConfig
from cenas_jax.spaces.nasnet import NasNetConfig

DARTS, NASNET = space("darts"), space("nasnet")


@functools.cache
def counts(found):
    return jax.jit(lambda codes: (found.parameters(codes), found.multiply_adds(codes)))


def count(found, *texts):
    parameters, multiply_adds = counts(found)(jnp.asarray([found.from_string(text) for text in texts]))
    return np.asarray(parameters), np.asarray(multiply_adds)


def genotype(normal, reduce, nodes=4, **sizes):
    """Every node reads the two inputs of its cell by one and the same operation."""
    cells = [[(operation, source) for _ in range(nodes) for source in (0, 1)] for operation in (normal, reduce)]
    concat, further = f"range(2, {nodes + 2})", "".join(f", {name}={value}" for name, value in sizes.items())
    return f"Genotype(normal={cells[0]}, normal_concat={concat}, reduce={cells[1]}, reduce_concat={concat}{further})"


def test_published_counts():
    (parameters,), (multiply_adds,) = count(DARTS, DARTS_V2)
    assert parameters == 3_349_342  # what DARTS prints (3.349342MB); 3.3 M in its table 1
    np.testing.assert_allclose(multiply_adds, 528e6, rtol=0.03)  # as later papers count it


def test_counts_by_hand():
    # Three cells of width 2, 4, 8 (the last two reduce) on 4x4 images, one class. Without weights in the cells:
    # stem 27*6 + 12 = 174; cell 0 reads 6 and 6 channels: 12*2 + 8 = 32; cell 1 reads 6 and 8: 14*4 + 16 = 72;
    # cell 2 reads 8 and 16: 24*8 + 32 = 224; head 32 + 1. Their multiply-adds: 162*16, 24*16, 56*16, 192*4, 33.
    small = darts.darts(DartsConfig(cells=3, channels=2, num_classes=1, image_size=4))
    texts = [genotype("skip_connect", "max_pool_3x3"), genotype("sep_conv_3x3", "skip_connect")]
    texts.append(genotype("avg_pool_3x3", "dil_conv_5x5"))
    parameters, multiply_adds = count(small, *texts)
    fixed, fixed_multiply_adds = 174 + 32 + 72 + 224 + 33, 242 * 16 + 768 + 33
    # Eight edges a cell. Separable of width 2: 2 * (18 + 4) weights, two normalisations of 4. Factorised reductions of
    # width 4 and 8: 16 + 8, 64 + 16 on 4 pixels and 1. Dilated of width 4 and 8: 100 + 16 + 8, 200 + 64 + 16.
    np.testing.assert_array_equal(parameters, fixed + 8 * np.array([0, 52 + 24 + 80, 124 + 280]))
    expected = fixed_multiply_adds + 8 * np.array([0, 44 * 16 + 16 * 4 + 64, 116 * 4 + 264])
    np.testing.assert_array_equal(multiply_adds, expected)


@pytest.mark.parametrize(("found", "sizes"), [(DARTS, (20, 36)), (NASNET, (None, None))], ids=["darts", "nasnet"])
def test_counts_are_those_of_an_independent_build(found, sizes):
    torch = pytest.importorskip("torch", exc_type=ImportError)
    from torch_cells import TorchCells, count_multiply_adds, count_parameters

    codes = found.sample(jax.random.key(7), 4)
    parameters, multiply_adds = counts(found)(codes)
    for row, own, own_multiply_adds in zip(np.asarray(codes), parameters, multiply_adds, strict=True):
        with torch.device("meta"):
            model = TorchCells(found.to_string(row), *sizes)
            np.testing.assert_allclose(own, count_parameters(model), rtol=1e-6)
            np.testing.assert_allclose(own_multiply_adds, count_multiply_adds(model, 32), rtol=1e-6)


def test_the_paper_s_network_of_1_68_m_parameters_is_within_the_sizes():
    smallest = genotype("skip_connect", "max_pool_3x3", 5, cells=5, channels=16)
    largest = genotype("conv_1x7_7x1", "conv_1x7_7x1", 5, cells=20, channels=40)
    (low, high), _ = count(NASNET, smallest, largest)
    assert low < 0.2e6 and high > 30e6


def test_operations_are_ranked_by_compute():
    order = cell_costs.BY_COMPUTE
    weights = [cell_costs.operation_cost(name, 32, 1, 1)[1] for name in order]
    assert weights == sorted(weights) and len(set(weights[4:])) == len(weights) - 4
    assert [name for name in order if name in nasnet.OPERATIONS] == list(nasnet.OPERATIONS)
    assert set(darts.OPERATIONS) < set(order)


def test_features_are_ranks_on_edges():
    features = np.asarray(DARTS.features(jnp.asarray(DARTS.from_string(DARTS_V2))[None]))[0]
    # Ranks of DARTS' operations: skip 1, max 2, average 3, dilated 3x3 4, separable 3x3 6. Edges by node and source.
    normal = [6, 6, *(6, 6, 0), *(1, 6, 0, 0), *(1, 0, 4, 0, 0)]
    reduction = [2, 2, *(0, 2, 1), *(2, 0, 1, 0), *(0, 2, 1, 0, 0)]
    np.testing.assert_array_equal(features, normal + reduction)
    twice = genotype("skip_connect", "conv_1x7_7x1", 5, cells=8, channels=20).replace("', 1)", "', 0)")
    features = np.asarray(NASNET.features(jnp.asarray(NASNET.from_string(twice))[None]))[0]
    np.testing.assert_array_equal(features[:5], [2, 0, 2, 0, 0])  # two skips on one edge
    np.testing.assert_array_equal(features[20:25], [26, 0, 26, 0, 0])
    np.testing.assert_array_equal(features[-2:], [1, 1])


def test_genotypes_of_both_notations_are_read():
    listed = DARTS_V2.replace("range(2, 6)", "[2, 3, 4, 5]")
    turned = DARTS_V2.replace("('skip_connect', 0), ('dil_conv_3x3', 2)", "('dil_conv_3x3', 2), ('skip_connect', 0)")
    assert listed != DARTS_V2 and turned != DARTS_V2
    for text in (listed, turned, f"  {DARTS_V2}\n"):
        np.testing.assert_array_equal(DARTS.from_string(text), DARTS.from_string(DARTS_V2))
    # Nodes 2 and 3 of the reduction cell read sources 0, 1 and 1, 2: pairs 0 of 1 and 2 of 3.
    np.testing.assert_array_equal(DARTS.from_string(DARTS_V2)[12:18], [0, 0, 0, 2, 0, 2])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("Genotype(", "Genotype((", "is malformed: invalid syntax"),
        ("Genotype(", "print(", "is malformed: write it like Genotype("),
        ("reduce_concat", "normal_concat", "give normal, normal_concat, reduce, reduce_concat by name, each once"),
        ("reduce_concat=range(2, 6)", "reduce_concat=range(3, 6)", "reduce_concat must be range(2, 6)"),
        ("reduce_concat=range(2, 6)", "reduce_concat=range(2, 10**9)", "10 ** 9 is not a plain list, text or number"),
        ("reduce_concat=range(2, 6)", "reduce_concat=exit()", "reduce_concat must be range(2, 6)"),
        ("('dil_conv_3x3', 2)]", "('dil_conv_3x3', 4)]", None),
        ("('dil_conv_3x3', 2)]", "('dil_conv_3x3', 5)]", "normal, edge 7: node 5 has the sources 0 .. 4, not 5"),
        ("('dil_conv_3x3', 2)]", "('dil_conv_3x3', True)]", "normal, edge 7: ('dil_conv_3x3', True) is not like"),
        ("('dil_conv_3x3', 2)]", "('dil_conv_3x3', exit())]", "is not a plain list, text or number"),
        ("('dil_conv_3x3', 2)]", "('none', 2)]", "normal, edge 7: operation 'none' is none of max_pool_3x3"),
        (", ('dil_conv_3x3', 2)]", "]", "normal must be a list of 8 edges, two for each of 4 nodes"),
        ("('dil_conv_3x3', 2)]", "('dil_conv_3x3', 0)]", "node 5 reads source 0 twice"),
    ],
)
def test_malformed_genotypes_are_refused(old, new, message):
    text = DARTS_V2.replace(old, new, 1)
    assert text != DARTS_V2
    if message is None:
        assert DARTS.from_string(text)[9] == 3  # the pair 0, 4
    else:
        with pytest.raises(ValueError, match=re.escape(message)):
            DARTS.from_string(text)


def test_sizes_belong_to_free_sizes():
    with pytest.raises(ValueError, match="by name, each once"):
        DARTS.from_string(DARTS_V2[:-1] + ", cells=20)")
    text = genotype("skip_connect", "skip_connect", 5, cells=9, channels=16)
    with pytest.raises(ValueError, match="cells 9 is none of 5, 8, 11"):
        NASNET.from_string(text)
    with pytest.raises(ValueError, match="cells must be a whole number"):
        NASNET.from_string(text.replace("cells=9", "cells='9'"))
    with pytest.raises(ValueError, match="24 integers within their choices"):
        DARTS.to_string(np.full(24, 7))


@pytest.mark.parametrize("found", [DARTS, NASNET], ids=["darts", "nasnet"])
def test_renamed_nodes_are_one_class(found):
    """Nodes that do not read each other change places in the text; what reads them follows."""
    nodes = 4 if found is DARTS else 5
    sizes = "" if found is DARTS else ", cells=8, channels=20"

    def text(edges):
        rest = [("skip_connect", source) for _ in range(nodes) for source in (0, 1)]
        concat = f"range(2, {nodes + 2})"
        return f"Genotype(normal={edges}, normal_concat={concat}, reduce={rest}, reduce_concat={concat}{sizes})"

    a, b = [("sep_conv_3x3", 0), ("skip_connect", 1)], [("max_pool_3x3", 0), ("sep_conv_5x5", 1)]
    more = [("skip_connect", 0), ("skip_connect", 1)] * (nodes - 4)
    last = [("skip_connect", 0), ("skip_connect", 1)]
    reads_a, reads_b = ([("avg_pool_3x3", 1), ("dil_conv_3x3", source)] for source in (2, 3))
    texts = [a + b + reads_a + last + more, b + a + reads_b + last + more, a + last + reads_a + b + more]
    texts.append(b + a + reads_a + last + more)  # what reads it does not follow
    codes = jnp.asarray([found.from_string(text(edges)) for edges in texts])
    first, second, third, other = np.asarray(jax.jit(found.canonical)(codes))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(first, third)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"cells": 2}, "cells 2: give 3 or more"),
        ({"channels": 3}, "channels 3: give a positive even number"),
        ({"num_classes": 0}, "num_classes 0: give a positive integer"),
        ({"image_size": 30}, "image_size 30: give a positive multiple of 4"),
    ],
)
def test_sizes_that_make_no_sense_are_refused(config, message):
    with pytest.raises(ValueError, match=message):
        darts.darts(DartsConfig(**config))
    with pytest.raises(ValueError, match="cells \\(8, 5\\): give one or more numbers, rising"):
        NasNetConfig(cells=(8, 5))
