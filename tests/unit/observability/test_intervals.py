"""Shares, means and spreads with their intervals: against scipy, and at their edges."""

import math
from statistics import fmean, stdev

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from apps.observability.intervals import Mean, Share, Spread, mean, mean_of, share, spread, student

NUMBERS = st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=50)


@given(st.integers(1, 10_000), st.data())
def test_a_share_has_wilsons_interval(n: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, n))

    found = share(count, n)

    expected = stats.binomtest(count, n).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert found.value == count / n


def test_a_share_of_nothing_is_unknown() -> None:
    assert share(0, 0) == Share(count=0, n=0)


@given(NUMBERS)
def test_a_mean_has_students_interval(values: list[float]) -> None:
    found = mean(values)

    reach = stats.t.ppf(0.975, len(values) - 1) * stdev(values) / math.sqrt(len(values))
    assert found.value == pytest.approx(fmean(values))
    assert found.high - found.low == pytest.approx(2 * reach, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 30, 999, 1_000, 10**6])
def test_students_quantile_is_the_one_of_the_tables(freedom: int) -> None:
    assert student(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=0.002 if freedom >= 1_000 else 1e-8)


def test_one_case_has_a_mean_and_no_interval() -> None:
    assert mean([0.5]) == Mean(n=1, value=0.5)
    assert mean_of(0, None, None) == Mean(n=0)


@pytest.mark.parametrize("unknown", [None, math.nan, math.inf, -math.inf, 1e300])
def test_what_is_no_measured_number_does_not_count(unknown: float | None) -> None:
    assert mean([unknown]) == Mean(n=0)
    assert mean([1.0, unknown, 3.0]).value == 2.0
    assert spread([unknown]) == Spread(n=0)


def test_a_spread_is_median_and_quartiles() -> None:
    assert spread([5, 1, 9, 3, 7]) == Spread(n=5, value=5.0, low=3.0, high=7.0)
    assert spread([4]) == Spread(n=1, value=4.0, low=4.0, high=4.0)
