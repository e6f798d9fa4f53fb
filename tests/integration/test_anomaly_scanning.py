"""The detector reads new samples, keeps what it has learned, and writes down what is odd, once."""

import copy
import logging
import random
from datetime import timedelta
from uuid import uuid4

import pytest
from django.db import connection
from django.utils import timezone

from apps.observability.models import Anomaly, DetectorState, Sample, Series
from apps.observability.services import scanning
from apps.observability.services.scanning import Scanned
from apps.observability.store import writing
from tests.support.metrics import samples

pytestmark = pytest.mark.django_db
TAKE = "SELECT pg_advisory_lock(('x' || substr(encode(sha256(%s), 'hex'), 1, 16))::bit(64)::bigint)"
"""As ``apps.core.locks.alone`` does in another process."""
START = timezone.now().replace(microsecond=0) - timedelta(minutes=55)


def calm(length, *, seed=7):
    chance = random.Random(seed)
    return [chance.gauss(10, 1) for _ in range(length)]


def record(values, *, after=0, source="platform", **more):
    first = START + timedelta(seconds=15 * after)
    writing.record(samples(values, start=first, **more), source=source)


def state():
    return DetectorState.objects.get()


def detector(name):
    """The one in memory of a series."""
    return scanning._kept[scanning._key(Series.objects.get(name=name).pk)].detector


def test_what_is_odd_is_written_down_with_its_reason_and_marked():
    record([*calm(200), 45.0])

    assert scanning.scan() == Scanned(series=1, samples=201, anomalies=1)

    found = Anomaly.objects.get()
    assert found.at == START + timedelta(seconds=15 * 200)
    assert (found.value, found.component) == (45.0, "extreme")
    assert found.expected_low < 8 < 12 < found.expected_high < 20
    assert found.explanation.startswith("queue_length 45 is above everything seen in the last 50 min (")
    assert list(Sample.objects.filter(anomalous=True).values_list("value", flat=True)) == [45.0]


def test_a_sample_is_looked_at_once():
    record(calm(150))
    scanning.scan()

    assert scanning.scan() == Scanned()

    record(calm(10, seed=9), after=150)
    assert scanning.scan() == Scanned(series=1, samples=10)
    assert (state().seen, state().last_at) == (160, START + timedelta(seconds=15 * 159))


def test_a_scan_in_pieces_finds_what_one_scan_finds():
    values = [*calm(190), 45.0, *calm(20, seed=8)]
    record(values, name="whole")
    scanning.scan()
    for piece in range(0, len(values), 50):
        record(values[piece : piece + 50], after=piece, name="pieces")
        scanning.scan()

    assert detector("whole").to_state() == detector("pieces").to_state()
    assert len({anomaly.at for anomaly in Anomaly.objects.all()}) == 1
    assert Anomaly.objects.count() == 2


def test_an_anomaly_that_goes_on_is_one_that_lasts_longer():
    record([*calm(180), 45.0])
    scanning.scan()
    record([46.0, 45.5], after=181)
    scanning.scan()

    found = Anomaly.objects.get()
    assert found.until == START + timedelta(seconds=15 * 182)
    assert Sample.objects.filter(anomalous=True).count() == 3


def test_a_process_that_begins_finds_what_one_that_went_on_would_have_found():
    record(calm(150))
    scanning.scan()
    record([*calm(10, seed=9), 45.0, 46.0], after=150)
    scanning.scan()
    before = list(Anomaly.objects.values("id", "at", "score"))
    assert state().state["seen"] == 150, "what was learned is written every five minutes"

    scanning.forget()
    record([45.5], after=162)

    assert scanning.scan().samples == 13, "those since the stored state are told again"
    assert list(Anomaly.objects.values("id", "at", "score")) == before
    assert Anomaly.objects.get().until == START + timedelta(seconds=15 * 162)
    assert state().seen == 163


def test_what_is_learned_is_written_every_five_minutes():
    for begin in range(0, 60, 5):
        record(calm(5, seed=begin), after=begin)
        scanning.scan()

    assert state().seen == 60
    assert state().state["seen"] == 45
    assert state().state_at == START + timedelta(seconds=15 * 44)


