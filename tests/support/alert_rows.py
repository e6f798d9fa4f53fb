"""Rows of a platform that is watched: curves of hosts and queues, alerts of all kinds, who was told, what was odd.

Only tests use this. Curves follow from their arguments: the same call makes the same samples.
"""

import math
import random
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, cast
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from apps.audit import services as audit
from apps.audit.watched import image
from apps.core.actors import SYSTEM
from apps.observability.anomalies import words
from apps.observability.contracts import Reading
from apps.observability.lifecycle import AlertState, NotificationState
from apps.observability.models import (
    Alert,
    AlertRule,
    Anomaly,
    Channel,
    DeliveryAttempt,
    DetectorState,
    Notification,
    Sample,
    Series,
    Severity,
)
from apps.observability.store import writing
from tests.support.factories import (
    AlertFactory,
    AlertRouteFactory,
    AlertRuleFactory,
    NotificationFactory,
    SilenceFactory,
)

Shape = Callable[[float], float]
"""Of hours before now (0 to the length of the curve) to a value."""


def measured(
    name: str,
    shape: Shape,
    *,
    labels: Mapping[str, str] | None = None,
    hours: float = 1.0,
    every: float = 60.0,
    noise: float = 0.0,
    unit: str = "",
    kind: str = "gauge",
    run_id: UUID | None = None,
    whole: bool = False,
) -> Series:
    """A series with samples of the last ``hours``, one in ``every`` seconds. ``whole``: counts."""
    end = timezone.now()
    chance = random.Random(f"{name}{sorted((labels or {}).items())}")  # the same curve each time
    readings = [
        Reading(
            name=name,
            value=_rounded(shape(hours * (1 - place / (count - 1))) + chance.gauss(0.0, 1.0) * noise, whole),
            at=end - timedelta(seconds=every * (count - 1 - place)),
            labels=labels or {},
            kind=kind,
            unit=unit,
            run_id=run_id,
        )
        for count in (int(hours * 3600 / every) + 1,)
        for place in range(count)
    ]
    writing.record(readings, source="run" if run_id else "platform")
    return Series.objects.get(name=name, labels=dict(labels or {}))


def _rounded(value: float, whole: bool) -> float:
    return float(max(0, round(value))) if whole else value


def firing(series: Series, rule: AlertRule, *, ago: timedelta, **values: Any) -> Alert:
    """An alert of ``rule`` on ``series`` that began so long ago."""
    began = timezone.now() - ago
    state = values.get("state", AlertState.FIRING)
    severity = values.pop("severity", rule.severity)
    labels = {**series.labels, "alertname": rule.name, "severity": severity}
    columns = dict(
        rule_id=rule.pk,
        rule_name=rule.name,
        metric=series.name,
        series_id=series.pk,
        run_id=series.run_id,
        severity=severity,
        labels=labels,
        remedy=rule.remedy,
        started_at=began,
        fired_at=None if state == AlertState.PENDING else began + timedelta(seconds=rule.for_seconds),
        **{"evidence": {"reading": "last", "op": ">", "value": values.get("value")}, **values},
    )
    if state == AlertState.RESOLVED:
        return cast(Alert, AlertFactory(**columns))
    with transaction.atomic():  # as the service does it: the audit's net finds its event
        alert: Alert = AlertFactory(**columns)
        audit.record(type="alert.fired", subject=alert, actor=SYSTEM, reason=alert.summary, after=image(alert))
    return alert


def odd(series: Series, *, ago: timedelta, value: float, low: float, high: float, **values: Any) -> Anomaly:
    """An anomaly that began so long ago and, unless ``until`` says else, goes on."""
    at = timezone.now() - ago
    anomaly: Anomaly = Anomaly.objects.create(
        workspace_id=series.workspace_id,
        series=series,
        run_id=series.run_id,
        at=at,
        value=value,
        expected_low=low,
        expected_high=high,
        **{
            "until": at + ago,
            "score": 0.97,
            "component": "extreme",
            "components": {"extreme": 0.62, "shift": 0.35},
            "explanation": words.sentence(values.get("component", "extreme"), value, low, high, seconds=6 * 3600),
            **values,
        },
    )
    DetectorState.objects.get_or_create(
        series=series, defaults={"version": 1, "state": {}, "seen": 1000, "state_at": at, "last_at": at + ago}
    )
    seen = Sample.objects.filter(series_id=series.pk, at__gte=at, at__lte=at + timedelta(minutes=2))
    writing.mark_anomalous([(series.pk, moment) for moment in seen.values_list("at", flat=True)[:1]])
    return anomaly


