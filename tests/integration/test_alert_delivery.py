"""The outbox of messages: claimed, sent outside of transactions, tried again, given up, pruned."""

import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.conf import LazySettings
from django.core import mail
from django.utils import timezone

from apps.audit.models import AuditEvent
from apps.core.actors import SYSTEM
from apps.core.errors import Conflict
from apps.core.ids import first_id, new_id
from apps.observability.collectors import notifications
from apps.observability.delivery import webhooks
from apps.observability.delivery.outcomes import pause
from apps.observability.lifecycle import NotificationState
from apps.observability.models import Channel, DeliveryAttempt, Notification
from apps.observability.services import delivering
from apps.observability.services.delivering import CLAIM_SECONDS, TRIES, deliver, retry_notification
from tests.support.factories import AlertRouteFactory, NotificationFactory
from tests.support.receivers import LOOPBACK, Receiver, receiving, status

pytestmark = pytest.mark.django_db


@pytest.fixture
def receiver(settings: LazySettings) -> Iterator[Receiver]:
    settings.WEBHOOK_ALLOWED_NETWORKS = LOOPBACK
    with receiving() as receiver:
        yield receiver


@pytest.fixture
def route(receiver: Receiver) -> Any:
    return AlertRouteFactory(target=receiver.url)


def owed(route: Any, **values: Any) -> Any:
    return NotificationFactory(route_id=route.pk, route_name=route.name, channel=route.channel, **values)


def due_again(row: Notification) -> None:
    Notification.objects.filter(pk=row.pk).update(due_at=timezone.now() - timedelta(seconds=1))


def refreshed(row: Notification) -> Notification:
    return Notification.objects.get(pk=row.pk)


def test_what_is_due_is_sent_signed_and_logged(receiver: Receiver, route: Any) -> None:
    row = owed(route)
    owed(route, due_at=timezone.now() + timedelta(minutes=1))

    assert deliver().delivered == 1

    (hook,) = receiver.got
    assert hook.told == row.payload
    assert hook.headers["Esper-Notification"] == str(row.pk)
    assert webhooks.verify(route.secret, hook.body, hook.headers["Esper-Signature"], timezone.now().timestamp())
    row = refreshed(row)
    assert (row.state, row.attempts, row.problem) == ("DELIVERED", 1, "")
    assert row.delivered_at is not None
    assert [(each.status, each.problem) for each in row.tries.all()] == [(204, "")]


def test_what_fails_twice_is_sent_a_third_time_under_the_same_id_each_time_later(
    receiver: Receiver, route: Any
) -> None:
    receiver.answers = [status(500), status(503)]
    row, waits = owed(route), []

    for _ in range(3):
        deliver()
        waits.append((refreshed(row).due_at - timezone.now()).total_seconds())
        due_again(row)

    assert {hook.headers["Esper-Notification"] for hook in receiver.got} == {str(row.pk)}
    assert refreshed(row).state == NotificationState.DELIVERED
    assert [each.status for each in row.tries.order_by("pk")] == [500, 503, 204]
    assert 5 < waits[0] < 13 < waits[1] < 26


def test_it_waits_as_long_as_it_is_asked_to(receiver: Receiver, route: Any) -> None:
    receiver.answers = [status(429, {"Retry-After": "900"})]
    row = owed(route)

    assert deliver().postponed == 1

    assert 890 < (refreshed(row).due_at - timezone.now()).total_seconds() <= 900


def test_pauses_grow_and_are_never_all_alike() -> None:
    assert [pause(n, spread=0.5) for n in (1, 2, 3, 20)] == [10, 20, 40, 1800]
    assert (pause(1, spread=0), pause(1, spread=1)) == (7.5, 12.5)
    assert pause(1, asked=60) == 60


@pytest.mark.parametrize(("answer", "attempts"), [(status(410), 0), (status(500), TRIES - 1)])
def test_what_nobody_wants_or_nothing_helped_is_given_up_and_told(
    receiver: Receiver, route: Any, answer: Any, attempts: int
) -> None:
    receiver.answers = [answer]
    row = owed(route, attempts=attempts)

    assert deliver().failed == 1

    event = AuditEvent.objects.get(type="notification.failed")
    assert refreshed(row).state == NotificationState.FAILED
    assert (event.subject_id, event.outcome) == (str(row.pk), "failure")
    assert deliver() == delivering.Delivered()


def test_a_route_that_is_gone_ends_its_messages() -> None:
    row: Any = NotificationFactory()

    deliver()

    assert (refreshed(row).state, refreshed(row).problem) == ("FAILED", "its route is gone")


def test_a_target_inside_is_never_asked(settings: LazySettings, receiver: Receiver, route: Any) -> None:
    settings.WEBHOOK_ALLOWED_NETWORKS = []
    row = owed(route)

    deliver()

    assert receiver.got == []
    assert "this machine" in refreshed(row).problem


def test_a_mistake_of_ours_stops_no_other_message(
    monkeypatch: pytest.MonkeyPatch, receiver: Receiver, route: Any
) -> None:
    broken, other = owed(route), owed(route)
    post = webhooks.post

    def failing(*args: Any, **kwargs: Any) -> Any:
        if kwargs["notification"] == broken.pk:
            raise ZeroDivisionError
        return post(*args, **kwargs)

    monkeypatch.setattr(webhooks, "post", failing)

    deliver()

    assert (refreshed(broken).state, refreshed(other).state) == ("PENDING", "DELIVERED")
    assert "ZeroDivisionError" in refreshed(broken).problem


