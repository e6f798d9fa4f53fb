"""Two evaluators at once, each with a connection of its own."""

import threading

from django.db import connection
from django.utils import timezone

from apps.audit.models import AuditEvent
from apps.observability.models import Alert
from apps.observability.selectors import observing
from apps.observability.services import evaluating
from tests.support.alerting import measure
from tests.support.factories import AlertRuleFactory


def test_they_begin_each_alert_once(committed_db: str) -> None:
    """Without the lock that lets one evaluate: what is applied is guarded by itself."""
    rule = AlertRuleFactory()
    for number in range(5):
        measure(0.95, host=f"host-{number}")
    now = timezone.now()
    (judged,) = observing.judge([rule], now)
    start = threading.Barrier(4)
    problems: list[Exception] = []

    def evaluator() -> None:
        try:
            start.wait()
            evaluating.apply(judged=judged, now=now)
        except Exception as error:
            problems.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=evaluator) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert problems == []
    assert Alert.objects.count() == 5
    assert AuditEvent.objects.filter(type="alert.fired").count() == 5
