"""A worker that is killed while it delivers: whatever the step, the message arrives, under the same id."""

import os
import signal
import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.conf import LazySettings
from django.db import connections
from django.utils import timezone

from apps.core.locks import alone
from apps.observability.models import Channel, Notification
from apps.observability.services import delivering
from tests.support.factories import AlertRouteFactory, NotificationFactory
from tests.support.receivers import LOOPBACK, Receiver, receiving

pytestmark = pytest.mark.usefixtures("committed_db")


@pytest.fixture
def receiver(settings: LazySettings) -> Iterator[Receiver]:
    settings.WEBHOOK_ALLOWED_NETWORKS = LOOPBACK
    with receiving() as receiver:
        yield receiver


def deliver_and_die(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a child that kills itself when it comes to ``step``. Its connections are its own."""
    connections.close_all()
    child = os.fork()
    if child == 0:
        monkeypatch.setattr(delivering, step, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        try:
            delivering.deliver()
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), f"nobody came to {step}"


@pytest.mark.parametrize(("step", "sent"), [("_send_all", 0), ("_settle", 1), ("_state_after", 1)])
def test_what_it_had_claimed_or_sent_is_sent_again_under_the_same_id(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, step: str, sent: int
) -> None:
    route: Any = AlertRouteFactory(target=receiver.url)
    row: Any = NotificationFactory(route_id=route.pk)

    deliver_and_die(step, monkeypatch)

    assert len(receiver.got) == sent
    assert delivering.deliver().delivered == 0  # its claim holds
    Notification.objects.filter(pk=row.pk).update(claimed_until=timezone.now() - timedelta(seconds=1))
    assert delivering.deliver().delivered == 1
    assert [hook.headers["Esper-Notification"] for hook in receiver.got] == [str(row.pk)] * (sent + 1)
    row.refresh_from_db()
    assert (row.state, row.attempts, row.tries.count()) == ("DELIVERED", 2, 1)


@pytest.fixture
def mail_hangs() -> Iterator[None]:
    """Another worker delivers by e-mail, and does not come to an end."""
    holds, ends = threading.Event(), threading.Event()

    def hold() -> None:
        with alone(f"observability: deliver by {Channel.EMAIL}", busy=""):
            holds.set()
            ends.wait(20)
        connections.close_all()

    thread = threading.Thread(target=hold)
    thread.start()
    assert holds.wait(20)
    yield
    ends.set()
    thread.join()


def test_a_worker_that_hangs_with_e_mail_holds_up_no_webhook(receiver: Receiver, mail_hangs: None) -> None:
    hook: Any = NotificationFactory(route_id=AlertRouteFactory(target=receiver.url).pk)
    letter: Any = NotificationFactory(route_id=AlertRouteFactory(channel="email").pk, channel="email")

    assert delivering.deliver().delivered == 1

    for row in (hook, letter):
        row.refresh_from_db()
    assert (hook.state, letter.state) == ("DELIVERED", "PENDING")
