"""What decides who is told of what: rules with how they stand now, silences, routes, and every delivery."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db.models import Count, F, Prefetch
from django.utils import timezone

from apps.accounts.models import User
from apps.dashboards import rule_words
from apps.dashboards.selectors.paging import NewestPage, newest
from apps.observability import matchers
from apps.observability.lifecycle import OPEN, AlertState, NotificationState
from apps.observability.matchers import matches
from apps.observability.models import Alert, AlertRoute, AlertRule, Channel, DeliveryAttempt, Notification, Silence
from apps.observability.selectors.notifications import shown_target

RULES_SHOWN = 300
SILENCES_SHOWN = 100
ROUTES_SHOWN = 100
MESSAGES_SHOWN = 30
TRIES_SHOWN = 20
ABOUT = 3
"""Alerts of a message that are named."""
COMPARED = 1000
"""Open alerts that silences are tried on."""


# --- Rules


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleLine:
    """A rule in words. ``firing`` and ``pending``: its open alerts."""

    rule: AlertRule
    condition: str
    matchers: Sequence[str]
    firing: int
    pending: int

    @property
    def state(self) -> str:
        """ "off", or a state of an alert, or "quiet"."""
        if not self.rule.enabled:
            return "off"
        return AlertState.FIRING if self.firing else AlertState.PENDING if self.pending else "quiet"


def rules() -> list[RuleLine]:
    """What fires first, then by name. Two queries."""
    counts: dict[tuple[UUID, str], int] = {
        (rule, state): count
        for rule, state, count in Alert.objects.filter(state__in=OPEN)
        .order_by()
        .values_list("rule_id", "state")
        .annotate(Count("pk"))
    }
    lines = [
        rule_line(rule, counts.get((rule.pk, AlertState.FIRING), 0), counts.get((rule.pk, AlertState.PENDING), 0))
        for rule in AlertRule.objects.order_by("name")[:RULES_SHOWN]
    ]
    return sorted(lines, key=lambda line: (-line.firing, -line.pending, not line.rule.enabled, line.rule.name.lower()))


def rule_line(rule: AlertRule, firing: int = 0, pending: int = 0) -> RuleLine:
    return RuleLine(
        rule=rule,
        condition=rule_words.condition(rule),
        matchers=rule_words.matched(rule.matchers),
        firing=firing,
        pending=pending,
    )


# --- Silences


@dataclass(frozen=True, slots=True, kw_only=True)
class SilenceLine:
    """``mutes``: open alerts that it matches now, whether or not it is in force."""

    silence: Silence
    matchers: Sequence[str]
    state: str
    """"active", "to come" or "over"."""
    mutes: int
    created_by: str


def silences(now: datetime) -> list[SilenceLine]:
    """Those in force first, then those to come, then the newest that are over. Three queries."""
    rows = list(Silence.objects.filter(ends_at__gt=now).order_by("ends_at")[:SILENCES_SHOWN])
    rows += Silence.objects.filter(ends_at__lte=now).order_by("-ends_at")[: SILENCES_SHOWN - len(rows)]
    names = dict(
        User.objects.filter(pk__in={row.created_by_id for row in rows if row.created_by_id}).values_list(
            "pk", "username"
        )
    )
    open_labels = list(Alert.objects.filter(state__in=OPEN).order_by("-id").values_list("labels", flat=True)[:COMPARED])
    lines = [
        SilenceLine(
            silence=row,
            matchers=rule_words.matched(row.matchers),
            state=silence_state(row, now),
            mutes=_matching(row, open_labels) if row.ends_at > now else 0,
            created_by=names.get(row.created_by_id, "") if row.created_by_id else "",
        )
        for row in rows
    ]
    return sorted(lines, key=lambda line: ("active", "to come", "over").index(line.state))


def silence_state(silence: Silence, now: datetime) -> str:
    if silence.ends_at <= now:
        return "over"
    return "active" if silence.starts_at <= now else "to come"


def _matching(silence: Silence, found: Sequence[Mapping[str, str]]) -> int:
    wanted = matchers.parse(silence.matchers)
    return sum(matches(wanted, labels) for labels in found)


# --- Routes and deliveries


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteLine:
    """``target`` as everybody may see it: of a webhook its host only, the rest may be a secret."""

    route: AlertRoute
    target: str
    matchers: Sequence[str]
    waiting: int
    failed: int


def routes() -> list[RouteLine]:
    """Two queries."""
    rows = list(AlertRoute.objects.order_by("name")[:ROUTES_SHOWN])
    unsent = [NotificationState.PENDING, NotificationState.SENDING, NotificationState.FAILED]
    counts: dict[tuple[UUID, str], int] = {
        (route, state): count
        for route, state, count in Notification.objects.filter(route_id__in=[row.pk for row in rows], state__in=unsent)
        .order_by()
        .values_list("route_id", "state")
        .annotate(Count("pk"))
    }
    return [
        RouteLine(
            route=row,
            target=target_of(row),
            matchers=rule_words.matched(row.matchers),
            waiting=sum(counts.get((row.pk, state), 0) for state in unsent[:2]),
            failed=counts.get((row.pk, NotificationState.FAILED), 0),
        )
        for row in rows
    ]


def target_of(route: AlertRoute) -> str:
    if route.channel == Channel.EMAIL:
        addresses = route.target.split()
        return ", ".join(addresses[:3]) + (f" and {len(addresses) - 3} more" if len(addresses) > 3 else "")
    return shown_target(route)


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageLine:
    """``about``: ids and summaries of its first alerts. ``more``: how many others it is about. ``is_over``: whether it
    tells that all of them are over."""

    message: Notification
    is_over: bool
    about: Sequence[tuple[UUID, str]]
    more: int


def messages(*, route_id: UUID | None, state: str, after: UUID | None) -> NewestPage:
    """Notifications with their tries, the newest first. Three queries."""
    tries = Prefetch("tries", queryset=DeliveryAttempt.objects.order_by("-id"))
    rows = Notification.objects.defer("payload").annotate(tells=F("payload__status")).prefetch_related(tries)
    if route_id:
        rows = rows.filter(route_id=route_id)
    if state:
        rows = rows.filter(state=state)
    found = newest(rows, after=after, shown=MESSAGES_SHOWN)
    ids = {key for row in found.rows for key in row.alerts[:ABOUT]}
    said = dict(Alert.objects.filter(pk__in=ids).values_list("pk", "summary"))
    lines = [
        MessageLine(
            message=row,
            is_over=row.tells == "resolved",
            about=[(key, said[key]) for key in row.alerts[:ABOUT] if key in said],
            more=max(len(row.alerts) - ABOUT, 0),
        )
        for row in found.rows
    ]
    return NewestPage(rows=lines, next_after=found.next_after)


@dataclass(frozen=True, slots=True)
class Counts:
    """For the words on the tabs."""

    silences: int
    failed: int


def counts() -> Counts:
    """Two queries."""
    now = timezone.now()
    return Counts(
        silences=Silence.objects.filter(starts_at__lte=now, ends_at__gt=now).count(),
        failed=Notification.objects.filter(state=NotificationState.FAILED).count(),
    )