def message(alert: Alert, *, route: Any, tries: int = 1, **values: Any) -> Notification:
    """A message about ``alert``: tried so often, and delivered with the last try unless ``state`` says else."""
    state = values.pop("state", NotificationState.DELIVERED)
    now = timezone.now()
    row: Notification = NotificationFactory(
        route_id=route.pk,
        route_name=route.name,
        channel=route.channel,
        alerts=[alert.pk],
        state=state,
        attempts=tries,
        delivered_at=now if state == NotificationState.DELIVERED else None,
        **values,
    )
    for place in range(tries):
        is_good = state == NotificationState.DELIVERED and place == tries - 1
        DeliveryAttempt.objects.create(
            notification=row,
            seconds=0.12 + place,
            status=200 if is_good else 503,
            problem="" if is_good else "the other side answered 503 Service Unavailable",
        )
    return row


def rising(start: float, end: float, *, over: float) -> Shape:
    """A value that has gone from ``start`` to ``end`` in the last ``over`` hours."""
    return lambda hours: end + (start - end) * min(hours / over, 1.0)


def daily(low: float, high: float) -> Shape:
    return lambda hours: low + (high - low) * (0.5 + 0.5 * math.sin(hours * 2.1))


def stepping(before: float, after: float, *, at: float) -> Shape:
    """A value that jumped ``at`` hours ago."""
    return lambda hours: before if hours > at else after


