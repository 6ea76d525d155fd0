"""Table 5: hypervolume under hard carbon limits, CE-NAS against every plain rival, on windows never seen.

    CENAS_DATA=/path/to/data python experiments/table5_carbon_limits.py

Expected time: 70 minutes for CISO with `paper` on a shared core (`--grids`, `--powers`), longer with `measured`, less
for a new policy beside rivals that were run before (`--again`). Expected figures with the policy that ships, at 5, 10,
30 and 50 kg, with 9 seeds a window. DE: with `paper` CE-NAS has .9923, .9957, .99815 and .99850, the best fixed split
before July 2021 .9909, .9950, .99797 and .99848 (p .0004, .0002, .002, .37); with `measured` .9927, .9974, .99862 and
.99875 beside .9909, .9971, .99863 and .99873 (p .0005, .002, .38, .006). CISO with `paper`: .99556, .99746, .99849 and
.99869 beside .99412, .99707, .99847 and .99868 (p 2e-8, .0002, .35, .63). No search that evaluates one of every class
of isomorphs can have more than .99879 (`reachable_share`): at 30 and 50 kg CE-NAS is within .0007 of it, and several
splits and rules are level with CE-NAS, or ahead by less than .00005. The greedy plan by the same forecast, which CE-NAS
starts from and hardly leaves, is within .00005 of it everywhere.
Writes results/table5_carbon_limits.json, which fig4_carbon_limits.py draws.

NAS-Bench-201 with HW-NAS-Bench (CIFAR-10 accuracy, edge-GPU energy), 80 h, 8 slots, the choice `corrected`; 30 windows
of July 2021 to December 2022, of each grid the same, 3 seeds each. Learned policies saw neither CIFAR-10 nor an hour of
these (`runs/policy_tasks.py`), and their forecasts come from forecasters fitted on hours before July 2021. Differences
are paired: the mean over seeds of one window against that of the same window; p is Student's, two-sided, over windows.

The best fixed split is chosen on windows before July 2021, on the same benchmark. CE-NAS, it, and all that CE-NAS is
not ahead of at p < .01 are run with 9 seeds a window too (of DE as yet the best fixed split alone), because with 3 the
luck of a search hides what a plan is worth where the limit hardly binds. LaMOO as published, one-shot or all evaluating
(vanilla), knows no isomorphs and no correction. The clairvoyant row is what the cheapest hours of the true trace would
afford, with no time or energy for screening, at the *mean* gain of hypervolume by evaluations of all searches that
screen: a policy that gains more by an evaluation can exceed it. p-values are not corrected for their number.
"""

import argparse
import json
import re
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from scipy.stats import ttest_rel

from cenas_jax.allocation.clairvoyant import clairvoyant_bound
from cenas_jax.carbon.ledger import ACTIVITIES, Ledger
from cenas_jax.carbon.savings import savings
from cenas_jax.cli.common import keep_compiled_programs
from cenas_jax.config import (
    BenchmarkOptions,
    GridOptions,
    LimitOptions,
    PolicyOptions,
    PowerOptions,
    SearcherOptions,
    SimulateConfig,
)
from cenas_jax.pareto import hypervolume_host
from cenas_jax.report.tables import mean_with_interval
from cenas_jax.runs.comparison import Outcomes, Problem, compare, problem_inputs

RESULTS = Path(__file__).parent / "results"
GRIDS = {"CISO": "us-cal-ciso", "DE": "em-de", "PJM": "em-us-mida-pjm"}
LIMITS_G = (5_000.0, 10_000.0, 30_000.0, 50_000.0)
HOURS, SLOTS, SEEDS, DECIDING_SEEDS = 80, 8, 3, 9
FIXED = tuple(f"fixed-{split}" for split in range(SLOTS))
LEARNED = ("ce-nas",)
AGAIN = ("vanilla", "yesterday-greedy", "forecast-greedy", *LEARNED)
"""What a new policy is compared with anew: savings are against vanilla, hour by hour, and it starts from the greedy."""
POLICIES = (*FIXED, "threshold", "heuristic", "one-shot", *AGAIN)
RIVALS = (*FIXED, "threshold", "heuristic", "one-shot", "vanilla")
CLEAR = 0.01
"""Rivals that CE-NAS is not ahead of at this p are run with more seeds."""
FORECASTS = ("persistence", "yesterday", "transformer", "perfect")
PUBLISHED = {"vanilla": "random", "one-shot": "estimate"}
"""LaMOO as published, by its choice in the region."""


