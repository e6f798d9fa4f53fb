"""Alerts as people look at them: what fires and why, drawn; who was told, and what keeps others from being told."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from urllib.parse import urlencode
from uuid import UUID

from django.db.models import Case, Count, IntegerField, QuerySet, Value, When
from django.utils import timezone

from apps.core.ids import parse_id
from apps.dashboards import alert_drawing, numbers, units
from apps.dashboards.alert_drawing import Drawing, Moment
from apps.dashboards.selectors.metrics import Chart
from apps.dashboards.selectors.paging import newest
from apps.observability.lifecycle import OPEN, AlertState
from apps.observability.models import Alert, Severity, Silence
from apps.observability.selectors import alerts as observability
from apps.observability.store import reading
from apps.training.models import TrainingRun

SHOWN = 20
"""Alerts with a chart on one page."""
SCANNED = 1000
"""Open alerts that are looked through, the worst first."""
RESOLVED_SHOWN = 40
POINTS = 160
LEADS = (timedelta(hours=1), timedelta(hours=6), timedelta(hours=24), timedelta(days=7), timedelta(days=30))
"""What charts of open alerts show: the shortest that has the moment and a quarter before it."""
CHOICES: Mapping[str, Sequence[str]] = {
    "state": (AlertState.FIRING, AlertState.PENDING, AlertState.RESOLVED),
    "severity": (Severity.CRITICAL, Severity.WARNING, Severity.INFO),
    "muted": ("no", "yes"),
}
READ_AS = {"last": "newest sample", "mean": "mean", "max": "greatest", "min": "least", "rate": "growth a second"}
RANK = Case(
    *(
        When(state=state, acknowledged_at__isnull=is_new, severity=severity, then=Value(rank))
        for rank, (state, is_new, severity) in enumerate(
            (state, is_new, severity)
            for state in (AlertState.FIRING, AlertState.PENDING)
            for is_new in (True, False)
            for severity in CHOICES["severity"]
        )
    ),
    default=Value(99),
    output_field=IntegerField(),
)
"""Firing and new first, then firing and acknowledged, then pending; the most severe of each first."""


@dataclass(frozen=True, slots=True)
class AlertFilter:
    """What the query string asks for. ``after``: the alert after which the page goes on."""

    chosen: Mapping[str, str] = field(default_factory=dict)
    run_id: UUID | None = None
    rule_id: UUID | None = None
    after: UUID | None = None

    @classmethod
    def of(cls, query: Mapping[str, str]) -> "AlertFilter":
        """Values that nothing has are left out."""
        chosen = {name: query[name] for name, values in CHOICES.items() if query.get(name) in values}
        ids = {name: parse_id(query.get(name, "")) for name in ("run", "rule", "after")}
        return cls(chosen, ids["run"], ids["rule"], ids["after"])

    @property
    def kept(self) -> dict[str, str]:
        """As the query string has it, without the page."""
        ids = {"run": self.run_id, "rule": self.rule_id}
        return {**self.chosen, **{name: str(value) for name, value in ids.items() if value}}

    @property
    def is_past(self) -> bool:
        return self.chosen.get("state") == AlertState.RESOLVED

    def fitting(self) -> QuerySet[Alert]:
        rows = Alert.objects.all()
        if self.run_id:
            rows = rows.filter(run_id=self.run_id)
        if self.rule_id:
            rows = rows.filter(rule_id=self.rule_id)
        if "severity" in self.chosen:
            rows = rows.filter(severity=self.chosen["severity"])
        return rows.filter(state__in=[self.chosen["state"]] if "state" in self.chosen else OPEN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Muting:
    """Why nobody is told of an alert; ``until`` None: as long as that lasts."""

    words: str
    until: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One alert. ``muted``: why nobody is told; empty: people are told."""

    alert: Alert
    why: str
    muted: Sequence[Muting]
    drawing: Drawing | None = None
    run_name: str = ""

    @property
    def labels(self) -> list[tuple[str, str]]:
        """Those that tell it from others: not the ones that the page shows anyway."""
        return sorted((k, v) for k, v in self.alert.labels.items() if k not in {"alertname", "severity", "run"})

    @property
    def is_new(self) -> bool:
        return self.alert.state == AlertState.FIRING and self.alert.acknowledged_at is None

    @property
    def lasted(self) -> timedelta | None:
        return self.alert.resolved_at - self.alert.started_at if self.alert.resolved_at else None


