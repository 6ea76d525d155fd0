"""CE-NAS's policy, trained on 8 slots, with other numbers of slots, grids and limits, beside the heuristic.

    CENAS_DATA=/path/to/data python experiments/table_unseen_settings.py

It was not run yet: no result is committed, and no time or figure is expected yet. It compiles once for each number of
slots. Writes results/table_unseen_settings.json.

NAS-Bench-201 with HW-NAS-Bench (CIFAR-10 accuracy, edge-GPU energy), 80 h, the choice `corrected`, preset `paper`, on
grids that no policy was trained on (France, New York, Sweden) in windows of July 2021 to December 2022. A carbon limit
is a share of what all slots would emit in the 80 h at the grid's mean intensity of these months; training drew shares
of 0.02 to 0.4. Differences are paired over windows, seeds averaged; p is Student's, two-sided.
"""

import json
import os
from dataclasses import replace

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from table5_carbon_limits import HOURS, compare_with_bar, paired, parsed, problem

from cenas_jax.carbon import load_trace
from cenas_jax.cli.common import keep_compiled_programs
from cenas_jax.config import data_folder
from cenas_jax.report.tables import mean_with_interval
from cenas_jax.runs.comparison import Problem

GRIDS = {"France": "em-fr", "New York": "em-us-ny-nyis", "Sweden": "em-se"}
SHARES = {1: (0.05, 0.6), 4: (0.01, 0.6), 16: (0.01, 0.25), 64: (0.005, 0.06)}
"""Limits by the number of slots, such that an hour an evaluation makes at most some 400 of them, below `CAPACITY`."""
CAPACITY, SEEDS, MONTHS_H = 768, 2, 18 * 730
POLICIES = ("heuristic", "forecast-greedy", "ce-nas")


def mean_g_per_kwh(trace: str) -> float:
    """Over the months of the windows."""
    months = load_trace(trace, data_folder(None, os.environ), start="2021-07-01T00:00Z", hours=MONTHS_H)
    return float(months.intensity_g_per_kwh.mean())


def problem_of(trace: str, slots: int, starts: tuple[str, ...]) -> Problem:
    full_g = slots * HOURS * mean_g_per_kwh(trace)  # 1 kW an evaluating slot
    of = problem(
        "CISO", "paper", starts, POLICIES, seeds=SEEDS, limits=tuple(share * full_g for share in SHARES[slots])
    )
    config = replace(
        of.config,
        grid=replace(of.config.grid, trace=trace),
        cluster=replace(of.config.cluster, slots=slots, capacity=CAPACITY),
    )
    return of._replace(config=config)


def row(shares: np.ndarray, evaluations: np.ndarray, ours: np.ndarray) -> dict:
    """Of one policy in one cell; arrays `[windows, seeds]`."""
    return {
        "hypervolume_share": [round(value, 5) for value in mean_with_interval(shares.mean(axis=-1).astype(float))],
        "evaluations": round(float(evaluations.mean()), 1),
        "ce_nas_less_this": paired(ours, shares),
    }


def main() -> None:
    arguments, starts = parsed(__doc__, "table_unseen_settings.json", 10)
    keep_compiled_programs()
    console, cells = Console(), []
    with Progress(console=console) as progress:
        for slots, limits in SHARES.items():
            for grid, trace in GRIDS.items():
                of = problem_of(trace, slots, starts)
                found = compare_with_bar(progress, f"{slots} slots, {grid}", of)
                for i, share in enumerate(limits):
                    shares = found.hypervolume_share[i, ..., -1]
                    ours = shares[POLICIES.index("ce-nas")]
                    rows = {name: row(shares[j], found.evaluations[i, j], ours) for j, name in enumerate(POLICIES)}
                    limit_g = round(float(of.limits_g[i] or 0), 1)
                    cell = {"slots": slots, "grid": grid, "limit_share": share, "limit_g": limit_g, "policies": rows}
                    cells.append(cell)
    document = {"windows": arguments.windows, "seeds": SEEDS, "hours": HOURS, "cells": cells}
    arguments.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    show(console, cells)


def show(console: Console, cells: list[dict]) -> None:
    table = Table("slots", "grid", "limit", *POLICIES, "less heuristic", title="mean hypervolume share")
    for cell in cells:
        policies = cell["policies"]
        shares = [f"{policies[name]['hypervolume_share'][0]:.4f}" for name in POLICIES]
        less = policies["heuristic"]["ce_nas_less_this"]
        limit = f"{cell['limit_share']:.1%}, {cell['limit_g'] / 1000:.2g} kg"
        table.add_row(str(cell["slots"]), cell["grid"], limit, *shares, f"{less['mean']:+.4f} (p {less['p']:.1g})")
    console.print(table)


if __name__ == "__main__":
    main()
