"""With a real beat and a real worker, everything that observability asks of beat happens by itself, and leaves rows."""

import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.utils import timezone
from django_celery_beat.models import PeriodicTask
from django_celery_beat.schedulers import DatabaseScheduler

from apps.observability.contracts import Reading
from apps.observability.lifecycle import AlertState, NotificationState
from apps.observability.models import Alert, Anomaly, DetectorState, FiveMinuteRollup, Sample, Series
from apps.observability.store import writing
from esper_site.celery import app
from esper_site.embedded import processes
from tests.support.factories import AlertRuleFactory, NotificationFactory
from tests.support.programs import RunningProgram, Start
from tests.support.waiting import wait_until

TASKS = ("collect", "scan-anomalies", "evaluate-alerts", "roll-up", "deliver")
METRIC = "plant_temperature_celsius"


def test_messages_are_dropped_at_last_and_not_already_in_a_long_queue(committed_db: str) -> None:
    """Those of a day without a worker are not all done; but if none were older than its period, a queue that takes
    longer would let none through, ever."""
    DatabaseScheduler(app=app)

    rows = PeriodicTask.objects.filter(name__in=TASKS).values_list("name", "expire_seconds")
    assert dict(rows) == dict.fromkeys(TASKS, 1800)


def make_due(names: tuple[str, ...]) -> None:
    """Beat's own rows, as it makes them when it starts first; these were last done yesterday."""
    DatabaseScheduler(app=app)
    done = PeriodicTask.objects.filter(name__in=names).update(last_run_at=timezone.now() - timedelta(days=1))
    assert done == len(names)


def measure_a_quarter_of_an_hour() -> Series:
    now = timezone.now()
    readings = [Reading(name=METRIC, value=1.0, at=now - timedelta(seconds=15 * n)) for n in range(1, 60)]
    writing.record(readings, source="client")
    return Series.objects.get(name=METRIC)


def test_beat_has_samples_collected_scanned_judged_rolled_up_and_messages_delivered(
    committed_db: str, worker: Callable[..., RunningProgram], start_program: Start
) -> None:
    series = measure_a_quarter_of_an_hour()
    rule: Any = AlertRuleFactory(metric=METRIC)
    message: Any = NotificationFactory()  # its route is gone: it cannot be delivered, and is given up
    make_due(TASKS)
    worker("default")

    start_program(processes.beat(os.environ), lambda running: True)

    wait_until(lambda: Series.objects.filter(name="esper_queue_served").exists(), seconds=60)
    wait_until(lambda: DetectorState.objects.filter(series=series).exists(), seconds=60)
    wait_until(lambda: Alert.objects.filter(rule_id=rule.pk, state=AlertState.FIRING).exists(), seconds=60)
    wait_until(lambda: FiveMinuteRollup.objects.filter(series_id=series.pk).count() >= 2, seconds=60)
    wait_until(lambda: type(message).objects.get(pk=message.pk).state == NotificationState.FAILED, seconds=60)
    assert Sample.objects.filter(series_id=series.pk).count() == 59
    assert not Anomaly.objects.filter(series=series).exists()
