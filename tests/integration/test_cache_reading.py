"""The way of a kernel through the four tiers: who answers, who keeps a copy, what is counted, what is healed."""

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import pytest
from django.db import connections, transaction

from apps.accounts.roles import Role
from apps.audit.models import AuditEvent
from apps.core.actors import SYSTEM
from apps.core.errors import Conflict, NotFound, Unavailable
from apps.kernels import services
from apps.kernels.cache import CorruptKernel, KernelStore, TierName, accesses, archive, changes, clients, mover, relay
from apps.kernels.cache.changes import follower
from apps.kernels.cache.chunks import DatabaseTier
from apps.kernels.cache.memory import MemoryTier
from apps.kernels.cache.segments import SEGMENT_BYTES, Segment
from apps.kernels.cache.tiers import tiers
from apps.kernels.lifecycle import KernelState
from apps.kernels.models import CHUNK_BYTES, Kernel, KernelBlob, KernelChunk, StorageTier
from tests.api.conftest import Caller
from tests.support.cache import Counts, content, tier_of
from tests.support.factories import KernelFactory, TokenFactory, UserFactory
from tests.support.objects import Folder
from tests.support.problems import assert_problem
from tests.support.waiting import wait_until

pytestmark = pytest.mark.usefixtures("committed_db", "folder_storage")

L1, L2, L3, L4 = TierName
SMALL = content(700_000)
"""Two chunks."""
LARGE = content(SEGMENT_BYTES + 700_000, seed=2)
"""Two segments."""


def stored(data: bytes = SMALL) -> str:
    """In L3, with a copy in L4; no faster tier has it, nobody has read it."""
    digest = KernelStore().put(data)
    relay.drain()
    changes.forget(digest)
    accesses.forget()
    return digest


def kernel_of(data: bytes = SMALL, *, tier: str = StorageTier.WARM) -> Kernel:
    kernel = cast(Kernel, KernelFactory(state=KernelState.VALIDATED, data=data))
    relay.drain()
    if tier != StorageTier.WARM:
        kernel = mover.move(kernel, to=StorageTier(tier), actor=SYSTEM)
    changes.forget(kernel.digest or "")
    accesses.forget()
    return kernel


def in_l2(digest: str) -> bool:
    redis = tiers().redis
    assert redis is not None
    return redis.has(digest)


def corrupt_chunk(digest: str, **values: Any) -> None:
    KernelChunk.objects.filter(blob_id=digest, index=0).update(**(values or {"data": b"\0" * CHUNK_BYTES}))


# --- Who answers


def test_each_read_is_answered_by_the_fastest_tier_that_has_it() -> None:
    digest = stored()

    assert [tier_of(digest) for _ in range(4)] == [L3, L2, L1, L1]


def test_what_only_the_object_storage_has_is_read_from_there_and_then_from_faster_tiers() -> None:
    kernel = kernel_of(tier=StorageTier.COLD)
    digest = kernel.digest or ""
    assert not KernelBlob.objects.get(pk=digest).in_database

    assert [tier_of(digest) for _ in range(3)] == [L4, L2, L1]
    assert KernelStore().get(digest) == SMALL


def test_every_read_counts_one_hit_and_what_the_tiers_above_lacked() -> None:
    digest, size, told = stored(), len(SMALL), []
    for _ in range(3):
        counts = Counts()
        tier_of(digest)
        told.append(
            {
                (what, str(tier)): number
                for what in ("hits", "misses", "fills", "promotions", "bytes")
                for tier in TierName
                if (number := counts.of(what, tier, size=size))
            }
        )

    assert told == [
        {("hits", "l3"): 1, ("misses", "l1"): 1, ("misses", "l2"): 1, ("fills", "l2"): 1, ("bytes", "l3"): size},
        {("hits", "l2"): 1, ("misses", "l1"): 1, ("promotions", "l1"): 1, ("bytes", "l2"): size},
        {("hits", "l1"): 1, ("bytes", "l1"): size},
    ]


def test_a_second_read_after_more_than_a_half_life_is_a_first_one(configure: Callable[..., None]) -> None:
    configure(half_life=1e-9)
    digest = stored()

    assert [tier_of(digest) for _ in range(3)] == [L3, L2, L2]


# --- What is too large


def test_a_kernel_above_an_eighth_of_l1_stays_out_of_it(configure: Callable[..., None]) -> None:
    configure(l1_bytes=8 * len(SMALL) - 8)
    digest = stored()

    assert [tier_of(digest) for _ in range(4)] == [L3, L2, L2, L2]


