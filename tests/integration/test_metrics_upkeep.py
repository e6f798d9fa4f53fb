"""Averages, packed history and retention: done once, gone on with after a death, and nothing lost or counted twice."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from apps.observability.models import FiveMinuteRollup, HourRollup, Sample, SampleChunk, Series
from apps.observability.services.upkeep import roll_up
from apps.observability.store import averaging, history, packing, partitions, reading, rows, writing
from tests.support.metrics import add_series, put_samples, samples

pytestmark = pytest.mark.django_db
DAY = timedelta(days=1)


@pytest.fixture
def hour_ago():
    """The last hour that is over for a while."""
    return timezone.now().replace(minute=0, second=0, microsecond=0) - timedelta(hours=2)


@pytest.fixture
def old_day():
    """A day that lies before the hot window."""
    day = datetime.combine(timezone.now().date() - timedelta(days=5), datetime.min.time(), UTC)
    partitions.make(partitions.SAMPLES, day, day)
    return day


def whole_day(series, day):
    """All its samples, as readers get them."""
    times, values = reading.window(series.pk, day, day + DAY)
    return times.tolist(), values.tolist()


def test_averages_hold_least_mean_and_greatest_of_each_bucket_that_is_over(hour_ago):
    writing.record(samples([float(n) for n in range(20)], start=hour_ago), source="platform")

    roll_up()

    row = FiveMinuteRollup.objects.get(start=hour_ago)
    assert (row.least, row.mean, row.greatest, row.last, row.count) == (0.0, 9.5, 19.0, 19.0, 20)
    assert HourRollup.objects.get().count == 20


def test_rolling_up_again_changes_nothing(hour_ago):
    writing.record(samples([1.0] * 240, start=hour_ago), source="platform")
    roll_up()
    before = list(FiveMinuteRollup.objects.values()), list(HourRollup.objects.values())

    roll_up()

    assert (list(FiveMinuteRollup.objects.values()), list(HourRollup.objects.values())) == before


def test_a_sample_that_comes_late_is_averaged_too(hour_ago):
    writing.record(samples([1.0], start=hour_ago), source="platform")
    roll_up()

    writing.record(samples([3.0], start=hour_ago + timedelta(minutes=1)), source="platform")
    roll_up()

    assert FiveMinuteRollup.objects.get().mean == 2.0
    assert HourRollup.objects.get().mean == 2.0


def test_values_that_are_no_number_do_not_count_and_great_ones_do_not_overflow(hour_ago):
    values = [1.5e308, 1.5e308, float("nan"), float("inf")]
    writing.record(samples(values, start=hour_ago), source="client")

    roll_up()

    row = HourRollup.objects.get()
    assert (row.mean, row.count) == (1.5e308, 2)


def test_a_counter_is_averaged_by_its_growth_over_the_edges_of_buckets(hour_ago):
    writing.record(samples([15.0 * n for n in range(40)], start=hour_ago, kind="counter"), source="platform")

    roll_up()

    assert [row.mean for row in FiveMinuteRollup.objects.order_by("start")] == [1.0, 1.0]
    assert [row.count for row in FiveMinuteRollup.objects.order_by("start")] == [19, 20]


def test_a_death_between_two_averages_is_gone_on_with(hour_ago, monkeypatch):
    writing.record(samples([1.0] * 240, start=hour_ago, labels={"run": "a"}), source="platform")
    monkeypatch.setattr(averaging, "SERIES_AT_ONCE", 1)
    add_series(run="b")
    with monkeypatch.context() as patch:
        patch.setattr(averaging, "_make_hours", dies_after(averaging._make_hours, calls=0))
        with pytest.raises(Death):
            roll_up()
    assert not FiveMinuteRollup.objects.exists()

    roll_up()

    assert (FiveMinuteRollup.objects.count(), HourRollup.objects.count()) == (12, 1)


def test_a_curve_of_averages_goes_on_to_now_with_samples(hour_ago):
    writing.record(samples([1.0] * 240, start=hour_ago), source="platform")
    roll_up()
    writing.record(samples([2.0], start=timezone.now() - timedelta(seconds=1)), source="platform")

    [curve] = reading.query(name="queue_length", start=hour_ago, end=timezone.now(), step=300)

    assert curve.step == 300
    assert curve.mean.tolist() == [1.0] * 12 + [2.0]


def test_an_old_day_is_packed_and_reads_the_same(old_day):
    series = add_series()
    put_samples(series, old_day, np.random.default_rng(1).standard_normal(5760))
    before = whole_day(series, old_day)

    roll_up()

    assert not Sample.objects.filter(at__range=(old_day, old_day + DAY)).exists()
    assert SampleChunk.objects.count() == 24
    assert whole_day(series, old_day) == before


@pytest.mark.parametrize("dies_at", ["packing", "drop"])
def test_a_death_while_packing_loses_nothing_and_doubles_nothing(old_day, monkeypatch, dies_at):
    monkeypatch.setattr(history, "SAMPLES_AT_ONCE", 300)  # a series a transaction
    both = [add_series(run="a"), add_series(run="b")]
    for series in both:
        put_samples(series, old_day, np.arange(240.0))
    before = [whole_day(series, old_day) for series in both]

    with monkeypatch.context() as patch:
        if dies_at == "packing":
            patch.setattr(packing, "packed", dies_after(packing.packed, calls=1))
        else:
            patch.setattr(partitions, "drop_packed", dies_after(partitions.drop_packed, calls=0))
        with pytest.raises(Death):
            roll_up()
    assert [whole_day(series, old_day) for series in both] == before
    roll_up()

    assert [whole_day(series, old_day) for series in both] == before
    assert not Sample.objects.filter(at__range=(old_day, old_day + DAY)).exists()


def test_a_sample_that_comes_while_its_day_is_packed_keeps_the_day_and_is_packed_the_next_time(old_day, monkeypatch):
    series = add_series()
    put_samples(series, old_day, np.arange(3.0))
    drop = partitions.drop_packed

    def late(day, packed):
        put_samples(series, old_day + timedelta(seconds=5), [9.0])
        return drop(day, packed)

    with monkeypatch.context() as patch:
        patch.setattr(partitions, "drop_packed", late)
        roll_up()
    assert Sample.objects.count() == 4
    roll_up()

    assert Sample.objects.count() == 0
    assert whole_day(series, old_day)[1] == [0.0, 9.0, 1.0, 2.0]


def test_the_newest_of_a_window_are_found_among_packed_hours_of_which_it_has_a_part(old_day):
    series = add_series()
    put_samples(series, old_day + timedelta(minutes=50), [1.0, 2.0])
    put_samples(series, old_day + timedelta(minutes=70), np.arange(3.0))
    roll_up()

    found = rows.raw([series.pk], old_day, old_day + timedelta(minutes=70), most=2)[series.pk]

    assert found.values.tolist() == [2.0, 0.0]


def test_the_anomaly_bit_is_packed_too(old_day):
    series = add_series()
    put_samples(series, old_day, np.arange(10.0))
    writing.mark_anomalous([(series.pk, old_day + timedelta(seconds=30))])

    roll_up()

    [curve] = reading.query(ids=[series.pk], start=old_day, end=old_day + timedelta(hours=1))
    assert curve.anomalies.tolist() == [old_day.timestamp() + 30]


def test_a_chunk_that_rotted_is_passed_over(old_day):
    series = add_series()
    put_samples(series, old_day, np.arange(480.0))
    roll_up()
    SampleChunk.objects.filter(start=old_day).update(data=b"rot")

    assert whole_day(series, old_day)[1] == [float(n) for n in range(240, 480)]


def test_retention_drops_what_is_older(settings):
    old = timezone.now() - timedelta(days=200)
    for table in (partitions.CHUNKS, partitions.FIVE_MINUTES, partitions.HOURS):
        partitions.make(table, old, old)

    roll_up()

    suffix = {"day": f"{old:%Y%m%d}", "month": f"{old:%Y%m}"}
    assert f"{partitions.CHUNKS}_{suffix['day']}" not in partitions.names(partitions.CHUNKS)
    assert f"{partitions.FIVE_MINUTES}_{suffix['month']}" not in partitions.names(partitions.FIVE_MINUTES)
    assert f"{partitions.HOURS}_{suffix['month']}" in partitions.names(partitions.HOURS)


def test_a_series_of_which_nothing_is_kept_any_more_is_removed():
    long_ago = timezone.now() - timedelta(days=800)
    gone, there = add_series(run="gone"), add_series(run="there")
    Series.objects.update(created_at=long_ago, last_at=long_ago)
    partitions.make(partitions.HOURS, timezone.now(), timezone.now())
    HourRollup.objects.create(series_id=there.pk, start=timezone.now(), least=1, mean=1, greatest=1, last=1, count=1)

    roll_up()

    assert list(Series.objects.values_list("pk", flat=True)) == [there.pk]
    assert gone.pk != there.pk


def test_a_series_that_was_removed_begins_again_in_a_process_that_remembers_it():
    writing.record(samples([1.0]), source="platform")
    Series.objects.all().delete()

    assert writing.record(samples([2.0]), source="platform").stored == 1
    assert [each.value for each in reading.latest("queue_length")] == [2.0]


def test_the_newest_moment_of_a_series_is_noted(hour_ago):
    writing.record(samples([1.0], start=hour_ago), source="platform")

    roll_up()

    assert Series.objects.get().last_at == hour_ago


class Death(Exception):
    pass


def dies_after(do, *, calls):
    left = [calls]

    def dying(*given, **named):
        if left[0] == 0:
            raise Death
        left[0] -= 1
        return do(*given, **named)

    return dying


def test_rolling_up_again_makes_and_drops_no_partition():
    roll_up()
    before = {table: partitions.names(table) for table in (partitions.SAMPLES, *partitions.HISTORY)}
    with CaptureQueriesContext(connection) as queries:
        roll_up()

    assert {table: partitions.names(table) for table in before} == before
    assert not [query for query in queries if "drop_packed" in query["sql"]]
