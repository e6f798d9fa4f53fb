"""How processes hear of what changed, and what they do when they may not have heard everything."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
from django.conf import LazySettings
from django.db import connection, transaction
from django.utils import timezone

from apps.accounts.roles import Role
from apps.core.actors import SYSTEM
from apps.kernels import services
from apps.kernels.cache import KernelStore, changes, process, relay
from apps.kernels.cache import bindings as bindings_module
from apps.kernels.cache.bindings import Bindings, bindings
from apps.kernels.cache.changes import STREAM, TRUSTED_SECONDS, Event, Follower, follower
from apps.kernels.cache.tiers import tiers
from apps.kernels.lifecycle import KernelState
from apps.kernels.models import CacheOutbox, Kernel, KernelBlob
from tests.support.cache import Other, content, serving
from tests.support.factories import KernelFactory, TokenFactory, UserFactory
from tests.support.valkeys import Valkey, running
from tests.support.waiting import wait_until

pytestmark = pytest.mark.usefixtures("committed_db", "folder_storage")

HEARD_SECONDS = 1.0
FOUND_OUT_SECONDS = TRUSTED_SECONDS + 3.0
"""Within which a process knows that it may have missed something, and has come back; on a busy machine."""


@pytest.fixture(scope="module")
def server() -> Iterator[Valkey]:
    with running() as valkey:
        yield valkey


@pytest.fixture
def l2(server: Valkey, settings: LazySettings) -> Iterator[Valkey]:
    """L2 of this process and of those that it forks."""
    with server.client as client:
        client.flushall()
    settings.KERNEL_CACHE = {**settings.KERNEL_CACHE, "l2_url": server.url}
    changes.publish("warm", "")  # the stream has a beginning
    yield server
    server.thaw()
    follower.stop()


@pytest.fixture
def kernel(l2: Valkey) -> Kernel:
    return cast(Kernel, KernelFactory(state=KernelState.VALIDATED, data=content(700_000)))


@pytest.fixture
def other(kernel: Kernel) -> Iterator[Other]:
    """Another process, which knows the kernel and has its bytes in memory."""
    with serving() as other:
        wait_until(other.is_current, seconds=10)
        wait_until(lambda: other.remembers(kernel), seconds=5)
        other.read_into_memory(kernel.digest or "")
        assert other.has_in_memory(kernel.digest or "")
        yield other


def change_unheard(kernel: Kernel) -> None:
    """Retire the kernel and take its bytes out of the database, and let nobody be told."""
    Kernel.objects.filter(pk=kernel.pk).update(state=KernelState.QUARANTINED)
    KernelBlob.objects.filter(pk=kernel.digest).update(in_database=False, archived_at=timezone.now())
    CacheOutbox.objects.all().delete()


# --- What one process does, the other hears


def test_a_kernel_that_is_quarantined_here_is_refused_there_within_a_second(kernel: Kernel, other: Other) -> None:
    secret = TokenFactory(user=UserFactory(role=Role.ADMIN)).secret
    assert (other.download(kernel, secret).status, other.remembers(kernel)) == (200, True)

    services.quarantine_kernel(kernel=kernel, reason="wrong results", actor=SYSTEM)

    wait_until(lambda: other.download(kernel, secret).code == "not_downloadable", seconds=HEARD_SECONDS)


def test_a_change_in_sql_is_heard_with_the_next_relay(kernel: Kernel, other: Other) -> None:
    Kernel.objects.filter(pk=kernel.pk).update(state=KernelState.DEPRECATED)
    assert other.state_of(kernel) == KernelState.VALIDATED

    relay.drain()

    wait_until(lambda: other.state_of(kernel) == KernelState.DEPRECATED, seconds=HEARD_SECONDS)


def test_what_is_taken_back_is_not_told(kernel: Kernel, other: Other, l2: Valkey) -> None:
    with l2.client as client, transaction.atomic():
        before = client.xlen(STREAM)
        services.quarantine_kernel(kernel=kernel, reason="wrong results", actor=SYSTEM)
        transaction.set_rollback(True)
        assert client.xlen(STREAM) == before

    relay.drain()
    assert (other.state_of(kernel), other.remembers(kernel)) == (KernelState.VALIDATED, True)


def test_an_event_that_cannot_be_understood_does_not_stop_who_follows(kernel: Kernel, other: Other, l2: Valkey) -> None:
    with l2.client as client:
        client.xadd(STREAM, {"of": "another version"})
    services.quarantine_kernel(kernel=kernel, reason="wrong results", actor=SYSTEM)

    wait_until(lambda: other.state_of(kernel) == KernelState.QUARANTINED, seconds=FOUND_OUT_SECONDS)
    wait_until(other.is_current, seconds=FOUND_OUT_SECONDS)
    changes.forget(kernel.digest or "")
    wait_until(lambda: not other.has_in_memory(kernel.digest or ""), seconds=FOUND_OUT_SECONDS)


# --- What may have been missed


def flushed(l2: Valkey, other: Other) -> None:
    with l2.client as client:
        client.flushall()


def restarted(l2: Valkey, other: Other) -> None:
    l2.restart()


def trimmed(l2: Valkey, other: Other) -> None:
    """While the process is stopped, more is told than the stream keeps."""
    pid = other.pid
    os.kill(pid, signal.SIGSTOP)
    with l2.client as client:
        for _ in range(3):
            client.xadd(STREAM, {"kind": "warm", "key": ""})
        client.xtrim(STREAM, maxlen=1, approximate=False)
    os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("lost", [flushed, restarted, trimmed])
def test_who_may_have_missed_something_asks_the_database_for_everything(
    kernel: Kernel, other: Other, l2: Valkey, lost: Callable[[Valkey, Other], None]
) -> None:
    change_unheard(kernel)

    lost(l2, other)

    wait_until(lambda: other.state_of(kernel) == KernelState.QUARANTINED, seconds=FOUND_OUT_SECONDS)
    wait_until(lambda: not other.has_in_memory(kernel.digest or ""), seconds=FOUND_OUT_SECONDS)
    wait_until(lambda: other.is_current() and other.remembers(kernel), seconds=FOUND_OUT_SECONDS)


def test_bytes_that_are_still_there_stay_in_memory_after_a_gap(kernel: Kernel, other: Other, l2: Valkey) -> None:
    Kernel.objects.filter(pk=kernel.pk).update(state=KernelState.DEPRECATED)
    flushed(l2, other)

    wait_until(lambda: other.state_of(kernel) == KernelState.DEPRECATED, seconds=FOUND_OUT_SECONDS)
    assert other.has_in_memory(kernel.digest or "")


def test_who_hears_nothing_from_the_stream_trusts_nothing_until_it_answers(
    kernel: Kernel, other: Other, l2: Valkey
) -> None:
    l2.freeze()
    began = time.monotonic()
    wait_until(lambda: not other.is_current(), seconds=FOUND_OUT_SECONDS)
    assert time.monotonic() - began < TRUSTED_SECONDS + 1
    Kernel.objects.filter(pk=kernel.pk).update(state=KernelState.DEPRECATED)
    assert (other.state_of(kernel), other.remembers(kernel)) == (KernelState.DEPRECATED, False)

    l2.thaw()

    wait_until(lambda: other.is_current() and other.remembers(kernel), seconds=FOUND_OUT_SECONDS)
    relay.drain()
    assert other.state_of(kernel) == KernelState.DEPRECATED


def test_what_was_told_while_it_was_away_is_heard_when_it_is_back(kernel: Kernel, other: Other, l2: Valkey) -> None:
    with l2.client as client:
        client.client_kill_filter(_type="normal", skipme=True)  # its connection is lost, the stream is not
        client.xadd(STREAM, {"kind": "forget", "key": kernel.digest or ""})

    wait_until(lambda: not other.has_in_memory(kernel.digest or ""), seconds=FOUND_OUT_SECONDS)


def test_who_was_held_up_trusts_nothing_until_it_has_heard_all_that_was_told_meanwhile(l2: Valkey) -> None:
    """Held up in the first of 1201 events for longer than what it knows is trusted."""
    slow, may_go_on, trusted = Follower(), threading.Event(), []

    def hear(event: Event) -> None:
        may_go_on.wait()
        trusted.append(slow.is_current())

    slow.on_event = hear
    slow.start()
    wait_until(slow.is_current, seconds=5)
    with l2.client as client:
        for number in range(1201):
            client.xadd(STREAM, {"kind": "changed", "key": str(number)})
    told = time.monotonic()
    wait_until(lambda: time.monotonic() > told + TRUSTED_SECONDS, seconds=5)
    may_go_on.set()
    wait_until(slow.is_current, seconds=5)
    slow.stop()

    assert trusted == [False] * 1201


def test_without_an_l2_nothing_is_remembered(kernel: Kernel, configure: Callable[..., None]) -> None:
    configure(l2_url="")
    alone = Follower()
    alone.start()

    assert not alone.is_current()
    changes.tell_changed(str(kernel.pk))


def test_a_follower_that_was_stopped_begins_again(l2: Valkey) -> None:
    mine = Follower()
    heard: list[Event] = []
    mine.on_event = heard.append
    for _ in range(2):
        mine.start()
        wait_until(mine.is_current, seconds=5)
        changes.publish("warm", "again")
        wait_until(lambda: ("warm", "again") in heard, seconds=HEARD_SECONDS)
        mine.stop()
        assert not mine.is_current()
        heard.clear()


# --- The table of one process


def questions(ask: Callable[[], object]) -> int:
    asked: list[str] = []

    def note(execute: Any, sql: str, *rest: Any) -> Any:
        asked.append(sql)
        return execute(sql, *rest)

    with connection.execute_wrapper(note):
        ask()
    return len(asked)


@pytest.fixture
def _hearing(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process hears of changes."""
    monkeypatch.setattr(follower, "_current_until", time.monotonic() + 600)