def test_a_kernel_of_an_eighth_of_l1_is_kept(configure: Callable[..., None]) -> None:
    configure(l1_bytes=8 * len(SMALL))
    digest = stored()

    assert [tier_of(digest) for _ in range(3)] == [L3, L2, L1]


def test_a_kernel_above_the_largest_of_l2_is_streamed_from_the_database(configure: Callable[..., None]) -> None:
    configure(l2_largest=len(LARGE) - 1, l1_bytes=1 << 20)
    digest = stored(LARGE)

    assert [tier_of(digest) for _ in range(3)] == [L3, L3, L3]
    assert KernelStore().get(digest) == LARGE
    assert not in_l2(digest)


# --- Segments and ranges


def test_a_kernel_of_several_segments_is_kept_segment_by_segment() -> None:
    digest = stored(LARGE)
    for tier in (L3, L2, L1):
        counts = Counts()
        assert KernelStore().get(digest) == LARGE
        assert counts.of("hits", tier) == 2


def test_a_range_over_the_border_of_two_segments_is_exactly_those_bytes() -> None:
    digest = stored(LARGE)
    for start, stop in ((SEGMENT_BYTES - 1, SEGMENT_BYTES + 1), (SEGMENT_BYTES - 600_000, SEGMENT_BYTES + 600_000)):
        assert b"".join(KernelStore().stream(digest, start, stop)) == LARGE[start:stop]


def test_a_range_reads_only_the_segments_that_it_touches() -> None:
    digest, counts = stored(LARGE), Counts()

    assert b"".join(KernelStore().stream(digest, SEGMENT_BYTES)) == LARGE[SEGMENT_BYTES:]
    assert (counts.of("hits", L3), counts.of("bytes", L3)) == (1, len(LARGE) - SEGMENT_BYTES)


@pytest.mark.parametrize(("start", "stop", "chunks"), [(10, 20, 1), (CHUNK_BYTES - 1, CHUNK_BYTES + 1, 2)])
def test_a_small_range_reads_only_its_chunks_and_no_tier_keeps_them(start: int, stop: int, chunks: int) -> None:
    digest, counts = stored(LARGE), Counts()
    for _ in range(3):
        assert b"".join(KernelStore().stream(digest, start, stop)) == LARGE[start:stop]

    assert counts.of("bytes", L3) == 3 * chunks * CHUNK_BYTES
    assert (in_l2(digest), tiers().memory.has(digest)) == (False, False)


def test_a_small_range_comes_from_the_memory_that_has_it() -> None:
    digest = stored()
    for _ in range(2):
        KernelStore().get(digest)

    assert tier_of(digest, start=5, stop=9) == L1


def test_a_small_range_comes_from_l2_while_the_database_is_away() -> None:
    digest = KernelStore().put(SMALL)
    tiers().database.breaker.failed(was_timeout=True)

    assert tier_of(digest, start=5, stop=9) == L2


# --- Transactions


def test_within_a_transaction_nothing_is_kept_for_others() -> None:
    digest = stored()
    with transaction.atomic():
        assert [tier_of(digest) for _ in range(3)] == [L3, L3, L3]

    assert (in_l2(digest), tiers().memory.has(digest)) == (False, False)


def test_a_transaction_reads_what_it_writes_though_l2_knows_that_there_was_nothing() -> None:
    digest = hashlib.sha256(SMALL).hexdigest()
    with pytest.raises(NotFound):
        KernelStore().get(digest)
    with transaction.atomic():
        KernelStore().put(SMALL)
        assert KernelStore().get(digest) == SMALL
        transaction.set_rollback(True)

    with pytest.raises(NotFound):
        KernelStore().get(digest)


# --- Storage tiers


@pytest.mark.parametrize("before", [StorageTier.WARM, StorageTier.COLD])
def test_an_archived_kernel_is_refused_though_every_tier_had_it(before: str) -> None:
    kernel = kernel_of(tier=before)
    digest = kernel.digest or ""
    assert [tier_of(digest) for _ in range(3)][1:] == [L2, L1]

    services.change_tier(kernel=kernel, tier=StorageTier.ARCHIVE, actor=SYSTEM, reason="room")

    with pytest.raises(Conflict) as refusal:
        KernelStore().get(digest)
    assert refusal.value.code == "archived"


# --- One load for all


