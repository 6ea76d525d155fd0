"""Estimates of a wanted quality: exact values plus Gaussian noise, calibrated to a given Kendall tau."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

_NUM_PAIRS = 2**17
_NUM_BISECTIONS = 40


def noisy_estimates(
    key: Key[Array, ""], values: Float[Array, " n"], tau: Float[Array, ""] | float
) -> Float[Array, " n"]:
    """`values` plus Gaussian noise of such a scale that their Kendall tau-b is about `tau` (0 < tau < 1), `[n]`.

    Pure; works under `jit` and `vmap`. The values must not all be equal. For 10,000 values the tau reached is within
    about 0.01 of `tau`, for 1,000 within about 0.03.
    """
    key_pairs, key_noise = jax.random.split(key)
    scale = noise_scale(key_pairs, values, tau)
    return values + scale * jax.random.normal(key_noise, values.shape, values.dtype)


@jax.jit
def noise_scale(key: Key[Array, ""], values: Float[Array, " n"], tau: Float[Array, ""] | float) -> Float[Array, ""]:
    """Standard deviation of the noise at which the expected Kendall tau-b between values and noisy values is `tau`.

    With noise of standard deviation s, a pair that differs by d keeps its order with probability Phi(d / (s sqrt 2)),
    so it contributes erf(d / (2 s)) to the expected tau; the mean over random untied pairs falls as s grows, and s is
    found by bisection (of its logarithm). Ties lower tau-b by the root of the untied pairs' share.
    """
    first, second = jax.random.randint(key, (2, _NUM_PAIRS), 0, values.shape[0])
    difference = jnp.abs(values[first] - values[second])
    untied = jnp.sum(difference > 0) / jnp.sum(first != second)
    spread = jnp.max(difference)

    def expected_tau(log_scale: Float[Array, ""]) -> Float[Array, ""]:
        concordance = jax.lax.erf(difference / (2 * jnp.exp(log_scale)))
        return jnp.sum(concordance) / jnp.sum(difference > 0) * jnp.sqrt(untied)

    def bisect(_: Int[Array, ""], bounds: Float[Array, " 2"]) -> Float[Array, " 2"]:
        middle = jnp.mean(bounds)
        too_good = expected_tau(middle) > tau
        return jnp.where(too_good, jnp.stack([middle, bounds[1]]), jnp.stack([bounds[0], middle]))

    bounds = jnp.log(spread) + jnp.log(jnp.asarray([1e-6, 1e4], values.dtype))
    return jnp.exp(jnp.mean(jax.lax.fori_loop(0, _NUM_BISECTIONS, bisect, bounds)))
