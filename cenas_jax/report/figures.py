"""Figures of a run folder: PNG, Okabe-Ito colours, one look for every policy."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cenas_jax.carbon.ledger import ACTIVITIES
from cenas_jax.report import tables
from cenas_jax.runs.simulation import SimulationRun

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
LINES = ("-", "--", ":", "-.", (0, (3, 1, 1, 1, 1, 1)))
"""One fewer than the colours, so that both together recur after 30 policies; neighbours differ clearly, as they share
a colour."""
SMALLEST_DIFFERENCE = 1e-5
"""A share this close to the maximum is at it, as far as float32 can tell."""
BAND = (25, 75)
"""Percentiles over seeds that the bands span."""
_MARGIN = 0.04


def write_figures(run: SimulationRun, folder: Path) -> None:
    """`progress.png`, `slots.png`, and where there are several objectives `pareto.png`."""
    figures = {"progress": progress_figure, "slots": slots_figure, "pareto": pareto_figure}
    if len(run.benchmark.units) == 1:
        del figures["pareto"]  # its front is one architecture, and how near a search comes is in the progress
    for name, figure in figures.items():
        figure(run).savefig(folder / f"{name}.png", dpi=150)


def progress_figure(run: SimulationRun) -> Figure:
    """Share of the table's hypervolume that is still missing, on a logarithmic axis, by hours and by gCO2."""
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    by_hours, by_carbon = figure.subplots(1, 2, sharey=True)
    history = run.result.history
    missing = np.maximum(1 - history.hypervolume_share.astype(float), SMALLEST_DIFFERENCE)
    emitted_g = history.charge.emissions_g.sum(axis=-1, dtype=np.float64).cumsum(axis=-1)
    hours = np.arange(1, missing.shape[2] + 1)
    # Before the first result everything is missing, unless the initial design is there from the start.
    begin = np.where(run.inputs.power.charge_initial_design, 1.0, missing[:, :, 0])
    for place, name in enumerate(run.inputs.config.policies.policy):
        run_h = max(1, int(history.running[place].any(axis=0).sum()))  # the curve ends where the last search stops
        _band(by_hours, hours[:run_h], missing[place, :, :run_h], place, name)
        grid_g = np.linspace(0, np.median(emitted_g[place, :, -1]), 400)
        searches = zip(emitted_g[place], missing[place], begin[place], strict=True)
        at_g = np.stack([_steps(grid_g, *search) for search in searches])
        _band(by_carbon, grid_g / 1000, at_g, place, name)
    by_hours.set(xlabel="hours since the start", yscale="log", xlim=(0, hours[-1]))
    by_hours.set_ylabel("missing hypervolume, 1 - share of the maximum")
    by_carbon.set(xlabel="emissions of the search (kgCO2eq)")
    by_carbon.set_xlim(left=0)
    for axes in (by_hours, by_carbon):
        axes.grid(alpha=0.3, which="both", linewidth=0.5)
    title = f"median and {BAND[0]}-{BAND[1]} % band of {run.inputs.config.policies.seeds} seeds{_synthetic_note(run)}"
    entries = by_hours.get_legend_handles_labels()
    figure.legend(*entries, title=title, loc="outside upper center", ncols=6, handlelength=3)
    return figure


def slots_figure(run: SimulationRun) -> Figure:
    """How many slots evaluate and sample in every hour (mean over seeds), over the intensity."""
    policies, trace = run.inputs.config.policies.policy, run.inputs.trace
    figure = Figure(figsize=(10, 1 + 2.2 * len(policies)), layout="constrained")
    panels = np.atleast_1d(figure.subplots(len(policies), 1, sharex=True, sharey=True))
    charge, edges = run.result.history.charge, np.arange(trace.hours + 1)
    busy = charge.busy_s.mean(axis=1, dtype=np.float64) / 3600
    at = {activity: busy[:, :, place] for place, activity in enumerate(ACTIVITIES)}
    evaluating, sampling = at["evaluation"] + at["initial_design"], at["sampling"] + at["supernet"]
    chosen = run.result.history.evaluation_slots.mean(axis=1, dtype=np.float64)
    intensity = []
    for place, (axes, name) in enumerate(zip(panels, policies, strict=True)):
        both = evaluating[place] + sampling[place]
        axes.stairs(evaluating[place], edges, fill=True, color=COLOURS[0], alpha=0.75, label="evaluating (busy)")
        axes.stairs(
            both, edges, baseline=evaluating[place], fill=True, color=COLOURS[4], alpha=0.8, label="sampling (busy)"
        )
        axes.stairs(
            chosen[place], edges, baseline=None, color="black", linewidth=1.2, label="evaluation slots (chosen)"
        )
        axes.set(title=name, ylabel="slots", ylim=(0, run.inputs.config.cluster.slots * 1.05), xlim=(0, trace.hours))
        right = axes.twinx()
        values = np.append(trace.intensity_g_per_kwh, trace.intensity_g_per_kwh[-1])
        intensity = right.step(edges, values, where="post", color=COLOURS[1], linestyle="--", linewidth=1.6)
        right.set_ylabel("gCO2eq/kWh", color=COLOURS[1])
        right.set_ylim(bottom=0)
    panels[-1].set_xlabel(f"hours since {trace.time(0)}")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(
        [*handles, *intensity], [*labels, "carbon intensity (right axis)"], loc="outside upper center", ncols=4
    )
    return figure


