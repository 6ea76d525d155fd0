"""NAS-Bench-201 as a benchmark: on made-up tables, and against known values on the real ones."""

import json
import re

import jax
import numpy as np
import pytest
from made_files import write_tables
from scipy.stats import kendalltau

from cenas_jax.benchmarks import nas_bench_201_benchmark
from cenas_jax.benchmarks.base import max_hypervolume
from cenas_jax.spaces.nas_bench_201 import nas_bench_201


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_tables(folder)
    return folder


def load(folder, name):
    return np.load(folder / "nas" / f"{name}.npz", allow_pickle=False)


def test_signs_units_and_times(made):
    objectives = ("c10_test_200", "c100_valid_200", "c10_raspi4_latency", "params_c10")
    benchmark = nas_bench_201_benchmark(made, objectives[:3] + objectives[3:], "exact")
    nb201, hw = load(made, "nb201"), load(made, "hwnasbench")
    table = benchmark.table
    assert benchmark.units == ("%", "%", "ms", "parameters") and not benchmark.synthetic
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(table))
    expected = [nb201["c10_test_200"], nb201["c100_valid_200"], -hw["c10_raspi4_latency"], -nb201["params_c10"]]
    np.testing.assert_allclose(table.objectives, np.stack(expected, axis=1), rtol=1e-7)
    np.testing.assert_array_equal(table.estimates, table.objectives)
    # Two trainings on 50,000 images.
    np.testing.assert_allclose(table.train_time_s, 4 * nb201["train_time_200_c10valid_s"], rtol=1e-6)
    np.testing.assert_allclose(
        table.reference_point, [0, 0, -1.02 * hw["c10_raspi4_latency"].max(), -1.02 * 1_531_546], rtol=1e-6
    )


@pytest.mark.parametrize(
    ("accuracies", "factor"),
    [
        (("c10_valid_200",), 1.0),
        (("c10_test_200",), 2.0),
        (("c100_test_200",), 2.0),
        (("c100_test_200", "c100_valid_200"), 2.0),  # one training, two halves of the test set
        (("c10_test_200", "c10_valid_200"), 3.0),  # trained on 50,000 and on 25,000 images
        (("c10_test_12",), 0.12),
    ],
)
def test_training_time(made, accuracies, factor):
    benchmark = nas_bench_201_benchmark(made, accuracies, "12-epochs")
    time_s = load(made, "nb201")["train_time_200_c10valid_s"]
    np.testing.assert_allclose(benchmark.table.train_time_s, factor * time_s, rtol=1e-6)
    short = factor if accuracies == ("c10_test_12",) else factor * 12 / 200
    np.testing.assert_allclose(benchmark.table.estimate_time_s, short * time_s.mean(), rtol=1e-6)
    assert benchmark.table.supernet_time_s == 0


def test_supernet_time(made):
    epoch_s = 2 * load(made, "nb201")["train_time_200_c10valid_s"].mean() / 200
    for estimate, epochs in (("one-shot", 600), ("few-shot", 2100), ("noise-0.5", 600), ("zc-first", 0)):
        table = nas_bench_201_benchmark(made, estimate=estimate).table
        np.testing.assert_allclose(table.supernet_time_s, epochs * epoch_s, rtol=1e-6)
        assert table.estimate_time_s == (3 if estimate == "zc-first" else 10)


def test_zero_cost_proxies_follow_the_isomorphism_class(made):
    benchmark = nas_bench_201_benchmark(made, estimate="zc-second")
    estimates = np.asarray(benchmark.table.estimates[:, 0])
    proxies, classes = load(made, "zc_proxies"), benchmark.space.isomorph
    index, values = proxies["index"], proxies["values"][:, 1]
    # A percentile keeps the order of the proxy.
    assert kendalltau(estimates[index], values)[0] == pytest.approx(1.0, abs=1e-4)
    covered = np.isin(classes, classes[index])
    np.testing.assert_array_equal(np.isnan(estimates), ~covered)
    assert 0 < estimates[covered].min() and estimates[covered].max() == 100
    borrowed = np.setdiff1d(np.flatnonzero(covered), index)[:50]
    for row in borrowed:
        lender = index[classes[index] == classes[row]].min()
        assert estimates[row] == estimates[lender]


@pytest.mark.parametrize("tau", [0.2, 0.5, 0.9])
def test_noise_has_the_asked_tau(made, tau):
    table = nas_bench_201_benchmark(made, estimate=f"noise-{tau}", seed=3).table
    again = nas_bench_201_benchmark(made, estimate=f"noise-{tau}", seed=3).table
    other = nas_bench_201_benchmark(made, estimate=f"noise-{tau}", seed=4).table
    reached = kendalltau(np.asarray(table.estimates[:, 0]), np.asarray(table.objectives[:, 0]))[0]
    assert reached == pytest.approx(tau, abs=0.02)
    np.testing.assert_array_equal(table.estimates, again.estimates)
    assert np.any(np.asarray(table.estimates != other.estimates))
    np.testing.assert_array_equal(table.estimates[:, 1], table.objectives[:, 1])


