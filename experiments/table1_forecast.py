"""Table 1: carbon forecasts of CISO, DE and PJM, days 1 to 4 ahead, by every forecaster; coverage; decision regret.

    pip install ".[baselines]" && CENAS_DATA=/path/to/data python experiments/table1_forecast.py

Expected time: about 10 minutes a grid and kind of factor on one core (--grids, --factors, --rows). Expected figures
(life-cycle MAPE %, days 1 to 3, mean of three seeds): the transformer alone 6.0/8.5/10.0 in CISO, 6.1/8.1/10.2 in DE,
2.2/2.6/3.0 in PJM; combined 5.4/7.7/9.0, 5.5/7.8/9.9 and 1.9/2.4/2.8. Writes results/table1_forecast.json.

Protocol: everything is chosen on January to June 2021 by forecasters that learnt from 2019 and 2020: when the
transformer stops (seed 0), and the boosted trees' inputs and parameters. Then all learn from everything before July
2021, and the 181 forecasts issued at 00:00 UTC from 2021-07-01 to 2021-12-28 are scored. The combination (its experts,
prior, rates, and what kernel regression sees) was chosen on July to December 2020 and January to June 2021, by
forecasters that learnt from what was before. In the test it goes on learning from outcomes as they become known: its
weights, its kernel regressions, and the intervals, each every day.

The test was scored more than once while the forecaster grew, though nothing was ever chosen by it: the transformer
twice, then the combination with one kernel regression, fitted once (day 3 in CISO 9.16; DE's 24 h, 25 % captured .9286,
tier 1 .9323), the same fitted again every 14 issues (9.05, .9291), with a second kernel regression that reads the
source forecast (8.96, .9328), and this one, whose kernel regressions learn every day (9.01, .9335). So the smallest
margins, CISO's day 3 and DE's 24 h, 25 %, are small beside the number of looks.

The aim of 5 % below the best known is missed on day 3 in CISO (1.1 % below). Above the best known or another row: day
4 in CISO, which has no bar, is 9.59 against 9.56; LightGBM captures .9436 of CISO's 24 h, 75 %, the combination .9434.
The transformer alone is above the best known on CISO's day 3, and captures less of DE's 24 h, 25 % than tier 1.
"""

import argparse
import json
import os
import time
from itertools import product
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from cenas_jax.forecast.base import POINT, forecast_table
from cenas_jax.forecast.baselines import repeat_last, ridge, seasonal_average, source_forecast
from cenas_jax.forecast.boosted_trees import BoostedTreesConfig, boosted_table, boosted_trees
from cenas_jax.forecast.conformal import adapt, calibrate
from cenas_jax.forecast.experts import learn_experts
from cenas_jax.forecast.grid import GRIDS, GridRecord, load_grid
from cenas_jax.forecast.metrics import coverage_by_day, decision_regret, mape_by_day, quantile_loss
from cenas_jax.forecast.mixture import combine
from cenas_jax.forecast.windows import actual_at, issue_rows, to_device
from cenas_jax.training.forecaster import FitConfig, fit

RESULTS = Path(__file__).parent / "results" / "table1_forecast.json"
SEEDS = (0, 1, 2)
BEST_KNOWN = {  # life-cycle; published, or LightGBM untuned
    "CISO": (6.36, 8.54, 9.11, 9.56),
    "DE": (7.21, 9.41, 10.89, 12.44),
    "PJM": (2.69, 3.14, 3.26, 3.47),
}
TREES = [
    BoostedTreesConfig(use_source_forecast=source, leaves=leaves, rounds=rounds, min_data=min_data, threads=1)
    for source, (leaves, rounds), min_data in product((False, True), ((15, 600), (31, 600)), (100, 400))
]


