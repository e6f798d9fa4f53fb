"""What watches over a run found: its alerts and its anomalies, as lines of its page and as marks over its epochs."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import Count, F, Max, Value
from django.urls import reverse

from apps.observability.lifecycle import AlertState
from apps.observability.models import Alert, Anomaly, Severity
from apps.training.models import EpochMetric, TrainingRun

MOST = 100
"""Of each, the newest; the page of alerts has them all."""
ANCHORS = 500
"""Measured epochs that moments are placed by, at most about twice as many."""
SERIOUS = {Severity.CRITICAL: 0, Severity.WARNING: 1, Severity.INFO: 2}


def summary(run_id: UUID) -> tuple[tuple[str, int, datetime | None], ...]:
    """(alert state or ``anomaly``, how many, when the newest was seen to by a person or lasted): equal summaries, equal
    marks. One query."""
    alerts = Alert.objects.filter(run_id=run_id).values_list("state").order_by()
    anomalies = Anomaly.objects.filter(run_id=run_id).values_list(Value("anomaly")).order_by()
    found = alerts.annotate(count=Count("id"), newest=Max("acknowledged_at")).union(
        anomalies.annotate(count=Count("id"), newest=Max("until")), all=True
    )
    return tuple(sorted(row for row in found if row[1]))


@dataclass(frozen=True, slots=True)
class Watched:
    """Alerts of a run, those that fire first and the gravest first among them; and its anomalies, the newest first."""

    alerts: Sequence[Alert]
    anomalies: Sequence[Anomaly]
    places: "Places"

    @property
    def firing(self) -> list[Alert]:
        return [alert for alert in self.alerts if alert.state == AlertState.FIRING]

    def marks(self) -> list[dict[str, Any]]:
        """Events of the page's rail; each is also a band over the curves from ``at`` to ``until`` (None: still)."""
        return [*map(self._alert_mark, self.alerts), *map(self._anomaly_mark, self.anomalies)]

    def _alert_mark(self, alert: Alert) -> dict[str, Any]:
        state = {AlertState.FIRING: "firing", AlertState.PENDING: "pending"}.get(AlertState(alert.state), "resolved")
        return {
            "kind": "alert",
            "at": self.places.of(alert.started_at),
            "until": self.places.of(alert.resolved_at) if alert.resolved_at else None,
            "seed": None,
            "text": f"alert {alert.rule_name} ({alert.severity}, {state}): {alert.summary}",
            "href": reverse("dashboards:alert", args=[alert.pk]),
        }

    def _anomaly_mark(self, anomaly: Anomaly) -> dict[str, Any]:
        return {
            "kind": "anomaly",
            "at": self.places.of(anomaly.at),
            "until": self.places.of(anomaly.until),
            "seed": None,
            "text": f"anomaly of {anomaly.series.name}: {anomaly.explanation}",
            "href": f"{reverse('dashboards:anomalies')}?run={anomaly.run_id}",
        }


@dataclass(frozen=True, slots=True)
class Places:
    """Where moments lie on the axis of a run: between the epochs that were measured before and after them."""

    moments: Sequence[datetime]
    epochs: Sequence[tuple[int, int]]
    """(epoch, step) measured at each of ``moments``."""

    def of(self, moment: datetime) -> tuple[int, float]:
        """(epoch, step) of a moment, steps spread evenly between two measured epochs; before the first: its start."""
        after = bisect_right(self.moments, moment)
        if after == 0:
            return 0, 0.0
        epoch, step = self.epochs[after - 1]
        if after == len(self.moments):
            return epoch, float(step)
        began, ends = self.moments[after - 1], self.moments[after]
        next_step = max(step, self.epochs[after][1])
        return epoch, step + (next_step - step) * ((moment - began) / (ends - began))


def places(run: TrainingRun) -> Places:
    """One query."""
    every = max(1, run.epochs // ANCHORS)
    rows = EpochMetric.objects.filter(run=run).alias(part=F("epoch") % every).filter(part=0).order_by("at", "epoch")
    found = list(rows.values_list("at", "epoch", "step"))
    if run.started_at and (not found or run.started_at < found[0][0]):
        found.insert(0, (run.started_at, 0, 0))
    return Places(moments=[at for at, _, _ in found], epochs=[(epoch, step) for _, epoch, step in found])


def watched(run: TrainingRun) -> Watched:
    """Three queries; two where there is nothing."""
    alerts = list(Alert.objects.filter(run_id=run.pk).defer("evidence").order_by("-id")[:MOST])
    anomalies = list(Anomaly.objects.filter(run_id=run.pk).select_related("series").order_by("-at")[:MOST])
    alerts.sort(key=lambda alert: (alert.state != AlertState.FIRING, SERIOUS.get(Severity(alert.severity), 3)))
    return Watched(
        alerts=alerts, anomalies=anomalies, places=places(run) if alerts or anomalies else Places(moments=(), epochs=())
    )
