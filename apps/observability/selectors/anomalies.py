"""What the detector found, and what of it is odd now, the most pressing first."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.db.models import QuerySet
from django.utils import timezone

from apps.accounts.models import default_workspace_id
from apps.observability.models import Anomaly, DetectorState, Series

LATELY = timedelta(minutes=15)
"""An anomaly that ended longer ago is not of now."""
TOGETHER = timedelta(minutes=2)
"""Anomalies that begin within it are taken to have one cause."""
MOST_READ, MOST_TOLD = 500, 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """One series that is odd now."""

    anomaly: Anomaly
    series: Series
    ongoing: bool
    """Its newest sample is odd, too."""
    together: int
    """How many other series became odd at the same time."""
    times: int
    """How often it became odd lately."""


def anomalies(*, workspace_id: UUID | None = None) -> QuerySet[Anomaly]:
    """Every anomaly, with its series in the same query."""
    return Anomaly.objects.filter(workspace=workspace_id or default_workspace_id()).select_related("series")


def advisor(workspace_id: UUID | None = None, *, now: datetime | None = None) -> list[Advice]:
    """What is odd now, one entry a series, at most 50: what goes on before what is over, what happened to many at
    once before what happened to one, then by score and by time. Two queries, over the newest 500."""
    since = (now or timezone.now()) - LATELY
    recent = list(anomalies(workspace_id=workspace_id).filter(until__gte=since).order_by("-at")[:MOST_READ])
    times = Counter(anomaly.series_id for anomaly in recent)
    newest: dict[int, Anomaly] = {}
    for anomaly in recent:
        newest.setdefault(anomaly.series_id, anomaly)
    seen = dict(DetectorState.objects.filter(pk__in=newest).values_list("series_id", "last_at"))
    beginnings = sorted(anomaly.at for anomaly in newest.values())
    found = [
        Advice(
            anomaly=anomaly,
            series=anomaly.series,
            ongoing=(last := seen.get(anomaly.series_id)) is not None and anomaly.until >= last,
            together=_near(beginnings, anomaly.at) - 1,
            times=times[anomaly.series_id],
        )
        for anomaly in newest.values()
    ]
    found.sort(
        key=lambda advice: (advice.ongoing, advice.together, advice.anomaly.score, advice.anomaly.at), reverse=True
    )
    return found[:MOST_TOLD]


def _near(beginnings: Sequence[datetime], at: datetime) -> int:
    return sum(abs(beginning - at) <= TOGETHER for beginning in beginnings)
