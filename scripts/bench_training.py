"""Training and screening of networks in JAX against PyTorch (channels-last), side by side on the same cores.

    pip install -e ".[baselines]" && python scripts/bench_training.py --json experiments/results/bench_training.json

NAS-Bench-201, batches of 64, at two scales: digits (8x8) with 8 channels and one cell a stage, and random images of
CIFAR's size with the benchmark's own 16 channels and five cells. A step of the JAX side draws its batch and its path,
standardises bytes, clips and updates as a training does; the PyTorch side (baselines/torch_supernet.py) has its images
ready as floats, runs only the path's operations and updates all weights together (foreach). Medians of five by turns
after a warm-up; compilation apart, cold and from the persistent cache, with what tracing takes. Needs an otherwise idle
machine; 9 to 27 minutes on 2 cores. Where both see a GPU they use it, and compute in bfloat16. Expected on a processor,
times PyTorch's images per second: digits 2.4 to 2.8 (supernet), 2.0 to 2.2 (screening), 2.3 to 5.1 (candidates);
CIFAR's size 0.5, 0.7 to 0.9, 0.5 to 0.8. Processors differ: a slower one compiled for three times as long.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
from baselines.torch_supernet import TorchSupernet, make_steps, screen
from jax.experimental.compilation_cache import compilation_cache
from measuring import CORES, machine, medians_s
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
GPU = jax.default_backend() == "gpu" and torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"


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
        return TrainingConfig(steps=100 * chunk, chunk_steps=chunk, learning_rate=0.05, bfloat16=GPU)

    return {
        "digits": Scale(NasBench201Config(channels=8, cells=1), steps(100), 100, digits.train, digits.validation),
        "CIFAR's size": Scale(NasBench201Config(channels=16, cells=5), steps(5), 8, noise(640), noise(256)),
    }


def first_s(call) -> float:
    """Seconds of a call with nothing compiled in memory."""
    jax.clear_caches()
    begin = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - begin


def measured_row(what: str, images: int, jax_call, torch_call, repeats: int) -> dict[str, Any]:
    """`images` pass in a call of either."""
    with tempfile.TemporaryDirectory() as cache:
        jax.config.update("jax_compilation_cache_dir", cache)
        compilation_cache.reset_cache()
        cold = first_s(jax_call)
        ours, torchs = medians_s((jax_call, torch_call), repeats)
        again = first_s(jax_call)
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()
    return {
        "what": what,
        "images_per_s": images / ours,
        "torch_images_per_s": images / torchs,
        "ratio": torchs / ours,
        "compile_s": cold - ours,
        "from_cache_s": again - ours,
    }


def jax_training(network, draw_path, choice, data, config: TrainingConfig):
    program = classifier(network, config, draw_path)
    kept = [program.init(KEY, data)]

    def chunk():
        kept[0], info = program.train_chunk(kept[0], KEY, data, choice)
        return info

    return chunk


def torch_training(model, paths, images, labels, config: TrainingConfig):
    steps = make_steps(model, images, labels, config.batch, config.learning_rate, config.bfloat16)
    return lambda: steps(paths)


def in_torch(images: ImageSet):
    pixels = torch.tensor(np.asarray(images.images, np.float32).transpose(0, 3, 1, 2) / 255)
    labels = torch.tensor(images.labels, dtype=torch.long)
    return pixels.contiguous(memory_format=torch.channels_last).to(DEVICE), labels.to(DEVICE)


def measured(scale: Scale, repeats: int) -> list[dict[str, Any]]:
    size, config, space = scale.size, scale.config, nas_bench_201()
    data = to_device(scale.train)
    held_out = to_device(scale.held_out, data)
    shared, allowed = nas_bench_201_supernet(size), every_choice(space.num_choices)
    images, labels = in_torch(scale.train)

    def model(codes=None):
        built = TorchSupernet(size.channels, size.cells, size.num_classes, images.shape[1], codes)
        return built.to(DEVICE, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    codes = space.sample(KEY, max(config.chunk_steps, scale.paths))
    paths = [tuple(map(int, row)) for row in codes]
    whole, batches = model(), config.chunk_steps * config.batch
    ours = jax_training(shared, uniform_path, allowed, data, config)
    theirs = torch_training(whole, paths[: config.chunk_steps], images, labels, config)
    rows = [measured_row("supernet, a new path each step", batches, ours, theirs, repeats)]

    net = supernet(shared, config)
    variables, screened, some = net.init(KEY, data).variables, codes[: scale.paths], in_torch(scale.held_out)
    rows.append(
        measured_row(
            f"screening {len(screened)} paths",
            len(screened) * len(scale.held_out.labels),
            lambda: net.screen(variables, screened, held_out),
            lambda: screen(whole, *some, paths[: scale.paths], config.bfloat16),
            repeats,
        )
    )

    for name, cell in CELLS.items():
        theirs = torch_training(model(cell), [cell] * config.chunk_steps, images, labels, config)
        alone, path = nas_bench_201_candidate(size, cell), jnp.asarray(cell, jnp.int32)
        for way, ours in (
            ("a program of its own", jax_training(alone, no_path, (), data, config)),
            ("in the supernet's program", jax_training(shared, given_path, path, data, config)),
        ):
            rows.append(measured_row(f"candidate, {name} cell, {way}", batches, ours, theirs, repeats))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="Training and screening in JAX and in PyTorch.")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="file to write")
    arguments = parser.parse_args()
    torch.set_num_threads(CORES)
    torch.manual_seed(0)
    console = Console(width=120)
    if not GPU:
        console.print("JAX and PyTorch do not both see a GPU: measured on the processor, in float32.")
    document: dict[str, Any] = {"machine": machine("torch") | {"device": DEVICE}, "repeats": arguments.repeats}
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    for name, scale in scales().items():
        document[name] = measured(scale, arguments.repeats)
        console.print(table(name, document[name]))
    if arguments.json:
        arguments.json.write_text(json.dumps(rounded(document), indent=1) + "\n", encoding="utf-8")


def table(name: str, rows: list[dict[str, Any]]) -> Table:
    found = Table("what", "images/s", "PyTorch", "ratio", "compilation, s", "from the cache, s", title=name)
    for row in rows:
        rates = (f"{row[key]:,.0f}" for key in ("images_per_s", "torch_images_per_s"))
        seconds = (f"{row[key]:.1f}" for key in ("compile_s", "from_cache_s"))
        found.add_row(row["what"], *rates, f"{row['ratio']:.2f}", *seconds)
    return found


def rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: rounded(part) for key, part in value.items()}
    if isinstance(value, list):
        return [rounded(part) for part in value]
    return round(value, 2) if isinstance(value, float) else value


if __name__ == "__main__":
    main()
