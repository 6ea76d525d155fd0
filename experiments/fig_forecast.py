"""Predicted against actual intensity: 80 hours of US-CAL-CISO from the paper's start hour, history alone.

    CENAS_DATA=/path/to/data python experiments/fig_forecast.py

Expected time: half a minute. Expected figure: the daily cycle's shape and hours are met, the noons of days 2 and 3 are
forecast too low; mean absolute percentage error 9.3 %, 89 % of the hours inside the 90 % interval. Writes
results/fig_forecast.png and .json. The forecaster is the one that ships with the package; it has seen nothing after
June 2021.
"""

import json
import os
from pathlib import Path

import numpy as np

from cenas_jax.config import PAPER_START, RecordOptions
from cenas_jax.forecast import POINT
from cenas_jax.report.forecasts import fan_figure
from cenas_jax.runs.forecasting import load_fitted, load_record, predict_hours

RESULTS = Path(__file__).parent / "results"
HOURS = 80


def main() -> None:
    record = load_record(RecordOptions(trace="us-cal-ciso", data=Path(os.environ["CENAS_DATA"])))
    outlook = predict_hours(record, load_fitted(None, record), at=PAPER_START, hours=HOURS)
    median, actual = outlook.quantiles_g_per_kwh[:, POINT], outlook.actual_g_per_kwh
    inside = (outlook.quantiles_g_per_kwh[:, 0] <= actual) & (actual <= outlook.quantiles_g_per_kwh[:, -1])
    document = {
        "grid": record.zone,
        "issued": outlook.document["issued"],
        "hours": HOURS,
        "mape_percent": round(100 * float(np.abs(median / actual - 1).mean()), 2),
        "inside_90_percent": round(100 * float(inside.mean()), 1),
    }
    fan_figure(outlook).savefig(RESULTS / "fig_forecast.png", dpi=110)
    (RESULTS / "fig_forecast.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(document)


if __name__ == "__main__":
    main()
