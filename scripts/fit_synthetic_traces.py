"""Fit the synthetic trace profiles on real grids and write `cenas_jax/carbon/synthetic_profiles.py`.

    python scripts/fit_synthetic_traces.py <data> [--write]     # < 1 min

Fits CISO, DE and PJM on the life-cycle intensity of Electricity Maps 2021-2022 (`carbon/em_hourly_2021_2023.npz`):
the expected part by least squares in the very basis of `expected_intensity`, the two noise scales by matching the
autocovariance of what remains over 72 h. 2023 is not looked at: it is printed, after the fit, for comparison.
Contains information from Electricity Maps (ODbL); the coefficients are this project's.
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from cenas_jax.carbon.readers import read_compact_traces
from cenas_jax.carbon.synthetic import SyntheticCoefficients, expected_intensity, synthetic_intensity

GRIDS = {"ciso": ("US-CAL-CISO", -8), "de": ("DE", 1), "pjm": ("US-MIDA-PJM", -5)}
"""Profile: (Electricity Maps zone, local standard time minus UTC in hours)."""
FIT_HOURS = 17520
LAGS_H = np.arange(72)
OUTPUT = Path(__file__).parents[1] / "cenas_jax" / "carbon" / "synthetic_profiles.py"


def fit(intensity: np.ndarray, start_hour: int, utc_offset_h: int) -> SyntheticCoefficients:
    """Coefficients for `intensity[hours]`."""
    zero = SyntheticCoefficients(
        mean=jnp.zeros(()),
        seasonal=jnp.zeros((2, 2)),
        diurnal=jnp.zeros((4, 2, 3)),
        weekend=jnp.zeros(2),
        noise_sd=jnp.zeros(2),
        noise_memory_h=jnp.ones(2),
        lowest=jnp.zeros(()),
        utc_offset_h=jnp.asarray(utc_offset_h),
    )
    hour = start_hour + jnp.arange(intensity.size)
    linear, unravel = ravel_pytree((zero.mean, zero.seasonal, zero.diurnal, zero.weekend))

    def expected(values):
        mean, seasonal, diurnal, weekend = unravel(values)
        return expected_intensity(zero._replace(mean=mean, seasonal=seasonal, diurnal=diurnal, weekend=weekend), hour)

    design = np.asarray(jax.jacfwd(expected)(linear), np.float64)
    solution = np.linalg.lstsq(design, intensity, rcond=None)[0]
    mean, seasonal, diurnal, weekend = unravel(jnp.asarray(solution, linear.dtype))
    noise_sd, noise_memory_h = fit_noise(intensity - design @ solution)
    return zero._replace(
        mean=mean,
        seasonal=seasonal,
        diurnal=diurnal,
        weekend=weekend,
        noise_sd=jnp.asarray(noise_sd),
        noise_memory_h=jnp.asarray(noise_memory_h),
        lowest=jnp.asarray(intensity.min()),
    )


def fit_noise(residual: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Standard deviations and memories (h), slow first: the pair of memories whose non-negative mixture of
    exponentials lies nearest to the residual's autocovariance (grid search; the mixture by least squares)."""
    covariance = np.array([np.mean(residual[lag:] * residual[: residual.size - lag]) for lag in LAGS_H])
    best = (np.inf, np.zeros(2), np.zeros(2))
    for slow in np.geomspace(12, 480, 60):
        for fast in np.geomspace(1, 12, 40)[:-1]:
            basis = np.exp(-LAGS_H[:, None] / np.array([slow, fast])[None, :])
            # Both variances are known to add up to the residual's, which leaves one share to find.
            difference = covariance[0] * (basis[:, 0] - basis[:, 1])
            share = np.clip((covariance - covariance[0] * basis[:, 1]) @ difference / (difference @ difference), 0, 1)
            variance = covariance[0] * np.array([share, 1 - share])
            error = np.sum((covariance - basis @ variance) ** 2)
            if error < best[0]:
                best = (error, np.sqrt(variance), np.array([slow, fast]))
    return best[1], best[2]


def statistics(intensity: np.ndarray) -> dict[str, float]:
    centred = intensity - intensity.mean()

    def correlation(lag):
        return np.mean(centred[lag:] * centred[:-lag]) / np.mean(centred**2)

    return {
        "mean": intensity.mean(),
        "sd": intensity.std(),
        "minimum": intensity.min(),
        "1 h": correlation(1),
        "24 h": correlation(24),
    }


def as_source(profiles: dict[str, SyntheticCoefficients]) -> str:
    """The module that holds the coefficients."""
    lines = [
        '"""Coefficients of the synthetic traces: written by `scripts/fit_synthetic_traces.py`, not by hand."""',
        "",
        "# Fields, units: `synthetic.SyntheticCoefficients`. Fit on Electricity Maps life-cycle intensity 2021-2022.",
        "PROFILES = {",
    ]
    for name, coefficients in profiles.items():
        lines.append(f'    "{name}": {{')
        for field, value in coefficients._asdict().items():
            exact = np.asarray(value)
            text = exact.tolist() if exact.dtype.kind == "i" else np.round(exact.astype(np.float64), 2).tolist()
            if field == "diurnal":
                rows = ",\n".join(f"            {harmonic}" for harmonic in text)
                text = f"[\n{rows},\n        ]"
            lines.append(f'        "{field}": {text},')
        lines.append("    },")
    return "\n".join([*lines, "}", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of real data, holding carbon/em_hourly_2021_2023.npz")
    parser.add_argument("--write", action="store_true", help=f"write {OUTPUT.name} (default: print it)")
    arguments = parser.parse_args()
    profiles = {}
    for profile, (zone, utc_offset_h) in GRIDS.items():
        trace = read_compact_traces(arguments.data / "carbon" / "em_hourly_2021_2023.npz", zone)
        start_hour = int(trace.start.astype(np.int64))
        real = trace.intensity_g_per_kwh
        profiles[profile] = fit(real[:FIT_HOURS], start_hour, utc_offset_h)
        made = synthetic_intensity(jax.random.key(0), profiles[profile], start_hour, 20 * 8766)
        for label, values in (
            ("2021-2022", real[:FIT_HOURS]),
            ("2023", real[FIT_HOURS:]),
            ("synthetic, 20 years", np.asarray(made)),
        ):
            figures = ", ".join(f"{name} {value:.4g}" for name, value in statistics(values).items())
            print(f"# {profile} {label}: {figures}")
    source = as_source(profiles)
    if arguments.write:
        OUTPUT.write_text(source)
    else:
        print(source)


if __name__ == "__main__":
    main()
