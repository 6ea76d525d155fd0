"""Architectures from LaMOO's region against random ones, on HW-NAS-Bench: hypervolume, accuracy and energy.

    CENAS_DATA=/path/to/data python experiments/fig_region_quality.py

Expected time: some minutes on 2 cores. Expected figure: draws from the region have a higher mean accuracy (after 300
evaluations 90.2 against 88.9 %) and a lower mean energy (21.7 against 24.8 mJ) than draws from the whole space; the
hypervolume of 50 draws is not higher (after 100 evaluations it is lower, p 0.02), as the best of the region were
evaluated already.

For 64 seeds, LaMOO searches by random choice in its region; after 50 to 300 evaluations, 50 architectures are drawn
from the region and 50 from the whole space, none of them evaluated before. Writes results/fig_region_quality.json
(means, 95 % Student t intervals over seeds, and the paired p-value) and .png.
"""

import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from scipy.stats import ttest_rel

from cenas_jax.benchmarks import nas_bench_201_benchmark
from cenas_jax.cluster.tabular import tabular_search
from cenas_jax.pareto import hypervolume
from cenas_jax.report.tables import mean_with_interval
from cenas_jax.search import LamooConfig, lamoo_search, random_search

RESULTS = Path(__file__).parent / "results"
SEEDS, DRAWS, BATCH = 64, 50, 5
EVALUATIONS = (50, 100, 200, 300)
FIGURES = ("hypervolume share of 50 draws", "mean accuracy, %", "mean energy, mJ")


def main() -> None:
    benchmark = nas_bench_201_benchmark(Path(os.environ["CENAS_DATA"]))
    space, table = benchmark.space, benchmark.table
    lamoo = lamoo_search(space, table.reference_point, LamooConfig(capacity=max(EVALUATIONS), choice="random"))
    anywhere = random_search(space)
    nothing = jnp.zeros((0, len(space.num_choices)), jnp.int32), jnp.zeros(0, bool)

    def measure(codes, valid):
        objectives = table.objectives[space.index(codes)]
        mean = jnp.where(valid[:, None], objectives, 0).sum(axis=0) / valid.sum()
        volume = hypervolume(objectives, valid, table.reference_point) / table.max_hypervolume
        return jnp.stack([volume, mean[0], -mean[1]])

    def compare(key, evaluations):
        key_search, key_region, key_space = jax.random.split(key, 3)
        rounds = (evaluations - 10) // BATCH
        _, state = tabular_search(key_search, lamoo, space, table, batch=BATCH, rounds=rounds)
        state = lamoo.fit(state)
        evaluated = anywhere.init(key_space)._replace(evaluated=state.evaluated)
        return jnp.stack(
            [
                measure(*lamoo.ask(key_region, state, DRAWS, *nothing)),
                measure(*anywhere.ask(key_space, evaluated, DRAWS, *nothing)),
            ]
        )

    keys = jax.random.split(jax.random.key(0), SEEDS)
    document = {"source": benchmark.source, "seeds": SEEDS, "seed": 0, "draws": DRAWS, "after_evaluations": {}}
    measured = []
    for evaluations in EVALUATIONS:
        values = np.asarray(jax.jit(jax.vmap(lambda key, n=evaluations: compare(key, n)))(keys), float)
        measured.append(values)
        document["after_evaluations"][evaluations] = {
            name: {
                "region": [round(x, 5) for x in mean_with_interval(values[:, 0, place])],
                "whole space": [round(x, 5) for x in mean_with_interval(values[:, 1, place])],
                "paired_p": float(ttest_rel(values[:, 0, place], values[:, 1, place]).pvalue),
            }
            for place, name in enumerate(FIGURES)
        }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "fig_region_quality.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    draw(np.stack(measured)).savefig(RESULTS / "fig_region_quality.png", dpi=110)


def draw(values: np.ndarray) -> Figure:
    """`values[after, seed, region or space, figure]`: means with 95 % intervals."""
    figure = Figure(figsize=(11, 3.8), layout="constrained")
    for place, (axes, name) in enumerate(zip(figure.subplots(1, len(FIGURES)), FIGURES, strict=True)):
        for source, (label, colour) in enumerate((("LaMOO's region", "#0072B2"), ("whole space", "#D55E00"))):
            estimates = [mean_with_interval(row[:, source, place]) for row in values]
            mean = np.array([estimate.mean for estimate in estimates])
            half = np.array([estimate.high - estimate.mean for estimate in estimates])
            axes.errorbar(EVALUATIONS, mean, half, marker="o", capsize=3, color=colour, label=label)
        axes.set_xlabel("evaluations before the draw")
        axes.set_ylabel(name)
        axes.grid(alpha=0.3)
    figure.axes[0].legend(frameon=False)
    figure.suptitle(f"Draws on HW-NAS-Bench: mean over {values.shape[1]} seeds and its 95 % interval")
    return figure


if __name__ == "__main__":
    main()
