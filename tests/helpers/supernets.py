"""What tests of supernets have in common."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from compiling import jit_convolutions

from cenas_jax.nets import Network


def parameters(network: Network, size: int = 32) -> int:
    """How many a candidate has; nothing is computed."""
    variables = jax.eval_shape(network.init, jax.random.key(0), jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32))
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


def filled(supernet: Network, images):
    """Variables whose scales, shifts and running statistics are not those of the start."""
    shapes, random = jax.eval_shape(supernet.init, jax.random.key(0), images), np.random.default_rng(1)

    def fill(path, leaf):
        fan = np.prod(leaf.shape[-4:-1]) if path[-1].key == "kernel" else 16.0
        centre = 1.0 if path[-1].key == "scale" else 0.0
        return jnp.asarray(centre + random.standard_normal(leaf.shape) * (2 / fan) ** 0.5, jnp.float32)

    params = jax.tree.map_with_path(fill, shapes["params"])
    statistics = jax.tree.map(
        lambda leaf: jnp.asarray(random.uniform(0.5, 1.5, leaf.shape), jnp.float32), shapes["statistics"]
    )
    return {"params": params, "statistics": statistics}


def compiled(supernet: Network, images):
    """`(mode) -> program`, of `(variables, codes, momentum)`: one a mode, for every architecture."""

    @functools.cache
    def program(mode: str):
        return jit_convolutions(
            lambda variables, codes, momentum=0.1: supernet.apply(variables, images, codes, mode, momentum)
        )

    return program


def recalibrated(applied, variables, codes):
    """With the statistics of the architecture's own batch: by others nothing of an image may reach the logits."""
    return variables | {"statistics": applied("train")(variables, codes, 1.0)[1]}


def assert_images_tell(logits):
    """Networks that do not see their images would be equal for nothing."""
    assert np.ptp(logits, axis=0).max() > 0.1


def assert_only_the_path_changes(supernet: Network, codes: tuple[int, ...], images, inherited):
    """Weights that `inherited` leaves out have no gradient, statistics that it leaves out stay as they were; all that
    it keeps has one, and moves."""
    variables = filled(supernet, images)

    @jit_convolutions
    def changes(params, codes):
        def loss(params):
            logits, statistics = supernet.apply(variables | {"params": params}, images, codes, "train")
            return jnp.sum(jnp.sin(logits)), statistics

        gradient, statistics = jax.grad(loss, has_aux=True)(params)
        return {"params": gradient, "statistics": jax.tree.map(jnp.subtract, statistics, variables["statistics"])}

    whole = changes(variables["params"], jnp.asarray(codes, jnp.int32))
    own = inherited(whole)
    for leaf in jax.tree.leaves(own):
        assert np.isfinite(leaf).all() and np.any(leaf)
    found, expected = (sum(np.count_nonzero(leaf) for leaf in jax.tree.leaves(tree)) for tree in (whole, own))
    assert found == expected < sum(leaf.size for leaf in jax.tree.leaves(whole))
