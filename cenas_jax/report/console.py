"""What a terminal shows of a finished simulation."""

from rich.console import Console
from rich.table import Table

from cenas_jax.carbon.ledger import ACTIVITIES
from cenas_jax.report.tables import INTERVAL_METHOD, SAVINGS, Estimate, summary
from cenas_jax.runs.simulation import SimulationRun

_LABEL_WIDTH, _COLUMN_WIDTH = 24, 20


def print_run(console: Console, run: SimulationRun) -> None:
    """Source lines, then one table with a column for every policy."""
    for line in source_lines(run):
        console.print(line, style=None, highlight=False, soft_wrap=True, markup=False)
    policies = run.inputs.config.policies
    table = Table(title=f"Means over {policies.seeds} seeds; interval: {INTERVAL_METHOD}", title_justify="left")
    table.add_column("", no_wrap=True)
    for name in policies.policy:
        table.add_column(name, justify="right", no_wrap=True)
    results = summary(run)
    saved = [(f"  saved by {words}", column, 0) for column, words in SAVINGS.items() if "vanilla" in policies.policy]
    for label, column, digits in [*_rows(), *saved]:
        table.add_row(label, *(f"{results[name][column].mean:,.{digits}f}" for name in policies.policy))
        if column == "hypervolume_share":
            table.add_row("  95 % interval", *(_interval(results[name][column]) for name in policies.policy))
        if column in ("energy_kwh", "hypervolume_share"):
            table.add_section()
    # A narrow terminal wraps lines; squeezed columns would lose their words.
    console.width = max(console.width, _LABEL_WIDTH + _COLUMN_WIDTH * len(policies.policy))
    console.print(table)


def source_lines(run: SimulationRun) -> list[str]:
    """Where the numbers come from and what was assumed."""
    inputs, benchmark = run.inputs, run.benchmark
    trace, power, options = inputs.trace, inputs.power, inputs.config.power
    objectives = ", ".join(
        f"{name} ({unit})" for name, unit in zip(benchmark.objective_names, benchmark.units, strict=True)
    )
    charged = "initial design charged" if power.charge_initial_design else "initial design free"
    idle = f"idle {power.idle_w:g} W" if power.idle_slots else "idle slots released"
    forecast = inputs.config.grid.forecast
    seen = "" if forecast == "none" else f"; forecast {forecast}"
    gpu = f"{options.gpu}, shares of its board power assumed" if options.gpu else "1 kW an evaluation, all else free"
    return [
        f"benchmark  {_kind(benchmark.synthetic)}: {benchmark.source}",
        f"           {objectives}; estimate {benchmark.estimate_name}",
        f"trace      {_kind(trace.synthetic)}: {trace.source}, {trace.factor}",
        f"           {trace.time(0)}, {trace.hours} h, mean {trace.intensity_g_per_kwh.mean():.0f} gCO2/kWh{seen}",
        f"power      {options.power} ({gpu}): evaluation {power.evaluation_w:g} W, sampling {power.sampling_w:g} W, "
        f"supernet {power.supernet_w:g} W a slot, {idle}, {charged}, PUE {power.pue:g}",
    ]


def _kind(synthetic: bool) -> str:
    return "SYNTHETIC" if synthetic else "real"


def _rows() -> list[tuple[str, str, int]]:
    """(label, figure, decimals) of the table's rows."""
    by_activity = [(f"gCO2 {activity.replace('_', ' ')}", f"{activity}_emissions_g", 0) for activity in ACTIVITIES]
    return [
        ("hypervolume share", "hypervolume_share", 4),
        ("evaluations", "evaluations", 1),
        ("screened", "screened", 1),
        ("hours run", "hours_run", 1),
        ("energy, kWh", "energy_kwh", 2),
        *by_activity,
        ("gCO2 total", "emissions_g", 0),
    ]


def _interval(estimate: Estimate) -> str:
    one_seed = estimate.low != estimate.low
    return "one seed: none" if one_seed else f"{estimate.low:.4f} to {estimate.high:.4f}"
