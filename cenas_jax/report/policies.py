"""What a terminal and a figure show of learned policies."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from scipy.stats import ttest_rel

from cenas_jax.report.tables import SHARE, mean_with_interval
from cenas_jax.runs.policies import Comparison, Decisions


def comparison_document(results: dict[str, Comparison]) -> dict[str, Any]:
    """Means with 95 % intervals over the tasks, and the learned policy's paired difference from every rule."""
    ours = results["learned"]
    rules = {}
    for name, rule in results.items():
        difference = ours.hypervolume_share - rule.hypervolume_share
        rules[name] = {
            "hypervolume_share": _rounded(mean_with_interval(rule.hypervolume_share, SHARE)),
            "evaluations": round(float(rule.evaluations.mean()), 1),
            "emissions_g": round(float(rule.emissions_g.mean()), 1),
        }
        if name != "learned":
            pvalue: Any = ttest_rel(ours.hypervolume_share, rule.hypervolume_share).pvalue
            rules[name]["learned_minus_this"] = _rounded(mean_with_interval(difference, (-1.0, 1.0)))
            rules[name]["p_value"] = float(f"{pvalue:.2g}") if np.isfinite(pvalue) else None
    return {"tasks": len(ours.hypervolume_share), "policies": rules}


def print_comparison(console: Console, document: dict[str, Any]) -> None:
    table = Table(title=f"{document['tasks']} tasks; 95 % Student t intervals over tasks", title_justify="left")
    for name in ("policy", "hypervolume share", "evaluations", "gCO2", "learned - this, paired", "p"):
        table.add_column(name, justify="left" if name == "policy" else "right", no_wrap=True)
    for name, row in document["policies"].items():
        low, high = row["hypervolume_share"][1:]
        cells = [name, f"{row['hypervolume_share'][0]:.4f}" + ("" if low is None else f" ({low:.4f} to {high:.4f})")]
        cells += [f"{row['evaluations']:.1f}", f"{row['emissions_g']:,.0f}"]
        paired = row.get("learned_minus_this")
        if paired:
            spread = "" if paired[1] is None else f" ({paired[1]:+.4f} to {paired[2]:+.4f})"
            cells += [f"{paired[0]:+.4f}{spread}", "" if row["p_value"] is None else f"{row['p_value']:.2g}"]
        table.add_row(*cells)
    console.width = max(console.width, 120)
    console.print(table)


def decisions_figure(seen: Decisions, slots: int, name: str) -> Figure:
    """The decision over a day, against the intensity and what the budget affords."""
    figure = Figure(figsize=(9, 6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(1, 3))
    edges = np.append(seen.hours, 24)
    above.stairs(seen.intensity_ratio, edges, color="#D55E00", linewidth=2, baseline=None)
    above.set(ylabel="intensity over\nthe day's mean", title=f"{name}: evaluation slots of {slots}", ylim=(0.5, 1.5))
    above.grid(alpha=0.3)
    half = (seen.affordable_share[1] - seen.affordable_share[0]) / 2
    rows = np.append(seen.affordable_share - half, seen.affordable_share[-1] + half)
    mesh = below.pcolormesh(edges, rows, seen.slots, cmap="viridis", vmin=0, vmax=slots)
    below.set(xlabel="hour of a day that recurs", ylabel="share of the slots that the budget affords", xlim=(0, 24))
    below.set_xticks(range(0, 25, 3))
    figure.colorbar(mesh, ax=below, label="slots that evaluate")
    return figure


def _rounded(values) -> list[float | None]:
    return [round(float(value), 5) if np.isfinite(value) else None for value in values]
