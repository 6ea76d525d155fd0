"""The networks against an independent PyTorch build of the same architectures, and against the benchmark's counts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import jit_convolutions
from supernets import assert_images_tell

from cenas_jax.nets.nas_bench_201 import (
    NasBench201Config,
    nas_bench_201_candidate,
    nas_bench_201_inherited,
    nas_bench_201_supernet,
)
from cenas_jax.spaces import nas_bench_201_cells as cells

SMALL = NasBench201Config(channels=4, cells=2, num_classes=7)
IMAGES = jnp.asarray(np.random.default_rng(0).standard_normal((6, 8, 8, 3)), jnp.float32)


def random_codes(count: int, seed: int = 0) -> list[tuple[int, ...]]:
    rows = np.random.default_rng(seed).choice(cells.SIZE, count, replace=False)
    return [tuple(map(int, row)) for row in cells.canonical_codes()[rows]]


def parameters(config: NasBench201Config, codes) -> int:
    network, images = nas_bench_201_candidate(config, codes), jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    variables = jax.eval_shape(network.init, jax.random.key(0), images)
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


@pytest.mark.parametrize("num_classes", [10, 100])
@pytest.mark.parametrize("count", [5, pytest.param(500, marks=pytest.mark.slow)])
def test_parameters_are_those_of_the_benchmark(num_classes, count):
    codes = random_codes(count)
    expected = cells.params(np.asarray(codes), num_classes=num_classes)
    assert [parameters(NasBench201Config(num_classes=num_classes), row) for row in codes] == expected.tolist()


@pytest.fixture(scope="module")
def supernet():
    return nas_bench_201_supernet(SMALL)


@pytest.fixture(scope="module")
def variables(supernet):
    """With scales, shifts and running statistics that are not those of the start."""
    found, random = jit_convolutions(supernet.init)(jax.random.key(0), IMAGES), np.random.default_rng(1)
    params = jax.tree.map(lambda leaf: leaf + np.float32(0.1) * random.standard_normal(leaf.shape), found["params"])
    means, variances = (0.1, 0.3), (0.5, 1.5)  # By larger means most channels of a network are dead.
    statistics = jax.tree.map_with_path(
        lambda path, leaf: random.uniform(*(means if path[-1].name == "mean" else variances), leaf.shape),
        found["statistics"],
    )
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), {"params": params, "statistics": statistics})


@pytest.mark.parametrize("mode", ["running", "train"])
def test_logits_and_statistics_equal_pytorch_in_one_compilation(supernet, variables, mode):
    torch = pytest.importorskip("torch", exc_type=ImportError)
    from torch_nas_bench_201 import TorchNasBench201

    apply = jit_convolutions(lambda codes: supernet.apply(variables, IMAGES, codes, mode))
    for row in random_codes(20):
        logits, statistics = apply(jnp.asarray(row, jnp.int32))
        assert_images_tell(logits)
        model = TorchNasBench201(jax.tree.map(np.asarray, variables), row, SMALL).train(mode == "train")
        with torch.no_grad():
            expected = model(torch.from_numpy(np.array(IMAGES.transpose(0, 3, 1, 2)))).numpy()
        np.testing.assert_allclose(logits, expected, atol=1e-4 * max(1.0, np.abs(expected).max()))
        found = jax.tree.leaves(nas_bench_201_inherited({"statistics": statistics}, row))
        theirs = jax.tree.leaves({"statistics": model.statistics()})
        assert len(found) == len(theirs)
        for one, other in zip(found, theirs, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    assert apply._cache_size() == 1


def test_a_candidate_with_inherited_weights_is_the_supernet_on_its_path(supernet, variables):
    for row in random_codes(2, seed=1):
        candidate, own = nas_bench_201_candidate(SMALL, row), nas_bench_201_inherited(variables, row)
        shapes = jax.eval_shape(candidate.init, jax.random.key(0), IMAGES)
        assert jax.tree.structure(shapes) == jax.tree.structure(own)
        alone, _ = jit_convolutions(lambda own, candidate=candidate: candidate.apply(own, IMAGES, "batch"))(own)
        shared, statistics = jit_convolutions(lambda codes: supernet.apply(variables, IMAGES, codes, "batch"))(
            jnp.asarray(row)
        )
        np.testing.assert_allclose(alone, shared, rtol=1e-4, atol=1e-4)
        for one, other in zip(jax.tree.leaves(statistics), jax.tree.leaves(variables["statistics"]), strict=True):
            np.testing.assert_array_equal(one, other)  # mode `batch` keeps nothing


def test_codes_and_sizes_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="six integers 0 .. 4"):
        nas_bench_201_candidate(SMALL, (0, 1, 2, 3, 4, 5))
    with pytest.raises(ValueError, match="must be positive"):
        NasBench201Config(cells=0)
    with pytest.raises(ValueError, match="6 x 8: give multiples of 4"):
        nas_bench_201_supernet(SMALL).init(jax.random.key(0), IMAGES[:, :6])
