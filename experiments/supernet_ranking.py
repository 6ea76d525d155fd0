"""How well a supernet ranks architectures on digits: one-shot, fair, few-shot, and trained on a region's paths alone.

    python experiments/supernet_ranking.py

Not run yet, so no time and no figure are expected yet.

64 architectures of NAS-Bench-201 (different classes of isomorphs) and 48 of the region that LaMOO finds from their
accuracy and multiply-adds are trained by themselves, 2 seeds each: their mean accuracy on the images held out from
training is the truth. Supernets of 3 seeds are trained on the same images and rank them by screening, normalised by the
statistics of the screened images. Few-shot splits the first edge (0>1) and gives every part a fifth of the steps again;
one-shot is also trained on for as many steps, so that both have had the same. Kendall's tau with the 95 % interval of a
bootstrap over architectures, the seeds' taus averaged; differences are of the same resamples. Writes
results/supernet_ranking.json and .png.
"""

import json
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from scipy.stats import kendalltau

from cenas_jax.nets import NasBench201Config, nas_bench_201_supernet
from cenas_jax.search import LamooConfig, lamoo_search
from cenas_jax.search.base import Candidates
from cenas_jax.spaces.nas_bench_201 import nas_bench_201
from cenas_jax.spaces.nas_bench_201_cells import macs
from cenas_jax.training import (
    TrainingConfig,
    classifier,
    every_choice,
    fair_path,
    given_path,
    listed_path,
    load_images,
    screen_parts,
    split_supernet,
    supernet,
    to_device,
    train,
)

RESULTS = Path(__file__).parent / "results"
CHANNELS, CELLS = 8, 1
ARCHITECTURES, REGION, SEEDS, TRUTH_SEEDS, EDGE = 64, 48, 3, 2, 0
ALONE = TrainingConfig(steps=400, chunk_steps=400, learning_rate=0.05)
SHARED = TrainingConfig(steps=3000, chunk_steps=250, learning_rate=0.05)
PART = TrainingConfig(steps=600, chunk_steps=200, learning_rate=0.025)
LONGER = TrainingConfig(steps=3000, chunk_steps=250, learning_rate=0.025)
RESAMPLES = 1000


