"""Anomalies as people look at them: what is odd now, the most pressing first, each drawn; and what was."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.utils import timezone

from apps.core.ids import parse_id
from apps.dashboards import alert_drawing, units
from apps.dashboards.alert_drawing import Drawing, Moment
from apps.dashboards.numbers import whole
from apps.dashboards.selectors.paging import newest
from apps.observability.contracts import Curve
from apps.observability.models import Anomaly, Series
from apps.observability.selectors import anomalies as observability
from apps.observability.selectors.anomalies import Advice
from apps.observability.store import reading
from apps.training.models import TrainingRun

DRAWN = 20
SHOWN = 50
POINTS = 160
LEAD = timedelta(hours=3)
"""What is drawn of what is odd now."""
MARGIN = timedelta(minutes=30)
"""Before and after the moment, for the chart of a past one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One anomaly in words. ``chart_query``: of ``selectors.metrics.wanted_of``, for its table."""

    anomaly: Anomaly
    value: str
    expected: str
    labels: Sequence[tuple[str, str]]
    run_name: str
    chart_query: str

    @property
    def series(self) -> Series:
        return self.anomaly.series


@dataclass(frozen=True, slots=True, kw_only=True)
class OddLine(Line):
    """What is odd now, with its curve."""

    advice: Advice
    drawing: Drawing | None


@dataclass(frozen=True, slots=True)
class AnomalyFilter:
    """What the query string asks of past ones."""

    run_id: UUID | None = None
    series_id: int = 0
    component: str = ""
    after: UUID | None = None

    @classmethod
    def of(cls, query: Mapping[str, str]) -> "AnomalyFilter":
        component = query.get("component", "")[:32]
        return cls(
            parse_id(query.get("run", "")),
            whole(query.get("series")),
            "" if "\x00" in component else component,
            parse_id(query.get("after", "")),
        )

    @property
    def kept(self) -> dict[str, str]:
        values = {"run": self.run_id, "series": self.series_id, "component": self.component}
        return {name: str(value) for name, value in values.items() if value}


@dataclass(frozen=True, slots=True)
class AnomalyPage:
    lines: Sequence[Line]
    next_after: UUID | None


def odd_now() -> list[OddLine]:
    """The most pressing first, at most ``DRAWN``. A fixed number of queries."""
    now = timezone.now()
    found = observability.advisor(now=now)[:DRAWN]
    ids = [advice.series.pk for advice in found]
    curves = reading.query(ids=ids, start=now - LEAD, end=now, points=POINTS) if ids else []
    by_series = {curve.series.id: curve for curve in curves}
    names = _run_names([advice.anomaly for advice in found])
    return [_odd(advice, by_series, names, now) for advice in found]


def _odd(advice: Advice, curves: Mapping[int, Curve], names: Mapping[UUID | None, str], now: datetime) -> OddLine:
    anomaly, curve = advice.anomaly, curves.get(advice.series.pk)
    moment = Moment(
        start=(now - LEAD).timestamp(),
        end=now.timestamp(),
        since=anomaly.at.timestamp(),
        until=anomaly.until.timestamp(),
        word="became odd",
        expected=_expected(anomaly),
        is_now=True,
    )
    drawing = alert_drawing.drawn(curve, moment) if curve else None
    return OddLine(advice=advice, drawing=drawing, **_told(anomaly, names))


def page(wanted: AnomalyFilter) -> AnomalyPage:
    """Past ones, the newest first. Two queries."""
    rows = observability.anomalies()
    if wanted.run_id:
        rows = rows.filter(run_id=wanted.run_id)
    if wanted.series_id:
        rows = rows.filter(series_id=wanted.series_id)
    if wanted.component:
        rows = rows.filter(component=wanted.component)
    found = newest(rows, after=wanted.after, shown=SHOWN)
    names = _run_names(found.rows)
    return AnomalyPage([Line(**_told(row, names)) for row in found.rows], found.next_after)


def _told(anomaly: Anomaly, names: Mapping[UUID | None, str]) -> dict[str, Any]:
    unit = anomaly.series.unit
    expected = _expected(anomaly)
    return {
        "anomaly": anomaly,
        "value": units.told(anomaly.value, unit),
        "expected": f"{units.told(expected[0], unit)} to {units.told(expected[1], unit)}" if expected else "",
        "labels": sorted((name, value) for name, value in anomaly.series.labels.items() if name != "run"),
        "run_name": names.get(anomaly.run_id, ""),
        "chart_query": urlencode(
            {
                "series": anomaly.series_id,
                "title": anomaly.series.name,
                "start": (anomaly.at - MARGIN).isoformat(),
                "end": (anomaly.until + MARGIN).isoformat(),
            }
        ),
    }


def _expected(anomaly: Anomaly) -> tuple[float, float] | None:
    if anomaly.expected_low is None or anomaly.expected_high is None:
        return None
    return (anomaly.expected_low, anomaly.expected_high)


def _run_names(rows: Sequence[Anomaly]) -> dict[UUID | None, str]:
    ids = {row.run_id for row in rows if row.run_id}
    return dict(TrainingRun.objects.filter(pk__in=ids).values_list("pk", "name")) if ids else {}
