"""A network that compiles at once, for tests of what surrounds one: its path scales the images."""

import jax
import jax.numpy as jnp

from cenas_jax.nets import Network


def linear_network(classes: int = 3, entries: int = 0, scale=lambda codes: 1 + codes.sum()) -> Network:
    """`apply(variables, images, [codes[entries],] mode)`; statistics are the mean of the last batch in mode `train`."""

    def init(key, images):
        size = images[0].size
        head = {"kernel": 0.1 * jax.random.normal(key, (size, classes)), "bias": jnp.zeros(classes)}
        return {"params": {"head": head}, "statistics": {"mean": jnp.zeros(())}}

    def apply(variables, images, *how):
        codes, mode = (how[0], how[1]) if entries else (jnp.zeros(0), how[0])
        mean = images.mean() if mode in ("train", "batch") else variables["statistics"]["mean"]
        head = variables["params"]["head"]
        flat = (images - mean).reshape(images.shape[0], -1).astype(jnp.float32)
        logits = scale(codes) * (flat @ head["kernel"]) + head["bias"][None, :]
        return logits, {"mean": mean} if mode == "train" else variables["statistics"]

    return Network(init, apply)
