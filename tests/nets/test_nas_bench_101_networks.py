"""The networks against an independent PyTorch build of the same graphs, and against the space's counts."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import jit_convolutions
from supernets import assert_images_tell, assert_only_the_path_changes, compiled, filled, parameters, recalibrated

from cenas_jax.nets.nas_bench_101 import nas_bench_101_candidate, nas_bench_101_inherited, nas_bench_101_supernet
from cenas_jax.spaces.nas_bench_101 import NasBench101Config, nas_bench_101
from cenas_jax.spaces.nas_bench_101_graphs import EDGES, INNER

# Five channels are divided among two to five vertices with remainders.
SMALL = NasBench101Config(channels=5, modules=1, num_classes=3, image_size=8)
SIZES = [SMALL, pytest.param(dataclasses.replace(SMALL, modules=2), marks=pytest.mark.slow)]
SPACE = nas_bench_101(SMALL)
IMAGES = jnp.asarray(np.random.default_rng(0).standard_normal((4, 8, 8, 3)), jnp.float32)


def graph(edges, operations=(2,) * INNER) -> tuple[int, ...]:
    return tuple(int(edge in edges) for edge in EDGES) + tuple(operations)


# The cell in the README of the benchmark's release, whose record has 2,694,282 trained parameters.
README_CELL = graph({(0, 1), (0, 2), (0, 3), (0, 5), (1, 6), (2, 6), (3, 4), (4, 6), (5, 6)}, (1, 2, 2, 2, 0))
LARGEST = graph({(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 6), (0, 2), (0, 3), (0, 4)})
ALONE = graph({(0, 6)})
WIDE = graph({(0, 1), (1, 2), (1, 3), (1, 6), (2, 6), (3, 4), (4, 6), (0, 6), (5, 6)}, (1, 0, 2, 1, 2))


def random_codes(count: int, seed: int = 0) -> list[tuple[int, ...]]:
    return [tuple(map(int, row)) for row in np.asarray(SPACE.sample(jax.random.key(seed), count))]


@pytest.mark.parametrize("config", [SMALL, NasBench101Config()], ids=["small", "full size"])
def test_parameters_are_those_of_the_space(config):
    codes = [README_CELL, LARGEST, ALONE, WIDE, *random_codes(20 if config == SMALL else 2)]
    expected = np.asarray(nas_bench_101(config).parameters(jnp.asarray(codes)))
    found = [parameters(nas_bench_101_candidate(config, row)) for row in codes]
    assert found == [pytest.approx(count, rel=0 if count < 2**24 else 1e-6) for count in expected]
    assert config == SMALL or found[0] == 2_694_282


@pytest.fixture(scope="module", params=SIZES, ids=lambda config: f"{config.modules} a stack")
def config(request):
    return request.param


@pytest.fixture(scope="module")
def variables(config):
    return filled(nas_bench_101_supernet(config), IMAGES)


@pytest.fixture(scope="module")
def applied(config):
    return compiled(nas_bench_101_supernet(config), IMAGES)


@pytest.mark.parametrize("mode", ["running", "train"])
def test_logits_and_statistics_equal_pytorch_in_one_compilation(config, applied, variables, mode):
    torch = pytest.importorskip("torch", exc_type=ImportError)
    from torch_nas_bench_101 import TorchNasBench101

    apply = applied(mode)
    for row in [README_CELL, LARGEST, ALONE, WIDE, *random_codes(8)]:
        codes = jnp.asarray(row, jnp.int32)
        known = recalibrated(applied, variables, codes) if mode == "running" else variables
        logits, statistics = apply(known, codes, 0.1)
        model = TorchNasBench101(SPACE.to_string(np.asarray(row)), config.channels, config.modules, config.num_classes)
        model.load(jax.tree.map(np.asarray, nas_bench_101_inherited(config, known, row)))
        with torch.no_grad():
            model.train(mode == "train")
            expected = model(torch.from_numpy(np.array(IMAGES.transpose(0, 3, 1, 2)))).numpy()
        assert_images_tell(expected)
        np.testing.assert_allclose(logits, expected, atol=1e-4 * max(1.0, np.abs(expected).max()))
        after = nas_bench_101_inherited(config, known | {"statistics": statistics}, row)
        for unit, _, own in model.units(jax.tree.map(np.asarray, after)):
            np.testing.assert_allclose(own["running"][0], unit.norm.running_mean, rtol=1e-4, atol=1e-4)
            np.testing.assert_allclose(own["running"][1], unit.norm.running_var, rtol=1e-4, atol=1e-4)
    assert apply._cache_size() == 1


@pytest.mark.parametrize("count", [1, pytest.param(10, marks=pytest.mark.slow)])
def test_a_candidate_with_inherited_weights_is_the_supernet_on_its_path(config, applied, variables, count):
    # Modules in a row enlarge rounding: with six, a part in 1e7 of the images moves the logits by up to 3e-5.
    tolerance = 1e-5 if config == SMALL else 1e-4
    for mode in ("running", "batch") if count > 1 else ("running",):
        for row in random_codes(count, seed=1):
            codes = jnp.asarray(row, jnp.int32)
            known = recalibrated(applied, variables, codes)
            candidate, own = nas_bench_101_candidate(config, row), nas_bench_101_inherited(config, known, row)
            alone, kept = jit_convolutions(lambda own, net=candidate, mode=mode: net.apply(own, IMAGES, mode))(own)
            shared, statistics = applied(mode)(known, codes, 0.1)
            assert_images_tell(shared)
            np.testing.assert_allclose(alone, shared, atol=tolerance * max(1.0, np.abs(shared).max()))
            for after, before in ((kept, own), (statistics, known)):
                jax.tree.map(np.testing.assert_array_equal, after, before["statistics"])  # nothing is kept
        assert applied(mode)._cache_size() == 1


def test_only_weights_and_statistics_of_the_path_change():
    """A chain with an edge to the output beside it: three vertices less than there are, and divided channels."""
    supernet, row = nas_bench_101_supernet(SMALL), graph({(0, 1), (1, 2), (2, 6), (1, 6)}, (2, 1, 0, 0, 0))
    assert_only_the_path_changes(supernet, row, IMAGES, lambda whole: nas_bench_101_inherited(SMALL, whole, row))


def test_codes_and_sizes_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="21 of 0 .. 1 and 5 of 0 .. 2"):
        nas_bench_101_candidate(SMALL, (2,) * 26)
    with pytest.raises(ValueError, match="no path from the input to the output"):
        nas_bench_101_candidate(SMALL, (0,) * 26)
    with pytest.raises(ValueError, match="6 x 8: give multiples of 4"):
        nas_bench_101_supernet(SMALL).init(jax.random.key(0), IMAGES[:, :6])