@dataclass(frozen=True, slots=True)
class AlertPage:
    """``is_cut``: there are more open alerts than are looked through."""

    lines: Sequence[Line]
    next_after: UUID | None
    is_cut: bool = False


@dataclass(frozen=True, slots=True)
class Totals:
    """Open alerts by what a person has to do with them. ``resolved``: in the last 24 hours."""

    new: int
    acknowledged: int
    pending: int
    resolved: int

    @property
    def firing(self) -> int:
        return self.new + self.acknowledged


def totals() -> Totals:
    """Two queries."""
    counts = {
        (state, is_new): count
        for state, is_new, count in Alert.objects.filter(state__in=OPEN)
        .annotate(is_new=Case(When(acknowledged_at__isnull=True, then=Value(1)), default=Value(0)))
        .order_by()
        .values_list("state", "is_new")
        .annotate(Count("pk"))
    }
    day = timezone.now() - timedelta(hours=24)
    return Totals(
        new=counts.get((AlertState.FIRING, 1), 0),
        acknowledged=counts.get((AlertState.FIRING, 0), 0),
        pending=sum(count for (state, _), count in counts.items() if state == AlertState.PENDING),
        resolved=Alert.objects.filter(state=AlertState.RESOLVED, resolved_at__gte=day).count(),
    )


def page(wanted: AlertFilter) -> AlertPage:
    """Open ones the worst first, each drawn; resolved ones the newest first. A bounded number of queries."""
    return _past(wanted) if wanted.is_past else _open(wanted)


def _past(wanted: AlertFilter) -> AlertPage:
    found = newest(wanted.fitting(), after=wanted.after, shown=RESOLVED_SHOWN)
    names = _run_names(found.rows)
    lines = [Line(alert=alert, why=why(alert), muted=[], run_name=names.get(alert.run_id, "")) for alert in found.rows]
    return AlertPage(lines, found.next_after)


def _open(wanted: AlertFilter) -> AlertPage:
    rows = list(wanted.fitting().annotate(rank=RANK).order_by("rank", "-id")[:SCANNED])
    is_cut, muted = len(rows) == SCANNED, muting(rows)
    if "muted" in wanted.chosen:
        rows = [row for row in rows if bool(muted[row.pk]) == (wanted.chosen["muted"] == "yes")]
    ids = [row.pk for row in rows]
    begin = ids.index(wanted.after) + 1 if wanted.after in ids else 0
    shown, names = rows[begin : begin + SHOWN], _run_names(rows[begin : begin + SHOWN])
    drawings = drawn(shown)
    lines = [
        Line(
            alert=alert,
            why=why(alert),
            muted=muted[alert.pk],
            drawing=drawings.get(alert.pk),
            run_name=names.get(alert.run_id, ""),
        )
        for alert in shown
    ]
    return AlertPage(lines, shown[-1].pk if len(rows) > begin + SHOWN else None, is_cut)


def _run_names(rows: Sequence[Alert]) -> dict[UUID | None, str]:
    ids = {row.run_id for row in rows if row.run_id}
    return dict(TrainingRun.objects.filter(pk__in=ids).values_list("pk", "name")) if ids else {}


def muting(rows: Sequence[Alert]) -> dict[UUID, list[Muting]]:
    """Of each alert why nobody is told of it: silences that match it, alerts that inhibit it. At most five queries."""
    found = observability.mutings(rows)
    silences = Silence.objects.in_bulk({key for each in found.values() for key in each.silences})
    others = Alert.objects.in_bulk({key for each in found.values() for key in each.inhibited_by})
    return {key: [*_silenced(each, silences), *_inhibited(each, others)] for key, each in found.items()}


def _silenced(found: observability.Muting, silences: Mapping[UUID, Silence]) -> list[Muting]:
    known = [silences[key] for key in found.silences if key in silences]
    return [Muting(words=f"silenced: {each.comment}", until=each.ends_at) for each in known]


