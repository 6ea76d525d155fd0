"""The networks against an independent PyTorch build of the same architectures, and against the space's counts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import jit_convolutions
from supernets import assert_images_tell, assert_only_the_path_changes, compiled, filled, parameters, recalibrated

from cenas_jax.nets.mobile import mobile_candidate, mobile_inherited, mobile_supernet
from cenas_jax.spaces import space
from cenas_jax.spaces.mobile import EFFICIENTNET_B0, MOBILENET_V2, MobileConfig, Stage, mobile

# Odd and even sizes in and out of a stride of 2; a stage as wide as the one before it, and not.
STAGES = (Stage(1, (1, 2), (4, 8)), Stage(2, (1, 3), (6, 8)), Stage(1, (1,), (8, 10)))
SMALL = MobileConfig(resolutions=(9, 12, 13, 16), stages=STAGES, stem=8, head=12, num_classes=3)
SPACE = mobile(SMALL)
IMAGES = jnp.asarray(np.random.default_rng(0).standard_normal((4, 16, 16, 3)), jnp.float32)
# As B0 has it, at a small scale: kernels of 3, 5 and 3, squeeze-excite in all.
LIKE_B0 = SPACE.from_string("r16|d1|k3|e1|w4|se|d3|k5|e6|w6|se|d1|k3|e6|w10|se")
EQUAL_WIDTHS = SPACE.from_string("r9|d2|k7|e3|w8|plain|d1|k5|e1|w8|se|d1|k7|e4|w8|plain")


def random_codes(count: int, seed: int = 0) -> list[tuple[int, ...]]:
    return [tuple(map(int, row)) for row in np.asarray(SPACE.sample(jax.random.key(seed), count))]


CODES = [tuple(map(int, row)) for row in (LIKE_B0, EQUAL_WIDTHS)]


def test_parameters_are_those_of_the_space():
    codes = random_codes(20)
    found = [parameters(mobile_candidate(SMALL, row)) for row in codes]
    np.testing.assert_array_equal(found, SPACE.parameters(jnp.asarray(codes)))


@pytest.mark.parametrize(("name", "count"), [(EFFICIENTNET_B0, 5_288_548), (MOBILENET_V2, 3_504_872)])
def test_published_sizes(name, count):
    codes = tuple(map(int, space("mobile").from_string(name)))
    assert parameters(mobile_candidate(MobileConfig(), codes)) == count


@pytest.fixture(scope="module")
def variables():
    return filled(mobile_supernet(SMALL), IMAGES)


@pytest.fixture(scope="module")
def applied():
    return compiled(mobile_supernet(SMALL), IMAGES)


def resized(images, side: int):
    """By PyTorch, linearly with antialiasing: `[n, c, side, side]`."""
    torch = pytest.importorskip("torch", exc_type=ImportError)
    whole = torch.from_numpy(np.array(images.transpose(0, 3, 1, 2)))
    return torch.nn.functional.interpolate(whole, (side, side), mode="bilinear", antialias=True)


@pytest.mark.parametrize("mode", ["running", "train"])
def test_logits_and_statistics_equal_pytorch_in_one_compilation(applied, variables, mode):
    torch = pytest.importorskip("torch", exc_type=ImportError)
    from torch_mobile import TorchMobile

    apply = applied(mode)
    for row in [*CODES, *random_codes(8)]:
        codes = jnp.asarray(row, jnp.int32)
        known = recalibrated(applied, variables, codes) if mode == "running" else variables
        logits, statistics = apply(known, codes, 0.1)
        strides = [stage.stride for stage in STAGES]
        model = TorchMobile(SPACE.to_string(np.asarray(row)), SMALL.num_classes, SMALL.stem, SMALL.head, strides)
        model.load(jax.tree.map(np.asarray, mobile_inherited(SMALL, known, row)))
        with torch.no_grad():
            model.train(mode == "train")
            expected = model(resized(IMAGES, model.resolution)).numpy()
        assert_images_tell(expected)
        np.testing.assert_allclose(logits, expected, atol=1e-4 * max(1.0, np.abs(expected).max()))
        after = mobile_inherited(SMALL, known | {"statistics": statistics}, row)
        for norm, own in model.norms(jax.tree.map(np.asarray, after)):
            np.testing.assert_allclose(own["running"][0], norm.running_mean, rtol=1e-4, atol=1e-4)
            np.testing.assert_allclose(own["running"][1], norm.running_var, rtol=1e-4, atol=1e-4)
    assert apply._cache_size() == 1


@pytest.mark.parametrize("count", [1, pytest.param(10, marks=pytest.mark.slow)])
def test_a_candidate_with_inherited_weights_is_the_supernet_on_its_path(applied, variables, count):
    for mode in ("running", "batch") if count > 1 else ("running",):
        for row in random_codes(count, seed=1):
            codes = jnp.asarray(row, jnp.int32)
            known = recalibrated(applied, variables, codes)
            candidate, own = mobile_candidate(SMALL, row), mobile_inherited(SMALL, known, row)
            alone, kept = jit_convolutions(lambda own, net=candidate, mode=mode: net.apply(own, IMAGES, mode))(own)
            shared, statistics = applied(mode)(known, codes, 0.1)
            assert_images_tell(shared)
            np.testing.assert_allclose(alone, shared, atol=1e-5 * max(1.0, np.abs(shared).max()))
            for after, before in ((kept, own), (statistics, known)):
                jax.tree.map(np.testing.assert_array_equal, after, before["statistics"])  # nothing is kept
        assert applied(mode)._cache_size() == 1


def test_images_of_the_resolution_itself_stay_as_they_are(variables):
    """On a canvas of 16 x 16 as alone."""
    supernet, row = mobile_supernet(SMALL), CODES[1]
    small = IMAGES[:, :9, :9]
    shared, _ = jit_convolutions(lambda codes: supernet.apply(variables, small, codes, "batch"))(jnp.asarray(row))
    candidate, own = mobile_candidate(SMALL, row), mobile_inherited(SMALL, variables, row)
    alone, _ = jit_convolutions(lambda own: candidate.apply(own, small, "batch"))(own)
    assert_images_tell(alone)
    np.testing.assert_allclose(alone, shared, atol=1e-5 * max(1.0, np.abs(shared).max()))


def test_only_weights_and_statistics_of_the_path_change():
    config = MobileConfig(resolutions=(9, 16), stages=(Stage(2, (1, 3), (4, 6)),), stem=4, head=5, num_classes=3)
    row = tuple(map(int, mobile(config).from_string("r9|d3|k5|e3|w4|se")))
    supernet = mobile_supernet(config)
    assert_only_the_path_changes(supernet, row, IMAGES, lambda whole: mobile_inherited(config, whole, row))


def test_codes_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="16 integers within their choices"):
        mobile_candidate(SMALL, (9,) * 16)
