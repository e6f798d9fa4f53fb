"""What a run's worker recorded about its training, second by second, laid over the epochs of the run."""

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import numpy as np
from django.utils import timezone

from apps.dashboards.charts import RECORDED, Chart
from apps.dashboards.selectors import watch
from apps.dashboards.selectors.live import MOVING
from apps.observability.contracts import Curve
from apps.observability.models import Series
from apps.observability.store import reading
from apps.training.models import TrainingRun

POINTS = 500
POLL = 15_000
MARGIN = timedelta(minutes=2)
"""Readings come a little after what they tell of."""
MISSED = 4
"""Usual distances between two points after which a line breaks."""
FEW = 8
"""Of fewer points nobody knows what is usual: a run of seconds has an epoch here and thirty there."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """A chart of the page with the query of its table and its file (``selectors.metrics.wanted_of``)."""

    chart: Chart
    query: str


def charts(run: TrainingRun) -> list[Drawn]:
    """The charts for which the run has recorded something, in the order of the page. One query."""
    ids = _ids(run)
    start, end = _span(run)
    span = {"start": start.astimezone(UTC).isoformat()} | (
        {"end": end.astimezone(UTC).isoformat()} if run.ended_at else {}
    )
    return [
        Drawn(chart=chart, query=urlencode({"series": ids[chart.columns[0].name], "title": chart.title, **span}))
        for chart in RECORDED
        if chart.columns[0].name in ids
    ]


def payload(run: TrainingRun) -> dict[str, Any]:
    """By chart: ``step`` (optimizer steps: its place), ``mean``, ``least``, ``greatest``; nulls are gaps."""
    ids, places = _ids(run), watch.places(run)
    start, end = _span(run)
    curves = (
        reading.query(ids=list(ids.values()), start=start, end=end, points=POINTS, workspace_id=run.workspace_id)
        if ids and start < end
        else []
    )
    by_name = {curve.series.name: curve for curve in curves}
    return {
        "charts": {
            chart.name: _columns(by_name[chart.columns[0].name], places)
            for chart in RECORDED
            if chart.columns[0].name in by_name
        },
        "poll_after": POLL if run.state in MOVING else None,
    }


def etag(told: dict[str, Any]) -> str:
    return '"' + hashlib.sha256(json.dumps(told).encode()).hexdigest()[:32] + '"'


def _ids(run: TrainingRun) -> dict[str, int]:
    names = [chart.columns[0].name for chart in RECORDED]
    rows = Series.objects.filter(run_id=run.pk, name__in=names).order_by("-id")
    return dict(rows.values_list("name", "id"))


def _span(run: TrainingRun) -> tuple[datetime, datetime]:
    now = timezone.now()
    start = (run.started_at or run.created_at) - MARGIN
    end = min(now, run.ended_at + MARGIN) if run.ended_at else now
    return max(start, end - reading.LONGEST), end


def _columns(curve: Curve, places: watch.Places) -> dict[str, list[float | None]]:
    """A run that was turned back, or stood still, tells several values of one place: the newest is drawn."""
    known: dict[float, tuple[float | None, ...]] = {}
    for at, *values in zip(curve.times, curve.mean, curve.least, curve.greatest, strict=True):
        _, step = places.of(datetime.fromtimestamp(float(at), tz=UTC))
        known[round(step, 2)] = tuple(float(value) if np.isfinite(value) else None for value in values)
    columns: dict[str, list[float | None]] = {"step": [], "mean": [], "least": [], "greatest": []}
    for place, drawn in _with_gaps(sorted(known), known):
        columns["step"].append(place)
        for name, value in zip(("mean", "least", "greatest"), drawn, strict=True):
            columns[name].append(value)
    return columns


def _with_gaps(
    steps: Sequence[float], known: dict[float, tuple[float | None, ...]]
) -> Iterator[tuple[float, tuple[float | None, ...]]]:
    usual = float(np.median(np.diff(steps))) if len(steps) >= FEW else math.inf
    before: float | None = None
    for step in steps:
        if before is not None and step - before > MISSED * usual:
            yield (before + step) / 2, (None, None, None)
        yield step, known[step]
        before = step