def test_threads_that_miss_at_once_load_once(monkeypatch: pytest.MonkeyPatch) -> None:
    digest, loads, missed = stored(), [], []
    counts = Counts()
    in_memory, in_database = MemoryTier.get, DatabaseTier.get

    def miss(tier: MemoryTier, *key: Any) -> Segment | None:
        missed.append(key)
        return in_memory(tier, *key)

    def load(tier: DatabaseTier, *key: Any) -> Segment | None:
        loads.append(key)
        wait_until(lambda: len(missed) == 8, seconds=10)
        return in_database(tier, *key)

    monkeypatch.setattr(MemoryTier, "get", miss)
    monkeypatch.setattr(DatabaseTier, "get", load)
    found: list[bytes] = []
    threads = [threading.Thread(target=_read_in_thread, args=(digest, found)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert found == [SMALL] * 8
    assert len(loads) == 1
    assert (counts.of("misses", L1), counts.of("hits", L3), counts.of("coalesced", L3)) == (8, 1, 7)


def _read_in_thread(digest: str, found: list[bytes]) -> None:
    try:
        found.append(KernelStore().get(digest))
    finally:
        connections.close_all()


def test_a_load_that_outlasts_its_lease_is_given_out_and_not_put(monkeypatch: pytest.MonkeyPatch) -> None:
    digest, real = stored(), DatabaseTier.get

    def slow(tier: DatabaseTier, *key: Any) -> Segment | None:
        clients.client().delete(f"esper:k1:{{{digest}}}:lease")  # as if it had expired
        return real(tier, *key)

    monkeypatch.setattr(DatabaseTier, "get", slow)

    assert KernelStore().get(digest) == SMALL
    assert not in_l2(digest)


def test_what_was_to_be_forgotten_while_it_was_loaded_does_not_stay_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    digest, real = stored(), DatabaseTier.get
    tier_of(digest)
    changes.forget(digest)

    def heard_meanwhile(tier: DatabaseTier, *key: Any) -> Segment | None:
        follower.events += 1
        return real(tier, *key)

    monkeypatch.setattr(DatabaseTier, "get", heard_meanwhile)
    KernelStore().get(digest)

    assert not tiers().memory.has(digest)


# --- Corrupt bytes


def test_a_corrupt_chunk_is_healed_from_the_copy_and_its_reader_gets_right_bytes() -> None:
    kernel = kernel_of()
    digest, counts = kernel.digest or "", Counts()
    corrupt_chunk(digest)

    assert KernelStore().get(digest) == SMALL

    assert [counts.of(what, L3, size=len(SMALL)) for what in ("corrupt", "heals")] == [1, 1]
    assert counts.of("hits", L4) == 1
    event = AuditEvent.objects.get(type="kernel.healed")
    assert (event.subject_id, event.reason) == (str(kernel.pk), "from its copy in L4")
    changes.forget(digest)
    assert tier_of(digest) == L3


def test_a_missing_chunk_is_healed() -> None:
    digest = stored()
    KernelChunk.objects.filter(blob_id=digest, index=1).delete()

    assert KernelStore().get(digest) == SMALL
    changes.forget(digest)
    assert tier_of(digest) == L3


def test_a_wrong_digest_of_a_chunk_is_healed_from_the_whole_copy() -> None:
    digest, counts = stored(), Counts()
    corrupt_chunk(digest, sha256=hashlib.sha256(b"other").digest())

    assert KernelStore().get(digest) == SMALL
    assert (counts.of("heals", L3), counts.of("corrupt", L4), counts.of("hits", L3)) == (1, 0, 1)


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["one segment", "two segments"])
def test_a_chunk_of_another_kernel_with_its_own_digest_is_healed_and_no_copy_of_it_stays(data: bytes) -> None:
    digest, wrong = stored(data), b"\1" * CHUNK_BYTES
    corrupt_chunk(digest, data=wrong, sha256=hashlib.sha256(wrong).digest())

    assert KernelStore().get(digest) == data
    assert [KernelStore().get(digest) for _ in range(3)] == [data] * 3


def test_a_chunk_of_another_kernel_is_never_streamed_as_part_of_a_kernel_of_one_segment() -> None:
    digest, wrong = stored(), b"\1" * CHUNK_BYTES
    corrupt_chunk(digest, data=wrong, sha256=hashlib.sha256(wrong).digest())

    assert b"".join(KernelStore().stream(digest)) == SMALL


def test_verifying_heals_a_chunk_of_another_kernel() -> None:
    digest, wrong = stored(LARGE), b"\1" * CHUNK_BYTES
    corrupt_chunk(digest, data=wrong, sha256=hashlib.sha256(wrong).digest())
    KernelStore().verify(digest)

    assert b"".join(KernelStore().stream(digest)) == LARGE


def test_a_small_range_of_a_corrupt_chunk_heals_it_though_l2_has_right_bytes() -> None:
    digest = stored()
    KernelStore().get(digest)
    corrupt_chunk(digest)

    assert b"".join(KernelStore().stream(digest, 5, 9)) == SMALL[5:9]
    changes.forget(digest)
    assert tier_of(digest) == L3


def test_within_a_transaction_that_is_taken_back_so_is_the_healing() -> None:
    digest = stored()
    corrupt_chunk(digest)
    with transaction.atomic():
        assert KernelStore().get(digest) == SMALL
        transaction.set_rollback(True)

    assert not AuditEvent.objects.filter(type="kernel.healed").exists()
    assert KernelStore().get(digest) == SMALL


def download(kernel: Kernel) -> Any:
    secret = TokenFactory(user=UserFactory(role=Role.ADMIN)).secret
    return Caller(secret).get(f"/api/v1/kernels/{kernel.pk}/binary")


def test_what_no_tier_has_right_is_an_error_and_the_kernel_is_quarantined(folder_storage: Folder) -> None:
    kernel = kernel_of()
    digest = kernel.digest or ""
    corrupt_chunk(digest)
    folder_storage.plant(archive.name_of(digest), b"rot" * 100_000)

    with pytest.raises(CorruptKernel):
        KernelStore().get(digest)
    assert_problem(download(kernel), 503, "corrupt_kernel")
    kernel.refresh_from_db()
    assert kernel.state == KernelState.QUARANTINED


def test_a_copy_that_is_gone_heals_nothing(folder_storage: Folder) -> None:
    digest = stored()
    corrupt_chunk(digest)
    archive.delete(digest)

    with pytest.raises(CorruptKernel):
        KernelStore().get(digest)


@contextmanager
def moved_by_somebody_else(digest: str) -> Iterator[None]:
    """Another session is at these bytes, as a mover or a healer is."""
    at_it, over = threading.Event(), threading.Event()

    def hold() -> None:
        try:
            with mover._alone_with(digest):
                at_it.set()
                over.wait(timeout=30)
        finally:
            connections.close_all()

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        assert at_it.wait(timeout=10)
        yield
    finally:
        over.set()
        thread.join()


def test_a_kernel_that_somebody_else_is_healing_is_unavailable_and_not_quarantined() -> None:
    kernel = kernel_of()
    digest = kernel.digest or ""
    corrupt_chunk(digest, sha256=hashlib.sha256(b"other").digest())

    with moved_by_somebody_else(digest):
        assert_problem(download(kernel), 503, "being_healed")
        with pytest.raises(Unavailable):
            KernelStore().get(digest)
    kernel.refresh_from_db()
    assert kernel.state == KernelState.VALIDATED
    assert KernelStore().get(digest) == SMALL


def test_what_is_corrupt_in_l2_is_dropped_and_put_there_anew() -> None:
    digest, counts = KernelStore().put(SMALL), Counts()
    key = f"esper:k1:{{{digest}}}"
    clients.client().setrange(key, 200_000, b"other bytes")

    assert (tier_of(digest), tier_of(digest)) == (L3, L2)
    assert (counts.of("corrupt", L2), counts.of("heals", L2)) == (1, 1)


def test_a_key_of_l2_that_somebody_else_made_is_no_bytes_and_goes() -> None:
    digest = stored()
    clients.client().rpush(f"esper:k1:{{{digest}}}", "not ours")

    assert not in_l2(digest)
    assert (tier_of(digest), tier_of(digest)) == (L3, L2)


def test_what_is_corrupt_in_memory_is_dropped() -> None:
    digest, counts = stored(), Counts()
    for _ in range(2):
        KernelStore().get(digest)
    held = tiers().memory.cache.get((digest, 0))
    object.__setattr__(held, "data", b"\0" * len(held.data))

    assert KernelStore().get(digest) == SMALL
    assert (counts.of("corrupt", L1), counts.of("heals", L1)) == (1, 1)
    assert tier_of(digest) == L1


def test_verifying_goes_past_the_copies() -> None:
    digest = stored()
    for _ in range(2):
        KernelStore().get(digest)
    archive.delete(digest)
    corrupt_chunk(digest)

    assert KernelStore().get(digest) == SMALL
    with pytest.raises(CorruptKernel):
        KernelStore().verify(digest)


def test_verifying_heals() -> None:
    digest = stored(LARGE)
    KernelStore().get(digest)
    corrupt_chunk(digest)
    KernelStore().verify(digest)
    changes.forget(digest)

    assert tier_of(digest) == L3
