"""A classifier's chunks: they learn, do not depend on where they are cut, keep averages, stop at what is not finite."""

import dataclasses
import itertools
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from cell_networks import filled
from compiling import jit_convolutions
from linear_network import linear_network

from cenas_jax.nets import (
    DartsNetworkConfig,
    MobileConfig,
    NasBench101Config,
    NasBench201Config,
    darts_supernet,
    mobile_supernet,
    nas_bench_101_supernet,
    nas_bench_201_candidate,
    nas_bench_201_supernet,
    nasnet_supernet,
)
from cenas_jax.spaces.darts import darts
from cenas_jax.spaces.mobile import Stage, mobile
from cenas_jax.spaces.nas_bench_101 import nas_bench_101
from cenas_jax.spaces.nas_bench_201 import nas_bench_201
from cenas_jax.spaces.nasnet import NasNetConfig, nasnet
from cenas_jax.training.classifier import TrainingConfig, classifier
from cenas_jax.training.images import AugmentationConfig, image_set, to_device
from cenas_jax.training.loop import train
from cenas_jax.training.paths import given_path

CONFIG = TrainingConfig(steps=12, chunk_steps=4, batch=8, learning_rate=0.05, warm_up_steps=2)
KEY = jax.random.key(0)


def synthetic(count: int = 30, size: int = 4):
    """Three classes that differ by their brightness, noise about it."""
    labels = np.arange(count) % 3
    draw = np.random.default_rng(0)
    images = draw.integers(0, 60, (count, size, size, 1)) + 80 * labels[:, None, None, None]
    return to_device(image_set(images.astype(np.uint8), labels))


DATA = synthetic()
PLAIN = classifier(linear_network(), CONFIG)


def equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"optimiser": "adamw", "learning_rate": 0.02},
        {"bfloat16": True},
        {"average": 0.5, "label_smoothing": 0.1},
        {"augmentation": AugmentationConfig(crop_margin=1, flip=True, cutout=1, mixup=0.2)},
    ],
    ids=str,
)
def test_it_learns_with_every_option_and_keeps_float32(change):
    config = dataclasses.replace(CONFIG, steps=200, chunk_steps=100, **change)
    program = classifier(linear_network(), config)
    trained = train(KEY, program, config, DATA)
    assert trained.failure is None and int(trained.state.step) == 200
    assert float(program.accuracy(trained.variables, DATA)) > 0.9
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(trained.state.variables))
    assert program.train_chunk._cache_size() == 1


def test_every_optimiser_of_optax_will_do():
    program = classifier(linear_network(), CONFIG, optimiser=optax.lion(1e-2))
    trained = train(KEY, program, CONFIG, DATA)
    assert program.accuracy(trained.variables, DATA) > program.accuracy(program.init(KEY, DATA).variables, DATA)


def test_steps_do_not_depend_on_where_chunks_are_cut():
    ends = []
    for chunk_steps in (2, 4, 12):
        config = dataclasses.replace(CONFIG, chunk_steps=chunk_steps, augmentation=AugmentationConfig(crop_margin=1))
        ends.append(train(KEY, classifier(linear_network(), config), config, DATA).state)
    for other in ends[1:]:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7), ends[0], other)


def test_every_pass_sees_every_image_once():
    """30 images in batches of 8: counted by a network that keeps the sum of what it saw."""
    config = dataclasses.replace(CONFIG, steps=15, chunk_steps=5, batch=8)
    data = DATA._replace(
        images=jnp.arange(30, dtype=jnp.uint8).reshape(30, 1, 1, 1), mean=jnp.zeros(1), deviation=jnp.ones(1) / 255
    )
    seen = []

    def apply(variables, images, mode):
        jax.debug.callback(lambda values: seen.extend(np.asarray(values).ravel().round().astype(int)), images)
        return linear_network().apply(variables, images, mode)

    trained = train(KEY, classifier(linear_network()._replace(apply=apply), config), config, data)
    jax.effects_barrier()
    assert int(trained.state.step) == 15 and len(seen) == 120
    for start in range(0, 120, 30):
        assert sorted(seen[start : start + 30]) == list(range(30))


