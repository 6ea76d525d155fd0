"""Mobile networks: published sizes of EfficientNet and MobileNetV2, and an independent PyTorch build."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cenas_jax.spaces import space
from cenas_jax.spaces.mobile import EFFICIENTNET_B0, EFFICIENTNET_B1, MOBILENET_V2, MobileConfig, Stage, mobile

SPACE = space("mobile")
counts = jax.jit(lambda codes: (SPACE.parameters(codes), SPACE.multiply_adds(codes)))


def test_published_counts():
    codes = jnp.asarray([SPACE.from_string(name) for name in (EFFICIENTNET_B0, EFFICIENTNET_B1, MOBILENET_V2)])
    parameters, multiply_adds = counts(codes)
    # Tan & Le (2019), table 2: 5.3 M and 0.39 G, 7.8 M and 0.70 G; Sandler et al. (2018), table 4: 3.4 M and 300 M.
    assert parameters / 1e6 == pytest.approx([5.3, 7.8, 3.4], rel=0.04)
    assert multiply_adds / 1e9 == pytest.approx([0.39, 0.70, 0.3], rel=0.03)
    # What implementations of these networks count exactly.
    np.testing.assert_array_equal(parameters, [5_288_548, 7_794_184, 3_504_872])


def test_counts_by_hand():
    """One stage of stride 2, on 5x5 images: 3x3 after the stem, 2x2 after the stage."""
    stage = Stage(2, (1, 2), (8,))
    small = mobile(MobileConfig(resolutions=(5,), stages=(stage,), stem=4, head=10, num_classes=2))
    rows = jnp.asarray([small.from_string("r5|d1|k3|e1|w8|plain"), small.from_string("r5|d2|k5|e3|w8|se")])
    # Stem 27*4 + 8, head 8*10 + 20 and 22. Block without expansion: 9*4 + 8 and 4*8 + 16. With it, 4 channels become
    # 12: 48 + 24, 25*12 + 24, squeeze to 1: 13 + 24, 12*8 + 16; 8 become 24: 192 + 48, 600 + 48, squeeze to 2: 50 + 72,
    # 24*8 + 16.
    fixed = 116 + 100 + 22
    expected = [fixed + 44 + 48, fixed + 72 + 324 + 37 + 112 + 240 + 648 + 122 + 208]
    np.testing.assert_array_equal(small.parameters(rows), expected)
    fixed = 108 * 9 + 80 * 4 + 22
    expected = [fixed + 68 * 4, fixed + 48 * 9 + 396 * 4 + 37 + 192 * 4 + 792 * 4 + 122]
    np.testing.assert_array_equal(small.multiply_adds(rows), expected)


def test_counts_are_those_of_an_independent_build():
    torch = pytest.importorskip("torch", exc_type=ImportError)
    from torch_cells import count_multiply_adds, count_parameters
    from torch_mobile import TorchMobile

    codes = SPACE.sample(jax.random.key(3), 4)
    parameters, multiply_adds = counts(codes)
    for row, own, own_multiply_adds in zip(np.asarray(codes), parameters, multiply_adds, strict=True):
        with torch.device("meta"):
            model = TorchMobile(SPACE.to_string(row))
            np.testing.assert_allclose(own, count_parameters(model), rtol=1e-6)
            np.testing.assert_allclose(own_multiply_adds, count_multiply_adds(model, model.resolution), rtol=1e-6)


def test_every_entry_costs_more_at_a_higher_code():
    """What `features` promises. A stage's kernel, expansion and width cost parameters, resolution multiply-adds."""
    low = jnp.zeros((1, len(SPACE.num_choices)), jnp.int32)
    raised = low + jnp.eye(low.shape[1], dtype=jnp.int32)
    _, base = counts(low)
    assert np.all(np.asarray(counts(raised)[1]) > np.asarray(base))
    np.testing.assert_array_equal(SPACE.features(raised), raised)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stem": 0}, "must be positive"),
        ({"stages": ()}, "one stage or more"),
        ({"resolutions": (224, 128)}, "resolutions \\(224, 128\\): give one or more positive numbers, rising"),
        ({"stages": (Stage(1, (), (8,)),)}, "depths \\(\\): give one or more"),
        ({"stages": (Stage(3, (1,), (8,)),)}, "stride is 1 or 2, not 3"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        MobileConfig(**options)


def test_malformed_names_are_refused():
    with pytest.raises(ValueError, match="entry 2: 'k9' is none of k3, k5, k7"):
        SPACE.from_string(EFFICIENTNET_B0.replace("k3", "k9", 1))