def test_a_detector_that_fails_begins_anew_and_stops_no_other(monkeypatch, caplog):
    record(calm(150), name="good")
    record(calm(150), name="bad")
    scanning.scan()
    monkeypatch.setattr(detector("bad"), "update", lambda at, value: 1 / 0)
    record([45.0], after=150, name="good")
    record([45.0], after=150, name="bad")

    assert scanning.scan() == Scanned(series=2, samples=2, anomalies=1)

    assert Anomaly.objects.get().series.name == "good"
    assert DetectorState.objects.get(series__name="bad").seen == 0
    assert "begins anew" in caplog.text


def test_a_batch_that_fails_is_scanned_again_whole(monkeypatch):
    record([*calm(180), 45.0])
    with monkeypatch.context() as broken:
        broken.setattr(writing, "mark_anomalous", lambda pairs: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            scanning.scan()
    assert not Anomaly.objects.exists()
    assert not DetectorState.objects.exists()

    assert scanning.scan() == Scanned(series=1, samples=181, anomalies=1)


def test_a_backlog_is_worked_off_in_the_order_of_time(monkeypatch):
    monkeypatch.setattr(scanning, "MOST_SAMPLES", 60)
    record(calm(150))

    assert [scanning.scan().samples for _ in range(4)] == [60, 60, 30, 0]
    assert state().seen == 150


@pytest.mark.parametrize("kept", [{}, {"version": 99}, {"version": 1, "tails": "x"}, [], "gone", None])
def test_a_state_that_cannot_be_read_begins_anew_and_is_told_of(kept, caplog):
    record(calm(20))
    scanning.scan()
    DetectorState.objects.update(state=kept if kept is not None else 5)
    scanning.forget()
    record(calm(3), after=20)

    with caplog.at_level(logging.WARNING, logger=scanning.__name__):
        scanning.scan()

    assert state().state["seen"] == 3
    assert state().state_at == START + timedelta(seconds=15 * 22)
    assert "begins anew" in caplog.text


def test_a_process_that_lags_behind_does_not_shorten_what_another_found(monkeypatch):
    record(calm(180))
    scanning.scan()
    behind = copy.deepcopy(scanning._kept)
    record([45.0, 46.0, 45.5], after=180)
    scanning.scan()
    lasts = Anomaly.objects.get().until

    scanning._kept.clear()
    scanning._kept.update(behind)
    monkeypatch.setattr(scanning, "MOST_SAMPLES", 1)
    assert scanning.scan() == Scanned(series=1, samples=1, anomalies=1)

    assert Anomaly.objects.get().until == lasts == START + timedelta(seconds=15 * 182)


def test_missing_numbers_are_passed_over():
    record([*calm(150), float("nan"), float("inf"), *calm(3)])

    assert scanning.scan() == Scanned(series=1, samples=155)
    assert state().state["seen"] == 153


def test_counters_are_not_looked_at():
    record(list(range(100)), name="esper_things_total", kind="counter")

    assert scanning.scan() == Scanned()


def test_a_constant_series_is_quiet():
    record([0.0] * 200)

    assert scanning.scan() == Scanned(series=1, samples=200)


def test_a_run_has_a_short_probation_and_is_named_by_its_anomalies():
    run_id = uuid4()
    loss = [2.0 * 0.93**step + 0.05 for step in range(40)]
    record([*loss, 9.0], name="loss", source="run", labels={"run": str(run_id)}, run_id=run_id)

    scanning.scan()

    assert Anomaly.objects.get().run_id == run_id


def test_of_two_scans_at_once_one_works():
    record(calm(3))
    copy = connection.copy()
    try:
        with copy.cursor() as other:
            other.execute(TAKE, ["observability.scan_anomalies"])
            assert scanning.scan() == Scanned()
            other.execute("SELECT pg_advisory_unlock_all()")
    finally:
        copy.close()

    assert scanning.scan() == Scanned(series=1, samples=3)


def test_series_are_scanned_in_batches(monkeypatch):
    monkeypatch.setattr(scanning, "BATCH", 2)
    for number in range(5):
        record(calm(3), name=f"series_{number}")

    assert scanning.scan() == Scanned(series=5, samples=15)
    assert Series.objects.filter(detector__seen=3).count() == 5
