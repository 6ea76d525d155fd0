"""How well a supernet ranks architectures: one-shot, fair, few-shot, and trained on a region's paths alone.

    python experiments/supernet_ranking.py --images digits                              # 16 minutes on one core
    CENAS_DATA=/path/to/data python experiments/supernet_ranking.py --images cifar10-16    # 25 minutes on one core

`cifar10-16` is the data folder's subset of CIFAR-10 (3,000 images to train on), means of 2 x 2 pixels. Expected figure:
on digits all architectures reach 97 to 99 %, and nothing ranks them (tau -0.1 to 0.04; 0.2 to 0.3 in the region, whose
architectures differ more); on `cifar10-16` 39 to 47 %, tau 0.12 one-shot and 0.21 few-shot (0.23 one-shot trained as
long): less than the 0.3 that would be of use. Training on a region's paths does not rank it better.

64 architectures of NAS-Bench-201 (different classes of isomorphs) and some of the region that LaMOO finds from their
accuracy and multiply-adds are trained by themselves: their mean accuracy on the images held out from training is the
truth. Supernets are trained on the same images and rank them by screening, normalised by the statistics of the screened
images. Few-shot splits the first edge (0>1) and gives every part a fifth of the steps again; one-shot is also trained
on for as many steps, so that both have had the same. Kendall's tau with the 95 % interval of a bootstrap over
architectures, the seeds' taus averaged; differences are of the same resamples. Writes
results/supernet_ranking_{digits,cifar10-16}.json and .png.
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

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
    ImageSet,
    ImageSplit,
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
ARCHITECTURES, EDGE = 64, 0


class Effort(NamedTuple):
    steps: int
    """Of an architecture trained by itself."""
    truth_seeds: int
    seeds: int
    """Of supernets."""
    region: int
    """Architectures."""


EFFORTS = {"digits": Effort(400, 2, 3, 48), "cifar10-16": Effort(300, 1, 2, 32)}
SHARED = TrainingConfig(steps=3000, chunk_steps=250, learning_rate=0.05)
PART = TrainingConfig(steps=600, chunk_steps=200, learning_rate=0.025)
LONGER = TrainingConfig(steps=3000, chunk_steps=250, learning_rate=0.025)
RESAMPLES = 1000


def load(name: str) -> ImageSplit:
    if name == "digits":
        return load_images("digits")
    split = load_images(Path(os.environ["CENAS_DATA"]) / "images" / "cifar10_subset.npz", validation=0.01)

    def halved(part: ImageSet) -> ImageSet:
        n, height, width, channels = part.images.shape
        means = part.images.reshape(n, height // 2, 2, width // 2, 2, channels).mean(axis=(2, 4))
        return part._replace(images=means.round().astype(np.uint8))

    return ImageSplit(*map(halved, split))


def main() -> None:
    parser = argparse.ArgumentParser(description="How well supernets rank architectures.")
    parser.add_argument("--images", choices=tuple(EFFORTS), default="digits")
    name = parser.parse_args().images
    effort, begin = EFFORTS[name], time.perf_counter()
    split = load(name)
    data = to_device(split.train)
    images, labels = (np.concatenate([part[place] for part in split[1:]]) for place in (1, 2))
    held_out = to_device(split.test._replace(images=images, labels=labels), data)
    size = images.shape[1]
    config_alone = TrainingConfig(steps=effort.steps, chunk_steps=effort.steps // 2, learning_rate=0.05)
    space = nas_bench_201()
    # Supernets without scale and shift after normalisation, as published; the architectures have them.
    alone = classifier(nas_bench_201_supernet(NasBench201Config(CHANNELS, CELLS)), config_alone, given_path)
    shared = nas_bench_201_supernet(NasBench201Config(CHANNELS, CELLS, affine=False))

    def truth(codes):
        rows = []
        for row in codes:
            ends = [train(jax.random.key(s), alone, config_alone, data, row) for s in range(effort.truth_seeds)]
            rows.append(np.mean([float(alone.accuracy(end.variables, held_out, row)) for end in ends]))
        return np.array(rows)

    representatives = np.random.default_rng(0).permutation(np.unique(space.isomorph))
    codes = space.codes(jnp.asarray(representatives[:ARCHITECTURES]))
    accuracy = truth(codes)
    print(f"truth after {time.perf_counter() - begin:.0f} s: {accuracy.min():.3f} .. {accuracy.max():.3f}", flush=True)

    # The region of what was evaluated, and the paths that a search would train on.
    cost = macs(np.asarray(codes), CHANNELS, CELLS, 10, size) / 1e6
    objectives = jnp.asarray(np.stack([100 * accuracy, -cost], axis=1), jnp.float32)
    searcher = lamoo_search(space, jnp.array([0.0, -float(cost.max()) - 1]), LamooConfig(capacity=128))
    nothing = jnp.zeros((0, 6), jnp.int32), jnp.zeros(0, bool)

    @jax.jit
    def drawn(objectives):
        unscreened = Candidates(codes, jnp.full_like(objectives, jnp.nan), jnp.ones(ARCHITECTURES, bool))
        told, _ = searcher.tell(searcher.init(jax.random.key(0)), unscreened, objectives)
        told = searcher.fit(told)
        return [
            searcher.ask(jax.random.key(1 + number), told, n, *nothing) for number, n in enumerate((effort.region, 512))
        ]

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
    for seed in range(effort.seeds):
        key, key_on = jax.random.key(100 + seed), jax.random.key(200 + seed)
        for kind, choice in (("one-shot", allowed), ("fair", allowed), ("region", paths)):
            net, config = nets[kind]
            mine: list[float] = []
            end = train(
                key, net, config, data, choice, progress=lambda step, info, of=mine: of.append(float(info.loss.mean()))
            )
            losses += mine if kind == "one-shot" else []
            found.setdefault(kind, []).append(net.screen(end.variables, codes, held_out))
            found_region.setdefault(kind, []).append(net.screen(end.variables, region, held_out))
            if kind != "one-shot":
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
    loss_of_chunks = np.reshape(losses, (effort.seeds, -1))
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
    (RESULTS / f"supernet_ranking_{name}.json").write_text(text + "\n", encoding="utf-8")
    print(text)
    figure = draw(accuracy, found, document)
    figure.suptitle(f"{name}, NAS-Bench-201 with {CHANNELS} channels and one cell a stage: 95 % intervals")
    figure.savefig(RESULTS / f"supernet_ranking_{name}.png", dpi=110)


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
    return figure


if __name__ == "__main__":
    main()