class Split:
    """Issue rows of one grid: learning, validation, both, and test."""

    def __init__(self, record: GridRecord):
        self.record, self.grid = record, to_device(record)
        self.learn = {every: issue_rows(record, "2019-01-01", "2021-01-01", every_h=every) for every in (1, 24)}
        self.refit = {every: issue_rows(record, "2019-01-01", "2021-07-01", every_h=every) for every in (1, 24)}
        self.validation = issue_rows(record, "2021-01-01", "2021-07-01")
        self.test = issue_rows(record, "2021-07-01", "2022-01-01")

    def actual(self, rows):
        actual = jax.vmap(actual_at, (None, 0))(self.grid, rows)
        return actual.intensity_g_per_kwh, actual.valid


def scores(table, split: Split, rows) -> dict:
    actual, valid = split.actual(rows)
    point = table[..., POINT]
    return {
        "mape_day1_4": rounded(mape_by_day(point, actual, valid)),
        "quantile_loss_g_per_kwh": round(float(quantile_loss(table, actual, valid)), 3),
        "regret": {
            f"{window_h} h, {share:.0%}": regret(point, actual, valid, window_h, share)
            for window_h, share in product((24, 80), (0.25, 0.5, 0.75))
        },
    }


def regret(point, actual, valid, window_h: int, share: float) -> dict:
    found = decision_regret(point, actual, valid, window_h=window_h, share=share)
    return {
        "regret_g_per_kwh": round(float(found.regret_g_per_kwh), 3),
        "captured_share": round(float(found.captured_share), 4),
    }


def calibrated(validation_table, test_table, split: Split):
    state = calibrate(validation_table, *split.actual(split.validation))
    return adapt(state, test_table, *split.actual(split.test))


def coverage(table, split: Split) -> list[float]:
    return rounded(coverage_by_day(table[..., 0], table[..., -1], *split.actual(split.test)))


def plain(split: Split) -> dict[str, dict]:
    factor = split.record.factor_g_per_kwh
    forecasters = {
        "repeat yesterday": repeat_last(24),
        "repeat last week": repeat_last(168),
        "weekly average": seasonal_average(),
        "CarbonCast tier 1": source_forecast(factor),
        "ridge": ridge(factor_g_per_kwh=factor),
    }
    found = {}
    for name, forecaster in forecasters.items():
        key = jax.random.key(0)
        before, after = (
            forecast_table(
                forecaster, forecaster.fit(key, split.grid, jnp.asarray(rows[24])), split.grid, jnp.asarray(at)
            )
            for rows, at in ((split.learn, split.validation), (split.refit, split.test))
        )
        table = calibrated(before, after, split)
        found[name] = {**scores(table, split, split.test), "coverage_90": coverage(table, split)}
    return found


def trees(split: Split) -> dict[str, dict]:
    """The best of `TREES` on the validation half-year, fitted again on everything before the test."""
    key, factor = jax.random.key(0), split.record.factor_g_per_kwh
    actual = split.actual(split.validation)

    def table_of(config, rows, at):
        return boosted_table(boosted_trees(config, factor).fit(key, split.grid, jnp.asarray(rows)), split.grid, at)

    errors, tables = [], []
    for config in TREES:
        tables.append(table_of(config, split.learn[24], split.validation))
        errors.append(float(mape_by_day(tables[-1][..., POINT], *actual)[:3].mean()))
    best = int(np.argmin(errors))
    row = row_of(tables[best], table_of(TREES[best], split.refit[24], split.test), split)
    return {"LightGBM, tuned": row | {"tried": len(TREES), "chosen": str(TREES[best])}}


def transformer(split: Split) -> dict[str, dict]:
    """Stops as seed 0 does best on the validation half-year; then one fit a seed on everything before the test.

    Alone, and combined with kernel regression and the source forecast, which follow the outcomes.
    """
    config = FitConfig()
    start = time.perf_counter()
    first = fit(jax.random.key(0), split.record, split.learn[1], config, validation_rows=split.validation)
    fit_s = time.perf_counter() - start
    before = table_of(first, split, split.validation)
    # Once for all seeds, and at the issues of both halves, whose forecasts are of two fits: so not `combined.learn`.
    others, _ = learn_experts(split.record, split.grid, np.concatenate([split.validation, split.test]))
    alone, combined = [], []
    for seed in SEEDS:
        final = fit(jax.random.key(seed), split.record, split.refit[1], config, steps=first.info["steps"])
        after = table_of(final, split, split.test)
        alone.append(row_of(before, after, split))
        combined.append(row_of(*with_others(before, after, others, split), split))
    how = {"steps": first.info["steps"], "seconds_of_the_first_fit": round(fit_s, 1)}
    return {
        "transformer": means_and_seeds(alone) | how,
        "transformer, combined": means_and_seeds(combined) | how,
    }


