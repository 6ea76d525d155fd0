"""DARTS networks against an independent PyTorch build of the same genotypes, and against the space's counts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cell_networks import filled, unstacked
from compiling import jit_convolutions
from supernets import assert_images_tell

from cenas_jax.nets.darts import (
    DartsNetworkConfig,
    darts_candidate,
    darts_inherited,
    darts_supernet,
    edge_operations,
)
from cenas_jax.spaces import space
from cenas_jax.spaces.darts import DARTS_V2, OPERATIONS

SPACE = space("darts")
# Seven cells: 2 and 4 reduce; 6 is the only one of those that a scan may hold.
SMALL = DartsNetworkConfig(cells=7, channels=4, num_classes=5, pool_norm=True)
IMAGES = jnp.asarray(np.random.default_rng(0).standard_normal((4, 8, 8, 3)), jnp.float32)
V2 = tuple(map(int, SPACE.from_string(DARTS_V2)))


def random_codes(count: int) -> list[tuple[int, ...]]:
    return [tuple(map(int, row)) for row in np.asarray(SPACE.sample(jax.random.key(5), count))]


@pytest.mark.parametrize("codes", [V2, *random_codes(2)])
def test_parameters_are_those_of_the_space(codes):
    network, images = darts_candidate(DartsNetworkConfig(), codes), jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    variables = jax.eval_shape(network.init, jax.random.key(0), images)
    count = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    assert count == SPACE.parameters(jnp.asarray([codes]))[0]
    assert codes != V2 or count == 3_349_342  # as DARTS prints it


def test_operations_of_edges():
    normal, reduction = np.asarray(edge_operations(jnp.asarray(V2)))
    sep, skip, dilated, pool = (
        1 + OPERATIONS.index(name) for name in ("sep_conv_3x3", "skip_connect", "dil_conv_3x3", "max_pool_3x3")
    )
    np.testing.assert_array_equal(normal, [sep, sep, *(sep, sep, 0), *(skip, sep, 0, 0), *(skip, 0, dilated, 0, 0)])
    np.testing.assert_array_equal(
        reduction, [pool, pool, *(0, pool, skip), *(pool, 0, skip, 0), *(0, pool, skip, 0, 0)]
    )


@pytest.fixture(scope="module")
def supernet():
    return darts_supernet(SMALL)


@pytest.fixture(scope="module")
def applied(supernet):
    """A program for each mode, of every genotype."""
    return {
        mode: jit_convolutions(lambda variables, codes, mode=mode: supernet.apply(variables, IMAGES, codes, mode))
        for mode in ("running", "train")
    }


@pytest.fixture(scope="module")
def variables(supernet):
    return filled(jax.eval_shape(supernet.init, jax.random.key(0), IMAGES))


@pytest.mark.parametrize("mode", ["running", "train"])
def test_logits_and_statistics_equal_pytorch_in_one_compilation(applied, variables, mode):
    torch = pytest.importorskip("torch", exc_type=ImportError)
    from torch_cells import TorchCells, load, named_units

    for row in random_codes(5):
        logits, statistics = applied[mode](variables, jnp.asarray(row, jnp.int32))
        assert_images_tell(logits)
        genotype, own = SPACE.to_string(np.asarray(row)), darts_inherited(SMALL, variables, row)
        model = TorchCells(genotype, SMALL.cells, SMALL.channels, SMALL.num_classes, pool_norm=True)
        parts = (jax.tree.map(np.asarray, unstacked(SMALL.cells, own[kind])) for kind in ("params", "statistics"))
        load(model, genotype, *parts)
        with torch.no_grad():
            model.train(mode == "train")
            expected = model(torch.from_numpy(np.array(IMAGES.transpose(0, 3, 1, 2)))).numpy()
        np.testing.assert_allclose(logits, expected, atol=1e-4 * max(1.0, np.abs(expected).max()))
        found = unstacked(SMALL.cells, darts_inherited(SMALL, {"statistics": statistics}, row)["statistics"])
        units = named_units(model, genotype)
        assert len(units) == 1 + sum(len(part) for name, part in found.items() if name.startswith("cell"))
        for path, _, norm in units:
            running = found[path[0]] if len(path) == 1 else found[path[0]][path[1]]
            np.testing.assert_allclose(running["running"][0], norm.running_mean, rtol=1e-4, atol=1e-4)
            np.testing.assert_allclose(running["running"][1], norm.running_var, rtol=1e-4, atol=1e-4)
    assert applied[mode]._cache_size() == 1


def test_a_candidate_with_inherited_weights_is_the_supernet_on_its_path(applied, variables):
    (row,) = random_codes(1)
    candidate, own = darts_candidate(SMALL, row), darts_inherited(SMALL, variables, row)
    shapes = jax.eval_shape(candidate.init, jax.random.key(0), IMAGES)
    assert jax.tree.structure(shapes) == jax.tree.structure(own)
    alone, statistics = jit_convolutions(lambda own: candidate.apply(own, IMAGES, "running"))(own)
    shared, _ = applied["running"](variables, jnp.asarray(row, jnp.int32))
    np.testing.assert_allclose(alone, shared, rtol=1e-4, atol=1e-4)
    for one, other in zip(jax.tree.leaves(statistics), jax.tree.leaves(own["statistics"]), strict=True):
        np.testing.assert_array_equal(one, other)  # mode `running` keeps nothing


def test_codes_and_sizes_that_make_no_sense_are_refused(supernet):
    with pytest.raises(ValueError, match="24 integers within their choices"):
        darts_candidate(SMALL, (7,) * 24)
    with pytest.raises(ValueError, match="cells 2: give 3 or more"):
        DartsNetworkConfig(cells=2)
    with pytest.raises(ValueError, match="6 x 8: give multiples of 4"):
        supernet.init(jax.random.key(0), IMAGES[:, :6])