def watched_platform(*, run: Any = None, hours: float = 6.0, every: float = 60.0) -> dict[str, Any]:
    """A platform on which things happen: what the pages of alerts, anomalies and the fleet show. By name."""
    span: dict[str, Any] = {"hours": hours, "every": every}
    disk = measured(
        "esper_host_disk_used_ratio", rising(0.71, 0.932, over=hours * 0.8), noise=0.002, unit="ratio",
        labels={"host": "gpu-1", "disk": "checkpoints"}, **span,
    )  # fmt: skip
    for host in ("gpu-1", "gpu-2"):
        measured("esper_host_cpu_ratio", daily(0.35, 0.88), noise=0.04, unit="ratio", labels={"host": host}, **span)
        measured(
            "esper_host_memory_used_ratio", daily(0.5, 0.62), noise=0.005, unit="ratio", labels={"host": host}, **span
        )
        measured("esper_host_load", daily(3.0, 9.0), noise=0.4, labels={"host": host}, **span)
    measured(
        "esper_host_disk_used_ratio", rising(0.42, 0.45, over=hours), unit="ratio",
        labels={"host": "gpu-2", "disk": "checkpoints"}, **span,
    )  # fmt: skip
    queue = measured(
        "esper_queue_messages", stepping(2, 46, at=0.7), noise=1.5, whole=True, labels={"queue": "compile"}, **span
    )  # fmt: skip
    for name in ("default", "train"):
        measured("esper_queue_messages", lambda hours: 1.0, labels={"queue": name}, **span)
    for name in ("default", "train", "compile"):
        measured(
            "esper_queue_oldest_age_seconds", daily(0.0, 9.0), unit="seconds", labels={"queue": name}, **span
        )  # fmt: skip
    for state in ("active", "idle"):
        measured("esper_database_connections", daily(4.0, 14.0), noise=0.8, whole=True, labels={"state": state}, **span)
    measured("esper_database_connections_used_ratio", daily(0.2, 0.3), unit="ratio", **span)
    measured("esper_redis_memory_used_ratio", daily(0.31, 0.33), unit="ratio", labels={"server": "cache"}, **span)
    measured("esper_collector_up", lambda hours: 1.0, labels={"collector": "hosts"}, **span)

    full: Any = AlertRuleFactory(
        name="Disk is nearly full",
        description="Checkpoints, caches and the database cannot be written when it is full.",
        metric=disk.name,
        severity=Severity.CRITICAL,
        for_seconds=120,
        shipped="disk-nearly-full",
        remedy="Archive or expire checkpoints (Checkpoints, Retention), or give the host a larger disk.",
    )
    long: Any = AlertRuleFactory(
        name="A queue is long",
        metric=queue.name,
        parameters={"op": ">", "value": 30.0, "reading": "mean", "window_seconds": 300, "least_samples": 1},
        for_seconds=300,
        remedy="Start another worker of this queue (docs/running.md).",
    )
    quiet: Any = AlertRuleFactory(name="Memory is nearly full", metric="esper_host_memory_used_ratio")
    AlertRuleFactory(name="GPU memory grew", kind="change", metric="esper_gpu_memory_bytes", enabled=False,
                     parameters={"direction": "up", "percent": 50.0, "window_seconds": 300,
                                 "baseline_seconds": 3600, "least_samples": 20})  # fmt: skip
    disk_alert = firing(
        disk, full, ago=timedelta(hours=hours * 0.12), value=0.932, threshold=0.9,
        summary="Disk checkpoints of gpu-1 is 93.2 % full",
    )  # fmt: skip
    queue_alert = firing(
        queue, long, ago=timedelta(minutes=41), value=45.7, threshold=30.0,
        summary="46 messages wait in the queue compile",
        evidence={"reading": "mean", "op": ">", "window_seconds": 300, "samples": 20},
        acknowledged_at=timezone.now() - timedelta(minutes=12), note="a second compile worker starts at noon",
    )  # fmt: skip
    over = firing(
        queue, long, ago=timedelta(hours=3), value=34.0, threshold=30.0, state=AlertState.RESOLVED,
        summary="34 messages wait in the queue compile", resolved_at=timezone.now() - timedelta(hours=2.6),
    )  # fmt: skip
    silence: Any = SilenceFactory(
        matchers=[{"label": "queue", "op": "=", "value": "compile"}], comment="the compile host gets a new disk"
    )
    team: Any = AlertRouteFactory(name="operators", group_by=["alertname"])
    mail: Any = AlertRouteFactory(
        name="night shift", channel=Channel.EMAIL, target="night@example.org", secret="",
        matchers=[{"label": "severity", "op": "=", "value": "critical"}],
    )  # fmt: skip
    told = message(disk_alert, route=team, tries=2)
    failed = message(
        disk_alert, route=mail, tries=12, state=NotificationState.FAILED,
        problem="the mail server does not answer",
    )  # fmt: skip
    strange = odd(queue, ago=timedelta(minutes=40), value=46.0, low=0.0, high=6.0)
    found: dict[str, Any] = {
        "disk": disk, "queue": queue, "rule": full, "quiet_rule": quiet, "disk_alert": disk_alert,
        "queue_alert": queue_alert, "resolved": over, "silence": silence, "route": team, "told": told,
        "failed": failed, "odd": strange,
    }  # fmt: skip
    return found | (_of_run(run, span) if run is not None else {})


def _of_run(run: Any, span: Mapping[str, Any]) -> dict[str, Any]:
    """A loss that leapt, seen by a rule and by the detector."""
    labels = {"run": str(run.pk)}
    loss = measured(
        "esper_run_train_loss", lambda hours: 0.31 + 0.04 * hours + (1.4 if 0.15 < hours < 0.3 else 0.0), noise=0.012,
        labels=labels, run_id=run.pk, **span,
    )  # fmt: skip
    spike: Any = AlertRuleFactory(
        name="Loss spike",
        kind="spike",
        metric=loss.name,
        parameters={
            "direction": "up", "score": 8.0, "recent_seconds": 60, "window_seconds": 3600, "least_samples": 30,
        },
        remedy="Look at the decisions of the last epochs; restore an earlier checkpoint if it does not come back.",
    )  # fmt: skip
    alert = firing(
        loss, spike, ago=timedelta(minutes=17), value=1.71, threshold=0.44,
        summary=f"The training loss of {run.name} leapt to 1.71", state=AlertState.PENDING,
        evidence={"median": 0.327, "deviation": 0.014, "score": 98.8, "samples": 240},
    )  # fmt: skip
    strange = odd(
        loss, ago=timedelta(minutes=18), value=1.71, low=0.29, high=0.37, until=timezone.now() - timedelta(minutes=9),
        component="shift", components={"shift": 0.71, "sequence": 0.22}, score=0.991,
    )  # fmt: skip
    return {"loss": loss, "loss_alert": alert, "loss_odd": strange}
