"""Alerts as people and notifications look at them: which are open, which are muted and by what."""

import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import reduce
from typing import Any
from uuid import UUID

from django.db.models import Count, Q, QuerySet
from django.utils import timezone

from apps.observability import matchers as matching
from apps.observability.lifecycle import OPEN, AlertState
from apps.observability.models import Alert, AlertRule, Severity, Silence
from apps.observability.rules.wording import PROBLEM

MOST_OPEN = 5_000
"""Open alerts that are looked through for muted ones; the newest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Muting:
    """Why nobody is notified of an alert: ids of silences, and of firing alerts that inhibit it. Empty: they are."""

    silences: tuple[UUID, ...] = ()
    inhibited_by: tuple[UUID, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.silences or self.inhibited_by)


def muted(alert: Alert, now: datetime | None = None) -> Muting:
    """What mutes ``alert`` now."""
    return mutings([alert], now)[alert.pk]


def mutings(alerts: Sequence[Alert], now: datetime | None = None) -> dict[UUID, Muting]:
    """What mutes each of ``alerts`` now. Resolved ones can be silenced, and are not inhibited. At most three queries.

    As in Alertmanager, an alert is inhibited while a rule that its rule names fires with the same values of the labels
    named there, empty ones included, whether or not that alert is muted itself.
    """
    if not alerts:
        return {}
    active = [(silence.pk, silence.workspace_id, matching.parse(silence.matchers)) for silence in silences(now)]
    inhibitors = _inhibitors([each for each in alerts if each.state in OPEN and PROBLEM not in each.labels])
    return {
        alert.pk: Muting(
            silences=tuple(
                key
                for key, workspace_id, matchers in active
                if workspace_id == alert.workspace_id and matching.matches(matchers, alert.labels)
            ),
            inhibited_by=tuple(inhibitors.get(alert.pk, ())),
        )
        for alert in alerts
    }


def silences(now: datetime | None = None) -> QuerySet[Silence]:
    """Those that hold at ``now``."""
    now = now or timezone.now()
    return Silence.objects.filter(starts_at__lte=now, ends_at__gt=now).order_by("id")


def state_of(silence: Silence, now: datetime | None = None) -> str:
    """ "pending", "active" or "over"."""
    now = now or timezone.now()
    if silence.ends_at <= now:
        return "over"
    return "active" if silence.starts_at <= now else "pending"


def silences_in(rows: QuerySet[Silence], states: Iterable[str], now: datetime) -> QuerySet[Silence]:
    """Those of ``rows`` that are in one of the states, as ``state_of`` names them."""
    asked = {
        "pending": Q(starts_at__gt=now),
        "active": Q(starts_at__lte=now, ends_at__gt=now),
        "over": Q(ends_at__lte=now, starts_at__lte=now),
    }
    return rows.filter(reduce(operator.or_, (asked[state] for state in states), Q(pk__in=[])))


def open_alerts() -> QuerySet[Alert]:
    """Those that wait or fire, newest first."""
    return Alert.objects.filter(state__in=OPEN).order_by("-id")


def muted_ids() -> list[UUID]:
    """Open alerts of which nobody is notified now."""
    found = mutings(list(open_alerts()[:MOST_OPEN]))
    return [key for key, muting in found.items() if muting]


def matched_by(matchers: Any) -> list[Alert]:
    """Open alerts that a silence with these ``matchers`` (JSON) would mute.

    Raises:
        Invalid: they are wrong.
    """
    parsed = matching.parse(matchers)
    return [alert for alert in open_alerts()[:MOST_OPEN] if matching.matches(parsed, alert.labels)]


def counts() -> dict[tuple[str, str], int]:
    """How many alerts are open by state and severity, with zeros. One query."""
    found = {(str(state), severity): 0 for state in sorted(OPEN) for severity in Severity.values}
    rows = Alert.objects.filter(state__in=OPEN).order_by().values_list("state", "severity")
    return found | {(state, severity): count for state, severity, count in rows.annotate(alerts=Count("pk"))}


def _inhibitors(alerts: Iterable[Alert]) -> dict[UUID, list[UUID]]:
    """Alert -> firing alerts that inhibit it."""
    by_rule: dict[UUID, list[Alert]] = {}
    for alert in alerts:
        by_rule.setdefault(alert.rule_id, []).append(alert)
    rules = AlertRule.objects.filter(pk__in=by_rule).exclude(inhibited_by=[]) if by_rule else []
    inhibited = {rule.pk: rule for rule in rules}
    names = {each["rule"] for rule in inhibited.values() for each in rule.inhibited_by}
    if not names:
        return {}
    firing = list(Alert.objects.filter(state=AlertState.FIRING, rule_name__in=names).order_by("id"))
    return {
        alert.pk: [other.pk for other in firing if _inhibits(other, alert, rule.inhibited_by)]
        for rule in inhibited.values()
        for alert in by_rule[rule.pk]
    }


def _inhibits(other: Alert, alert: Alert, inhibitors: Iterable[Mapping[str, Any]]) -> bool:
    if other.pk == alert.pk or other.workspace_id != alert.workspace_id:
        return False
    return any(
        other.rule_name == each["rule"]
        and all(other.labels.get(label, "") == alert.labels.get(label, "") for label in each["equal"])
        for each in inhibitors
    )
