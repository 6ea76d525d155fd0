"""Table 6: discrete against continuous actions, and the budgeted reward against the paper's, on windows never seen.

    CENAS_DATA=/path/to/data python experiments/table6_action_space.py

Trains four policies by the defaults of `cenas policy train` (a training that was interrupted goes on, and one that is
there is not repeated), then compares them. It was not run yet: no time or figure is expected yet. Writes
results/table6_action_space.json, and the policies into --folder.

NAS-Bench-201 with HW-NAS-Bench (CIFAR-10 accuracy, edge-GPU energy), 80 h, 8 slots, the choice `corrected`, CISO,
preset `paper`; the windows, limits and seeds of table5_carbon_limits.py. Differences are paired: the mean over seeds of
one window against that of the same window; p is Student's, two-sided, over windows.
"""

import json
import os
from itertools import product
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from table5_carbon_limits import LIMITS_G, RESULTS, SEEDS, compare_with_bar, paired, parsed, problem, row

from cenas_jax.cli.common import keep_compiled_programs
from cenas_jax.config import PolicyTrainOptions, data_folder
from cenas_jax.runs import policies

TRAINED = tuple(f"{action} {reward}" for action, reward in product(("discrete", "continuous"), ("budgeted", "paper")))
POLICIES = (*TRAINED, "forecast-greedy")


def trained(name: str, folder: Path, updates: int, progress: Progress) -> Path:
    """The file of a policy, trained where it is not there."""
    action, reward = name.split()
    out = folder / f"{action}-{reward}.npz"
    if not out.exists():
        bar = progress.add_task(f"training {name}", total=updates)
        options = PolicyTrainOptions(action=action, reward=reward, updates=updates)  # pyright: ignore
        policies.train(
            options,
            data_folder(None, os.environ),
            out,
            checkpoints=folder / f"{action}-{reward}",
            progress=lambda done, _: progress.update(bar, completed=done),
        )
    return out


def main() -> None:
    arguments, starts = parsed(
        __doc__,
        "table6_action_space.json",
        folder=dict(type=Path, default=RESULTS.parent / "policies"),
        updates=dict(type=int, default=PolicyTrainOptions().updates),
    )
    keep_compiled_programs()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    console = Console()
    with Progress(console=console) as progress:
        files = [trained(name, arguments.folder, arguments.updates, progress) for name in TRAINED]
        compared = (*(str(path) for path in files), *POLICIES[len(files) :])
        found = compare_with_bar(progress, "on windows never seen", problem("CISO", "paper", starts, compared))
    share, limits = found.hypervolume_share[..., -1], {}
    for i, limit_g in enumerate(LIMITS_G):
        limits[f"{limit_g:.0f}"] = {
            name: {**row(found, i, place), f"{TRAINED[0]}_less_this": paired(share[i, 0], share[i, place])}
            for place, name in enumerate(POLICIES)
        }
    document = {"windows": arguments.windows, "seeds": SEEDS, "updates": arguments.updates, "limits": limits}
    arguments.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    table = Table("policy", *(f"{limit_g / 1000:g} kg" for limit_g in LIMITS_G), title="CISO, paper")
    for name in POLICIES:
        rows = [limit[name] for limit in limits.values()]
        cells = [f"{row['hypervolume_share'][0]:.5f} p {row[f'{TRAINED[0]}_less_this']['p']:.1g}" for row in rows]
        table.add_row(name, *cells)
    console.print(table)


if __name__ == "__main__":
    main()
