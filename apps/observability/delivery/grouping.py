"""When a group of alerts is told of, and what: Alertmanager's rules as a pure function of rows."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from apps.observability.lifecycle import UNDER_WAY, NotificationState
from apps.observability.models import Alert, AlertRoute, Notification

AFTER_FAILURE_SECONDS = 1800
"""What a message that was given up should have told is told anew after so long, or after the group's interval if that
is longer: who could not be reached for hours has not heard of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What is to be told: alerts that fire, and those that were told to fire and are over."""

    firing: tuple[Alert, ...]
    resolved: tuple[Alert, ...]
    open_ids: tuple[UUID, ...]
    """That the route takes for firing once it has the message."""


def group_key(route: AlertRoute, labels: Mapping[str, str]) -> str:
    """Stands for a group of a route, whatever the order of its labels."""
    return hashlib.sha256(json.dumps([str(route.pk), sorted(labels.items())]).encode()).hexdigest()


def decide(
    route: AlertRoute,
    firing: Sequence[Alert],
    last: Notification | None,
    ended: Mapping[UUID, Alert],
    now: datetime,
) -> Message | None:
    """What is to be told of a group now; None: nothing, or nothing yet.

    ``firing``: its alerts that fire and are not muted. ``last``: its newest message, while that tells of something as
    firing or is under way. ``ended``: alerts of such messages that are over.
    """
    told = set(last.open_alerts) if last else set()
    if last is not None and last.state in UNDER_WAY:
        return None
    again = {alert.fingerprint for alert in firing}
    over = [ended[pk] for pk in sorted(told & ended.keys())]
    resolved = [alert for alert in over if alert.fingerprint not in again] if route.send_resolved else []
    news = [alert for alert in firing if alert.pk not in told and alert.acknowledged_at is None]
    unanswered = [alert for alert in firing if alert.acknowledged_at is None]
    if not (news or resolved or unanswered):
        return None
    lasts = bool(told - ended.keys() or resolved)
    if now < _due(route, last, unanswered, lasts=lasts, has_news=bool(news or resolved)):
        return None
    shown = {alert.pk for alert in firing}
    silent = told - ended.keys() - shown  # muted since they were told
    return Message(firing=tuple(firing), resolved=tuple(resolved), open_ids=tuple(sorted(shown | silent)))


def is_over(route: AlertRoute, last: Notification, ended: Mapping[UUID, Alert], now: datetime) -> bool:
    """Whether nobody needs to look at a group again whose ``last`` message told of alerts that have ended since, of
    which its route is not told. Not before its interval is over: until then it holds back what begins anew."""
    is_told = last.state not in UNDER_WAY and set(last.open_alerts) <= ended.keys()
    return is_told and not route.send_resolved and now >= last.created_at + _seconds(route.group_interval_seconds)


def _due(
    route: AlertRoute, last: Notification | None, unanswered: Sequence[Alert], *, lasts: bool, has_news: bool
) -> datetime:
    """When the next message of a group may go. Of one that does not last, some alerts are ``unanswered``."""
    if last is not None and (lasts or not has_news):
        wait = route.group_interval_seconds if has_news else route.repeat_interval_seconds
        if last.state == NotificationState.FAILED:
            wait = min(wait, max(route.group_interval_seconds, AFTER_FAILURE_SECONDS))
        return last.created_at + _seconds(wait)
    first = min(alert.fired_at or alert.started_at for alert in unanswered) + _seconds(route.group_wait_seconds)
    return max(first, last.created_at + _seconds(route.group_interval_seconds)) if last else first


def _seconds(count: int) -> timedelta:
    return timedelta(seconds=count)