def windows(first: str, last: str, count: int, seed: int) -> tuple[str, ...]:
    """Starts spread over the time, each at a random hour of its part, none within the search of another."""
    start, end = np.datetime64(first, "h"), np.datetime64(last, "h")
    part_h = int((end - start) / np.timedelta64(1, "h")) // count
    if part_h < HOURS:
        raise ValueError(f"--windows: {count} windows of {HOURS} h do not fit between {first} and {last}: give fewer")
    hours = np.arange(count) * part_h + np.random.default_rng(seed).integers(0, part_h - HOURS + 1, count)
    return tuple(f"{start + hour.astype('timedelta64[h]')}:00Z" for hour in hours)


def parsed(
    description: str | None, out: str, count: int = 30, **more: dict
) -> tuple[argparse.Namespace, tuple[str, ...]]:
    """Arguments of an experiment on the test's windows, and their starts; `more`: names and options of its own."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, options in more.items():
        parser.add_argument(f"--{name}", **options)
    parser.add_argument("--windows", type=int, default=count)
    parser.add_argument("--out", type=Path, default=RESULTS / out)
    arguments = parser.parse_args()
    try:
        return arguments, windows_of_the_test(arguments.windows)
    except ValueError as error:
        parser.error(str(error))


def windows_of_the_test(count: int) -> tuple[str, ...]:
    if count < 2:
        raise ValueError(f"--windows {count}: an interval needs two or more")
    return windows("2021-07-01T12", "2022-12-20T00", count, 0)


def problem(grid: str, power: Any, starts, policies, *, limits=LIMITS_G, **changes: Any) -> Problem:
    config = SimulateConfig(
        policies=PolicyOptions(policy=tuple(policies), seeds=changes.get("seeds", SEEDS)),
        limits=LimitOptions(hours=HOURS),
        grid=GridOptions(
            trace=GRIDS[grid], forecast=changes.get("forecast", "transformer"), gap_policy="hold", max_gap_h=12
        ),
        benchmark=BenchmarkOptions(benchmark="nas-bench-201"),
        search=SearcherOptions(choice=changes.get("choice", "corrected")),
        power=PowerOptions(power=power),
    )
    return Problem(config, starts, limits, isomorphs=changes.get("isomorphs", True))


def compare_with_bar(progress: Progress, what: str, of: Problem) -> Outcomes:
    bar = progress.add_task(f"{what} (compiling)", total=None)

    def note(done: int, total: int) -> None:
        progress.update(bar, total=total, completed=done, description=what)

    return compare(of, progress=note)


def of_grid(grid: str, power: Any, test: tuple[str, ...], run, rivals: dict | None = None) -> dict:
    """The document of a grid and accounting. `rivals`: an earlier one, of which only `AGAIN` is found anew."""
    names = POLICIES if rivals is None else AGAIN
    main = problem(grid, power, test, names)
    found = run(f"{grid}, {power}", main)
    by_forecast = {
        forecast: run(f"forecast {forecast}", problem(grid, power, test, LEARNED, forecast=forecast))
        for forecast in FORECASTS
        if forecast != "transformer"
    }
    kept = cells_of_rivals(grid, power, test, run, main, found) if rivals is None else rivals["limits"]
    cells = {}
    for i, limit_g in enumerate(LIMITS_G):
        cell = kept[f"{limit_g:.0f}"]
        rows, forecasts = cell["policies"], cell["forecasts"]
        vanilla = ledger_of(found, i, names.index("vanilla"))
        for place, name in enumerate(names):
            saved = savings(ledger_of(found, i, place), vanilla)
            terms = {key: round(float(np.asarray(value, float).mean()), 1) for key, value in saved._asdict().items()}
            rows[name] = {**row(found, i, place), "saved_against_vanilla_g": terms}
        for forecast, each in by_forecast.items():
            forecasts[forecast] = {name: row(each, i, place) for place, name in enumerate(LEARNED)}
        pair(rows)
        cell["more_seeds"] = decide(grid, power, test, run, limit_g, cell)
        reached = np.array(rows["ce-nas"]["window_means"]) / np.array(cell["clairvoyant_at_mean_gain_window_means"])
        cells[f"{limit_g:.0f}"] = {**cell, "ce_nas_share_of_clairvoyant": round(float(reached.mean()), 5)}
    return {"test_starts": test, "limits": cells}


def cells_of_rivals(grid: str, power: Any, test: tuple[str, ...], run, main: Problem, found: Outcomes) -> dict:
    """By limit: LaMOO as published, the best fixed split, the clairvoyant bound."""
    training = windows("2021-01-16T00", "2021-06-20T00", max(len(test) // 2, 2), 1)
    before = run("fixed splits before July 2021", problem(grid, power, training, FIXED[1:], forecast="none"))
    best_fixed = before.hypervolume_share[..., -1].mean(axis=(2, 3)).argmax(axis=1) + 1
    published = {
        f"{name} LaMOO as published": run(
            f"{name} as published", problem(grid, power, test, (name,), forecast="none", choice=choice, isomorphs=False)
        )
        for name, choice in PUBLISHED.items()
    }
    bound = bounds(main, found)
    return {
        f"{limit_g:.0f}": {
            "policies": {name: row(each, i, 0) for name, each in published.items()},
            "best_fixed_before": f"fixed-{best_fixed[i]}",
            "clairvoyant_at_mean_gain": round(float(bound[i].mean()), 5),
            "clairvoyant_at_mean_gain_window_means": [round(float(value), 6) for value in bound[i]],
            "forecasts": {},
        }
        for i, limit_g in enumerate(LIMITS_G)
    }


def decide(grid: str, power: Any, test: tuple[str, ...], run, limit_g: float, cell: dict) -> dict[str, dict]:
    """Rows with more seeds: of the best fixed split, of what CE-NAS is not clearly ahead of, and of CE-NAS."""
    close = [name for name in RIVALS if not clearly_behind(cell["policies"][name]["ce_nas_less_this"])]
    names = (*dict.fromkeys([cell["best_fixed_before"], *close]), *LEARNED)
    of = problem(grid, power, test, names, limits=(limit_g,), seeds=DECIDING_SEEDS)
    found = run(f"{limit_g:.0f} g, {len(names)} policies with {DECIDING_SEEDS} seeds", of)
    return pair({name: row(found, 0, place) for place, name in enumerate(names)})


def pair(rows: dict[str, dict]) -> dict[str, dict]:
    """The rows, each with what CE-NAS is ahead of it."""
    means = {name: np.array(each["window_means"])[:, None] for name, each in rows.items()}
    for name, each in rows.items():
        each["ce_nas_less_this"] = paired(means["ce-nas"], means[name])
    return rows


def clearly_behind(ce_nas_less_this: dict) -> bool:
    return ce_nas_less_this["mean"] > 0 and ce_nas_less_this["p"] < CLEAR


def reachable_share(of: Problem) -> float:
    """The most that a search can reach which evaluates one architecture of every class of isomorphs."""
    _, benchmark = problem_inputs(of)
    table, representatives = benchmark.table, np.unique(benchmark.space.isomorph)
    best = hypervolume_host(table.objectives[representatives], table.reference_point)
    return round(best / float(table.max_hypervolume), 5)


def ledger_of(found: Outcomes, limit: int, policy: int) -> Ledger:
    return jax.tree.map(lambda part: part[limit, policy], found.ledger)


def row(found: Outcomes, limit: int, policy: int) -> dict:
    share = found.hypervolume_share[limit, policy, ..., -1].astype(float)
    emissions_g = found.ledger.emissions_g[limit, policy].astype(float)
    return {
        "hypervolume_share": [round(value, 5) for value in mean_with_interval(share.mean(axis=-1))],
        "window_means": [round(float(value), 7) for value in share.mean(axis=-1)],
        "five_numbers": [round(float(value), 5) for value in np.quantile(share, (0, 0.25, 0.5, 0.75, 1))],
        "evaluations": round(float(found.evaluations[limit, policy].mean()), 1),
        "energy_kwh": round(float(found.ledger.energy_kwh[limit, policy].sum(axis=-1).mean()), 2),
        "emissions_g": {activity: round(float(emissions_g[..., i].mean()), 1) for i, activity in enumerate(ACTIVITIES)},
    }


def paired(share: np.ndarray, other: np.ndarray) -> dict:
    """Over windows, seeds averaged."""
    difference = (share - other).mean(axis=-1).astype(float)
    pvalue: Any = ttest_rel(share.mean(axis=-1), other.mean(axis=-1))[1] if difference.any() else 1.0
    return {
        "mean": round(float(difference.mean()), 6),
        "interval": [round(value, 6) for value in mean_with_interval(difference)[1:]],
        "p": float(f"{pvalue:.2g}"),
    }


def bounds(main: Problem, found: Outcomes) -> np.ndarray:
    """`[limits, windows]`: the clairvoyant allocation at the mean gain curve of all searches that screen."""
    inputs, benchmark = problem_inputs(main)
    power = inputs[0].power.params()
    curve = gain_curve(found)
    mean_h = float(benchmark.table.train_time_s.mean()) / 3600
    first = 0 if inputs[0].power.charge_initial_design else main.config.cluster.initial_design

    def bound(limit_g, each):
        answer = clairvoyant_bound(
            jnp.asarray(each.trace.intensity_g_per_kwh, jnp.float32),
            SLOTS,
            jnp.float32(power.evaluation_w * power.pue),
            jnp.float32(limit_g),
            jnp.float32(mean_h),
            jnp.asarray(curve[first:], jnp.float32),
        )
        return float(answer.hypervolume)

    return np.array([[bound(limit_g, each) for each in inputs] for limit_g in main.limits_g])


def gain_curve(found: Outcomes) -> np.ndarray:
    """Mean hypervolume share by evaluations, of the ends of all searches of policies that screen; never falling."""
    screens = [i for i, name in enumerate(POLICIES) if name not in ("vanilla", "one-shot", "fixed-0")]
    counts = found.evaluations[:, screens].ravel()
    share = found.hypervolume_share[:, screens, ..., -1].ravel()
    order = np.argsort(counts, kind="stable")
    bins = np.array_split(order, max(len(order) // 60, 2))
    x = np.array([counts[part].mean() for part in bins])
    y = np.maximum.accumulate([share[part].mean() for part in bins])
    return np.interp(np.arange(SLOTS * HOURS * 2), np.concatenate([[0], x]), np.concatenate([[0], y]))


def main() -> None:
    arguments, test = parsed(
        __doc__,
        "table5_carbon_limits.json",
        grids=dict(nargs="+", choices=GRIDS, default=list(GRIDS)),
        powers=dict(nargs="+", choices=("paper", "measured"), default=["paper", "measured"]),
        again=dict(action="store_true", help="only CE-NAS and its plans anew, beside the rivals that --out holds"),
    )
    keep_compiled_programs()
    console = Console()
    reachable = reachable_share(problem("DE", "paper", test[:1], ("vanilla",), forecast="none"))
    sizes = {
        "windows": arguments.windows,
        "seeds": SEEDS,
        "deciding_seeds": DECIDING_SEEDS,
        "hours": HOURS,
        "slots": SLOTS,
        "reachable_share": reachable,
    }
    kept = read_kept(arguments.out, sizes)["grids"]
    cells = list(product(arguments.powers, arguments.grids))
    missing = [f"{grid} {power}" for power, grid in cells if not holds_windows(kept.get(grid, {}).get(power))]
    if arguments.again and missing:
        raise SystemExit(f"--again: {arguments.out} has no window means of {', '.join(missing)}: leave it out")
    for power, grid in cells:
        rivals = kept[grid][power] if arguments.again else None
        with Progress(console=console) as progress:
            found = of_grid(grid, power, test, partial(compare_with_bar, progress), rivals)
        show(console, grid, power, found)
        console.print(f"reachable with one of each class of isomorphs: {reachable}")
        keep(arguments.out, sizes, grid, power, found)


def read_kept(path: Path, sizes: dict) -> dict[str, Any]:
    """What earlier runs found; exits where they were of other sizes."""
    if not path.exists():
        return {**sizes, "grids": {}}
    document = json.loads(path.read_text(encoding="utf-8"))
    if {name: document.get(name) for name in sizes} != sizes:
        raise SystemExit(f"{path} holds results of other sizes than {sizes}: give another --out")
    return document


def holds_windows(found: dict | None) -> bool:
    """Whether a new policy can be paired with it: documents of before window means were kept have none."""
    return found is not None and all("window_means" in cell["policies"]["ce-nas"] for cell in found["limits"].values())


def keep(path: Path, sizes: dict, grid: str, power: str, found: dict) -> None:
    """Writes what is done, beside what earlier runs did for other grids and kinds of accounting; all of it."""
    document = read_kept(path, sizes)
    document["grids"].setdefault(grid, {})[power] = found
    text = json.dumps(document, indent=1)
    on_one_line = re.sub(r"\[[^][{}]+\]", lambda numbers: " ".join(numbers.group().split()), text)
    path.write_text(on_one_line + "\n", encoding="utf-8")


def show(console: Console, grid: str, power: str, found: dict) -> None:
    table = Table("policy", *(f"{float(limit) / 1000:g} kg" for limit in found["limits"]), title=f"{grid}, {power}")
    cells = found["limits"].values()
    for name in next(iter(cells))["policies"]:
        line = []
        for cell in cells:
            each = cell["policies"][name]
            mark = "*" if name == cell["best_fixed_before"] else ""
            line.append(f"{each['hypervolume_share'][0]:.4f}{mark} p {each['ce_nas_less_this']['p']:.1g}")
        table.add_row(name, *line)
    for name in dict.fromkeys(name for cell in cells for name in cell["more_seeds"]):
        line = []
        for cell in cells:
            each, mark = cell["more_seeds"].get(name), "*" if name == cell["best_fixed_before"] else ""
            share = each and f"{each['hypervolume_share'][0]:.5f}{mark} p {each['ce_nas_less_this']['p']:.1g}"
            line.append(share or "")
        table.add_row(f"{name}, {DECIDING_SEEDS} seeds", *line)
    table.add_row("clairvoyant, mean gain", *(f"{cell['clairvoyant_at_mean_gain']:.4f}" for cell in cells))
    console.print(table)
    ahead = Table("forecast", *(f"{float(limit) / 1000:g} kg" for limit in found["limits"]), title="ce-nas by forecast")
    for name in FORECASTS:
        rows = [(cell["forecasts"].get(name) or cell["policies"])["ce-nas"] for cell in cells]
        ahead.add_row(name, *(f"{row['hypervolume_share'][0]:.4f}, {emitted_kg(row):.1f} kg" for row in rows))
    console.print(ahead)


def emitted_kg(row: dict) -> float:
    return sum(row["emissions_g"].values()) / 1000


if __name__ == "__main__":
    main()
