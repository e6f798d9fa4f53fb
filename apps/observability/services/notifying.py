"""Which messages are owed to which routes: groups of alerts, after Alertmanager's rules.

A group is what fires and agrees in the labels of ``group_by``. Its first message waits for ``group_wait_seconds``, so
that what belongs together comes together. While it lasts, news (another alert, the end of one) wait for
``group_interval_seconds`` after the last message; without news it is repeated after ``repeat_interval_seconds``, unless
somebody has acknowledged every alert. Silenced and inhibited alerts are in no message; their end is told to whom their
beginning was. All of it follows from the newest message of the group: no process remembers anything.

A group has one message on its way at a time: what happens meanwhile is in the next one, so that none overtakes another.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

import structlog
from django.conf import settings
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from apps.audit import services as audit
from apps.core.actors import Actor
from apps.core.errors import Conflict
from apps.core.ids import new_id
from apps.observability.delivery import payloads
from apps.observability.delivery.grouping import Message, decide, group_key, is_over
from apps.observability.lifecycle import TEST, UNDER_WAY, AlertState
from apps.observability.matchers import matches, parse
from apps.observability.models import Alert, AlertRoute, Notification
from apps.observability.selectors.alerts import mutings

log = structlog.get_logger(__name__)

MOST_TESTS = 5
"""Tests of a route that are under way at once."""


@dataclass(slots=True)
class Group:
    labels: Mapping[str, str] = field(default_factory=dict)
    firing: list[Alert] = field(default_factory=list)
    last: Notification | None = None


@transaction.atomic
def notify(now: datetime) -> int:
    """Write down the messages that are owed at ``now``; how many. ``delivering`` sends them.

    Of two at the same time the second waits for the first, and finds its messages.
    """
    held = AlertRoute.objects.select_for_update(of=("self",), no_key=True).select_related("workspace")
    if not (listening := list(held.filter(enabled=True).order_by("pk"))):
        return 0
    firing = list(Alert.objects.filter(state=AlertState.FIRING).order_by("pk"))
    muted = mutings(firing, now)
    heard = [alert for alert in firing if not muted[alert.pk]]
    lasts = _newest(listening)
    ended = _ended(lasts.values())
    written: list[Notification] = []
    replaced: list[UUID] = []
    for route in listening:
        try:
            owed, over = _owed(route, heard, lasts, ended, now)
        except Exception:  # of whatever kind: the other routes have to hear
            log.exception("route_not_told", route=route.name)
            continue
        written += owed
        replaced += over
    Notification.objects.filter(pk__in=replaced).update(open_alerts=[])
    Notification.objects.bulk_create(written)
    return len(written)


def _owed(
    route: AlertRoute,
    heard: Iterable[Alert],
    lasts: Mapping[tuple[UUID, str], Notification],
    ended: Mapping[UUID, Alert],
    now: datetime,
) -> tuple[list[Notification], list[UUID]]:
    """The messages that a route is owed, and those before them that tell of what is open no more."""
    written: list[Notification] = []
    replaced: list[UUID] = []
    for key, group in _groups(route, heard, lasts).items():
        message = decide(route, group.firing, group.last, ended, now)
        if message is not None:
            written.append(_notification(route, key, group, message, now))
        if group.last and (message is not None or is_over(route, group.last, ended, now)):
            replaced.append(group.last.pk)
    return written, replaced


@transaction.atomic
def send_test(*, route: AlertRoute, actor: Actor, reason: str = "") -> Notification:
    """Send a message about a test alert over the route, also over one that is not enabled.

    Raises:
        Conflict: some tests of it have not been answered yet.
    """
    fresh = AlertRoute.objects.select_for_update(of=("self",), no_key=True).get(pk=route.pk)
    waiting = Notification.objects.filter(route_id=fresh.pk, group_key=TEST, state__in=UNDER_WAY).count()
    if waiting >= MOST_TESTS:
        raise Conflict(f"{waiting} tests of this route are under way: wait for them", code="tests_under_way")
    now = timezone.now()
    told = payloads.test_payload(route=fresh, group_key=TEST, site=settings.PUBLIC_URL, now=now)
    row = _row(fresh, TEST, told, now)
    row.save(force_insert=True)
    audit.record(
        type="alert_route.tested", subject=fresh, actor=actor, reason=reason, payload={"notification": str(row.pk)}
    )
    return row


def _newest(routes: Sequence[AlertRoute]) -> dict[tuple[UUID, str], Notification]:
    """Of each group that lasts, its newest message."""
    rows = (
        Notification.objects.filter(route_id__in=[route.pk for route in routes])
        .filter(~Q(open_alerts=[]) | Q(state__in=UNDER_WAY))
        .exclude(group_key=TEST)
        .defer("payload")
        .order_by("pk")
    )
    return {(row.route_id, row.group_key): row for row in rows}


def _ended(lasts: Iterable[Notification]) -> dict[UUID, Alert]:
    told = {pk for last in lasts for pk in last.open_alerts}
    return Alert.objects.filter(state=AlertState.RESOLVED).in_bulk(list(told)) if told else {}


def _groups(
    route: AlertRoute, heard: Iterable[Alert], lasts: Mapping[tuple[UUID, str], Notification]
) -> dict[str, Group]:
    """By key: what the route is to hear of now, and what it was told last."""
    groups: dict[str, Group] = defaultdict(Group)
    matchers = parse(route.matchers)
    for alert in heard:
        if alert.workspace_id != route.workspace_id or not matches(matchers, alert.labels):
            continue
        labels = {name: str(alert.labels[name]) for name in route.group_by if name in alert.labels}
        group = groups[group_key(route, labels)]
        group.labels = labels
        group.firing.append(alert)
    for (route_id, key), last in lasts.items():
        if route_id == route.pk:
            groups[key].last = last
    return groups


def _notification(route: AlertRoute, key: str, group: Group, message: Message, now: datetime) -> Notification:
    labels = group.labels
    if not group.firing:  # all are over: the group's labels are theirs
        (first, *_) = message.resolved
        labels = {name: str(first.labels[name]) for name in route.group_by if name in first.labels}
    told = payloads.payload(
        route=route,
        group_key=key,
        group_labels=labels,
        firing=message.firing,
        resolved=message.resolved,
        site=settings.PUBLIC_URL,
    )
    row = _row(route, key, told, now)
    row.alerts = [alert.pk for alert in (*message.firing, *message.resolved)]
    row.open_alerts = list(message.open_ids)
    return row


def _row(route: AlertRoute, key: str, told: payloads.Payload, now: datetime) -> Notification:
    return Notification(
        id=new_id(),
        workspace=route.workspace,
        route_id=route.pk,
        route_name=route.name,
        channel=route.channel,
        group_key=key,
        payload=told,
        created_at=now,
        due_at=now,
    )