def test_the_running_average_is_that_of_the_weights():
    config = dataclasses.replace(CONFIG, chunk_steps=1, average=0.7)
    program = classifier(linear_network(), config)
    state, expected = program.init(KEY, DATA), None
    for _ in range(5):
        before = state.variables["params"]["head"]["kernel"] if expected is None else expected
        before = np.array(before)
        state, _ = program.train_chunk(state, KEY, DATA)
        expected = 0.7 * before + 0.3 * np.asarray(state.variables["params"]["head"]["kernel"])
    np.testing.assert_allclose(state.average["params"]["head"]["kernel"], expected, rtol=1e-5)


def test_what_is_not_finite_stops_a_training_with_a_reason():
    whole = train(KEY, PLAIN, CONFIG, DATA, pause=lambda step: step == 4).state
    kept = jax.tree.map(np.array, whole)
    spoilt = DATA._replace(mean=jnp.full(1, jnp.nan))
    trained = train(KEY, PLAIN, CONFIG, spoilt, start=whole)
    assert trained.failure == "step 4: the loss, its gradient or the new weights are not finite"
    equal(trained.state, kept._replace(failed=np.array(True)))
    state, info = PLAIN.train_chunk(trained.state, KEY, DATA)  # and nothing brings it back
    equal(state, kept._replace(failed=np.array(True)))
    assert info.failed.all()
    assert np.isnan(PLAIN.accuracy(state.variables, spoilt))


def test_a_number_of_classes_that_does_not_fit_is_refused():
    fewer = classifier(linear_network(classes=2), CONFIG)
    with pytest.raises(ValueError, match="labels reach 2, but the network has 2 classes: give it 3"):
        train(KEY, fewer, CONFIG, DATA)
    _, info = fewer.train_chunk(fewer.init(KEY, DATA), KEY, DATA)
    assert info.failed[-1]


@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_that_is_no_class_is_told_everywhere(label):
    data = DATA._replace(labels=DATA.labels.at[0].set(label))
    with pytest.raises(ValueError, match="label"):
        train(KEY, PLAIN, CONFIG, data)
    state = PLAIN.init(KEY, DATA)
    assert np.isnan(PLAIN.accuracy(state.variables, data))
    assert PLAIN.train_chunk(state, KEY, data._replace(labels=jnp.full_like(data.labels, label)))[1].failed[-1]


@pytest.mark.parametrize("optimiser", [optax.scale(jnp.nan), optax.chain(optax.scale(1e30), optax.scale(1e30))])
def test_new_weights_that_are_not_finite_fail_and_are_not_kept(optimiser):
    trained = train(KEY, classifier(linear_network(), CONFIG, optimiser=optimiser), CONFIG, DATA)
    assert trained.failure == "step 0: the loss, its gradient or the new weights are not finite"
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(trained.variables))


def test_a_stream_that_ends_early_is_told():
    with pytest.raises(ValueError, match="the stream of images has no chunk 1"):
        train(KEY, PLAIN, CONFIG, lambda chunk: iter([DATA]))


@pytest.mark.parametrize(
    "setting", [{"learning_rate": math.nan}, {"clip_norm": 0.0}, {"average": 1.0}, {"weight_decay": -1.0}]
)
def test_settings_that_train_nothing_are_refused(setting):
    with pytest.raises(ValueError, match=f"TrainingConfig: {next(iter(setting))} must be"):
        TrainingConfig(**setting)


def test_what_cannot_fit_fails_before_its_first_step():
    steps = []
    trained = train(KEY, PLAIN, CONFIG, DATA, progress=lambda step, info: steps.append(step), memory_bytes=1e3)
    assert trained.failure is not None and not steps and trained.state is None
    assert re.fullmatch(r"cpu: a chunk of steps needs [\d.e-]+ GiB of memory, there are 9.31e-07", trained.failure)
    assert train(KEY, PLAIN, CONFIG, DATA, memory_bytes=1e6).failure is None


