"""The files of a run folder."""

import json
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np

from cenas_jax import __version__
from cenas_jax.report import tables
from cenas_jax.runs.config_file import config_to_toml
from cenas_jax.runs.simulation import SimulationRun

FORMAT = 1


def write_files(run: SimulationRun, folder: Path, seconds: dict[str, float]) -> dict[str, Any]:
    """`config.toml`, `environment.json`, `history.csv`, `ledger.csv`, `pareto.csv`, `result.json`; returns the last's
    document. `seconds`: how long each stage took."""
    environment = describe_environment()
    document = result_document(run, environment, seconds)
    (folder / "config.toml").write_text(config_to_toml(run.inputs.config), encoding="utf-8")
    for name in ("history", "ledger", "pareto"):
        # 9 digits hold any float32 exactly, and the float64 sums to 1e-8.
        getattr(tables, name)(run).to_csv(folder / f"{name}.csv", index=False, float_format="%.9g", lineterminator="\n")
    _write_json(folder / "environment.json", environment)
    _write_json(folder / "result.json", document)
    return document


def result_document(run: SimulationRun, environment: dict[str, Any], seconds: dict[str, float]) -> dict[str, Any]:
    """Everything in `result.json`: sources, assumptions, config, figures of every search, means with intervals."""
    table, trace = run.benchmark.table, run.inputs.trace
    rows = tables.searches(run)
    document = {
        "format": FORMAT,
        "command": "simulate",
        "versions": environment["versions"],
        "seconds": seconds,
        "benchmark": {
            "source": run.benchmark.source,
            "synthetic": run.benchmark.synthetic,
            "objectives": dict(zip(run.benchmark.objective_names, run.benchmark.units, strict=True)),
            "estimate": run.benchmark.estimate_name,
            "reference_point": np.asarray(table.reference_point).tolist(),
            "max_hypervolume": float(table.max_hypervolume),
        },
        "trace": {
            "source": trace.source,
            "zone": trace.zone,
            "synthetic": trace.synthetic,
            "factor": trace.factor,
            "start_utc": str(trace.start.astype("datetime64[m]")),
            "hours": trace.hours,
            "mean_intensity_g_per_kwh": float(trace.intensity_g_per_kwh.mean()),
        },
        "power": vars(run.inputs.power),
        "reserve_share": run.reserve_share,
        "config": _plain_config(run),
        "interval_method": tables.INTERVAL_METHOD,
        "policies": {
            name: {
                "summary": {column: estimate._asdict() for column, estimate in columns.items()},
                "searches": rows.loc[rows.policy == name].drop(columns="policy").to_dict(orient="records"),
            }
            for name, columns in tables.summary(run).items()
        },
    }
    return _without_nan(document)


def describe_environment() -> dict[str, Any]:
    """Versions, platform and device."""
    device = jax.devices()[0]
    packages = ("jax", "jaxlib", "numpy", "pandas", "matplotlib")
    return {
        "versions": {
            "cenas_jax": __version__,
            "python": platform.python_version(),
            **{package: version(package) for package in packages},
        },
        "platform": platform.platform(),
        "machine": platform.machine(),
        "implementation": sys.implementation.name,
        "device": {"platform": device.platform, "kind": device.device_kind, "count": jax.device_count()},
        "x64": bool(jax.config.jax_enable_x64),  # pyright: ignore[reportAttributeAccessIssue]
    }


def _plain_config(run: SimulationRun) -> dict[str, dict[str, Any]]:
    groups = {name: dict(vars(options)) for name, options in vars(run.inputs.config).items()}
    groups["benchmark"]["data"] = str(run.inputs.config.benchmark.data or "") or None
    return groups


def _without_nan(value: Any) -> Any:
    """JSON knows no NaN: an interval over one seed is null."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and np.isnan(value) else value


def _write_json(path: Path, document: dict[str, Any]) -> None:
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")