@pytest.mark.usefixtures("_hearing")
def test_a_kernel_is_asked_for_once(kernel: Kernel) -> None:
    assert [questions(lambda: bindings.of(kernel.pk)) for _ in range(3)] == [1, 0, 0]


@pytest.mark.usefixtures("_hearing")
def test_a_kernel_that_is_not_there_is_asked_for_again(kernel: Kernel) -> None:
    nobody = KernelFactory.build().pk

    assert [questions(lambda: bindings.of(nobody)) for _ in range(2)] == [1, 1]


@pytest.mark.usefixtures("_hearing")
def test_what_is_told_while_a_row_is_read_is_not_lost(kernel: Kernel) -> None:
    def told_meanwhile(execute: Any, *query: Any) -> Any:
        answer = execute(*query)
        follower.events += 1  # as the follower does before it hands an event on
        process.hear(("changed", str(kernel.pk)))
        return answer

    with connection.execute_wrapper(told_meanwhile):
        bindings.of(kernel.pk)

    assert questions(lambda: bindings.of(kernel.pk)) == 1


@pytest.mark.usefixtures("_hearing")
def test_what_a_transaction_sees_is_not_remembered(kernel: Kernel) -> None:
    with transaction.atomic():
        bindings.of(kernel.pk)

    assert questions(lambda: bindings.of(kernel.pk)) == 1


