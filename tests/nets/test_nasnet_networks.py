"""NASNet-like networks against an independent PyTorch build, the space's counts, and one another."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cell_networks import filled, unstacked
from compiling import jit_convolutions
from supernets import assert_images_tell

from cenas_jax.nets import nasnet_candidate, nasnet_inherited, nasnet_supernet
from cenas_jax.spaces.nasnet import NODES, OPERATIONS, NasNetConfig, nasnet

# Five cells: every stage has one beside its reduction, so the first reduction reads the stem. Eight: two.
SMALL = NasNetConfig(cells=(5, 8), channels=(2, 4), num_classes=5, image_size=8)
SPACE, LARGE = nasnet(SMALL), nasnet()
IMAGES = jnp.asarray(np.random.default_rng(0).standard_normal((4, 8, 8, 3)), jnp.float32)


def random_codes(count: int, space=SPACE, seed: int = 5) -> list[tuple[int, ...]]:
    return [tuple(map(int, row)) for row in np.asarray(space.sample(jax.random.key(seed), count))]


def twins(size: tuple[int, int]) -> tuple[int, ...]:
    """Every node reads input 0 or 1 twice, by the same operation."""
    pairs = {0: (0, 2), 1: (0, 3), 2: (0, 4), 3: (0, 5), 4: (0, 6)}  # codes of the pairs (0, 0) and (1, 1)
    node = [(pairs[node][node % 2 and 1], 2 * node + 1, 2 * node + 1) for node in range(NODES)]
    return (*np.ravel([node, node]).tolist(), *size)


FIVE = [*[(*row[:-2], *size) for row, size in zip(random_codes(4), np.ndindex(2, 2), strict=True)], twins((0, 1))]


def parameters(config: NasNetConfig, codes: tuple[int, ...]) -> int:
    images = jax.ShapeDtypeStruct((1, config.image_size, config.image_size, 3), jnp.float32)
    shapes = jax.eval_shape(nasnet_candidate(config, codes).init, jax.random.key(0), images)
    return sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))


def test_parameters_are_those_of_the_space():
    config = NasNetConfig(cells=(3, 4, 5), channels=(2, 4, 6), num_classes=5, image_size=8)
    for codes in (*random_codes(19, nasnet(config)), twins((2, 1))):
        assert parameters(config, codes) == nasnet(config).parameters(jnp.asarray([codes]))[0]


def test_parameters_at_full_size_are_those_of_the_space():
    codes = (*random_codes(1, LARGE)[0][:-2], 5, 6)  # 20 cells of 40 channels
    count = parameters(NasNetConfig(), codes)
    assert count == LARGE.parameters(jnp.asarray([codes]))[0] and 1e6 < count < 2**24  # whole in float32


@pytest.fixture(scope="module")
def supernet():
    return nasnet_supernet(SMALL)


@pytest.fixture(scope="module")
def applied(supernet):
    """A program for each mode, of every architecture."""
    return {
        mode: jit_convolutions(lambda variables, codes, mode=mode: supernet.apply(variables, IMAGES, codes, mode))
        for mode in ("running", "batch", "train")
    }


@pytest.fixture(scope="module")
def variables(supernet):
    return filled(jax.eval_shape(supernet.init, jax.random.key(0), IMAGES))


@pytest.mark.parametrize("mode", ["running", pytest.param("train", marks=pytest.mark.slow)])
def test_logits_and_statistics_equal_pytorch_in_one_compilation(applied, variables, mode):
    torch = pytest.importorskip("torch", exc_type=ImportError)
    from torch_cells import TorchCells, load, named_units

    for row in FIVE:
        cells = SMALL.cells[row[-2]]
        logits, statistics = applied[mode](variables, jnp.asarray(row, jnp.int32))
        assert_images_tell(logits)
        genotype, own = SPACE.to_string(np.asarray(row)), nasnet_inherited(SMALL, variables, row)
        model = TorchCells(genotype, num_classes=SMALL.num_classes)
        load(model, genotype, *(jax.tree.map(np.asarray, unstacked(cells, own[k])) for k in ("params", "statistics")))
        with torch.no_grad():
            model.train(mode == "train")
            expected = model(torch.from_numpy(np.array(IMAGES.transpose(0, 3, 1, 2)))).numpy()
        np.testing.assert_allclose(logits, expected, atol=1e-4 * max(1.0, np.abs(expected).max()))
        later = nasnet_inherited(SMALL, variables | {"statistics": statistics}, row)["statistics"]
        found, units = unstacked(cells, later), named_units(model, genotype)
        assert len(units) == 1 + sum(len(part) for name, part in found.items() if name.startswith("cell"))
        for path, _, norm in units:
            running = found[path[0]] if len(path) == 1 else found[path[0]][path[1]]
            np.testing.assert_allclose(running["running"][0], norm.running_mean, rtol=1e-4, atol=1e-4)
            np.testing.assert_allclose(running["running"][1], norm.running_var, rtol=1e-4, atol=1e-4)
        # What is not the architecture's is as it was.
        changed, its = (
            sum(np.count_nonzero(one != other) for one, other in zip(*map(jax.tree.leaves, pair), strict=True))
            for pair in ((statistics, variables["statistics"]), (later, own["statistics"]))
        )
        assert changed == its and (changed > 0) == (mode == "train")
    assert applied[mode]._cache_size() == 1


def same_as_supernet(applied, variables, row, mode):
    candidate, own = nasnet_candidate(SMALL, row), nasnet_inherited(SMALL, variables, row)
    alone, statistics = jit_convolutions(lambda own: candidate.apply(own, IMAGES, mode))(own)
    shared, _ = applied[mode](variables, jnp.asarray(row, jnp.int32))
    np.testing.assert_allclose(alone, shared, rtol=1e-5, atol=1e-5 * max(1.0, np.abs(shared).max()))
    jax.tree.map(np.testing.assert_array_equal, statistics, own["statistics"])  # neither mode keeps anything


def test_a_candidate_with_inherited_weights_is_the_supernet_on_its_path(applied, variables):
    same_as_supernet(applied, variables, FIVE[0], "running")


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["running", "batch"])
def test_ten_candidates_are_the_supernet_on_their_paths(applied, variables, mode):
    for row in random_codes(10, seed=7):
        same_as_supernet(applied, variables, row, mode)
    assert applied[mode]._cache_size() == 1


@pytest.mark.slow
def test_weights_off_the_path_get_no_gradient(supernet, variables):
    gradients = jit_convolutions(
        jax.grad(lambda params, codes: supernet.apply(variables | {"params": params}, IMAGES, codes, "batch")[0].var())
    )
    for row in FIVE:
        gradient = gradients(variables["params"], jnp.asarray(row, jnp.int32))
        own = nasnet_inherited(SMALL, variables | {"params": gradient}, row)["params"]
        whole, its = (sum(np.count_nonzero(leaf) for leaf in jax.tree.leaves(tree)) for tree in (gradient, own))
        assert whole == its > 0
    assert gradients._cache_size() == 1


def test_codes_and_sizes_that_make_no_sense_are_refused(supernet):
    with pytest.raises(ValueError, match="32 integers within their choices"):
        nasnet_candidate(SMALL, (len(OPERATIONS),) * 32)
    with pytest.raises(ValueError, match="give 5 or more, so that no stage is without a cell"):
        nasnet_supernet(NasNetConfig(cells=(3, 5)))
    with pytest.raises(ValueError, match="6 x 8: give multiples of 4"):
        supernet.init(jax.random.key(0), IMAGES[:, :6])
