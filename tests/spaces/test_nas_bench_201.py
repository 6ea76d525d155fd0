"""NAS-Bench-201 against published facts and, with data, against the official table."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cenas_jax.spaces import nas_bench_201_cells as cells
from cenas_jax.spaces import space

SPACE = space("nas-bench-201")


@pytest.fixture(scope="module")
def table(data_dir):
    return np.load(data_dir / "nas" / "nb201.npz", allow_pickle=False)


def test_known_facts():
    assert (SPACE.size, SPACE.num_choices) == (15_625, (5,) * 6)
    # Index 0 is printed in the HW-NAS-Bench README.
    first = "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_1x1~0|skip_connect~1|skip_connect~2|"
    assert SPACE.to_string(np.asarray(SPACE.codes(jnp.array([0])))[0]) == first
    np.testing.assert_array_equal(SPACE.from_string(first), [4, 2, 1, 2, 1, 1])
    assert len(np.unique(SPACE.isomorph)) == 6_466  # Dong & Yang (2020), section 2


def test_all_round_trips():
    indices = jnp.arange(SPACE.size)
    codes = SPACE.codes(indices)
    np.testing.assert_array_equal(codes, cells.canonical_codes())
    np.testing.assert_array_equal(SPACE.index(codes), indices)
    strings = cells.canonical_strings()
    assert len(set(strings)) == SPACE.size
    np.testing.assert_array_equal(np.stack([SPACE.from_string(text) for text in strings]), codes)


def test_features_rank_operations_by_compute():
    names_by_rank = [cells.OPERATIONS[code] for code in np.argsort(cells.COMPUTE_RANK)]
    assert names_by_rank == ["none", "skip_connect", "avg_pool_3x3", "nor_conv_1x1", "nor_conv_3x3"]
    codes = jnp.array([[0, 1, 2, 3, 4, 0]])
    np.testing.assert_array_equal(SPACE.features(codes), [[0.0, 1.0, 3.0, 4.0, 2.0, 0.0]])
    assert SPACE.one_hot(codes).shape == (1, 30)


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        # The input and two zeroes are summed, the input over one skip connection or over two.
        ([0, 0, 0, 1, 0, 0], [1, 0, 0, 0, 1, 0], True),
        # Node 1 is a bare zero: what is done with it does not matter.
        ([0, 1, 0, 2, 0, 3], [0, 1, 4, 2, 2, 3], True),
        # Node 1 copies the input: its edge and the input's can change places.
        ([1, 0, 0, 2, 3, 0], [1, 0, 0, 3, 2, 0], True),
        # Node 2 is a sum of two zeroes, which the published rule does not treat as a bare zero.
        ([0, 0, 0, 1, 0, 0], [0, 0, 0, 1, 0, 3], False),
        ([0, 0, 0, 2, 0, 0], [0, 0, 0, 3, 0, 0], False),
        # A sum and a chain of the same two operations.
        ([1, 0, 0, 2, 3, 0], [2, 0, 0, 0, 3, 0], False),
    ],
)
def test_isomorphism_by_hand(first, second, same):
    a, b = np.asarray(SPACE.index(jnp.array([first, second])))
    assert (SPACE.isomorph[a] == SPACE.isomorph[b]) == same


def test_counts_by_hand():
    codes = np.array([[0] * 6, [1] * 6, [4] * 6, [2] * 6, [3] * 6])
    # Stem 3*3*3*16 + 2*16 = 464. Residual blocks: 16 to 32 channels 9*16*32 + 9*32*32 + 16*32 + 4*32 = 14,464,
    # 32 to 64 channels 57,600. Last normalisation 128, linear 650. Together 73,306 without any convolution in a cell.
    # A 1x1 edge: 5 cells * (16^2 + 32^2 + 64^2 + 2 * 112) = 28,000; a 3x3 edge: 5 * (9 * 5,376 + 224) = 243,040.
    expected = 73_306 + 6 * np.array([0, 0, 0, 28_000, 243_040])
    np.testing.assert_array_equal(cells.params(codes), expected)
    assert expected[4] == 1_531_546
    # Stem 432 * 32^2, blocks 2 * 3,670,016, linear 650; a 1x1 edge 5 * 3 * 2^18, a 3x3 edge nine times that.
    np.testing.assert_array_equal(cells.macs(codes), 7_783_050 + 6 * 3_932_160 * np.array([0, 0, 0, 1, 9]))
    # One cell of one channel, one class: stem 29, blocks 9*2+9*4+2+8 = 64 and 9*8+9*16+8+16 = 240, head 8 + 4 + 1.
    np.testing.assert_array_equal(cells.params(codes[:1], 1, 1, 1), [29 + 64 + 240 + 13])


def test_large_networks_do_not_overflow():
    (count,) = cells.macs(np.full((1, 6), 3, np.uint8), channels=512, cells_per_stage=50, image_size=224)
    assert count > 2**40


@pytest.mark.parametrize("option", ["channels", "cells_per_stage", "num_classes"])
def test_counts_refuse_nonsense(option):
    with pytest.raises(ValueError, match=f"{option} 0: give a positive integer"):
        cells.params(np.zeros((1, 6), int), **{option: 0})
    with pytest.raises(ValueError, match="image_size 30: give a positive multiple of 4"):
        cells.macs(np.zeros((1, 6), int), image_size=30)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is malformed"),
        ("|none~0|+|none~0|none~1|", "is malformed"),
        ("|none~0|+|none~0|none~0|+|none~0|none~1|none~2|", "is malformed"),
        ("|none~0|+|none~0|none~1|+|none~0|none~1|max_pool~2|", "operation 'max_pool' is none of none, skip_connect"),
        ("|none~0|+|none~0|none~1|+|none~0|none~1|none~2|\n", "is malformed"),
    ],
)
def test_malformed_strings_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        SPACE.from_string(text)


def test_malformed_codes_are_refused():
    with pytest.raises(ValueError, match="six integers 0 .. 4"):
        SPACE.to_string(np.array([0, 0, 0, 0, 0, 5]))


def test_sample_under_jit_is_the_same():
    draw = jax.jit(SPACE.sample, static_argnums=1)
    np.testing.assert_array_equal(draw(jax.random.key(0), 100), SPACE.sample(jax.random.key(0), 100))


def test_host_facts_do_not_import_jax():
    code = (
        "import sys; from cenas_jax.spaces import nas_bench_201_cells as cells; cells.isomorphism_classes(); "
        "sys.exit('jax' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.data
def test_order_strings_and_classes_equal_the_table(table):
    np.testing.assert_array_equal(cells.canonical_codes(), table["arch_ops"])
    assert [text.decode() for text in table["arch_str"]] == list(cells.canonical_strings())
    np.testing.assert_array_equal(SPACE.isomorph, table["iso_rep"])


@pytest.mark.data
@pytest.mark.parametrize(("name", "num_classes"), [("c10", 10), ("c100", 100)])
def test_counts_equal_the_table(table, name, num_classes):
    codes = cells.canonical_codes()
    np.testing.assert_array_equal(cells.params(codes, num_classes=num_classes), table[f"params_{name}"])
    np.testing.assert_array_equal(cells.macs(codes, num_classes=num_classes), table[f"macs_{name}"])
