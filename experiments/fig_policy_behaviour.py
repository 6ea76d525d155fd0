"""What the learned policy does: its decisions by intensity and remaining budget, and hour by hour on the real trace.

    CENAS_DATA=/path/to/data python experiments/fig_policy_behaviour.py

Expected time: about 4 minutes on 2 idle cores, most of it compilation. Expected figure: the heuristic has spent the
limit after 12 hours; the greedy plan and CE-NAS, which hardly leaves it, screen at once and evaluate in the clean hours
of every day with one slot, so that later evaluations learn from earlier ones.

US-CAL-CISO from the paper's start hour, 80 h, 8 slots, 10 kg, preset `paper`, NAS-Bench-201 with HW-NAS-Bench, 8 seeds;
forecasts by the shipped transformer, fitted on hours before July 2021. Writes results/fig_policy_behaviour.json (mean
evaluation slots of every hour), fig_policy_behaviour.png and fig_policy_decisions.png.
"""

import json
import os
from pathlib import Path

from cenas_jax.cli.common import keep_compiled_programs
from cenas_jax.config import (
    BenchmarkOptions,
    GridOptions,
    LimitOptions,
    PolicyOptions,
    PowerOptions,
    SearcherOptions,
    SimulateConfig,
    settled,
)

RESULTS = Path(__file__).parent / "results"
CONFIG = SimulateConfig(
    policies=PolicyOptions(policy=("heuristic", "forecast-greedy", "ce-nas"), seeds=8),
    limits=LimitOptions(hours=80, carbon_limit_g=10_000.0),
    grid=GridOptions(trace="us-cal-ciso", forecast="transformer"),
    benchmark=BenchmarkOptions(benchmark="nas-bench-201"),
    search=SearcherOptions(choice="corrected"),
    power=PowerOptions(power="paper"),
)


def main() -> None:
    keep_compiled_programs()  # before what starts jax
    from cenas_jax.report.figures import slots_figure
    from cenas_jax.report.policies import decisions_figure
    from cenas_jax.report.tables import summary
    from cenas_jax.runs.inputs import load_inputs
    from cenas_jax.runs.policies import decisions
    from cenas_jax.runs.simulation import compile_simulation, load_benchmark, prepare, refuse_overflow
    from cenas_jax.training.saved_policy import load_named

    inputs = load_inputs(settled(CONFIG, os.environ))
    run = compile_simulation(prepare(inputs, load_benchmark(inputs.config)))()
    refuse_overflow(run)
    slots = run.result.history.evaluation_slots.mean(axis=1)
    document = {
        "source": f"{run.benchmark.source}; {inputs.trace.source}, from {inputs.trace.start} UTC",
        "seeds": CONFIG.policies.seeds,
        "carbon_limit_g": CONFIG.limits.carbon_limit_g,
        "intensity_g_per_kwh": [round(float(value), 1) for value in inputs.trace.intensity_g_per_kwh],
        "policies": {
            name: {
                "hypervolume_share": [round(value, 5) for value in figures["hypervolume_share"]],
                "evaluations": round(figures["evaluations"].mean, 1),
                "evaluation_slots_by_hour": [round(float(value), 2) for value in slots[place]],
            }
            for place, (name, figures) in enumerate(summary(run).items())
        },
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "fig_policy_behaviour.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    slots_figure(run).savefig(RESULTS / "fig_policy_behaviour.png", dpi=110)
    decisions_figure(decisions(load_named("ce-nas"), 8), 8, "ce-nas").savefig(
        RESULTS / "fig_policy_decisions.png", dpi=110
    )


if __name__ == "__main__":
    main()
