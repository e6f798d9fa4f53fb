"""Series with a past, for tests of what reads them. Everything follows from the arguments.

lately("esper_queue_oldest_age_seconds", [5, 10, 20], every=60, queue="training")     # the newest of them is now
hourly("esper_host_disk_used_ratio", values, host="a", disk="/var")                   # averages, then a sample
"""

from collections.abc import Sequence
from datetime import timedelta

from django.utils import timezone

from apps.accounts.models import default_workspace_id
from apps.observability.contracts import Reading
from apps.observability.models import HourRollup, Series
from apps.observability.store import partitions, writing


def lately(name: str, values: Sequence[float], *, every: float = 60, kind: str = "gauge", **labels: str) -> Series:
    """Samples ``every`` so many seconds, as the collectors store them; of the last days only."""
    now = timezone.now()
    readings = [
        Reading(name=name, value=value, at=now - timedelta(seconds=every * back), labels=labels, kind=kind)
        for back, value in enumerate(reversed(values))
    ]
    writing.record(readings, source="platform")
    return Series.objects.get(workspace=default_workspace_id(), name=name, labels=labels)


def hourly(name: str, values: Sequence[float], **labels: str) -> Series:
    """Averages of whole hours, one a value, and a sample of now with the last of them."""
    series = lately(name, values[-1:], **labels)
    hour = timezone.now().replace(minute=0, second=0, microsecond=0)
    starts = [hour - timedelta(hours=back) for back in range(len(values), 0, -1)]
    partitions.make(partitions.HOURS, starts[0], hour)
    HourRollup.objects.bulk_create(
        HourRollup(series_id=series.pk, start=start, least=value, mean=value, greatest=value, last=value, count=240)
        for start, value in zip(starts, values, strict=True)
    )
    return series