def with_others(before, after, others, split: Split):
    """Both halves combined: the weights go on from the validation's outcomes, then follow the test's as they come."""
    actual, valid = (
        jnp.concatenate(parts) for parts in zip(split.actual(split.validation), split.actual(split.test), strict=True)
    )
    table, _ = combine(jnp.concatenate([before, after]), jnp.asarray(others), actual, valid)
    return table[: len(before)], table[len(before) :]


def row_of(before, after, split: Split) -> dict:
    table = calibrated(before, after, split)
    validation = rounded(mape_by_day(before[..., POINT], *split.actual(split.validation)))
    return {
        **scores(table, split, split.test),
        "coverage_90": coverage(table, split),
        "validation_mape_day1_4": validation,
    }


def means_and_seeds(by_seed: list[dict]) -> dict:
    return {
        **mean_of(by_seed),
        "by_seed": [seed["mape_day1_4"] for seed in by_seed],
        "coverage_90_by_seed": [seed["coverage_90"] for seed in by_seed],
    }


def table_of(fitted, split: Split, rows):
    return forecast_table(fitted.forecaster, fitted.state, split.grid, rows)


def mean_of(documents: list):
    """Means of numbers over documents of one shape."""
    first = documents[0]
    if isinstance(first, dict):
        return {key: mean_of([document[key] for document in documents]) for key in first}
    return np.round(np.mean(documents, axis=0), 4).tolist()


def rounded(values) -> list[float]:
    return [round(float(value), 3) for value in values]


ROWS = {"plain": plain, "trees": trees, "transformer": transformer}


def show(document: dict) -> None:
    for factor, grids in document["test"].items():
        for grid, found in grids.items():
            shown = Table(title=f"{grid}, {factor}: MAPE % by day ahead, test half-year")
            for column in ("forecaster", "day 1", "day 2", "day 3", "day 4", "coverage %", "captured, 24 h, 25 %"):
                shown.add_column(column)
            for name, result in found.items():
                days = [f"{value:.2f}" for value in result["mape_day1_4"]]
                covered = " ".join(f"{value:.0f}" for value in result["coverage_90"])
                shown.add_row(name, *days, covered, f"{result['regret']['24 h, 25%']['captured_share']:.3f}")
            if factor == "lifecycle":
                shown.add_row("best known", *map(str, BEST_KNOWN[grid]), "", "")
            Console().print(shown)


def main() -> None:
    parser = argparse.ArgumentParser(description="Table 1: carbon forecasts")
    parser.add_argument("--factors", nargs="+", default=["lifecycle", "direct"], choices=["lifecycle", "direct"])
    parser.add_argument("--grids", nargs="+", default=list(GRIDS), choices=GRIDS)
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=ROWS, help="the others stay as they are")
    options = parser.parse_args()
    document = {"seeds": list(SEEDS), "issues": 181, "test": {}}
    if RESULTS.exists():
        document = json.loads(RESULTS.read_text(encoding="utf-8"))  # other grids and factors stay
    for factor, zone in product(options.factors, options.grids):
        split = Split(load_grid(zone, Path(os.environ["CENAS_DATA"]), factor=factor))
        found = document["test"].setdefault(factor, {}).setdefault(zone, {})
        for rows in options.rows:
            found.update(ROWS[rows](split))
        RESULTS.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        print(f"{zone}, {factor}: done", flush=True)
    show(document)


if __name__ == "__main__":
    main()