def main() -> None:
    begin = time.perf_counter()
    digits = load_images("digits")
    data = to_device(digits.train)
    images, labels = (np.concatenate([part[place] for part in digits[1:]]) for place in (1, 2))
    held_out = to_device(digits.test._replace(images=images, labels=labels), data)
    space = nas_bench_201()
    # Supernets without scale and shift after normalisation, as published; the architectures have them.
    alone = classifier(nas_bench_201_supernet(NasBench201Config(CHANNELS, CELLS)), ALONE, given_path)
    shared = nas_bench_201_supernet(NasBench201Config(CHANNELS, CELLS, affine=False))

    def truth(codes):
        rows = []
        for row in codes:
            ends = [train(jax.random.key(seed), alone, ALONE, data, row) for seed in range(TRUTH_SEEDS)]
            rows.append(np.mean([float(alone.accuracy(end.variables, held_out, row)) for end in ends]))
        return np.array(rows)

    representatives = np.random.default_rng(0).permutation(np.unique(space.isomorph))
    codes = space.codes(jnp.asarray(representatives[:ARCHITECTURES]))
    accuracy = truth(codes)
    print(f"truth after {time.perf_counter() - begin:.0f} s: {accuracy.min():.3f} .. {accuracy.max():.3f}", flush=True)

    # The region of what was evaluated, and the paths that a search would train on.
    cost = macs(np.asarray(codes), CHANNELS, CELLS, 10, 8) / 1e6
    objectives = jnp.asarray(np.stack([100 * accuracy, -cost], axis=1), jnp.float32)
    searcher = lamoo_search(space, jnp.array([0.0, -float(cost.max()) - 1]), LamooConfig(capacity=128))
    nothing = jnp.zeros((0, 6), jnp.int32), jnp.zeros(0, bool)

    @jax.jit
    def drawn(objectives):
        unscreened = Candidates(codes, jnp.full_like(objectives, jnp.nan), jnp.ones(ARCHITECTURES, bool))
        told, _ = searcher.tell(searcher.init(jax.random.key(0)), unscreened, objectives)
        told = searcher.fit(told)
        return [searcher.ask(jax.random.key(1 + number), told, n, *nothing) for number, n in enumerate((REGION, 512))]

    (region, valid), paths = drawn(objectives)
    region = region[np.asarray(valid)]
    region_accuracy = truth(region)
    print(f"the region's truth after {time.perf_counter() - begin:.0f} s", flush=True)

    nets = {
        "one-shot": (supernet(shared, SHARED), SHARED),
        "fair": (supernet(shared, SHARED, fair_path), SHARED),
        "region": (supernet(shared, SHARED, listed_path), SHARED),
        "longer": (supernet(shared, LONGER), LONGER),
        "part": (supernet(shared, PART), PART),
    }
    allowed = every_choice(space.num_choices)
    losses: list[float] = []
    found, found_region = {}, {}
    for seed in range(SEEDS):
        key, key_on = jax.random.key(100 + seed), jax.random.key(200 + seed)
        for name, choice in (("one-shot", allowed), ("fair", allowed), ("region", paths)):
            net, config = nets[name]
            mine: list[float] = []
            end = train(
                key, net, config, data, choice, progress=lambda step, info, of=mine: of.append(float(info.loss.mean()))
            )
            losses += mine if name == "one-shot" else []
            found.setdefault(name, []).append(net.screen(end.variables, codes, held_out))
            found_region.setdefault(name, []).append(net.screen(end.variables, region, held_out))
            if name != "one-shot":
                continue
            net, config = nets["longer"]
            on = train(key_on, net, config, data, allowed, start=net.restart(end.variables))
            found.setdefault("one-shot, as many steps", []).append(net.screen(on.variables, codes, held_out))
            net, config = nets["part"]
            parts = [
                part._replace(state=train(key_on, net, config, data, part.allowed, start=part.state).state)
                for part in split_supernet(net, end.variables, allowed, EDGE)
            ]
            found.setdefault("few-shot", []).append(screen_parts(net, parts, codes, held_out))
        print(f"seed {seed} after {time.perf_counter() - begin:.0f} s", flush=True)

    everywhere = {name: taus(accuracy, values) for name, values in found.items()}
    inside = {name: taus(region_accuracy, values) for name, values in found_region.items()}
    loss_of_chunks = np.reshape(losses, (SEEDS, -1))
    document = {
        "architectures": ARCHITECTURES,
        "region": len(region),
        "truth": {"lowest": accuracy.min(), "median": np.median(accuracy), "highest": accuracy.max()},
        "truth_region": {
            "lowest": region_accuracy.min(),
            "median": np.median(region_accuracy),
            "highest": region_accuracy.max(),
        },
        "tau": {name: interval(values) for name, values in everywhere.items()},
        "few-shot less one-shot": interval(everywhere["few-shot"] - everywhere["one-shot"]),
        "few-shot less one-shot, as many steps": interval(
            everywhere["few-shot"] - everywhere["one-shot, as many steps"]
        ),
        "tau_in_region": {name: interval(values) for name, values in inside.items()},
        "region paths less uniform, in the region": interval(inside["region"] - inside["one-shot"]),
        "supernet_loss": {"first chunk": loss_of_chunks[:, 0].mean(), "last chunk": loss_of_chunks[:, -1].mean()},
    }
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps(jax.tree.map(lambda value: round(float(value), 4), document), indent=1)
    (RESULTS / "supernet_ranking.json").write_text(text + "\n", encoding="utf-8")
    print(text)
    draw(accuracy, found, document).savefig(RESULTS / "supernet_ranking.png", dpi=110)


def taus(truth: np.ndarray, estimates: list) -> np.ndarray:
    """The mean of the seeds' taus: of all architectures, then of every resample of them."""
    draws = np.random.default_rng(0).integers(0, len(truth), (RESAMPLES, len(truth)))
    rows = [np.arange(len(truth)), *draws]
    values = np.asarray(estimates)

    def tau(row: np.ndarray) -> float:
        found: list[Any] = [kendalltau(seed[row], truth[row])[0] for seed in values]
        return float(np.mean(found))

    return np.array([tau(row) for row in rows])


def interval(values: np.ndarray) -> list[float]:
    """`[value, low, high]` of a statistic of all, followed by those of its resamples."""
    return [values[0], *np.quantile(values[1:], (0.025, 0.975))]


def draw(accuracy: np.ndarray, found: dict, document: dict) -> Figure:
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    axes = figure.subplots(1, 3)
    for place, (axis, name) in enumerate(zip(axes[:2], ("one-shot", "few-shot"), strict=True)):
        axis.scatter(100 * np.mean(found[name], axis=0), 100 * accuracy, s=12, color=("#0072B2", "#009E73")[place])
        axis.set(xlabel=f"screened by the {name} supernet, %", ylabel="trained by itself, %")
    bars = document["tau"] | {f"{name}, in region": value for name, value in document["tau_in_region"].items()}
    values = np.array(list(bars.values()))
    places = np.arange(len(bars))
    error = np.abs(values[:, 1:] - values[:, :1]).T
    axes[2].barh(places, values[:, 0], xerr=error, color="#999999")
    axes[2].set_yticks(places, list(bars))
    axes[2].invert_yaxis()
    axes[2].set_xlabel("Kendall's tau")
    for axis in axes:
        axis.grid(alpha=0.3)
    figure.suptitle("Digits, NAS-Bench-201 with 8 channels and one cell a stage: 95 % intervals")
    return figure


if __name__ == "__main__":
    main()
