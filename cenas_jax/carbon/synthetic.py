"""Synthetic carbon intensity: few coefficients, fitted on real grids by `scripts/fit_synthetic_traces.py`.

    intensity(t) = max(lowest, expected(t) + slow(t) + fast(t))
    expected     = mean + seasonal(t) + weekend(t) + diurnal(t), diurnal harmonics modulated by the season
    slow, fast   = stationary first-order autoregressions (weather over days, dispatch over hours)

All phases count from 1970-01-01 00:00 UTC in whole hours, so nothing depends on a calendar library: day = 24 h, year
= 365.25 days. Traces made here are labelled synthetic. Not modelled: trends over years, holidays, skewed noise,
noise that depends on the season.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from cenas_jax.carbon.synthetic_profiles import PROFILES
from cenas_jax.carbon.trace import IntensityTrace, TimeLike, utc_hour
from cenas_jax.choices import check_choice

HOURS_PER_YEAR = 8766
SEASONAL_HARMONICS, DIURNAL_HARMONICS = 2, 4


class SyntheticCoefficients(NamedTuple):
    """Traced; g/kWh where not said otherwise."""

    mean: Float[Array, ""]
    seasonal: Float[Array, "2 2"]
    """(harmonic of the year, cosine and sine)."""
    diurnal: Float[Array, "4 2 3"]
    """(harmonic of the day, cosine and sine, modulation: constant, yearly cosine, yearly sine)."""
    weekend: Float[Array, "2"]
    """Added on Saturdays and Sundays (local days)."""
    noise_sd: Float[Array, "2"]
    """Standard deviation of the slow and the fast noise."""
    noise_memory_h: Float[Array, "2"]
    """Hours after which their autocorrelation has fallen to 1/e."""
    lowest: Float[Array, ""]
    utc_offset_h: Int[Array, ""]
    """Local standard time minus UTC: where the weekend begins. Hours."""


def coefficients(profile: str) -> SyntheticCoefficients:
    """The fitted coefficients of a profile (`ciso`, `de`, `pjm`); `ValueError` lists the known ones."""
    check_choice("synthetic profile", profile, tuple(PROFILES))
    fields = PROFILES[profile]
    floats = {name: jnp.asarray(value, float) for name, value in fields.items() if name != "utc_offset_h"}
    return SyntheticCoefficients(**floats, utc_offset_h=jnp.asarray(fields["utc_offset_h"], int))


def expected_intensity(coefficients: SyntheticCoefficients, hour: Int[Array, " hours"]) -> Float[Array, " hours"]:
    """The part without noise, linear in the coefficients; `hour` counts from 1970-01-01 00:00 UTC."""
    dtype = coefficients.mean.dtype
    # Phases are reduced in integers, where they are exact: a float32 hour count would lose minutes.
    year = _waves((hour % HOURS_PER_YEAR).astype(dtype) / HOURS_PER_YEAR, SEASONAL_HARMONICS)
    day = _waves((hour % 24).astype(dtype) / 24, DIURNAL_HARMONICS)
    modulation = jnp.concatenate([jnp.ones((hour.size, 1), dtype), year[:, 0]], axis=1)
    # Day 0 was a Thursday: Monday is 0.
    weekday = ((hour + coefficients.utc_offset_h) // 24 + 3) % 7
    weekend = jnp.where(weekday == 5, coefficients.weekend[0], jnp.where(weekday == 6, coefficients.weekend[1], 0.0))
    return (
        coefficients.mean
        + jnp.einsum("hkp,kp->h", year, coefficients.seasonal, precision="highest")
        + jnp.einsum("hkp,hm,kpm->h", day, modulation, coefficients.diurnal, precision="highest")
        + weekend
    )


@partial(jax.jit, static_argnames="hours")
def synthetic_intensity(
    key: Key[Array, ""], coefficients: SyntheticCoefficients, start_hour: Int[Array, ""] | int, hours: int
) -> Float[Array, " {hours}"]:
    """Hourly intensity, g/kWh, of `hours` hours from `start_hour` (hours since 1970-01-01 00:00 UTC).

    Pure: `vmap` over `key` (thousands of traces of one grid), `coefficients` (grids) or `start_hour` (seasons).
    """
    expected = expected_intensity(coefficients, start_hour + jnp.arange(hours))
    memory = jnp.exp(-1.0 / coefficients.noise_memory_h)
    shocks = jax.random.normal(key, (hours, 2), expected.dtype)
    # The first shock is the stationary distribution itself; later ones are scaled to keep its variance.
    scale = jnp.where(jnp.arange(hours)[:, None] == 0, 1.0, jnp.sqrt(1.0 - memory**2)[None, :])

    def step(noise, shock):
        noise = memory * noise + shock
        return noise, noise

    _, noise = jax.lax.scan(step, jnp.zeros_like(memory), shocks * scale)
    return jnp.maximum(coefficients.lowest, expected + (noise * coefficients.noise_sd[None, :]).sum(axis=1))


def synthetic_trace(profile: str, start: TimeLike, hours: int, seed: int) -> IntensityTrace:
    """A labelled synthetic trace (zone `synthetic-<profile>`); the same arguments give the same trace."""
    known = coefficients(profile)
    first = utc_hour(start)
    if hours < 1:
        raise ValueError(f"a synthetic trace of {hours} h is empty: ask for at least 1 h")
    start_hour = jnp.asarray(int(first.astype(np.int64)), int)
    intensity = synthetic_intensity(jax.random.key(seed), known, start_hour, hours)
    zone = f"synthetic-{profile}"
    source = f"{zone}, seed {seed}, fitted on Electricity Maps 2021-2022"
    return IntensityTrace(np.asarray(intensity, np.float64), first, zone, "lifecycle", source, synthetic=True)


def _waves(phase: Float[Array, " hours"], harmonics: int) -> Float[Array, "hours harmonics 2"]:
    """Cosine and sine of the first harmonics of a phase in 0..1."""
    angle = 2 * jnp.pi * phase[:, None] * jnp.arange(1, harmonics + 1, dtype=phase.dtype)[None, :]
    return jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=-1)
