"""What is recorded comes back: the newest, windows and curves."""

from datetime import timedelta

import numpy as np
import pytest
from django.utils import timezone

from apps.core.errors import Invalid
from apps.observability.contracts import Reading, Written
from apps.observability.matchers import Matcher
from apps.observability.models import Series
from apps.observability.services.upkeep import roll_up
from apps.observability.store import reading, writing
from apps.observability.store.times import whole

pytestmark = pytest.mark.django_db
NOW = whole(timezone.now()).replace(minute=30) - timedelta(hours=1)


def samples(values, *, name="queue_length", step=15.0, end=NOW, **more):
    times = [end - timedelta(seconds=step * (len(values) - 1 - place)) for place in range(len(values))]
    return [Reading(name=name, value=value, at=at, **more) for value, at in zip(values, times, strict=True)]


def test_the_same_batch_again_stores_nothing():
    batch = samples([1.0, 2.0, 3.0], labels={"queue": "train"})

    assert writing.record(batch, source="platform") == Written(stored=3, known=0)
    assert writing.record(
        [*batch, *samples([4.0], end=NOW + timedelta(seconds=15), labels={"queue": "train"})], source="platform"
    ) == Written(stored=1, known=3)
    assert Series.objects.count() == 1


def test_the_latest_of_each_series():
    writing.record(
        samples([1.0, 2.0], labels={"queue": "a"}) + samples([5.0, 6.0], labels={"queue": "b"}), source="platform"
    )

    found = reading.latest("queue_length", matchers=[Matcher("queue", "=~", "a|b")])

    assert [(each.series.labels["queue"], each.value, each.at) for each in found] == [("a", 2.0, NOW), ("b", 6.0, NOW)]
    assert reading.latest("queue_length", within_seconds=60) == []


def test_a_window_holds_both_ends():
    writing.record(samples([1.0, float("nan"), 3.0]), source="platform")
    [info] = reading.series("queue_length")

    times, values = reading.window(info.id, NOW - timedelta(seconds=30), NOW)

    assert times.tolist() == [NOW.timestamp() - 30, NOW.timestamp() - 15, NOW.timestamp()]
    assert np.isnan(values[1])
    assert values[2] == 3.0


def test_a_curve_of_few_samples_is_the_samples():
    writing.record(samples([1.0, 2.0, 3.0]), source="platform")

    [curve] = reading.query(name="queue_length", start=NOW - timedelta(hours=1), end=NOW)

    assert curve.step == 0
    assert curve.mean.tolist() == [1.0, 2.0, 3.0]


def test_a_curve_of_many_samples_is_whole_buckets_with_their_bands():
    end = NOW.replace(second=45, microsecond=0)
    writing.record(samples([float(n) for n in range(240)], end=end), source="platform")

    [curve] = reading.query(name="queue_length", start=end - timedelta(hours=1), end=end, points=30)

    assert curve.step == 300
    assert (curve.times % 300 == 0).all()
    assert curve.greatest[-1] == 239
    assert (np.diff(curve.mean) > 0).all()
    assert (curve.least[1:] == curve.greatest[:-1] + 1).all()


def test_a_counter_is_its_growth_a_second_and_a_reset_is_no_fall():
    writing.record(samples([100.0, 130.0, 160.0, 15.0, 30.0], kind="counter"), source="platform")

    [curve] = reading.query(name="queue_length", start=NOW - timedelta(hours=1), end=NOW)

    assert curve.mean.tolist() == [2.0, 2.0, 1.0, 1.0]


def test_buckets_of_samples_are_whole_wherever_the_range_begins_and_ends():
    end = NOW.replace(second=0, microsecond=0)
    writing.record(samples([float(n) for n in range(241)], end=end, kind="counter"), source="platform")

    def drawn(**shifted):
        start, stop = end - timedelta(minutes=20), end - timedelta(minutes=10, **shifted)
        [curve] = reading.query(name="queue_length", start=start + timedelta(**shifted), end=stop, step=60)
        return dict(zip(curve.times.tolist(), curve.mean.tolist(), strict=True))

    assert drawn() == drawn(seconds=20) | {end.timestamp() - 600: 1 / 15}
    assert set(drawn().values()) == {1 / 15}


def test_a_counter_grows_from_the_sample_before_the_range():
    writing.record(samples([0.0, 30.0, 60.0], kind="counter"), source="platform")

    [curve] = reading.query(name="queue_length", start=NOW - timedelta(seconds=20), end=NOW)

    assert curve.mean.tolist() == [2.0, 2.0]


def test_averages_of_an_hour_are_as_their_samples_say():
    start = NOW - timedelta(hours=5)
    writing.record(samples(list(np.random.default_rng(5).standard_normal(1200)), end=NOW), source="platform")
    asked = {"name": "queue_length", "start": start, "end": NOW}
    [by_samples] = reading.query(**asked, step=3600)

    roll_up()

    [by_averages] = reading.query(**asked, step=3600)
    assert by_averages.times.tolist() == by_samples.times.tolist()
    assert np.allclose(by_averages.mean, by_samples.mean, rtol=1e-12)
    assert by_averages.greatest.tolist() == by_samples.greatest.tolist()


def test_marked_samples_are_seen():
    writing.record(samples([1.0, 9.0]), source="platform")
    [info] = reading.series("queue_length")

    writing.mark_anomalous([(info.id, NOW)])

    assert [each.anomalous for each in reading.latest("queue_length")] == [True]
    [curve] = reading.query(name="queue_length", start=NOW - timedelta(hours=1), end=NOW)
    assert curve.anomalies.tolist() == [NOW.timestamp()]


def test_a_day_whose_partition_nobody_made_is_made_on_the_way():
    old = timezone.now() - timedelta(days=2, hours=20)

    assert writing.record(samples([1.0], end=old), source="platform").stored == 1


def test_too_many_series_are_refused_with_what_to_do(settings):
    settings.METRICS_MAX_SERIES = 1
    writing.record(samples([1.0], labels={"run": "a"}), source="client")

    with pytest.raises(Invalid, match="1 series of at most 1, and 1 more") as refusal:
        writing.record(samples([1.0], labels={"run": "b"}), source="client")

    assert refusal.value.code == "too_many_series"
    assert "METRICS_MAX_SERIES" in refusal.value.detail
