"""Training and screening of networks in JAX against PyTorch (channels-last), side by side on the same cores.

    pip install -e ".[baselines]" && python scripts/bench_training.py --json experiments/results/bench_training.json

Not run to its end on an idle machine yet, so no figure is expected yet.

Digits (8x8), NAS-Bench-201 with 8 channels and one cell a stage, batches of 64. A step of the JAX side draws its batch
and its path, standardises bytes, clips and updates as a training does; the PyTorch side (baselines/torch_supernet.py)
has its images ready as floats, runs only the path's operations and updates all weights together (foreach). Medians of
five after a warm-up; compilation apart. Needs an otherwise idle machine.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

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

SIZE = NasBench201Config(channels=8, cells=1)
CONFIG = TrainingConfig(steps=1000, chunk_steps=100, learning_rate=0.05)
CELLS = {
    "typical": (1, 2, 0, 3, 4, 2),
    "all 1x1": (2, 2, 2, 2, 2, 2),
    "good": (3, 3, 3, 1, 3, 3),
}
SCREENED = 100
KEY = jax.random.key(0)


def first_and_median_s(call, repeats: int) -> tuple[float, float]:
    begin = time.perf_counter()
    jax.block_until_ready(call())
    first = time.perf_counter() - begin
    return first, median_s(call, repeats)


def jax_training(network, draw_path, choice, data, repeats: int) -> dict[str, float]:
    program = classifier(network, CONFIG, draw_path)
    kept = [program.init(KEY, data)]

    def chunk():
        kept[0], info = program.train_chunk(kept[0], KEY, data, choice)
        return info

    first, seconds = first_and_median_s(chunk, repeats)
    return {"images_per_s": CONFIG.chunk_steps * CONFIG.batch / seconds, "compile_s": first - seconds}


def torch_training(model, paths, images, labels, repeats: int) -> float:
    steps = make_steps(model, images, labels, CONFIG.batch, CONFIG.learning_rate)
    return CONFIG.chunk_steps * CONFIG.batch / median_s(lambda: steps(paths), repeats)


def measured(repeats: int) -> list[dict[str, Any]]:
    digits, space = load_images("digits"), nas_bench_201()
    data = to_device(digits.train)
    held_out = to_device(digits.validation, data)
    shared, allowed = nas_bench_201_supernet(SIZE), every_choice(space.num_choices)
    images = torch.tensor(np.asarray(digits.train.images, np.float32).transpose(0, 3, 1, 2) / 255)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.tensor(digits.train.labels, dtype=torch.long)

    def model(codes=None):
        built = TorchSupernet(SIZE.channels, SIZE.cells, SIZE.num_classes, images.shape[1], codes)
        return built.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    codes = space.sample(KEY, CONFIG.chunk_steps)
    paths = [tuple(map(int, row)) for row in codes]
    whole = model()
    row = jax_training(shared, uniform_path, allowed, data, repeats)
    rows: list[dict[str, Any]] = [{"what": "supernet, a new path each step"} | row]
    rows[-1]["torch_images_per_s"] = torch_training(whole, paths, images, labels, repeats)

    net = supernet(shared, CONFIG)
    variables, screened = net.init(KEY, data).variables, codes[:SCREENED]
    first, seconds = first_and_median_s(lambda: net.screen(variables, screened, held_out), repeats)
    count = len(screened) * len(digits.validation.labels)
    rows.append({"what": f"screening {len(screened)} paths", "images_per_s": count / seconds})
    rows[-1]["compile_s"] = first - seconds
    some, theirs = images[: len(digits.validation.labels)], labels[: len(digits.validation.labels)]
    rows[-1]["torch_images_per_s"] = count / median_s(lambda: screen(whole, some, theirs, paths[:SCREENED]), repeats)

    for name, cell in CELLS.items():
        torch_rate = torch_training(model(cell), [cell] * CONFIG.chunk_steps, images, labels, repeats)
        alone, path = nas_bench_201_candidate(SIZE, cell), jnp.asarray(cell, jnp.int32)
        for way, rates in (
            ("a program of its own", jax_training(alone, no_path, (), data, repeats)),
            ("in the supernet's program", jax_training(shared, given_path, path, data, repeats)),
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
    rows = measured(arguments.repeats)
    table = Table("what", "images/s", "PyTorch", "ratio", "compilation, s")
    for row in rows:
        rates = (f"{row[key]:,.0f}" for key in ("images_per_s", "torch_images_per_s"))
        table.add_row(row["what"], *rates, f"{row['ratio']:.2f}", f"{row['compile_s']:.1f}")
    Console(width=120).print(table)
    if arguments.json:
        rows = [
            {key: round(value, 2) if isinstance(value, float) else value for key, value in row.items()} for row in rows
        ]
        document = {"machine": machine("torch"), "repeats": arguments.repeats, "rows": rows}
        arguments.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
