"""Forecasts to look at: a fan of quantiles, and tables for the console."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cenas_jax.forecast.base import POINT, QUANTILES
from cenas_jax.report.figures import COLOURS
from cenas_jax.runs.forecasting import Outlook


def fan_figure(outlook: Outlook) -> Figure:
    """The last two days, the forecast with its 50 and 90 % intervals, and what came of it where that is known."""
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    axes = figure.subplots()
    ahead = np.arange(len(outlook.quantiles_g_per_kwh))
    before = np.arange(-len(outlook.history_g_per_kwh), 0)
    colour = COLOURS[0]
    for low, alpha in ((0, 0.2), (1, 0.35)):
        share = QUANTILES[-1 - low] - QUANTILES[low]
        columns = outlook.quantiles_g_per_kwh[:, [low, -1 - low]]
        axes.fill_between(ahead, *columns.T, color=colour, alpha=alpha, linewidth=0, label=f"{share:.0%} interval")
    axes.plot(ahead, outlook.quantiles_g_per_kwh[:, POINT], color=colour, label="forecast")
    axes.plot(before, outlook.history_g_per_kwh, color="black", linewidth=1, label="known")
    if np.isfinite(outlook.actual_g_per_kwh).any():
        axes.plot(ahead, outlook.actual_g_per_kwh, color=COLOURS[1], linewidth=1.2, linestyle="--", label="actual")
    axes.axvline(-0.5, color="grey", linewidth=0.8)
    axes.set(
        xlabel=f"hours from {outlook.document['issued']}",
        ylabel="carbon intensity (gCO2eq/kWh)",
        title=f"{outlook.document['grid']}: forecast issued {outlook.document['issued']}",
        xlim=(before[0] if before.size else 0, ahead[-1] if ahead.size > 1 else 1),
    )
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3, linewidth=0.5)
    axes.legend(loc="lower left", ncols=5)
    return figure


def print_outlook(console: Console, document: dict[str, Any]) -> None:
    """Every hour's median and intervals."""
    days = document["calibrated_on_days"]
    note = f"intervals calibrated on {days} past days" if days else "intervals not calibrated: too few past days"
    if document["calibrated_on_seen_days"]:
        note += f", {document['calibrated_on_seen_days']} of which the fit has read: they may be too narrow"
    if document["combined"]:
        note += "; combined with kernel regressions and the source forecast"
    if document["seen_in_the_fit"]:
        note += f"; the fit has read hours until {document['fitted_until']}: no test of it"
    if document["filled_hours"]:
        note += f"; {document['filled_hours']} missing readings of the last week filled from the day before"
    table = Table(title=escape(f"{document['grid']}, issued {document['issued']}, g/kWh"))
    for column in ("hour", *(f"{level:.0%}" for level in document["levels"])):
        table.add_column(column, justify="right")
    for hour in document["hours"]:
        table.add_row(hour["hour"], *(f"{value:.1f}" for value in hour["g_per_kwh"]))
    console.print(table)
    console.print(note, markup=False, soft_wrap=True)


def print_scores(console: Console, document: dict[str, Any]) -> None:
    """Errors by day ahead, and the share of the clairvoyant saving that each forecaster captures."""
    console.print(
        f"{document['grid']}: {document['issues']} forecasts, {document['first_issue']} to {document['last_issue']}; "
        f"fitted until {document['fitted_until']}",
        markup=False,
        soft_wrap=True,
    )
    if document["combined"]:
        console.print("combined with kernel regressions and the source forecast, by the outcomes since the fit")
    if document["seen_in_the_fit"]:
        console.print("the forecaster has seen some of these hours when it was fitted: errors look too small")
    scores = document["scores"]
    errors = Table(title="error, and share of the clairvoyant saving that is captured")
    errors.add_column("")
    for name in scores:
        errors.add_column(name, justify="right")
    for day in range(4):
        errors.add_row(
            f"MAPE, day {day + 1}",
            *(_shown(found["mape_by_day_percent"][day], ".2f", " %") for found in scores.values()),
        )
    for work in next(iter(scores.values()))["captured_share"]:
        cells = (_shown(found["captured_share"][work], ".1%") for found in scores.values())
        errors.add_row(f"saving, work in {work}", *cells)
    console.print(errors)
    coverage = scores["forecaster"].get("coverage_90_by_day_percent")
    if coverage is not None:
        console.print(
            "coverage of the 90 % interval by day: " + ", ".join(_shown(value, ".1f", " %") for value in coverage)
        )


def _shown(value: float | None, form: str, unit: str = "") -> str:
    return "-" if value is None else f"{value:{form}}{unit}"
