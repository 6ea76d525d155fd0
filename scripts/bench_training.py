"""Training and screening of networks in JAX against PyTorch (channels-last), side by side on the same cores.

    pip install -e ".[baselines]" && python scripts/bench_training.py --json experiments/results/bench_training.json

NAS-Bench-201, batches of 64, at two scales: digits (8x8) with 8 channels and one cell a stage, and random images of
CIFAR's size with the benchmark's own 16 channels and five cells. A step of the JAX side draws its batch and its path,
standardises bytes, clips and updates as a training does; the PyTorch side (baselines/torch_supernet.py) has its images
ready as floats, runs only the path's operations and updates all weights together (foreach). Medians of five after a
warm-up; compilation apart. Needs an otherwise idle machine; 6 minutes on 2 cores. Expected, times PyTorch's images
per second: digits 1.8 (supernet), 1.7 (screening), 2.1 to 3.5 (candidates); CIFAR's size 0.39, 0.88, 0.58 to 0.88.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
from baselines.torch_supernet import TorchSupernet, make_steps, screen
from measuring import CORES, machine, median_s
from rich.console import Console
from rich.table import Table

from cenas_jax.nets import NasBench201Config, nas_bench_201_candidate, nas_bench_201_supernet
from cenas_jax.spaces.nas_bench_201 import nas_bench_201
from cenas_jax.training import (
    TrainingConfig,
    classifier,
    every_choice,
    given_path,
    load_images,
    no_path,
    supernet,
    to_device,
    uniform_path,
)
from cenas_jax.training.images import ImageSet, image_set

CELLS = {
    "typical": (1, 2, 0, 3, 4, 2),
    "all 1x1": (2, 2, 2, 2, 2, 2),
    "good": (3, 3, 3, 1, 3, 3),
}
KEY = jax.random.key(0)


class Scale(NamedTuple):
    size: NasBench201Config
    config: TrainingConfig
    paths: int
    """To be screened."""
    train: ImageSet
    held_out: ImageSet


def scales() -> dict[str, Scale]:
    digits, random = load_images("digits"), np.random.default_rng(0)

    def noise(count: int) -> ImageSet:
        return image_set(random.integers(0, 256, (count, 32, 32, 3), np.uint8), random.integers(0, 10, count), 10)

    def steps(chunk: int) -> TrainingConfig:
        return TrainingConfig(steps=100 * chunk, chunk_steps=chunk, learning_rate=0.05)

    return {
        "digits": Scale(NasBench201Config(channels=8, cells=1), steps(100), 100, digits.train, digits.validation),
        "CIFAR's size": Scale(NasBench201Config(channels=16, cells=5), steps(5), 8, noise(640), noise(256)),
    }


def first_and_median_s(call, repeats: int) -> tuple[float, float]:
    begin = time.perf_counter()
    jax.block_until_ready(call())
    first = time.perf_counter() - begin
    return first, median_s(call, repeats)


def jax_training(network, draw_path, choice, data, config: TrainingConfig, repeats: int) -> dict[str, float]:
    program = classifier(network, config, draw_path)
    kept = [program.init(KEY, data)]

    def chunk():
        kept[0], info = program.train_chunk(kept[0], KEY, data, choice)
        return info

    first, seconds = first_and_median_s(chunk, repeats)
    return {"images_per_s": config.chunk_steps * config.batch / seconds, "compile_s": first - seconds}


def torch_training(model, paths, images, labels, config: TrainingConfig, repeats: int) -> float:
    steps = make_steps(model, images, labels, config.batch, config.learning_rate)
    return config.chunk_steps * config.batch / median_s(lambda: steps(paths), repeats)


def in_torch(images: ImageSet):
    pixels = torch.tensor(np.asarray(images.images, np.float32).transpose(0, 3, 1, 2) / 255)
    return pixels.contiguous(memory_format=torch.channels_last), torch.tensor(images.labels, dtype=torch.long)


def measured(scale: Scale, repeats: int) -> list[dict[str, Any]]:
    size, config, space = scale.size, scale.config, nas_bench_201()
    data = to_device(scale.train)
    held_out = to_device(scale.held_out, data)
    shared, allowed = nas_bench_201_supernet(size), every_choice(space.num_choices)
    images, labels = in_torch(scale.train)

    def model(codes=None):
        built = TorchSupernet(size.channels, size.cells, size.num_classes, images.shape[1], codes)
        return built.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    codes = space.sample(KEY, max(config.chunk_steps, scale.paths))
    paths = [tuple(map(int, row)) for row in codes]
    whole = model()
    row = jax_training(shared, uniform_path, allowed, data, config, repeats)
    rows: list[dict[str, Any]] = [{"what": "supernet, a new path each step"} | row]
    rows[-1]["torch_images_per_s"] = torch_training(whole, paths[: config.chunk_steps], images, labels, config, repeats)

    net = supernet(shared, config)
    variables, screened = net.init(KEY, data).variables, codes[: scale.paths]
    first, seconds = first_and_median_s(lambda: net.screen(variables, screened, held_out), repeats)
    count = len(screened) * len(scale.held_out.labels)
    rows.append({"what": f"screening {len(screened)} paths", "images_per_s": count / seconds})
    rows[-1]["compile_s"] = first - seconds
    some = in_torch(scale.held_out)
    rows[-1]["torch_images_per_s"] = count / median_s(lambda: screen(whole, *some, paths[: scale.paths]), repeats)

    for name, cell in CELLS.items():
        torch_rate = torch_training(model(cell), [cell] * config.chunk_steps, images, labels, config, repeats)
        alone, path = nas_bench_201_candidate(size, cell), jnp.asarray(cell, jnp.int32)
        for way, rates in (
            ("a program of its own", jax_training(alone, no_path, (), data, config, repeats)),
            ("in the supernet's program", jax_training(shared, given_path, path, data, config, repeats)),
        ):
            what = {"what": f"candidate, {name} cell, {way}"}
            rows.append(what | rates | {"torch_images_per_s": torch_rate})
    for row in rows:
        row["ratio"] = row["images_per_s"] / row["torch_images_per_s"]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="Training and screening in JAX and in PyTorch.")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="file to write")
    arguments = parser.parse_args()
    torch.set_num_threads(CORES)
    torch.manual_seed(0)
    document: dict[str, Any] = {"machine": machine("torch"), "repeats": arguments.repeats}
    for name, scale in scales().items():
        rows = measured(scale, arguments.repeats)
        table = Table("what", "images/s", "PyTorch", "ratio", "compilation, s", title=name)
        for row in rows:
            rates = (f"{row[key]:,.0f}" for key in ("images_per_s", "torch_images_per_s"))
            table.add_row(row["what"], *rates, f"{row['ratio']:.2f}", f"{row['compile_s']:.1f}")
        Console(width=120).print(table)
        document[name] = [{key: round(x, 2) if isinstance(x, float) else x for key, x in row.items()} for row in rows]
    if arguments.json:
        arguments.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
