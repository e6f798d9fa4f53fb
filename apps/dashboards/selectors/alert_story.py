"""One alert, whole: what happened when, who was told over which route with what result, and how often it was so."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.db.models import F

from apps.accounts.models import User
from apps.audit import selectors as audit
from apps.core.ids import first_id
from apps.dashboards import numbers
from apps.dashboards.selectors import alerts, trail
from apps.dashboards.selectors.alerts import Line
from apps.dashboards.selectors.metrics import Chart
from apps.observability.lifecycle import NotificationState
from apps.observability.models import Alert, AlertRule, Notification
from apps.training.models import TrainingRun

EPISODES = 10
MESSAGES = 50
MAX_EVENTS = 20
MESSAGE_TONES = {NotificationState.DELIVERED: "good", NotificationState.FAILED: "bad"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Something that happened. ``icon`` and ``tone`` as of ``stages``."""

    at: datetime
    title: str
    detail: str
    icon: str
    tone: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Portrait:
    line: Line
    rule: AlertRule | None
    chart: Chart | None
    story: Sequence[Step]
    episodes: Sequence[Alert]
    """Earlier and later ones of the same rule on the same series, the newest first."""
    acknowledged_by: str

    @property
    def alert(self) -> Alert:
        return self.line.alert


def portrait(alert_id: UUID) -> Portrait | None:
    """None: there is no such alert. A fixed number of queries."""
    alert = Alert.objects.filter(pk=alert_id).first()
    if alert is None:
        return None
    run_name = (
        TrainingRun.objects.filter(pk=alert.run_id).values_list("name", flat=True).first() if alert.run_id else ""
    )
    who = _name_of(alert.acknowledged_by_id)
    alike = Alert.objects.filter(fingerprint=alert.fingerprint, workspace=alert.workspace_id).exclude(pk=alert.pk)
    line = Line(alert=alert, why=alerts.why(alert), muted=alerts.muting([alert])[alert.pk], run_name=run_name or "")
    return Portrait(
        line=line,
        rule=AlertRule.objects.filter(pk=alert.rule_id).first(),
        chart=alerts.chart_of(alert),
        story=sorted(_story(alert, who), key=lambda step: step.at),
        episodes=list(alike.order_by("-id")[:EPISODES]),
        acknowledged_by=who,
    )


def _name_of(user_id: UUID | None) -> str:
    if user_id is None:
        return ""
    return User.objects.filter(pk=user_id).values_list("username", flat=True).first() or "somebody who is gone"


def _story(alert: Alert, who: str) -> Iterator[Step]:
    yield Step(at=alert.started_at, title="Began", detail=alerts.why(alert, then=True), icon="clock", tone="waiting")
    if alert.fired_at:
        held = alert.fired_at - alert.started_at
        detail = f"it had been so for {numbers.duration(held)}" if held > timedelta(seconds=1) else "at once"
        yield Step(at=alert.fired_at, title="Fired", detail=detail, icon="alarm", tone="bad")
    if alert.acknowledged_at:
        detail = f"by {who}" + (f": {alert.note}" if alert.note else "")
        yield Step(at=alert.acknowledged_at, title="Acknowledged", detail=detail, icon="check", tone="active")
    if alert.resolved_at:
        detail = f"after {numbers.duration(alert.resolved_at - alert.started_at)}"
        yield Step(at=alert.resolved_at, title="Resolved", detail=detail, icon="check", tone="good")
    for message, tells in _messages(alert):
        yield _told(message, tells=tells)


def _messages(alert: Alert) -> list[tuple[Notification, str]]:
    """With what each tells of all its alerts: "firing" or "resolved". Keys are UUIDv7: those from before the alert
    began need not be looked at."""
    since = first_id(alert.started_at)
    rows = Notification.objects.filter(pk__gte=since, alerts__contains=[alert.pk]).defer("payload")
    rows = rows.annotate(tells=F("payload__status"))
    return [(row, row.tells) for row in rows.order_by("pk")[:MESSAGES]]


def _told(message: Notification, *, tells: str) -> Step:
    tries = f"{message.attempts} tr{'y' if message.attempts == 1 else 'ies'}"
    said = {
        NotificationState.DELIVERED: f"delivered, {tries}",
        NotificationState.FAILED: f"given up after {tries}: {message.problem}",
        NotificationState.SENDING: "being sent",
    }.get(NotificationState(message.state), f"to be sent{f' again: {message.problem}' if message.problem else ''}")
    is_told = message.state == NotificationState.DELIVERED
    what = " of the end" if tells == "resolved" else ""
    return Step(
        at=message.delivered_at or message.created_at,
        title=f"{'Told' if is_told else 'Not yet told'}{what} over {message.route_name}",
        detail=f"{message.get_channel_display()}, {said}",
        icon="check" if is_told else "cross" if message.state == NotificationState.FAILED else "clock",
        tone=MESSAGE_TONES.get(NotificationState(message.state), "waiting"),
    )


def history(alert: Alert) -> list[trail.Line]:
    """What the audit trail has of it, for those who may read it."""
    return trail.lines_of(list(audit.events_of(subject_type="alert", subject_id=str(alert.pk))[:MAX_EVENTS]))
