"""Search progress on HW-NAS-Bench: every policy so far, 80 h, 8 slots, 32 seeds, on the paper's trace and start hour.

    CENAS_DATA=/path/to/data python experiments/fig_search_progress.py

Expected time: some minutes on 2 cores. The figure: hypervolume against hours and against gCO2 for vanilla LaMOO (8
evaluation slots), fixed splits, heuristic, threshold and one-shot; nothing here is tuned on this window. Its result is
not committed yet, so no figure is expected yet.

Writes results/fig_search_progress.json (means and 95 % Student t intervals over seeds; every sixth hour) and .png.
"""

import json
import os
from pathlib import Path

import numpy as np

from cenas_jax.config import BenchmarkOptions, LimitOptions, PolicyOptions, PowerOptions, SimulateConfig, settled
from cenas_jax.report.figures import progress_figure
from cenas_jax.report.tables import mean_with_interval, summary
from cenas_jax.runs.inputs import load_inputs
from cenas_jax.runs.simulation import compile_simulation, load_benchmark, prepare, refuse_overflow

RESULTS = Path(__file__).parent / "results"
POLICIES = ("vanilla", "fixed-1", "fixed-2", "fixed-4", "fixed-6", "heuristic", "threshold", "one-shot")


def main() -> None:
    document = {"seeds": 32, "seed": 0, "hours": 80, "slots": 8, "policies": {}}
    for power in ("paper", "measured"):
        config = SimulateConfig(
            policies=PolicyOptions(policy=POLICIES, seeds=32),
            limits=LimitOptions(hours=80),
            benchmark=BenchmarkOptions(benchmark="nas-bench-201"),
            power=PowerOptions(power=power),
        )
        inputs = load_inputs(settled(config, os.environ))
        run = compile_simulation(prepare(inputs, load_benchmark(inputs.config)))()
        refuse_overflow(run)
        history = run.result.history
        document["source"] = f"{run.benchmark.source}; {inputs.trace.source}, from {inputs.trace.start} UTC"
        emitted_g = history.charge.emissions_g.sum(axis=-1, dtype=np.float64).cumsum(axis=-1)
        for place, (name, figures) in enumerate(summary(run).items()):
            document["policies"].setdefault(name, {})[power] = {
                "final": {key: [round(value, 5) for value in estimate] for key, estimate in figures.items()},
                "hypervolume_share_by_hour": {
                    hour: [
                        round(x, 5)
                        for x in mean_with_interval(np.asarray(history.hypervolume_share[place, :, hour], float))
                    ]
                    for hour in range(5, 80, 6)
                },
                "emissions_g_by_hour": {
                    hour: round(float(emitted_g[place, :, hour].mean()), 1) for hour in range(5, 80, 6)
                },
            }
        progress_figure(run).savefig(RESULTS / f"fig_search_progress_{power}.png", dpi=110)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "fig_search_progress.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
