"""Carbon to reach the hypervolume of vanilla LaMOO: how much less CE-NAS needs than 8 slots that evaluate for 80 h.

    CENAS_DATA=/path/to/data python experiments/table_carbon_to_reach.py

Expected time: 20 minutes on one core. Expected figures: against vanilla LaMOO as published CE-NAS needs 30.7 times less
carbon (95 %: 22.6 to 38.9; reached in 30 of 30 windows), the plain greedy plan 31.4 times, the best of four fixed
splits, `fixed-1`, 22.1; against vanilla LaMOO that knows isomorphs 14.8 times (12.5 to 17.2; 29 of 30), 15.2 and 11.0.
Splits above 4 were not run. The policy and the plan (of `diminishing` .3, a power then) are those shipped before.
Writes results/table_carbon_to_reach.json.

The windows, the benchmark and the seeds are those of CISO in table5_carbon_limits.py, with its preset `paper`. Vanilla
LaMOO evaluates without a carbon limit on all 8 slots for 80 h, as published (it knows no isomorphs), and with
isomorphs known. In each window the others run under every limit of a ladder; a policy's carbon to reach the target is
what it emitted (mean of the seeds) under the lowest limit at which its mean hypervolume is at least vanilla's mean in
that window. The rungs are a factor of 1.41 apart, so that the carbon is rounded up. A window where no rung suffices
counts as a factor of 0. The factor is vanilla's emissions over the policy's.
"""

import json
from functools import partial

import jax
import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from table5_carbon_limits import FIXED, SEEDS, compare_with_bar, parsed, problem

from cenas_jax.carbon.savings import savings
from cenas_jax.cli.common import keep_compiled_programs
from cenas_jax.report.tables import mean_with_interval
from cenas_jax.runs.comparison import Outcomes

LADDER_G = tuple(round(1000 * 2 ** (step / 2), 1) for step in range(2, 11))
POLICIES = (*FIXED[1:5], "forecast-greedy", "ce-nas")
TARGETS = {"as published": False, "isomorphs known": True}
"""Vanilla LaMOO, by whether it knows of isomorphs."""


def factors(vanilla: Outcomes, found: Outcomes, policy: int) -> dict:
    """Of one policy, over windows."""
    target = vanilla.hypervolume_share[0, 0, ..., -1].mean(axis=-1)
    target_g = vanilla.emitted_g[0, 0, ..., -1].mean(axis=-1)
    share = found.hypervolume_share[:, policy, ..., -1].mean(axis=-1)
    emitted_g = found.emitted_g[:, policy, ..., -1].mean(axis=-1)
    enough = share >= target
    rung, reached, window = enough.argmax(axis=0), enough.any(axis=0), np.arange(len(target))
    needed_g = np.where(reached, emitted_g[rung, window], np.inf)
    factor = target_g / needed_g
    split = savings(
        jax.tree.map(lambda part: part[rung, policy, window][reached], found.ledger),
        jax.tree.map(lambda part: part[0, 0, reached], vanilla.ledger),
    )
    return {
        "factor": [round(float(value), 2) for value in mean_with_interval(factor)],
        "median_factor": round(float(np.median(factor)), 2),
        "greatest_factor": round(float(factor.max()), 2),
        "windows_reached": int(reached.sum()),
        "mean_g_where_reached": round(float(needed_g[reached].mean()), 1) if reached.any() else None,
        "saved_g_where_reached": {
            name: round(float(np.mean(np.asarray(part, float))), 1) if reached.any() else None
            for name, part in split._asdict().items()
        },
    }


def main() -> None:
    arguments, starts = parsed(__doc__, "table_carbon_to_reach.json")
    keep_compiled_programs()
    console = Console()
    with Progress(console=console) as progress:
        run = partial(compare_with_bar, progress)
        found = run("under the ladder's limits", problem("CISO", "paper", starts, POLICIES, limits=LADDER_G))
        targets = {
            name: run(
                f"vanilla, {name}",
                problem(
                    "CISO",
                    "paper",
                    starts,
                    ("vanilla",),
                    limits=(None,),
                    forecast="none",
                    choice="random",
                    isomorphs=isomorphs,
                ),
            )
            for name, isomorphs in TARGETS.items()
        }
    document = {"windows": arguments.windows, "seeds": SEEDS, "ladder_g": LADDER_G, "targets": {}}
    for name, vanilla in targets.items():
        document["targets"][name] = {
            "hypervolume_share": round(float(vanilla.hypervolume_share[..., -1].mean()), 5),
            "evaluations": round(float(vanilla.evaluations.mean()), 1),
            "emissions_g": round(float(vanilla.emitted_g[..., -1].mean()), 1),
            "policies": {policy: factors(vanilla, found, place) for place, policy in enumerate(POLICIES)},
        }
    document["share_by_limit"] = {
        policy: [round(float(value), 5) for value in found.hypervolume_share[:, place, ..., -1].mean(axis=(1, 2))]
        for place, policy in enumerate(POLICIES)
    }
    arguments.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    show(console, document)


def show(console: Console, document: dict) -> None:
    for name, target in document["targets"].items():
        title = f"vanilla LaMOO, {name}: {target['hypervolume_share']} after {target['emissions_g'] / 1000:.0f} kg"
        table = Table("policy", "times less carbon, 95 %", "median", "windows reached", title=title)
        for policy, row in target["policies"].items():
            mean, low, high = row["factor"]
            reached = f"{row['windows_reached']} of {document['windows']}"
            table.add_row(policy, f"{mean:.1f} ({low:.1f} to {high:.1f})", f"{row['median_factor']:.1f}", reached)
        console.print(table)


if __name__ == "__main__":
    main()