def _inhibited(found: observability.Muting, others: Mapping[UUID, Alert]) -> list[Muting]:
    names = sorted({others[key].rule_name for key in found.inhibited_by if key in others})
    return [Muting(words=f"not told while {name} fires", until=None) for name in names]


def why(alert: Alert, *, then: bool = False) -> str:
    """The value against the threshold, in the metric's unit and in words; what the detector says of its own. ``then``:
    the value with which it began, as always of what is over."""
    seen = _evidence(alert)
    began = seen.get("value") if then or alert.state == AlertState.RESOLVED else None
    shown = began if isinstance(began, int | float) else alert.value
    if shown is None or "explanation" in seen:
        return str(seen.get("explanation", ""))
    if _is_about_age(alert):
        allowed = f"; {numbers.duration(alert.threshold)} is allowed" if alert.threshold is not None else ""
        return f"no sample for {numbers.duration(shown)}{allowed}"
    unit = units.unit_of(alert.metric)
    value = units.told(shown, unit)
    read = READ_AS.get(str(seen.get("reading")), "value")
    window = seen.get("window_seconds")
    over = f" over {numbers.duration(window)}" if isinstance(window, int | float) and read != "newest sample" else ""
    if alert.threshold is None:
        return f"{read}{over}: {value}"
    return f"{read}{over}: {value}, threshold {units.told(alert.threshold, unit)}"


def _evidence(alert: Alert) -> Mapping[str, object]:
    return alert.evidence if isinstance(alert.evidence, dict) else {}


def _is_about_age(alert: Alert) -> bool:
    """Whether value and threshold are seconds since the newest sample, whatever the metric's unit."""
    return "newest_at" in _evidence(alert)


# --- Charts


def drawn(rows: Sequence[Alert]) -> dict[UUID, Drawing]:
    """The curve of each that has a series, from before the moment until now. At most one query of the store for each
    of ``LEADS``."""
    now = timezone.now()
    by_lead: dict[timedelta, list[Alert]] = {}
    for row in rows:
        if row.series_id is not None:
            by_lead.setdefault(_lead(now - row.started_at), []).append(row)
    found: dict[UUID, Drawing] = {}
    for lead, alike in by_lead.items():
        ids = sorted({row.series_id for row in alike if row.series_id is not None})
        curves = {c.series.id: c for c in reading.query(ids=ids, start=now - lead, end=now, points=POINTS)}
        for row in alike:
            curve = curves.get(row.series_id or 0)
            drawing = alert_drawing.drawn(curve, _moment(row, now - lead, now)) if curve else None
            if drawing:
                found[row.pk] = drawing
    return found


def _lead(age: timedelta) -> timedelta:
    return next((lead for lead in LEADS if age <= 0.75 * lead), LEADS[-1])


def _moment(alert: Alert, start: datetime, end: datetime) -> Moment:
    return Moment(
        start=start.timestamp(),
        end=end.timestamp(),
        since=alert.started_at.timestamp(),
        until=alert.resolved_at.timestamp() if alert.resolved_at else None,
        threshold=drawable_threshold(alert),
        is_now=True,
    )


def drawable_threshold(alert: Alert) -> float | None:
    """The threshold where it is in the unit of the curve: a growth in a window, a gauge's growth and an age are not."""
    is_count = alert.metric.endswith(("_total", "_count", "_sum"))
    how = _evidence(alert).get("reading")
    is_of_curve = (how == "rate") == is_count and how != "increase" and not _is_about_age(alert)
    return alert.threshold if is_of_curve else None


def chart_of(alert: Alert) -> Chart | None:
    """Around the moment; it goes on while the alert is open. None: it is about no series."""
    if alert.series_id is None:
        return None
    lasted = (alert.resolved_at or timezone.now()) - alert.started_at
    margin = min(max(lasted / 2, timedelta(minutes=30)), timedelta(days=3))
    query = {"series": alert.series_id, "title": alert.metric, "start": (alert.started_at - margin).isoformat()}
    if alert.resolved_at:
        query["end"] = (alert.resolved_at + margin).isoformat()
    return Chart(
        title=alert.metric,
        axis=units.axis_title(alert.metric),
        query=urlencode(query),
        threshold=drawable_threshold(alert),
        since=alert.started_at.timestamp(),
        until=alert.resolved_at.timestamp() if alert.resolved_at else None,
    )
