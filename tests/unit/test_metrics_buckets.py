"""Buckets of samples: whole, none where there is nothing, bands that hold every value, growth that survives resets."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from apps.observability.store.buckets import gathered, growth, merged

FINITE = st.floats(allow_nan=False, allow_infinity=False)
SERIES = st.lists(st.tuples(st.integers(0, 5_000), FINITE), min_size=1, max_size=80, unique_by=lambda row: row[0]).map(
    lambda rows: tuple(np.array(column, np.float64) for column in zip(*sorted(rows), strict=True))
)


@given(SERIES, st.sampled_from([1, 7, 300, 3600]))
def test_each_bucket_holds_its_samples_and_no_more(series, step):
    times, values = series

    found = gathered(times, values, step)

    for start, least, mean, greatest, last, count in zip(
        found.starts, found.least, found.mean, found.greatest, found.last, found.counts, strict=True
    ):
        own = values[(times >= start) & (times < start + step)]
        assert (least, greatest, last, count) == (own.min(), own.max(), own[-1], len(own))
        assert least <= mean <= greatest
    assert found.counts.sum() == len(times)
    assert (found.starts % step == 0).all()


@given(SERIES)
def test_merged_buckets_are_those_of_the_longer_step(series):
    times, values = series

    found, direct = merged(gathered(times, values, 300), 3600), gathered(times, values, 3600)

    assert (found.starts == direct.starts).all()
    assert (found.least == direct.least).all()
    assert (found.greatest == direct.greatest).all()
    assert (found.counts == direct.counts).all()
    scale = np.maximum(np.abs(direct.least), np.abs(direct.greatest))
    assert (np.abs(found.mean - direct.mean) <= 1e-9 * scale + 1e-300).all()


def test_a_bucket_without_a_finite_sample_is_not_there():
    times = np.array([0.0, 10.0, 20.0])

    assert gathered(times, np.array([1.0, np.nan, np.inf]), 10).starts.tolist() == [0.0]


def test_means_of_great_values_do_not_overflow():
    found = gathered(np.arange(4.0), np.full(4, 1.7e308), 10)

    assert np.isclose(found.mean[0], 1.7e308, rtol=1e-12)


def test_a_counter_that_falls_has_grown_from_zero():
    times, rates, passed, counts = growth(np.array([0.0, 10.0, 20.0, 40.0]), np.array([100.0, 150.0, 20.0, 60.0]))

    assert rates.tolist() == [5.0, 2.0, 2.0]
    assert (times.tolist(), passed.tolist(), counts.tolist()) == ([10, 20, 40], [10, 10, 20], [150, 20, 60])


def test_the_growth_of_a_bucket_is_weighted_by_time():
    times, counts = np.array([0.0, 10.0, 40.0]), np.array([0.0, 100.0, 130.0])  # 10 a second, then 1 a second

    assert gathered(times, counts, 100, is_counter=True).mean.tolist() == [130 / 40]
