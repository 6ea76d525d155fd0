"""What a network's outputs mean, by hand; the loss; features without weather, sources or runs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arrays import replaced
from small_grid import FACTOR_G_PER_KWH, small_grid

from cenas_jax.carbon import from_arrays
from cenas_jax.forecast.base import POINT, QUANTILES
from cenas_jax.forecast.features import calendar, features_of, hide_forecasts, scales_of
from cenas_jax.forecast.grid import from_trace, pooled
from cenas_jax.forecast.transformer import LossConfig, Prediction, forecast_loss, output_size, read_out
from cenas_jax.forecast.windows import Actual, issue_rows, to_device, window_at

ROW = 24 * 25


def features(grid=None, row=ROW):
    grid = small_grid() if grid is None else grid
    return _features(to_device(grid), jnp.int32(row), scales_of(grid, 24 * 20))


@jax.jit
def _features(grid, row, scales):
    return features_of(window_at(grid, row), scales)


meant = jax.jit(read_out, static_argnums=2)
loss_of = jax.jit(forecast_loss, static_argnums=(2, 3))


def test_untrained_outputs_mean_half_base_half_source_forecast():
    """All outputs 0: the gate is 1/2, so the share is the normalised geometric mean of the two."""
    found = features()
    prediction = jax.device_get(meant(np.zeros((96, output_size(3)), np.float32), found, FACTOR_G_PER_KWH))
    share = np.sqrt((np.asarray(found.base_share) + 1e-3) * (np.asarray(found.forecast_share) + 1e-3))
    share /= share.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(prediction.share, share, rtol=1e-4)
    np.testing.assert_allclose(np.exp(prediction.log_quantiles[:, POINT]), share @ FACTOR_G_PER_KWH, rtol=1e-4)
    step = np.log1p(np.exp(-3.0))
    expected = step * np.array([-2, -1, 0, 1, 2])
    np.testing.assert_allclose(
        prediction.log_quantiles - prediction.log_quantiles[:, POINT, None], np.tile(expected, (96, 1)), atol=1e-5
    )


def test_without_a_source_forecast_only_the_base_counts_whatever_the_gate_says():
    grid = small_grid()
    window = hide_forecasts(window_at(to_device(grid), jnp.int32(ROW)), jnp.array(True))
    found = jax.device_get(jax.jit(features_of)(window, scales_of(grid, 480)))
    assert not found.forecast_valid.any()
    outputs = np.random.default_rng(0).normal(size=(96, output_size(3))).astype(np.float32)
    other = replaced(outputs, np.s_[:, 4:10], 7.0)  # the correction of the source forecast and the gate
    for one, two in zip(*(meant(out, found, FACTOR_G_PER_KWH) for out in (outputs, other)), strict=True):
        np.testing.assert_array_equal(one, two)


def test_intensities_alone_start_from_the_weeks_mean_of_the_hour():
    values = 300 + 100 * np.sin(np.arange(24 * 30) / 24 * 2 * np.pi)
    grid = from_trace(from_arrays(values, "2021-01-04T00Z", zone="x"))
    found = features(grid)
    prediction = jax.device_get(meant(np.zeros((96, output_size(0)), np.float32), found, ()))
    np.testing.assert_allclose(np.exp(prediction.log_quantiles[:, POINT]), values[ROW : ROW + 96], rtol=1e-4)
    assert prediction.share.shape == (96, 0)


def test_quantiles_ascend_for_any_outputs():
    outputs = 5 * np.random.default_rng(1).normal(size=(96, output_size(3))).astype(np.float32)
    prediction = meant(outputs, features(), FACTOR_G_PER_KWH)
    assert (np.diff(prediction.log_quantiles, axis=1) >= 0).all()


def test_loss_by_hand_and_invalid_hours_count_nothing():
    """Point 110 against 100: 10 %. Pinball on logarithms: all quantiles at ln 110, error ln(100/110) = -0.0953."""
    log_quantiles = np.full((96, len(QUANTILES)), np.log(110.0))
    actual = Actual(np.full(96, 100, np.float32), np.ones(96, bool), np.zeros((96, 0)))
    loss = loss_of(Prediction(log_quantiles, np.zeros((96, 0))), actual, (), LossConfig(quantile=1.0))
    pinball = sum((1 - level) * np.log(1.1) for level in QUANTILES)
    assert float(loss) == pytest.approx(0.1 + pinball, rel=1e-4)
    spoilt = actual._replace(
        intensity_g_per_kwh=jnp.asarray(replaced(actual.intensity_g_per_kwh, np.s_[:40], 1e6)),
        valid=jnp.asarray(replaced(actual.valid, np.s_[:40], False)),
    )
    again = loss_of(Prediction(log_quantiles, np.zeros((96, 0))), spoilt, (), LossConfig(quantile=1.0))
    assert float(again) == pytest.approx(float(loss), rel=1e-5)


def test_share_loss_by_hand():
    """Factors 800 and 0, intensity 400: an error of .1 in both shares weighs .1 x (|2 - 1| + .2) + .1 x (1 + .2)."""
    actual = Actual(np.full(96, 400, np.float32), np.ones(96, bool), np.tile(np.array([[50.0, 50.0]]), (96, 1)))
    prediction = Prediction(np.full((96, len(QUANTILES)), np.log(400.0)), np.tile(np.array([[0.6, 0.4]]), (96, 1)))
    loss = loss_of(prediction, actual, (800.0, 0.0), LossConfig(share=1.0, quantile=0.0))
    assert float(loss) == pytest.approx(0.24, rel=1e-4)


def test_shape_loss_by_hand():
    """An error common to a whole day costs nothing; half the valid hours 10 % above the rest costs half of ln 1.1."""

    def shape_loss(point, valid):
        prediction = Prediction(np.tile(np.log(point)[:, None], (1, len(QUANTILES))), np.zeros((96, 0)))
        actual = Actual(np.full(96, 100, np.float32), valid, np.zeros((96, 0)))
        with_shape, without = (
            loss_of(prediction, actual, (), LossConfig(quantile=0.0, shape=weight)) for weight in (1.0, 0.0)
        )
        return float(with_shape - without)

    every = np.ones(96, bool)
    assert shape_loss(np.repeat(np.array([90.0, 110.0, 120.0, 80.0]), 24), every) == pytest.approx(0, abs=1e-5)
    assert shape_loss(np.tile(np.array([100.0, 110.0]), 48), every) == pytest.approx(np.log(1.1) / 2, rel=1e-4)
    odd_lost = np.tile(np.array([True, True, True, False]), 24)
    spoilt = np.tile(np.array([100.0, 110.0, 110.0, 1e6]), 24)
    assert shape_loss(spoilt, odd_lost) == pytest.approx(4 / 9 * np.log(1.1), rel=1e-4)


def test_features_are_finite_whatever_is_missing():
    for weather in (2, 0):
        grid = small_grid(weather=weather)
        for row in (24 * 9, 24 * 20 + 5, 24 * 21, grid.hours):  # no source forecast, a lost run, after the last hour
            found = features(grid, row)
            assert all(np.isfinite(part).all() for part in found)


def test_constant_intensity_gives_finite_features_and_a_flat_base():
    found = features(from_trace(from_arrays(np.full(24 * 30, 250.0), "2021-01-04T00Z", zone="x")))
    assert all(np.isfinite(part).all() for part in found)
    np.testing.assert_allclose(found.base, np.log(250.0), rtol=1e-5)


def test_calendar_knows_the_weekday():
    monday = int(np.datetime64("2021-01-04T00", "h").astype(int))
    columns = np.asarray(jax.jit(calendar)(np.array([monday, monday + 30], np.int32)))
    np.testing.assert_allclose(columns[0, :4], [0, 1, 0, 1], atol=1e-6)
    assert columns[0, 4:].argmax() == 0 and columns[1, 4:].argmax() == 1


def test_a_pool_keeps_windows_and_calendar():
    """Each record's window in the pool equals its own, but for the issue hour, which is whole weeks away."""
    draw = np.random.default_rng(0)
    traces = [
        from_arrays(draw.uniform(100, 500, hours), start, zone=start)
        for start, hours in (("2021-01-01T05:00Z", 1500), ("2020-03-05T00:00Z", 1300))
    ]
    records = [from_trace(trace) for trace in traces]
    pool, begins = pooled(records)
    assert pool.hours % 168 == 0
    for record, begin in zip(records, begins, strict=True):
        for row in (336, 500, record.hours - 264):
            own = window_at(to_device(record), jnp.int32(row))
            there = window_at(to_device(pool), jnp.int32(row + begin))
            np.testing.assert_array_equal(own.history.intensity_g_per_kwh, there.history.intensity_g_per_kwh)
            assert (int(own.hour) - int(there.hour)) % 168 == 0
    with pytest.raises(ValueError, match="only records of intensities alone"):
        pooled([small_grid()])
    with pytest.raises(ValueError, match="no whole week"):
        pooled([from_trace(from_arrays(np.full(100, 200.0), "2021-01-01T00:00Z", zone="x"))])


def test_issue_rows_of_a_pooled_record_are_safe():
    record = from_trace(from_arrays(np.full(2000, 200.0), "2021-01-01T05:00Z", zone="x"))
    pool, (begin,) = pooled([record])
    rows = begin + issue_rows(record, record.start + 336, record.start + record.hours - 168, every_h=1)
    assert rows.min() >= 168 and rows.max() + 96 <= pool.hours
