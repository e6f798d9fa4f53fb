"""Slopes with intervals, trends, forecasts: against brute force, scipy, and the literature."""

from itertools import combinations
from statistics import median
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau, theilslopes

from apps.observability.trends import (
    LEAST_POINTS,
    MOST_POINTS,
    Direction,
    Forecast,
    forecast,
    thinned,
    trend,
)

HOUR = 3_600.0
CURVES = st.lists(st.floats(-1e6, 1e6) | st.integers(-3, 3).map(float), min_size=LEAST_POINTS, max_size=40)


def found_in(values: Any, step: float = 1.0, start: float = 0.0) -> Any:
    return trend(start + step * np.arange(len(values)), np.array(values, dtype=float))


def noise(seed: int, count: int, correlation: float = 0.0) -> Any:
    """Noise around 0, each value as close to the one before as ``correlation`` says."""
    fresh = np.random.default_rng(seed).normal(size=count + 100)
    for place in range(1, len(fresh)):
        fresh[place] += correlation * fresh[place - 1]
    return fresh[100:]


@given(CURVES)
@settings(max_examples=40, deadline=None)
def test_the_slope_is_the_median_of_all_pairs_slopes(values: list[float]) -> None:
    slopes = [(values[j] - values[i]) / (j - i) for i, j in combinations(range(len(values)), 2)]

    assert found_in(values).slope == pytest.approx(median(slopes), rel=1e-9, abs=1e-9)


@given(CURVES)
@settings(max_examples=40, deadline=None)
def test_the_interval_holds_the_slope_and_the_level_is_the_median_of_what_the_line_leaves(values: list[float]) -> None:
    found = found_in(values)

    assert found.low <= found.slope <= found.high
    rest = [value - found.slope * (place - found.end) for place, value in enumerate(values)]
    assert found.level == pytest.approx(median(rest), rel=1e-9, abs=1e-6)


@given(st.integers(0, 10_000), st.integers(12, 60), st.integers(1, 20))
@settings(max_examples=30, deadline=None)
def test_it_is_what_scipy_computes_where_points_are_independent(seed: int, count: int, levels: int) -> None:
    rng = np.random.default_rng(seed)
    values = np.round(rng.normal(size=count) * levels)  # many ties
    times = np.sort(rng.choice(10_000, count, replace=False)).astype(float)

    found = trend(times, values)

    assert found is not None
    if found.effective < found.used:  # chance made neighbours alike: that is corrected, and scipy does not
        return
    slope, _, low, high = theilslopes(values, times, 0.95)
    assert (found.slope, found.low, found.high) == pytest.approx((slope, low, high), rel=1e-9, abs=1e-12)
    if len(set(values)) > 1:
        reference = kendalltau(times, values, variant="b", method="asymptotic")
        assert found.tau == pytest.approx(reference.statistic, abs=1e-12)
        assert found.p >= reference.pvalue - 1e-12  # scipy leaves the correction for continuity out


@pytest.mark.parametrize(("sign", "direction"), [(1, Direction.RISING), (-1, Direction.FALLING)])
def test_a_slope_under_noise_and_outliers_is_found(sign: int, direction: Direction) -> None:
    values = sign * 0.5 * np.arange(100) + noise(1, 100)
    values[::9] += 1_000.0  # 12 % of them are wrong

    found = found_in(values, step=HOUR)

    assert found.direction is direction
    assert found.low * HOUR < sign * 0.5 < found.high * HOUR
    assert found.slope * HOUR == pytest.approx(sign * 0.5, abs=0.05)


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9])
def test_noise_is_rarely_called_a_trend_however_alike_neighbours_are(correlation: float) -> None:
    curves = [noise(seed, 120, correlation) for seed in range(200)]

    called = sum(found_in(values).direction is not Direction.NONE for values in curves)

    assert called <= 0.1 * len(curves)


def test_points_that_follow_each_other_tell_less_than_independent_ones() -> None:
    independent, alike = found_in(noise(3, 200)), found_in(noise(3, 200, 0.8))

    assert independent.effective == independent.used == 200
    assert alike.effective < 50


