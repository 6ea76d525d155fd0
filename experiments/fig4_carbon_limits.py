"""Figure 4: hypervolume under hard carbon limits as box plots over windows and seeds, from what table 5 found.

    python experiments/fig4_carbon_limits.py

Expected time: seconds. Expected figure: CE-NAS and the greedy plan left of all others at 5 and 10 kg; at 30 and 50 kg
the fixed splits, threshold, heuristic and they crowd at the dashed line, beyond which no search gets that evaluates one
of every class of isomorphs. Reads results/table5_carbon_limits.json, writes fig4_carbon_limits_{paper,measured}.png
beside it; grids and kinds of accounting that table5_carbon_limits.py has not run are left out.
"""

import json
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

RESULTS = Path(__file__).parent / "results"
SHOWN = (
    "vanilla LaMOO as published",
    "one-shot LaMOO as published",
    *("fixed-1", "fixed-2", "fixed-4", "vanilla", "threshold", "heuristic", "forecast-greedy", "ce-nas"),
)


def box_figure(grids: dict[str, dict], names: tuple[str, ...], reachable: float) -> Figure:
    """Box plots of the distance from the table's hypervolume, a row a grid, a column a limit; dashed: the least that
    `reachable_share` leaves."""
    limits = len(next(iter(grids.values()))["limits"])
    figure, axes = plt.subplots(
        len(grids),
        limits,
        figsize=(3.6 * limits, 3.2 * len(grids)),
        squeeze=False,
        layout="constrained",
    )
    for line, (grid, found) in zip(axes, grids.items(), strict=True):
        for i, (axis, (limit_g, cell)) in enumerate(zip(line, found["limits"].items(), strict=True)):
            axis.bxp(
                [box(cell["policies"][name]) for name in names], orientation="horizontal", widths=0.7, showfliers=False
            )
            axis.set_yticks(range(1, len(names) + 1), names if i == 0 else [""] * len(names), fontsize=8)
            axis.axvline(1 - reachable, color="grey", linestyle="--", linewidth=1)
            axis.set_xscale("log")
            axis.xaxis.set_minor_formatter(NullFormatter())  # within few decades they would overlap
            axis.invert_yaxis()
            axis.grid(axis="x", which="both", alpha=0.3)
            axis.set_title(f"{grid}, {float(limit_g) / 1000:g} kg", fontsize=9)
    for axis in axes[-1]:
        axis.set_xlabel("1 - hypervolume share", fontsize=8)
    return figure


def box(policy: dict) -> dict[str, float]:
    names = ("whishi", "q3", "med", "q1", "whislo")  # the worst share is the greatest distance
    return {name: 1 - share for name, share in zip(names, policy["five_numbers"], strict=True)}


def main() -> None:
    document = json.loads((RESULTS / "table5_carbon_limits.json").read_text(encoding="utf-8"))
    for power in ("paper", "measured"):
        grids = {name: each[power] for name, each in document["grids"].items() if power in each}
        if grids:
            figure = box_figure(grids, SHOWN, document["reachable_share"])
            figure.savefig(RESULTS / f"fig4_carbon_limits_{power}.png", dpi=110)


if __name__ == "__main__":
    main()