@pytest.mark.parametrize("network", ["linear", "nas-bench-201"])
def test_devices_that_share_the_batches_train_as_one_does(network):
    devices = jax.devices()[:8]
    config = dataclasses.replace(CONFIG, chunk_steps=1, augmentation=AugmentationConfig(flip=True, mixup=0.3))
    net = linear_network() if network == "linear" else nas_bench_201_candidate(SMALL, (3, 0, 3, 2, 1, 4))
    data = synthetic(size=8)
    alone, together = classifier(net, config), classifier(net, config, devices=devices)
    state = alone.init(KEY, data)
    for _ in range(3):  # each step from the same weights
        copy = jax.tree.map(np.array, state)
        (state, info), (other, infos) = (
            program.train_chunk(one, KEY, data) for program, one in ((alone, state), (together, copy))
        )
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), (state, info), (other, infos))
    assert len(other.variables["params"]["head"]["kernel"].devices()) == 8
    with pytest.raises(ValueError, match="a batch of 12 cannot be shared by 8 devices alike"):
        classifier(net, dataclasses.replace(config, batch=12), devices=devices)


def test_configs_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="steps in whole chunks, not 10, 4 and 8"):
        TrainingConfig(steps=10, chunk_steps=4, batch=8)
    with pytest.raises(ValueError, match=r"warm_up_steps must be in \[0, 12\)"):
        dataclasses.replace(CONFIG, warm_up_steps=12)


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_a_resumed_training_ends_with_the_same_bits(tmp_path, average):
    config = dataclasses.replace(CONFIG, average=average, augmentation=AugmentationConfig(crop_margin=1, mixup=0.3))
    program = classifier(linear_network(), config)
    whole = train(KEY, program, config, DATA)
    for pause in (4, 8):
        kept = {"checkpoints": tmp_path / str(pause), "identity": {"network": "linear"}}
        first = train(KEY, program, config, DATA, **kept, pause=lambda step, pause=pause: step == pause)
        assert int(first.state.step) == pause
        steps = []
        resumed = train(KEY, program, config, DATA, **kept, progress=lambda step, info, steps=steps: steps.append(step))
        assert steps[0] == pause + 4
        equal(whole.state, resumed.state)
    with pytest.raises(ValueError, match="checkpoints of another run"):
        train(jax.random.key(1), program, config, DATA, **kept)
    with pytest.raises(ValueError, match="checkpoints need an identity"):
        train(KEY, program, config, DATA, checkpoints=tmp_path / "c")


def test_a_streamed_training_resumes_with_the_chunk_that_is_next(tmp_path):
    program, opened = PLAIN, []

    def stream(chunk: int):
        opened.append(chunk)
        for number in itertools.count(chunk):
            yield DATA._replace(images=jnp.roll(DATA.images, number, axis=1))

    whole = train(KEY, program, CONFIG, stream)
    state = program.init(KEY, DATA)
    for chunk in itertools.islice(stream(0), 3):
        state, _ = program.train_chunk(state, KEY, chunk)
    equal(whole.state, state)
    kept = {"checkpoints": tmp_path, "identity": {"network": "linear"}}
    train(KEY, program, CONFIG, stream, **kept, pause=lambda step: step == 8)
    opened.clear()
    equal(whole.state, train(KEY, program, CONFIG, stream, **kept).state)
    assert opened == [0, 2]  # the first chunk tells whether it is the same stream
    with pytest.raises(ValueError, match="checkpoints of another run"):
        train(KEY, program, CONFIG, lambda chunk: stream(chunk + 1), **kept)


SMALL = NasBench201Config(channels=2, cells=1, num_classes=3)


def in_a_new_process(folder: Path, pause: int) -> bytes:
    """Trains a candidate on, to a pause; the bytes of its state."""
    code = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
