"""The newest readings of the runs that train now, from the store into which their workers record."""

from collections.abc import Iterable
from datetime import timedelta

from django.db.models import Q
from django.utils import timezone
from prometheus_client.core import Metric

from apps.observability.catalogue import RECORDED
from apps.observability.collectors.families import families
from apps.observability.models import Series
from apps.observability.store import reading

NAME = "runs_now"
FRESH_SECONDS = 300
SEEN = timedelta(minutes=15)
"""Longer than the roll-up takes to know that a series has new samples."""
MOST = 500
"""Series; a run has about ten."""


def told() -> Iterable[Metric]:
    """A run that ended has no readings any more. Two queries, of the series that are fresh, not of all runs' ever."""
    since = timezone.now() - SEEN
    fresh = Q(last_at__gt=since) | Q(created_at__gt=since)
    ids = (
        Series.objects.filter(fresh, run_id__isnull=False, name__in=RECORDED)
        .order_by("-id")
        .values_list("id", flat=True)
    )
    values: dict[str, dict[tuple[str, ...], float | None]] = {name: {} for name in RECORDED}
    for latest in reading.latest(ids=list(ids[:MOST]), within_seconds=FRESH_SECONDS):
        values[latest.series.name][(latest.series.labels.get("run", ""),)] = latest.value
    return families(values)
