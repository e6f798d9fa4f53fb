"""What becomes of alerts: they begin, fire, are acknowledged, are resolved. Each step is an event of the trail."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from django.db import transaction
from django.utils import timezone

from apps.audit import services as audit
from apps.audit.watched import image
from apps.core.actors import SYSTEM, Actor
from apps.core.errors import Conflict, Invalid
from apps.core.parsers import is_storable
from apps.observability.lifecycle import ALERT_LIFECYCLE, OPEN, AlertState
from apps.observability.models import Alert, AlertRule
from apps.observability.rules import wording
from apps.observability.rules.observed import Verdict
from apps.observability.selectors.observing import Sighting

LONGEST_NOTE = 4_000
REMOVED, DISABLED, CHANGED = "its rule was removed", "its rule is disabled", "its rule has changed"
BECAUSE = "resolved_because"
"""The entry of ``evidence`` that says why it is over."""


@transaction.atomic
def begin(*, rule: AlertRule, sighting: Sighting, now: datetime) -> Alert:
    """The condition of ``rule`` holds where it did not: an alert that waits for ``for_seconds``, or fires at once."""
    fires = rule.for_seconds == 0
    alert = Alert(
        workspace_id=rule.workspace_id,
        rule_id=rule.pk,
        rule_name=rule.name,
        fingerprint=sighting.fingerprint,
        state=AlertState.FIRING if fires else AlertState.PENDING,
        severity=rule.severity,
        metric=sighting.metric,
        series_id=sighting.series.id if sighting.series else None,
        run_id=sighting.series.run_id if sighting.series else None,
        labels=dict(sighting.labels),
        remedy=rule.remedy,
        started_at=now,
        fired_at=now if fires else None,
        last_true_at=now,
        last_seen_at=now,
        **_said(rule, sighting.metric, sighting.labels, sighting.verdict),
    )
    alert.save(force_insert=True)
    event = "alert.fired" if fires else "alert.raised"
    audit.record(type=event, subject=alert, actor=SYSTEM, reason=alert.summary, after=image(alert))
    return alert


@transaction.atomic
def fire(*, alert: Alert, rule: AlertRule, verdict: Verdict, now: datetime) -> Alert:
    """The condition has held for as long as the rule waits: people are told, with what is seen now."""
    ALERT_LIFECYCLE.check(alert.state, AlertState.FIRING)
    before = image(alert)
    alert.state, alert.fired_at = AlertState.FIRING, now
    for name, value in _said(rule, alert.metric, alert.labels, verdict).items():
        setattr(alert, name, value)
    alert.save()
    audit.record(
        type="alert.fired", subject=alert, actor=SYSTEM, reason=alert.summary, before=before, after=image(alert)
    )
    return alert


@transaction.atomic
def resolve(*, alert: Alert, because: str, now: datetime, actor: Actor = SYSTEM) -> Alert:
    """It is over, and why."""
    ALERT_LIFECYCLE.check(alert.state, AlertState.RESOLVED)
    before = image(alert)
    alert.state, alert.resolved_at = AlertState.RESOLVED, now
    alert.evidence = {**alert.evidence, BECAUSE: because}
    alert.save()
    audit.record(type="alert.resolved", subject=alert, actor=actor, reason=because, before=before, after=image(alert))
    return alert


@transaction.atomic
def resolve_all(*, alerts: Iterable[Alert], because: str, now: datetime, actor: Actor = SYSTEM) -> int:
    """Resolve those of ``alerts`` that are still open, and return how many were."""
    chosen = Alert.objects.select_for_update(of=("self",)).filter(pk__in=[alert.pk for alert in alerts], state__in=OPEN)
    found = list(chosen)
    for alert in found:
        resolve(alert=alert, because=because, now=now, actor=actor)
    return len(found)


@transaction.atomic
def acknowledge(*, alert: Alert, note: str = "", actor: Actor) -> Alert:
    """Somebody has seen it and says so: it is not told again while it fires. A second time, the newer note counts.

    Raises:
        Conflict: it is resolved. Invalid: the note is too long.
    """
    if len(note) > LONGEST_NOTE or not is_storable(note):
        raise Invalid(f"must be a text of at most {LONGEST_NOTE} characters", pointer="/note", code="invalid")
    fresh = Alert.objects.select_for_update(of=("self",)).get(pk=alert.pk)
    if fresh.state not in OPEN:
        raise Conflict("the alert is resolved: there is nothing to acknowledge", code="resolved")
    before = image(fresh)
    fresh.acknowledged_at, fresh.acknowledged_by_id, fresh.note = timezone.now(), actor.id, note
    fresh.save()
    audit.record(type="alert.acknowledged", subject=fresh, actor=actor, reason=note, before=before, after=image(fresh))
    return fresh


def _said(rule: AlertRule, metric: str, labels: Mapping[str, str], verdict: Verdict) -> dict[str, Any]:
    """What the alert tells of the verdict."""
    summary = wording.summary_of(rule.summary, rule_name=rule.name, metric=metric, labels=labels, verdict=verdict)
    return {
        "summary": summary,
        "value": verdict.value,
        "threshold": verdict.threshold,
        "evidence": {**verdict.evidence, "value": verdict.evidence.get("value", verdict.value)},
    }
