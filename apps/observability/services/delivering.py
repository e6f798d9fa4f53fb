"""Notifications that are due are sent, tried again, and given up: the outbox.

A worker claims rows, sends outside of any transaction, and writes down what became of each. One that dies leaves its
claims to run out; then they are sent again, under the same id: at least once, never forgotten. Each try is a row.
"""

import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import orjson
import structlog
from django.conf import settings
from django.db import connection, transaction
from django.db.models import F, Q
from django.db.models.functions import Now

from apps.audit import services as audit
from apps.core.actors import SYSTEM, Actor
from apps.core.errors import Conflict
from apps.core.ids import first_id
from apps.core.locks import Busy, alone
from apps.observability.delivery import mail, webhooks
from apps.observability.delivery.outcomes import Outcome, pause
from apps.observability.lifecycle import TEST, UNDER_WAY, NotificationState
from apps.observability.models import AlertRoute, Channel, DeliveryAttempt, Notification

log = structlog.get_logger(__name__)

TRIES = 14
"""Over more than three hours (``outcomes.pause``)."""
AT_ONCE = 8
BATCH = 16
CLAIM_SECONDS = 180
"""Longer than a batch takes: two rounds, each of which an e-mail of many addresses may draw out to over 30 s."""
ROUND_SECONDS = 30.0
"""After which no further batch is begun."""
PRUNED = 1000
WITHOUT_ROUTE = Outcome(delivered=False, problem="its route is gone", final=True)
WORKERS_DIED = Outcome(delivered=False, problem="the worker that tried it last did not come back", final=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """What one call did: ``failed`` are given up, ``postponed`` are tried again, ``pruned`` were too old to keep."""

    delivered: int = 0
    postponed: int = 0
    failed: int = 0
    pruned: int = 0


def deliver() -> Delivered:
    """Send what is due, each at most once at a time, and forget what is older than ``NOTIFICATION_KEEP_DAYS``.

    One worker at a time for each channel: a mail server that hangs holds up neither webhooks nor other work.
    """
    states = [state for channel in (Channel.WEBHOOK, Channel.EMAIL) for state in _deliver_over(channel)]
    return Delivered(
        delivered=states.count(NotificationState.DELIVERED),
        postponed=states.count(NotificationState.PENDING),
        failed=states.count(NotificationState.FAILED),
        pruned=_prune(),
    )


@transaction.atomic
def retry_notification(*, notification: Notification, actor: Actor, reason: str = "") -> Notification:
    """Try a notification again that was given up, at once and as often as a new one.

    Raises:
        Conflict: it was not given up, its route is gone, or a later message of its group tells more.
    """
    row = Notification.objects.select_for_update(of=("self",)).get(pk=notification.pk)
    if row.state != NotificationState.FAILED:
        raise Conflict(f"it is {row.state}: only one that FAILED can be tried again", code="not_failed")
    if not AlertRoute.objects.filter(pk=row.route_id).exists():
        raise Conflict("its route is gone", code="no_route")
    later = Notification.objects.filter(route_id=row.route_id, group_key=row.group_key, pk__gt=row.pk)
    if row.group_key != TEST and later.exists():
        raise Conflict("a later message of its group tells more: retry that one", code="overtaken")
    row.state, row.attempts, row.claimed_until = NotificationState.PENDING, 0, None
    row.due_at = _database_now()
    row.save(update_fields=["state", "attempts", "claimed_until", "due_at"])
    audit.record(type="notification.retried", subject=row, actor=actor, reason=reason)
    return row


def _deliver_over(channel: Channel) -> list[str]:
    """What became of each message that was due; nothing, while another worker does it."""
    until = time.monotonic() + ROUND_SECONDS
    states: list[str] = []
    with suppress(Busy), alone(f"observability: deliver by {channel}", busy="another worker delivers"):
        while time.monotonic() < until and (claimed := _claim(channel)):
            states += _send_all(claimed)
    return states


@transaction.atomic
def _claim(channel: Channel) -> list[Notification]:
    """The next batch, ours until ``claimed_until``. A claim that has run out was of a worker that is gone."""
    waits = Q(state=NotificationState.PENDING, due_at__lte=Now())
    is_left = Q(state=NotificationState.SENDING, claimed_until__lt=Now())
    found = Notification.objects.filter(waits | is_left, channel=channel).order_by("due_at", "pk")
    rows = list(found.select_for_update(of=("self",), skip_locked=True)[:BATCH])
    until = _database_now() + timedelta(seconds=CLAIM_SECONDS)
    Notification.objects.filter(pk__in=[row.pk for row in rows]).update(
        state=NotificationState.SENDING, claimed_until=until, attempts=F("attempts") + 1
    )
    for row in rows:
        row.state, row.claimed_until, row.attempts = NotificationState.SENDING, until, row.attempts + 1
    return rows


def _send_all(claimed: Sequence[Notification]) -> list[str]:
    """Send side by side, so that a target that hangs holds up no other; what became of each is written at once."""
    routes = AlertRoute.objects.in_bulk([row.route_id for row in claimed])
    with ThreadPoolExecutor(min(AT_ONCE, len(claimed)), thread_name_prefix="esper-deliver") as pool:
        sending = {pool.submit(_timed, row, routes.get(row.route_id)): row for row in claimed}
        return [_settle(sending[done], *done.result()) for done in as_completed(sending)]


def _timed(row: Notification, route: AlertRoute | None) -> tuple[Outcome, float]:
    began = time.perf_counter()
    try:
        outcome = _send(row, route)
    except Exception as error:  # a mistake of ours: this message must not keep the others waiting
        log.exception("notification_not_sent", notification=str(row.pk), route=row.route_name)
        outcome = Outcome(delivered=False, problem=f"could not be sent: {type(error).__name__}")
    return outcome, time.perf_counter() - began


def _send(row: Notification, route: AlertRoute | None) -> Outcome:
    """One try, without the database."""
    if route is None:
        return WITHOUT_ROUTE
    if row.attempts > TRIES:
        return WORKERS_DIED
    if route.channel == Channel.WEBHOOK:
        return webhooks.post(
            route.target,
            orjson.dumps(row.payload),
            secret=route.secret,
            notification=row.pk,
            allowed=webhooks.allowed_networks(),
        )
    everybody = mail.recipients(route.target)
    waiting = [address for address in everybody if address in row.waiting] if row.waiting else everybody
    return mail.send(row.payload, waiting, notification=row.pk)


@transaction.atomic
def _settle(row: Notification, outcome: Outcome, seconds: float) -> str:
    """Write down what became of a try; the state that follows."""
    problem = outcome.problem.replace("\0", "")
    DeliveryAttempt.objects.create(notification_id=row.pk, seconds=seconds, status=outcome.status, problem=problem)
    held = Notification.objects.select_for_update(of=("self",)).filter(
        pk=row.pk, state=NotificationState.SENDING, claimed_until=row.claimed_until
    )
    fresh = held.defer("payload").first()
    if fresh is None:  # we took so long that another worker has it now: what it finds counts
        return NotificationState.SENDING
    now = _database_now()
    fresh.state = _state_after(fresh, outcome)
    fresh.problem, fresh.waiting, fresh.claimed_until = problem, list(outcome.waiting), None
    if outcome.delivered:
        fresh.delivered_at = now
    elif fresh.state == NotificationState.PENDING:
        fresh.due_at = now + timedelta(seconds=pause(fresh.attempts, outcome.retry_after))
    fresh.save(update_fields=["state", "problem", "waiting", "claimed_until", "delivered_at", "due_at"])
    if fresh.state == NotificationState.FAILED:
        log.warning("notification_failed", notification=str(fresh.pk), route=fresh.route_name, problem=problem)
        audit.record(
            type="notification.failed",
            subject=fresh,
            actor=SYSTEM,
            outcome="failure",
            payload={"route": str(fresh.route_id), "attempts": fresh.attempts, "status": outcome.status},
        )
    return fresh.state


def _state_after(row: Notification, outcome: Outcome) -> NotificationState:
    if outcome.delivered:
        return NotificationState.DELIVERED
    is_over = outcome.final or row.attempts >= TRIES
    return NotificationState.FAILED if is_over else NotificationState.PENDING


def _prune() -> int:
    """Forget old notifications with their tries, some at a time; the newest of a group that lasts stays."""
    before = first_id(_database_now() - timedelta(days=settings.NOTIFICATION_KEEP_DAYS))
    old = Notification.objects.filter(pk__lt=before, open_alerts=[]).exclude(state__in=UNDER_WAY)
    return _removed(old.order_by("pk").values_list("pk", flat=True)[:PRUNED])


def _removed(ids: Iterable[UUID]) -> int:
    found = list(ids)
    if found:
        Notification.objects.filter(pk__in=found).delete()
    return len(found)


def _database_now() -> datetime:
    """The clock that all workers go by."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT statement_timestamp()")
        (now,) = cursor.fetchone()
    return now
