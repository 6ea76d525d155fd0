"""Which choices of an entry should share weights: those whose gradients agree (Hu et al., ICLR 2022, GM-NAS)."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int

from cenas_jax.nets import Network
from cenas_jax.training.images import ImageArrays, standardised


def gradient_similarity(
    network: Network,
    variables,
    data: ImageArrays,
    rows: Int[Array, "n b"],
    codes: Int[Array, "n d"],
    entry: Int[Array, ""] | int,
    num_choices: int,
    dtype=jnp.float32,
) -> Float[Array, "c c"]:
    """How well the choices of an entry agree on the shared weights, in [-1, 1]: 1 on the diagonal.

    Path `codes[i]` and the batch `rows[i]` of `data` give one cosine for every pair of choices, of the gradients of the
    cross-entropy (images as they are, normalised by their batch) with the entry set to either; the mean over paths is
    returned. An array of weights that only one of the two uses, whose gradient with the other is all zeros, counts in
    neither length. `apply(variables, images, codes, mode)` is as in `nets/nas_bench_201.py`, and computes in `dtype`.
    NaN where a gradient is not finite.
    """

    def loss(params, path, images, labels):
        logits, _ = network.apply(variables | {"params": params}, images, path, "batch")
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    def of_path(turn):
        path, rows = turn
        images, labels = standardised(data, data.images[rows]).astype(dtype), data.labels[rows]

        def with_choice(choice):
            return jax.grad(loss)(variables["params"], path.at[entry].set(choice), images, labels)

        # One after the other: under vmap a branch that is chosen by data becomes all of them.
        gradients = jax.lax.map(with_choice, jnp.arange(num_choices, dtype=codes.dtype))
        product, square = jnp.zeros((2, num_choices, num_choices))
        for gradient in jax.tree.leaves(gradients):
            each = gradient.reshape(num_choices, -1).astype(jnp.float32)
            used = (each != 0).any(axis=1)
            product += each @ each.T
            # Of the row's gradient, where the column's choice uses the weights too.
            square += (each**2).sum(axis=1)[:, None] * used[None, :]
        lengths = jnp.sqrt(square) * jnp.sqrt(square.T)
        return product / jnp.where(lengths == 0, 1.0, lengths)  # no weights in common: neither for nor against

    return jax.lax.map(of_path, (codes, rows)).mean(axis=0)


def minimum_cut(similarity: Float[np.ndarray, "c c"], allowed: Bool[np.ndarray, " c"]) -> tuple[np.ndarray, float]:
    """Splits the allowed choices into two halves, as equal as can be, that agree least: by trying all of them.

    Returns the half with fewer choices (of equal ones that of the first) as a mask `[c]`, and the mean similarity of
    the pairs that the cut separates. At least two choices must be allowed.
    """
    choices = np.flatnonzero(allowed)
    best, least = np.zeros(len(allowed), bool), np.inf
    for half in itertools.combinations(choices, len(choices) // 2):
        group = np.isin(np.arange(len(allowed)), half)
        across = similarity[group][:, allowed & ~group].mean()
        if across < least:
            best, least = group, float(across)
    return best, least