import jax, numpy as np, test_classifier as here
leaves = jax.tree.leaves(here.candidate_of_checkpoints({str(folder)!r}, {pause}))
sys.stdout.buffer.write(b"".join(np.asarray(leaf).tobytes() for leaf in leaves))
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, env=environment).stdout


def candidate_of_checkpoints(folder: str, pause: int):
    config = dataclasses.replace(CONFIG, average=0.9)
    program = classifier(nas_bench_201_candidate(SMALL, (2, 0, 3, 4, 1, 2)), config)
    kept = {"checkpoints": folder, "identity": {"network": repr(SMALL)}}
    return train(KEY, program, config, synthetic(size=8), **kept, pause=lambda step: step == pause).state


@pytest.mark.slow
def test_a_candidate_paused_in_one_process_and_resumed_in_another_has_the_same_bits(tmp_path):
    whole = in_a_new_process(tmp_path / "whole", 12)
    in_a_new_process(tmp_path / "paused", 4)
    in_a_new_process(tmp_path / "paused", 8)
    assert in_a_new_process(tmp_path / "paused", 12) == whole and len(whole) > 1000


STAGES = (Stage(1, (1, 2), (4, 8)), Stage(2, (1, 2, 3), (6, 8)))
MOBILE = MobileConfig(resolutions=(6, 7, 8), stages=STAGES, stem=4, head=8, num_classes=3)
NAS_BENCH_101 = NasBench101Config(channels=3, modules=1, num_classes=3, image_size=8)
CELLS = NasNetConfig(cells=(5, 8), channels=(2, 4), num_classes=3, image_size=8)
SUPERNETS = {
    "nas-bench-201": (nas_bench_201_supernet(SMALL), nas_bench_201()),
    "nas-bench-101": (nas_bench_101_supernet(NAS_BENCH_101), nas_bench_101(NAS_BENCH_101)),
    "darts": (darts_supernet(DartsNetworkConfig(cells=3, channels=2, num_classes=3)), darts()),
    "nasnet": (nasnet_supernet(CELLS), nasnet(CELLS)),
    "mobile": (mobile_supernet(MOBILE), mobile(MOBILE)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SUPERNETS)
def test_a_thousand_architectures_are_one_compilation(name, monkeypatch):
    monkeypatch.setattr(jax, "jit", jit_convolutions)  # hundreds of branches
    net, space = SUPERNETS[name]
    config = dataclasses.replace(CONFIG, steps=1, chunk_steps=1, warm_up_steps=0)
    by_code, data = classifier(net, config, given_path), synthetic(8, size=8)
    start, changed = filled(jax.eval_shape(by_code.init, KEY, data).variables), []
    for codes in space.sample(jax.random.key(1), 1000):
        state, info = by_code.train_chunk(by_code.restart(start), KEY, data, codes)
        assert np.isfinite(info.loss).all() and not info.failed.any()
        changed.append(np.asarray(by_code.apply(state.variables, data, codes)))
    assert by_code.train_chunk._cache_size() == by_code.apply._cache_size() == by_code.restart._cache_size() == 1
    # Of NAS-Bench-101's graphs many are the same once they are pruned.
    assert np.isfinite(changed).all() and len(np.unique(np.stack(changed)[:, 0, 0])) > 500


@pytest.mark.slow
def test_weights_off_the_path_get_no_gradient():
    """Weight decay aside, a step on convolutions of 1x1 leaves those of 3x3 alone."""
    data = synthetic(8, size=8)
    program = classifier(nas_bench_201_supernet(SMALL), CONFIG, given_path, optax.sgd(0.1))
    before = jax.tree.map(np.array, program.init(KEY, data).variables["params"]["stage_0"])
    codes = jnp.full(6, 2, jnp.int32)
    after = program.train_chunk(program.init(KEY, data), KEY, data, codes)[0].variables["params"]["stage_0"]
    for name, weights in after.items():
        same = np.array_equal(weights["kernel"], before[name]["kernel"])
        assert same == name.endswith("3x3"), name
