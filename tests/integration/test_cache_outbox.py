"""What a transaction owes to the other tiers: written with it, worked off after it by whoever is first, never lost."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Any, cast

import pytest
from django.conf import LazySettings
from django.db import InterfaceError, connection, connections, transaction
from django.utils import timezone

from apps.core.errors import NotFound
from apps.core.ids import new_id
from apps.kernels.cache import KernelStore, TierName, archive, changes, filling, mover, outbox, relay
from apps.kernels.cache.breaker import Breaker
from apps.kernels.cache.chunks import DatabaseTier
from apps.kernels.cache.segments import Segment, TierAway
from apps.kernels.cache.tiers import tiers
from apps.kernels.lifecycle import KernelState
from apps.kernels.models import CacheOutbox, Kernel, KernelBlob, OutboxKind
from tests.support.cache import content, serving, tier_of
from tests.support.factories import KernelFactory
from tests.support.objects import Folder
from tests.support.valkeys import running
from tests.support.waiting import wait_until

pytestmark = pytest.mark.usefixtures("committed_db", "folder_storage")

DATA = content(700_000)
NOWHERE = "redis://127.0.0.1:1/0"


class Undone(Exception):
    """What takes a transaction back."""


class Killed(BaseException):
    """What ends a worker in the middle of a row."""


@pytest.fixture(autouse=True)
def _no_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    """No worker is here: what would be queued for one is not what these tests are about."""
    monkeypatch.setattr(outbox, "enqueue_after_commit", lambda task: None)


def owed(*kinds: str) -> list[str]:
    return [f"{row.kind} {row.key}" for row in CacheOutbox.objects.all() if not kinds or row.kind in kinds]


def owe(kind: str, key: str) -> CacheOutbox:
    return CacheOutbox.objects.create(kind=kind, key=key, due_at=timezone.now())


def make_due() -> None:
    CacheOutbox.objects.update(due_at=timezone.now())


def in_l2(digest: str) -> bool:
    redis = tiers().redis
    assert redis is not None
    return redis.has(digest)


def validated(**values: Any) -> Kernel:
    row = cast(Kernel, KernelFactory(state=KernelState.VALIDATED, **values))
    CacheOutbox.objects.all().delete()
    return row


# --- Written in the transaction


def test_what_is_owed_is_taken_back_with_the_transaction_and_leaves_nothing_anywhere() -> None:
    with suppress(Undone), transaction.atomic():
        digest = KernelStore().put(DATA)
        assert owed() == [f"fill {digest}", f"copy {digest}"]
        assert KernelStore().get(digest) == DATA
        assert not in_l2(digest)
        raise Undone

    assert owed() == []
    assert not in_l2(digest)
    with pytest.raises(NotFound):
        KernelStore().get(digest)


def test_a_kernel_that_is_changed_by_hand_in_sql_is_told_too() -> None:
    kernel = validated()
    with connection.cursor() as cursor:
        cursor.execute("UPDATE kernels_kernel SET name = 'renamed' WHERE id = %s", [kernel.pk])

    assert owed() == [f"changed {kernel.pk}"]


def test_what_no_process_remembers_is_not_told() -> None:
    kernel = validated()
    Kernel.objects.filter(pk=kernel.pk).update(last_used_at=timezone.now(), state=kernel.state)

    assert owed() == []


# --- Write-through and write-back


def test_written_through_l2_has_the_bytes_before_the_writer_goes_on() -> None:
    digest = KernelStore().put(DATA)

    assert (in_l2(digest), owed()) == (True, [f"copy {digest}"])
    assert tier_of(digest) == TierName.L2


def test_the_writer_does_what_it_owes_itself_and_not_what_waits_of_others() -> None:
    for _ in range(3):
        owe(OutboxKind.FILL, "ab" * 32)
    digest = KernelStore().put(DATA)

    assert in_l2(digest)
    assert owed(OutboxKind.FILL) == [f"fill {'ab' * 32}"] * 3


def test_written_back_l2_has_the_bytes_once_the_relay_came(configure: Callable[..., None]) -> None:
    configure(write="back")
    digest = KernelStore().put(DATA)

    assert (in_l2(digest), owed()) == (False, [f"fill {digest}", f"copy {digest}"])
    relay.drain()
    assert (in_l2(digest), owed()) == (True, [])


@pytest.mark.parametrize("write", ["through", "back"])
def test_that_there_are_no_such_bytes_is_forgotten_when_there_are(configure: Callable[..., None], write: str) -> None:
    configure(write=write, absent_ttl=3600.0)
    digest = KernelStore().put(DATA)
    KernelBlob.objects.filter(pk=digest).delete()
    changes.forget(digest)
    for _ in range(2):
        with pytest.raises(NotFound):
            KernelStore().get(digest)

    KernelStore().put(DATA)

    assert KernelStore().get(digest) == DATA


def test_a_connection_that_breaks_after_the_commit_does_not_look_like_a_failure_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*args: Any, **kwargs: Any) -> int:
        raise InterfaceError("the connection is closed")

    monkeypatch.setattr(relay, "drain", broken)
    digest = KernelStore().put(DATA)

    assert KernelBlob.objects.filter(pk=digest).exists()
    assert f"fill {digest}" in owed()


# --- The relay


def test_two_relays_at_once_do_each_row_once(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[tuple[int, str]] = []
    both_are_at_it = threading.Barrier(2)
    first = threading.local()

    def step(key: str) -> None:
        if not hasattr(first, "over"):
            first.over = both_are_at_it.wait(timeout=10)
        done.append((threading.get_ident(), key))

    monkeypatch.setitem(relay.STEPS, OutboxKind.CHANGED, step)
    keys = sorted(str(new_id()) for _ in range(30))
    for key in keys:
        owe(OutboxKind.CHANGED, key)

    relays = [threading.Thread(target=_drain_in_thread) for _ in range(2)]
    for thread in relays:
        thread.start()
    for thread in relays:
        thread.join()

    assert sorted(key for _, key in done) == keys
    assert len({thread for thread, _ in done}) == 2
    assert owed() == []


def _drain_in_thread() -> None:
    try:
        relay.drain()
    finally:
        connections.close_all()


def test_what_l2_does_not_take_is_put_off_with_the_reason_and_done_later(
    configure: Callable[..., None], settings: LazySettings
) -> None:
    usual = settings.KERNEL_CACHE["l2_url"]
    configure(l2_url=NOWHERE)
    began = timezone.now()
    digest = KernelStore().put(DATA)

    row = CacheOutbox.objects.get(kind=OutboxKind.FILL)
    assert (row.attempts, "Redis does not answer" in row.error) == (1, True)
    assert timedelta(seconds=2) <= row.due_at - began < timedelta(seconds=30)
    configure(l2_url=usual)
    assert relay.drain([OutboxKind.FILL]) == 0
    make_due()
    relay.drain([OutboxKind.FILL])
    assert (in_l2(digest), owed(OutboxKind.FILL)) == (True, [])


def test_a_copy_that_the_object_storage_does_not_take_is_made_later(folder_storage: Folder) -> None:
    digest = KernelStore().put(DATA)
    with folder_storage.gone():
        relay.drain()
    assert CacheOutbox.objects.get(kind=OutboxKind.COPY).attempts == 1
    assert KernelBlob.objects.get(pk=digest).archived_at is None

    make_due()
    relay.drain()
    assert archive.is_whole(digest)
    assert owed() == []


def test_it_is_tried_less_and_less_often_and_still_every_ten_minutes_after_days(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def away(key: str) -> None:
        raise TierAway("not there")

    monkeypatch.setitem(relay.STEPS, OutboxKind.FORGET, away)
    row = owe(OutboxKind.FORGET, "ab" * 32)
    pauses = []
    for attempts in (0, 1, 5, 9, 46, 1000):
        CacheOutbox.objects.filter(pk=row.pk).update(attempts=attempts, due_at=timezone.now())
        relay.drain()
        row.refresh_from_db()
        pauses.append(round((row.due_at - timezone.now()).total_seconds()))

    assert pauses == [2, 4, 64, 600, 600, 600]


def test_an_error_that_the_database_cannot_write_down_does_not_keep_the_others_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def step(key: str) -> None:
        if key == "first":
            raise TierAway("not there: \0 \udcff")

    monkeypatch.setitem(relay.STEPS, OutboxKind.CHANGED, step)
    for key in ("first", "second"):
        owe(OutboxKind.CHANGED, key)
    relay.drain()

    assert owed() == ["changed first"]
    assert CacheOutbox.objects.get().error == "not there:  ?"


def test_a_process_whose_clock_is_behind_that_of_the_database_tells_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, now = validated(), timezone.now
    monkeypatch.setattr(timezone, "now", lambda: now() - timedelta(seconds=30))
    kernel.name = "renamed"
    kernel.save()

    assert owed() == []


def test_a_copy_for_which_the_storage_was_not_asked_does_not_say_that_it_is_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    digest, seconds = KernelStore().put(DATA), [0.0]
    relay.drain()
    breaker = Breaker("l4", clock=lambda: seconds[0])
    monkeypatch.setattr(tiers().storage, "breaker", breaker)
    breaker.failed(was_timeout=True)
    seconds[0] = 6.0
    owe(OutboxKind.COPY, digest)
    relay.drain()

    assert (owed(), breaker.state) == ([], "half-open")


@pytest.mark.parametrize("mistake", ["of python", "of sql"])
def test_a_row_that_cannot_be_done_does_not_keep_the_others_waiting(
    monkeypatch: pytest.MonkeyPatch, mistake: str
) -> None:
    done = []

    def step(key: str) -> None:
        if key != "first":
            done.append(key)
        elif mistake == "of python":
            raise ZeroDivisionError("division by zero")
        else:
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1/0")

    monkeypatch.setitem(relay.STEPS, OutboxKind.CHANGED, step)
    for key in ("first", "second"):
        owe(OutboxKind.CHANGED, key)
    relay.drain()

    assert (done, owed()) == (["second"], ["changed first"])
    assert "division by zero" in CacheOutbox.objects.get().error


def test_a_relay_that_dies_leaves_the_row_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(digest: str) -> None:
        raise Killed

    digest = KernelStore().put(DATA)
    with monkeypatch.context() as patch:
        patch.setattr(mover, "copy", dies)
        with pytest.raises(Killed):
            relay.drain()

    assert owed() == [f"copy {digest}"]
    relay.drain()
    assert (owed(), archive.is_whole(digest)) == ([], True)


def test_a_frozen_l2_costs_whoever_changes_many_kernels_one_wait(configure: Callable[..., None]) -> None:
    kernels = [validated() for _ in range(30)]
    with running() as valkey:
        configure(l2_url=valkey.url, l2_timeout_ms=200.0)
        changes.tell_changed(str(kernels[0].pk))
        valkey.freeze()
        began = time.perf_counter()
        with transaction.atomic():
            for kernel in kernels:
                kernel.name = f"renamed {kernel.name}"
                kernel.save()
        took = time.perf_counter() - began
        valkey.thaw()

    assert len(owed(OutboxKind.CHANGED)) == 30
    assert took < 30 * 0.2 / 2


# --- What each kind does


def test_a_copy_is_checked_noted_and_made_once() -> None:
    digest = KernelStore().put(DATA)
    relay.drain()
    copied = KernelBlob.objects.get(pk=digest).archived_at

    assert copied is not None
    assert archive.is_whole(digest)
    owe(OutboxKind.COPY, digest)
    relay.drain()
    assert KernelBlob.objects.get(pk=digest).archived_at == copied


def test_a_copy_of_bytes_that_were_freed_meanwhile_is_not_made(folder_storage: Folder) -> None:
    digest = KernelStore().put(DATA)
    with transaction.atomic():
        mover.free(KernelBlob.objects.select_for_update().get(pk=digest))
    relay.drain()

    assert (owed(), folder_storage.names()) == ([], [])


def test_what_is_to_be_forgotten_leaves_l2_and_the_memory_of_every_process() -> None:
    digest = KernelStore().put(DATA)
    with serving() as other:
        wait_until(other.is_current, seconds=10)
        other.read_into_memory(digest)
        for _ in range(2):
            KernelStore().get(digest)
        assert (other.has_in_memory(digest), tiers().memory.has(digest), in_l2(digest)) == (True, True, True)

        with transaction.atomic():
            outbox.owe_forgetting(digest)

        assert (tiers().memory.has(digest), in_l2(digest), owed(OutboxKind.FORGET)) == (False, False, [])
        wait_until(lambda: not other.has_in_memory(digest), seconds=2)


@pytest.fixture
def _forgotten_while_loading(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Between the read of a segment from the database and its put into L2, it is forgotten."""
    real = DatabaseTier.get

    def get(tier: DatabaseTier, digest: str, index: int) -> Segment | None:
        found = real(tier, digest, index)
        changes.forget(digest)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(DatabaseTier, "get", get)
        yield


@pytest.mark.parametrize("loader", [lambda digest: KernelStore().get(digest), filling.fill, filling.fill_anew])
def test_who_was_loading_meanwhile_does_not_bring_it_back(
    loader: Callable[[str], object], request: pytest.FixtureRequest
) -> None:
    digest = KernelStore().put(DATA)
    changes.forget(digest)
    request.getfixturevalue("_forgotten_while_loading")

    loader(digest)

    assert not in_l2(digest)


def test_bytes_that_come_back_while_they_are_being_freed_are_there_and_owed_again(folder_storage: Folder) -> None:
    digest = KernelStore().put(DATA)
    relay.drain()
    with folder_storage.gone(), transaction.atomic():  # so that the copy cannot be swept at once
        mover.free(KernelBlob.objects.select_for_update().get(pk=digest))
    assert KernelBlob.objects.get(pk=digest).freed_at is not None

    KernelStore().put(DATA)
    mover.settle()
    relay.drain()

    assert KernelStore().get(digest) == DATA
    blob = KernelBlob.objects.get(pk=digest)
    assert (blob.freed_at, blob.in_database, blob.archived_at is not None) == (None, True, True)
    assert archive.is_whole(digest)
