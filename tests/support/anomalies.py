"""Rows of anomalies."""

from datetime import datetime, timedelta
from typing import Any

from django.utils import timezone

from apps.observability.models import Anomaly, Series
from tests.support.metrics import add_series


def add_anomaly(
    series: Series | None = None, *, at: datetime | None = None, lasting: float = 0, **more: Any
) -> Anomaly:
    """One of ``series`` that lasts ``lasting`` minutes; without ``at`` it begins now."""
    series = series or add_series()
    at = at or timezone.now()
    values = {"value": 9.5, "score": 0.7, "component": "extreme", "explanation": "it is 9.5", **more}
    return Anomaly.objects.create(
        workspace_id=series.workspace_id, series=series, at=at, until=at + timedelta(minutes=lasting), **values
    )
