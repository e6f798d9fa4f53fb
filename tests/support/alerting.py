"""Samples for rules, and evaluations at a time that the test chooses."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from django.utils import timezone

from apps.observability.contracts import Reading
from apps.observability.models import Alert, AlertRule
from apps.observability.selectors import observing
from apps.observability.services import evaluating
from apps.observability.store import writing

CPU = "esper_host_cpu_ratio"


def measure(*values: float, name: str = CPU, every: float = 15.0, until: datetime | None = None, **labels: str) -> None:
    """Store samples of a series of which the newest is of ``until`` (now)."""
    last = until or timezone.now()
    times = [last - timedelta(seconds=every * back) for back in range(len(values) - 1, -1, -1)]
    readings = [Reading(name=name, value=value, at=at, labels=labels) for value, at in zip(values, times, strict=True)]
    writing.record(readings, source="platform")


def look(rules: Sequence[AlertRule], now: datetime) -> list[Alert]:
    """Apply ``rules`` as an evaluation at ``now`` does; returns all their alerts, oldest first."""
    for judged in observing.judge(rules, now):
        evaluating.apply(judged=judged, now=now)
    return list(Alert.objects.filter(rule_id__in=[rule.pk for rule in rules]).order_by("id"))
