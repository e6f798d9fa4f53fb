"""Alerts as people and notifications look at them: which are open, which are muted and by what."""

import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import reduce
from typing import Any
from uuid import UUID

import structlog
from django.db.models import Count, Q, QuerySet
from django.utils import timezone

from apps.core.errors import Invalid
from apps.observability import matchers as matching
from apps.observability.lifecycle import OPEN, AlertState
from apps.observability.matchers import Matcher
from apps.observability.models import Alert, AlertRule, Severity, Silence
from apps.observability.rules.wording import PROBLEM

log = structlog.get_logger(__name__)

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
    active = [(row.pk, row.workspace_id, matchers) for row in silences(now) if (matchers := _matchers(row))]
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
    firing: dict[str, list[Alert]] = {}
    for alert in Alert.objects.filter(state=AlertState.FIRING, rule_name__in=names).order_by("id"):
        firing.setdefault(alert.rule_name, []).append(alert)
    found: dict[UUID, set[UUID]] = {}
    for rule in inhibited.values():
        for each in rule.inhibited_by:
            others = _by_values(firing.get(each["rule"], ()), each["equal"])
            for alert in by_rule[rule.pk]:
                found.setdefault(alert.pk, set()).update(others.get(_values(alert, each["equal"]), ()))
    return {key: sorted(others - {key}) for key, others in found.items()}


def _by_values(alerts: Iterable[Alert], labels: Sequence[str]) -> dict[tuple[Any, ...], list[UUID]]:
    """Ids of alerts by what they have to agree in: each is looked at once, however many there are to compare it to."""
    found: dict[tuple[Any, ...], list[UUID]] = {}
    for alert in alerts:
        found.setdefault(_values(alert, labels), []).append(alert.pk)
    return found


def _values(alert: Alert, labels: Sequence[str]) -> tuple[Any, ...]:
    return (alert.workspace_id, *(alert.labels.get(label, "") for label in labels))


def _matchers(silence: Silence) -> tuple[Matcher, ...]:
    """Of a silence; none where they can be read no more: it silences nothing then."""
    try:
        return matching.parse(silence.matchers)
    except Invalid as error:
        log.error("silence_unreadable", silence=str(silence.pk), problem=error.detail)
        return ()
