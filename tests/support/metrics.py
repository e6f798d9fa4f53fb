"""Rows of the store of metrics: readings to record, and samples put where the service would not take them any more."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from django.utils import timezone

from apps.accounts.models import default_workspace_id
from apps.observability.contracts import Reading
from apps.observability.models import Sample, Series
from apps.observability.store.identity import digest_of, key_of
from apps.observability.store.times import whole

STEP = 15.0


def samples(
    values: Sequence[float],
    *,
    name: str = "queue_length",
    start: datetime | None = None,
    step: float = STEP,
    **more: Any,
) -> list[Reading]:
    """Readings ``step`` seconds apart; without ``start`` the last one is of now."""
    length = timedelta(seconds=step * (len(values) - 1))
    first = whole(start or timezone.now() - length)
    return [
        Reading(name=name, value=value, at=first + timedelta(seconds=step * place), **more)
        for place, value in enumerate(values)
    ]


def add_series(name: str = "queue_length", kind: str = "gauge", **labels: str) -> Series:
    workspace_id = default_workspace_id()
    return Series.objects.create(
        workspace_id=workspace_id,
        name=name,
        labels=labels,
        digest=digest_of(workspace_id, key_of(name, labels)),
        kind=kind,
    )


def put_samples(series: Series, start: datetime, values: Sequence[float], *, step: float = STEP) -> None:
    """Straight into the table, however old."""
    Sample.objects.bulk_create(
        [
            Sample(series_id=series.pk, at=start + timedelta(seconds=step * place), value=float(value))
            for place, value in enumerate(values)
        ]
    )