@pytest.mark.usefixtures("_hearing")
def test_a_transaction_sees_its_own_change(kernel: Kernel) -> None:
    bindings.of(kernel.pk)
    with transaction.atomic():
        services.quarantine_kernel(kernel=kernel, reason="wrong results", actor=SYSTEM)
        found = bindings.of(kernel.pk)
        transaction.set_rollback(True)

    assert found is not None
    assert found.state == KernelState.QUARANTINED


@pytest.mark.usefixtures("_hearing")
def test_nothing_is_trusted_for_longer_than_the_setting_says(
    kernel: Kernel, configure: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.monotonic()
    monkeypatch.setattr(bindings_module.time, "monotonic", lambda: now)
    configure(binding_ttl=30.0)
    bindings.of(kernel.pk)
    change_unheard(kernel)

    now += 29.9
    assert questions(lambda: bindings.of(kernel.pk)) == 0
    now += 0.2
    found = bindings.of(kernel.pk)
    assert found is not None
    assert found.state == KernelState.QUARANTINED


@pytest.mark.usefixtures("_hearing")
def test_whom_nobody_asked_for_longest_makes_room(l2: Valkey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bindings_module, "MOST", 2)
    first, second, third = (KernelFactory(state=KernelState.VALIDATED).pk for _ in range(3))
    table = Bindings()
    for asked in (first, second, first, third):
        table.of(asked)

    assert [questions(lambda asked=asked: table.of(asked)) for asked in (first, third, second)] == [0, 0, 1]


@pytest.mark.usefixtures("_hearing")
def test_bytes_that_went_while_it_was_deaf_leave_the_memory_after_a_gap(kernel: Kernel) -> None:
    digest = kernel.digest or ""
    for _ in range(2):
        KernelStore().get(digest)
    bindings.of(kernel.pk)
    change_unheard(kernel)

    process.forget_the_gone()

    assert not tiers().memory.has(digest)
    assert questions(lambda: bindings.of(kernel.pk)) == 1
