"""How well a supernet ranks architectures: one-shot, fair, few-shot, and trained on a region's paths alone.

    python experiments/supernet_ranking.py --images digits                              # 14 minutes on one core
    CENAS_DATA=/path/to/data python experiments/supernet_ranking.py --images cifar10-16    # 90 minutes on one core

`digits` are 150 images to train on, so that architectures differ (79 to 93 %), and 1,647 to judge by; `cifar10-16` is
CIFAR-10's JPEGs as means of 2 x 2 pixels (needs Pillow), 10,000 to train on and 4,000 of the test images. Expected
figure: on digits tau 0.48 one-shot and few-shot (0.42 one-shot trained as long); in the region 0.30, and 0.48 where the
region's paths were trained on; on CIFAR-10 0.41 one-shot, 0.50 few-shot and 0.53 one-shot trained as long (the
committed results are of one seed of two: they are written after each).

64 architectures of NAS-Bench-201 (different classes of isomorphs, 8 channels, three cells a stage) and, on digits, some
of the region that LaMOO finds from their accuracy and multiply-adds are trained by themselves: their mean accuracy on
the images held out from training is the truth. Supernets are trained on the same images and rank them by screening,
normalised by the statistics of the screened images. Few-shot splits the first edge (0>1) and gives every part a fifth
of the steps again; one-shot is also trained on for as many steps, so that both have had the same. Kendall's tau with
the 95 % interval of a bootstrap over architectures, the seeds' taus averaged; differences are of the same resamples.
The number of cells, images and steps was found on other architectures and seeds: with one cell a stage, or all digits
to train on, architectures hardly differ and nothing ranks them. Writes
results/supernet_ranking_{digits,cifar10-16}.json and .png.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from candidates_on_images import halved, trained
from jaxtyping import Array
from matplotlib.figure import Figure
from scipy.stats import kendalltau

from cenas_jax.nets import NasBench201Config, nas_bench_201_supernet
from cenas_jax.search import LamooConfig, lamoo_search
from cenas_jax.search.base import Candidates
from cenas_jax.spaces.nas_bench_201 import nas_bench_201
from cenas_jax.spaces.nas_bench_201_cells import macs
from cenas_jax.training import (
    ImageSet,
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
    uniform_path,
)

RESULTS = Path(__file__).parent / "results"
CHANNELS, CELLS = 8, 3
ARCHITECTURES, EDGE, CHUNK = 64, 0, 200


class Effort(NamedTuple):
    train_images: int
    steps: int
    """Of an architecture trained by itself."""
    truth_seeds: int
    seeds: int
    """Of supernets."""
    shared_steps: int
    """Of a supernet."""
    learning_rate: float
    """Of a supernet; half of it where a training goes on."""
    region: int
    """Architectures; 0: neither the region nor fair paths are looked at."""


EFFORTS = {
    "digits": Effort(150, 300, 2, 3, 2_000, 0.05, 32),
    "cifar10-16": Effort(10_000, 500, 1, 2, 10_000, 0.1, 0),
}
RESAMPLES = 1000


def load(name: str, count: int) -> tuple[ImageSet, ImageSet]:
    """So many images to train on, and others to judge by."""
    split = load_images("digits" if name == "digits" else "cifar10-jpeg")

    def first(part: ImageSet, count: int) -> ImageSet:
        if len(part.labels) < count:
            raise SystemExit(f"{part.name}: {len(part.labels)} images, {count} are asked for")
        return part._replace(images=part.images[:count], labels=part.labels[:count])

    if name == "digits":
        images = np.concatenate([part.images for part in split])
        labels = np.concatenate([part.labels for part in split])
        others = split.test._replace(images=images[count:], labels=labels[count:])
        return first(split.train, count), others
    return halved(first(split.train, count)), halved(first(split.test, 4000))


def main() -> None:
    parser = argparse.ArgumentParser(description="How well supernets rank architectures.")
    parser.add_argument("--images", choices=tuple(EFFORTS), default="digits")
    name = parser.parse_args().images
    effort, begin = EFFORTS[name], time.perf_counter()

    def say(what: str) -> None:
        print(f"{time.perf_counter() - begin:.0f} s: {what}", flush=True)

    train_images, others = load(name, effort.train_images)
    data = to_device(train_images)
    held_out = to_device(others, data)
    config_alone = TrainingConfig(steps=effort.steps, chunk_steps=effort.steps // 2, learning_rate=0.05)
    space = nas_bench_201()
    # Supernets without scale and shift after normalisation, as published; the architectures have them.
    alone = classifier(nas_bench_201_supernet(NasBench201Config(CHANNELS, CELLS)), config_alone, given_path)
    shared = nas_bench_201_supernet(NasBench201Config(CHANNELS, CELLS, affine=False))

    def truth(codes):
        rows = []
        for row in codes:
            ends = [trained(jax.random.key(s), alone, config_alone, data, row) for s in range(effort.truth_seeds)]
            rows.append(np.mean([float(alone.accuracy(end.variables, held_out, row)) for end in ends]))
        return np.array(rows)

    representatives = np.random.default_rng(1).permutation(np.unique(space.isomorph))
    codes = space.codes(jnp.asarray(representatives[:ARCHITECTURES]))
    accuracy = truth(codes)
    say(f"architectures by themselves {accuracy.min():.3f} .. {accuracy.max():.3f}")

    allowed = every_choice(space.num_choices)
    kinds: dict[str, tuple] = {"one-shot": (uniform_path, allowed)}
    inside = None
    if effort.region:
        chosen, paths = region(space, codes, accuracy, others.images.shape[1], effort.region)
        kinds |= {"fair": (fair_path, allowed), "region": (listed_path, paths)}
        inside = chosen, truth(chosen)
        say("the region's by themselves")

    def config(steps: int, learning_rate: float) -> TrainingConfig:
        return TrainingConfig(steps=steps, chunk_steps=CHUNK, learning_rate=learning_rate)

    whole = config(effort.shared_steps, effort.learning_rate)
    longer = config(effort.shared_steps, effort.learning_rate / 2)
    split = config(effort.shared_steps // 5, effort.learning_rate / 2)
    nets = {kind: supernet(shared, whole, draw_path) for kind, (draw_path, _) in kinds.items()}
    net_longer, net_part = supernet(shared, longer), supernet(shared, split)
    losses, found, found_inside = [], {}, {}
    for seed in range(effort.seeds):
        key, key_on = jax.random.key(300 + seed), jax.random.key(400 + seed)
        for kind, net in nets.items():
            chunks: list[Array] = []
            end = trained(
                key, net, whole, data, kinds[kind][1], progress=lambda _, info, to=chunks: to.append(info.loss.mean())
            )
            found.setdefault(kind, []).append(net.screen(end.variables, codes, held_out))
            if inside:
                found_inside.setdefault(kind, []).append(net.screen(end.variables, inside[0], held_out))
            if kind != "one-shot":
                continue
            losses.append((float(chunks[0]), float(chunks[-1])))
            on = trained(key_on, net_longer, longer, data, allowed, start=net_longer.restart(end.variables))
            found.setdefault("one-shot, as many steps", []).append(net_longer.screen(on.variables, codes, held_out))
            parts = [
                part._replace(state=trained(key_on, net_part, split, data, part.allowed, start=part.state).state)
                for part in split_supernet(net_part, end.variables, allowed, EDGE)
            ]
            found.setdefault("few-shot", []).append(screen_parts(net_part, parts, codes, held_out))
        document = summary(accuracy, found, inside and inside[1], found_inside, losses)
        write(name, document, draw(accuracy, found, document))
        say(f"{seed + 1} of {effort.seeds} seeds: {document['tau']}")


def region(space, codes, accuracy: np.ndarray, size: int, count: int) -> tuple:
    """Architectures in the region of what was evaluated, and the paths that a search would train on."""
    cost = macs(np.asarray(codes), CHANNELS, CELLS, 10, size) / 1e6
    objectives = jnp.asarray(np.stack([100 * accuracy, -cost], axis=1), jnp.float32)
    searcher = lamoo_search(space, jnp.array([0.0, -float(cost.max()) - 1]), LamooConfig(capacity=128))
    nothing = jnp.zeros((0, 6), jnp.int32), jnp.zeros(0, bool)

    @jax.jit
    def drawn(objectives):
        unscreened = Candidates(codes, jnp.full_like(objectives, jnp.nan), jnp.ones(ARCHITECTURES, bool))
        told, _ = searcher.tell(searcher.init(jax.random.key(0)), unscreened, objectives)
        told = searcher.fit(told)
        return [searcher.ask(jax.random.key(1 + number), told, n, *nothing) for number, n in enumerate((count, 512))]

    (chosen, valid), paths = drawn(objectives)
    return chosen[np.asarray(valid)], paths


def summary(accuracy: np.ndarray, found: dict, accuracy_inside, found_inside: dict, losses: list) -> dict:
    def spread(values: np.ndarray) -> dict:
        return {
            "architectures": len(values),
            "lowest": min(values),
            "median": np.median(values),
            "highest": max(values),
        }

    everywhere = {name: taus(accuracy, values) for name, values in found.items()}
    few, one, longer = (everywhere[name] for name in ("few-shot", "one-shot", "one-shot, as many steps"))
    document = {
        "truth": spread(accuracy),
        "supernet_seeds": len(losses),
        "supernet_loss": dict(zip(("first chunk", "last chunk"), np.mean(losses, axis=0), strict=True)),
        "tau": {name: interval(values) for name, values in everywhere.items()},
        "few-shot less one-shot": interval(few - one),
        "few-shot less one-shot, as many steps": interval(few - longer),
    }
    if accuracy_inside is not None:
        inside = {name: taus(accuracy_inside, values) for name, values in found_inside.items()}
        document |= {
            "truth_region": spread(accuracy_inside),
            "tau_in_region": {name: interval(values) for name, values in inside.items()},
            "region paths less uniform, in the region": interval(inside["region"] - inside["one-shot"]),
        }
    return jax.tree.map(lambda value: round(float(value), 4), document)


def write(name: str, document: dict, figure: Figure) -> None:
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps(document, indent=1)
    (RESULTS / f"supernet_ranking_{name}.json").write_text(text + "\n", encoding="utf-8")
    figure.suptitle(f"{name}, NAS-Bench-201 with {CHANNELS} channels and {CELLS} cells a stage: 95 % intervals")
    figure.savefig(RESULTS / f"supernet_ranking_{name}.png", dpi=110)


def taus(truth: np.ndarray, estimates: list) -> np.ndarray:
    """The mean of the seeds' taus: of all architectures, then of every resample of them."""
    draws = np.random.default_rng(0).integers(0, len(truth), (RESAMPLES, len(truth)))
    rows = [np.arange(len(truth)), *draws]
    values = np.asarray(estimates)
    if not np.isfinite(values).all():
        raise SystemExit("a supernet's logits are not finite")

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
    bars = document["tau"] | {f"{name}, in region": tau for name, tau in document.get("tau_in_region", {}).items()}
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