@pytest.mark.parametrize("count", [15, 30, 100])
@pytest.mark.parametrize("bent", [np.sqrt, np.square, lambda x: -np.exp(-4 * x / x[-1])])
def test_a_bent_curve_rises_although_its_neighbours_are_alike(count: int, bent: Any) -> None:
    found = found_in(bent(np.arange(count, dtype=float)))

    assert found.direction is Direction.RISING
    assert found.low > 0


SAW, TOOTH, HILL = np.arange(60.0) % 10, (np.arange(60.0) + 2) % 45, -np.abs(30.0 - np.arange(60))


@pytest.mark.parametrize("values", [SAW, TOOTH, HILL])
def test_what_rises_and_falls_back_has_no_trend(values: Any) -> None:
    assert found_in(values + 0.02 * noise(8, 60)).direction is Direction.NONE


def test_a_constant_curve_has_no_trend() -> None:
    found = found_in([3.0] * 50)

    assert (found.slope, found.low, found.high, found.level, found.tau, found.p) == (0.0, 0.0, 0.0, 3.0, 0.0, 1.0)
    assert found.direction is Direction.NONE


def test_what_is_no_finite_number_does_not_count() -> None:
    times, values = np.arange(30.0), np.arange(30.0)
    values[[3, 7, 11]] = np.nan, np.inf, -np.inf
    found = trend(times, values)

    assert found is not None
    assert (found.points, found.slope) == (27, 1.0)
    assert trend(times[:12], values[:12]) is None, "nine are left"


def test_order_and_repeated_times_do_not_matter() -> None:
    times, values = np.arange(40.0), noise(4, 40)
    shuffled = np.random.default_rng(4).permutation(40)

    again = trend(np.r_[times[shuffled], times], np.r_[values[shuffled], values + 9])

    assert again == trend(times, values)


@pytest.mark.parametrize("size", [1e308, 1e-308, 5e-324])
def test_huge_and_tiny_values_do_not_overflow(size: float) -> None:
    found = found_in([size * sign for sign in (-1, 1)] * 10)

    assert np.isfinite([found.slope, found.low, found.high, found.level]).all()
    assert found.direction is Direction.NONE


def test_thousands_of_points_are_thinned_by_medians() -> None:
    times = np.arange(25_001.0)
    values = 2 * times
    values[500] = 1e9  # one of 26 does not move a median

    found = trend(times, values)

    assert found is not None
    assert found.points == 25_001
    assert found.used <= MOST_POINTS
    assert found.slope == pytest.approx(2.0)
    assert thinned(times[:5], values[:5], 2)[0].tolist() == [1.0, 3.5]


def test_a_forecast_says_when_the_line_and_the_ends_of_its_interval_arrive() -> None:
    found = found_in(np.arange(200.0) + noise(5, 200), step=HOUR)

    seen = forecast(found, 300.0, horizon=200 * HOUR)

    assert seen.earliest < seen.at < seen.latest
    assert (seen.at - found.end) / HOUR == pytest.approx(101, abs=1.5)


def test_a_forecast_beyond_the_horizon_is_none() -> None:
    found = found_in(np.arange(200.0) + noise(5, 200), step=HOUR)

    assert forecast(found, 300.0, horizon=50 * HOUR) == Forecast()


def test_a_curve_without_direction_reaches_nothing() -> None:
    assert forecast(found_in(noise(7, 100)), 2.0, horizon=1e9) == Forecast()


@pytest.mark.parametrize("threshold", [50.0, 99.0])
def test_what_the_line_has_passed_is_reached_at_its_end(threshold: float) -> None:
    found = found_in(np.arange(100.0))

    assert forecast(found, threshold, horizon=HOUR) == Forecast(at=99.0, earliest=99.0, latest=99.0)


def test_a_falling_curve_reaches_what_is_below() -> None:
    found = found_in(100.0 - np.arange(50.0), start=1e9)

    assert forecast(found, 0.0, horizon=HOUR).at == pytest.approx(1e9 + 100.0)