@pytest.mark.parametrize(
    ("objectives", "estimate", "message"),
    [
        (("c10_test_300",), "exact", "objective 'c10_test_300' is unknown: choose from c10_test_200"),
        (("c10_test_200", "c10_test_200"), "exact", "name each only once"),
        (("c10_edgegpu_energy",), "exact", "add an accuracy"),
        ((), "exact", "add an accuracy"),
        (("c10_acc_cenas",), "exact", "objective 'c10_acc_cenas': this table has no such column"),
        (("c10_test_200",), "two-shot", "estimate 'two-shot' is unknown: choose from one-shot, few-shot"),
        (("c10_test_200",), "zc-third", "estimate 'zc-third' is unknown: choose from zc-first, zc-second"),
        (("c10_test_200",), "noise-1.0", "give a Kendall tau between 0 and 1, such as noise-0.6"),
        (("c10_test_200",), "noise-much", "give a Kendall tau between 0 and 1, such as noise-0.6"),
    ],
)
def test_unknown_names(made, objectives, estimate, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        nas_bench_201_benchmark(made, objectives, estimate)


def test_missing_data(tmp_path):
    with pytest.raises(ValueError, match="nb201.npz: no such file; name the data folder by CENAS_DATA"):
        nas_bench_201_benchmark(tmp_path)


@pytest.mark.data
@pytest.mark.parametrize(
    ("cost", "accuracy", "problem"),
    [
        ("c10_edgegpu_energy", "c10_test_200", "c10_edgegpu_energy"),
        ("c10_fpga_energy", "c10_test_200", "c10_fpga_energy"),
        ("c10_edgegpu_energy", "c10_acc_cenas", "c10_edgegpu_energy_cenas_acc"),
    ],
)
def test_known_maximum_hypervolumes(data_dir, cost, accuracy, problem):
    table = nas_bench_201_benchmark(data_dir, (accuracy, cost)).table
    known = json.loads((data_dir / "nas" / "reference_values.json").read_text())[problem]
    np.testing.assert_allclose(table.max_hypervolume, known["max_hypervolume"], rtol=1e-6)


@pytest.mark.data
def test_three_objectives_against_moocore(data_dir):
    moocore = pytest.importorskip("moocore")
    table = nas_bench_201_benchmark(data_dir, ("c100_test_200", "c100_raspi4_latency", "params_c100")).table
    expected = moocore.hypervolume(
        -np.asarray(table.objectives, np.float64), ref=-np.asarray(table.reference_point, np.float64)
    )
    np.testing.assert_allclose(table.max_hypervolume, expected, rtol=1e-5)


@pytest.mark.data
@pytest.mark.parametrize(("estimate", "tau"), [("one-shot", 0.484), ("few-shot", 0.550), ("12-epochs", 0.700)])
def test_known_quality_of_estimates(data_dir, estimate, tau):
    table = nas_bench_201_benchmark(data_dir, estimate=estimate).table
    reached = kendalltau(np.asarray(table.estimates[:, 0]), np.asarray(table.objectives[:, 0]))[0]
    assert reached == pytest.approx(tau, abs=5e-4)
    np.testing.assert_array_equal(table.estimates[:, 1], table.objectives[:, 1])


@pytest.mark.data
def test_real_times_and_proxies(data_dir):
    table = nas_bench_201_benchmark(data_dir, estimate="zc-nwot").table
    assert float(table.train_time_s.mean()) == pytest.approx(3656, abs=1)
    # 14,921 architectures belong to a class with a proxy.
    assert int(np.isnan(table.estimates[:, 0]).sum()) == 15_625 - 14_921


def test_the_cheapest_isomorph_represents_its_class(made):
    benchmark = nas_bench_201_benchmark(made, ("c10_test_200", "c10_fpga_energy"))
    isomorph, classes = benchmark.space.isomorph, load(made, "nb201")["iso_rep"]
    cost = load(made, "hwnasbench")["c10_fpga_energy"]
    assert len(np.unique(isomorph)) == 6_466 and (classes[isomorph] == classes).all()
    cheapest = np.full(len(classes), np.inf)
    np.minimum.at(cheapest, classes, cost)
    np.testing.assert_array_equal(cost[isomorph], cheapest[classes])
    without_cost = nas_bench_201_benchmark(made, ("c10_test_200", "c100_test_200"))
    np.testing.assert_array_equal(without_cost.space.isomorph, classes)


@pytest.mark.data
def test_the_cheapest_isomorphs_hold_nearly_all_of_the_hypervolume(data_dir):
    benchmark = nas_bench_201_benchmark(data_dir)
    table = benchmark.table

    def share(rows):
        return max_hypervolume(np.asarray(table.objectives)[rows], np.asarray(table.reference_point)) / float(
            table.max_hypervolume
        )

    assert share(np.unique(benchmark.space.isomorph)) == pytest.approx(0.9988, abs=1e-4)
    assert share(np.unique(nas_bench_201().isomorph)) == pytest.approx(0.9589, abs=1e-4)