def pareto_figure(run: SimulationRun) -> Figure:
    """All evaluated architectures, the fronts of the searches and the table's own front, one row for every policy.

    With more than two objectives each column shows the first against one of the others: projections of the fronts.
    """
    policies, units = run.inputs.config.policies, run.benchmark.units
    values, names = tables.natural_objectives(run), run.benchmark.objective_names
    others = range(1, values.shape[1])
    side_by_side = 2 if len(policies.policy) == 4 else min(len(policies.policy), 3)
    columns = side_by_side if len(others) == 1 else len(others)
    rows = math.ceil(len(policies.policy) * len(others) / columns)
    figure = Figure(figsize=(1 + 4.2 * columns, 0.8 + 3.8 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    shown = [(place, other) for place in range(len(policies.policy)) for other in others]
    for axes, (place, other) in zip(panels, shown, strict=False):
        _fronts(axes, run, place, other)
        axes.set(title=policies.policy[place], xlabel=f"{names[other]} ({units[other]})")
        axes.set_ylabel(f"{names[0]} ({units[0]})")
        _limits(axes, values[:, [other, 0]], run.table_front)
    for axes in panels[len(shown) :]:
        axes.remove()
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=3, markerscale=1.5)
    return figure


def _fronts(axes: Axes, run: SimulationRun, place: int, other: int) -> None:
    """One panel: the first objective over the objective `other`. Two-objective fronts are joined as staircases."""
    xy = tables.natural_objectives(run)[:, [other, 0]]
    colour, joined = COLOURS[place % len(COLOURS)], xy.shape[1] == len(run.benchmark.units)
    # The corner that is attained lies on the worse side of x.
    stairs = "steps-pre" if tables.maximised(run)[other] else "steps-post"
    line: dict[str, Any] = {"linestyle": "-" if joined else "", "drawstyle": stairs}
    for seed in range(run.inputs.config.policies.seeds):
        evaluated = tables.evaluated_index(run, place, seed)
        label = "evaluated (all seeds)" if seed == 0 else None
        axes.plot(*xy[evaluated].T, ".", color="0.45", alpha=0.4, markersize=4, markeredgewidth=0, label=label)
    for seed in range(run.inputs.config.policies.seeds):
        front = _rising(xy[run.result.evaluated[place, seed][run.on_front[place, seed]]])
        label = "front of a search (one for each seed)" if seed == 0 else None
        axes.plot(*front.T, **line, marker=".", color=colour, linewidth=1.3, markersize=6, alpha=0.7, label=label)
    table_front = _rising(xy[run.table_front])
    line["linestyle"] = "--" if joined else ""
    axes.plot(
        *table_front.T, **line, color="black", linewidth=1.3, marker="x", markersize=4, label="front of the table"
    )
    axes.grid(alpha=0.3, linewidth=0.5)


def _rising(points: Float64[np.ndarray, "n 2"]) -> Float64[np.ndarray, "n 2"]:
    return points[np.lexsort((points[:, 1], points[:, 0]))]


def _limits(axes: Axes, xy: Float64[np.ndarray, "size 2"], on_front: np.ndarray) -> None:
    """The span of the table's front, without its broken architectures (the lowest twentieth of the table)."""
    x, y = xy[on_front].T
    low, high = max(y.min(), np.percentile(xy[:, 1], 5)), y.max()
    x = x[y >= low] if (y >= low).any() else x
    for set_limits, first, last in ((axes.set_xlim, x.min(), x.max()), (axes.set_ylim, low, high)):
        margin = _MARGIN * (last - first) or 1.0
        set_limits(first - margin, last + margin)


def _band(axes: Axes, x: np.ndarray, values: np.ndarray, place: int, name: str) -> None:
    """Median and band over the first axis, the seeds."""
    colour, style = COLOURS[place % len(COLOURS)], LINES[place % len(LINES)]
    low, median, high = np.percentile(values, [BAND[0], 50, BAND[1]], axis=0)
    axes.fill_between(x, low, high, step="post", color=colour, alpha=0.2, linewidth=0)
    axes.plot(x, median, color=colour, linestyle=style, drawstyle="steps-post", linewidth=2, label=name)


def _steps(
    grid: Float64[np.ndarray, " points"],
    x: Float64[np.ndarray, " hours"],
    y: Float64[np.ndarray, " hours"],
    begin: float,
) -> Float64[np.ndarray, " points"]:
    """`y` as a step function of the rising `x`: what is known once `x` is spent; `begin` before that."""
    return np.append(begin, y)[np.searchsorted(x, grid, side="right")]


def _synthetic_note(run: SimulationRun) -> str:
    made = [
        word
        for word, synthetic in (("benchmark", run.benchmark.synthetic), ("trace", run.inputs.trace.synthetic))
        if synthetic
    ]
    return f" (synthetic {' and '.join(made)})" if made else ""