class TestClaims:
    def test_of_a_worker_that_is_gone_run_out(self, receiver: Receiver, route: Any) -> None:
        held = owed(route, state="SENDING", attempts=1, claimed_until=timezone.now() + timedelta(seconds=60))
        left = owed(route, state="SENDING", attempts=1, claimed_until=timezone.now() - timedelta(seconds=1))

        assert deliver().delivered == 1

        assert (refreshed(held).state, refreshed(left).state) == ("SENDING", "DELIVERED")
        assert refreshed(left).attempts == 2

    def test_that_kill_every_worker_end(self, receiver: Receiver, route: Any) -> None:
        left = owed(route, state="SENDING", attempts=TRIES, claimed_until=timezone.now() - timedelta(seconds=1))

        deliver()

        assert (refreshed(left).state, receiver.got) == ("FAILED", [])

    def test_that_ran_out_while_it_was_sent_leave_the_row_to_who_has_it_now(
        self, receiver: Receiver, route: Any
    ) -> None:
        row = owed(route)
        until = timezone.now() + timedelta(seconds=2 * CLAIM_SECONDS)
        (claimed,) = delivering._claim(Channel.WEBHOOK)
        Notification.objects.filter(pk=row.pk).update(claimed_until=until)

        delivering._send_all([claimed])

        assert (refreshed(row).state, refreshed(row).claimed_until) == ("SENDING", until)
        assert DeliveryAttempt.objects.count() == 1


class TestEmail:
    @pytest.fixture
    def route(self) -> Any:
        return AlertRouteFactory(channel="email", target="ada@example.org\ngrace@example.org", secret="")

    def test_goes_to_every_address(self, route: Any) -> None:
        owed(route)

        assert deliver().delivered == 1

        assert [message.to for message in mail.outbox] == [["ada@example.org"], ["grace@example.org"]]

    def test_tried_again_goes_only_to_who_has_not_got_it(self, route: Any) -> None:
        owed(route, attempts=1, waiting=["grace@example.org", "left@example.org"])

        deliver()

        assert [message.to for message in mail.outbox] == [["grace@example.org"]]


class TestRetry:
    def test_by_a_person_sends_at_once_what_was_given_up(self, receiver: Receiver, route: Any) -> None:
        row = owed(route, state="FAILED", attempts=TRIES, due_at=timezone.now() + timedelta(hours=1))

        retry_notification(notification=row, actor=SYSTEM, reason="the receiver is back")

        assert deliver().delivered == 1
        assert AuditEvent.objects.get(type="notification.retried").reason == "the receiver is back"

    @pytest.mark.parametrize("state", ["PENDING", "SENDING", "DELIVERED"])
    def test_is_for_what_was_given_up(self, route: Any, state: str) -> None:
        with pytest.raises(Conflict, match="only one that FAILED"):
            retry_notification(notification=owed(route, state=state), actor=SYSTEM)

    def test_never_tells_what_is_no_longer_so(self, route: Any) -> None:
        row = owed(route, state="FAILED")
        owed(route, group_key=row.group_key)

        with pytest.raises(Conflict, match="a later message"):
            retry_notification(notification=row, actor=SYSTEM)

    def test_needs_the_route(self) -> None:
        gone: Any = NotificationFactory(state="FAILED")

        with pytest.raises(Conflict, match="route is gone"):
            retry_notification(notification=gone, actor=SYSTEM)


def test_what_is_old_is_forgotten_but_the_newest_of_a_group_that_lasts(settings: LazySettings) -> None:
    settings.NOTIFICATION_KEEP_DAYS = 30
    long_ago = timezone.now() - timedelta(days=31)

    def old(number: int, **values: Any) -> Any:
        key = type(new_id())(int=first_id(long_ago).int + number)
        return NotificationFactory(id=key, created_at=long_ago, **values)

    gone = old(1, state="DELIVERED")
    DeliveryAttempt.objects.create(notification=gone, seconds=0.1, status=204)
    kept = [old(2, state="DELIVERED", open_alerts=[new_id()]), NotificationFactory(state="FAILED")]

    assert deliver().pruned == 1

    assert set(Notification.objects.values_list("pk", flat=True)) == {row.pk for row in kept}
    assert not DeliveryAttempt.objects.exists()


def test_a_target_that_hangs_keeps_no_other_waiting(receiver: Receiver, route: Any) -> None:
    """The first answers when the last has come."""
    last = threading.Event()
    rows = [owed(route) for _ in range(4)]

    def wait(handler: Any) -> None:
        last.wait(10)
        status(204)(handler)

    def release(handler: Any) -> None:
        if len(receiver.got) == len(rows):
            last.set()
        status(204)(handler)

    receiver.answers = [wait, release, release, release]

    assert deliver().delivered == 4

    assert last.is_set()
    assert sorted(hook.headers["Esper-Notification"] for hook in receiver.got) == sorted(str(row.pk) for row in rows)


def test_metrics_tell_how_many_there_are_and_how_long_the_oldest_waits(route: Any) -> None:
    owed(route, state="FAILED"), owed(route, created_at=timezone.now() - timedelta(minutes=10))

    counted = {sample.labels["state"]: sample.value for sample in next(iter(notifications.counted())).samples}
    (age,) = next(iter(notifications.waiting())).samples

    assert counted == {"PENDING": 1, "SENDING": 0, "DELIVERED": 0, "FAILED": 1}
    assert 600 <= age.value < 660
