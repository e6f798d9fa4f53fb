"""A corrupt byte in any tier: right bytes where another tier has them, healed and counted; where none has them, a clear
error and the kernel out of use. Wrong bytes never."""

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import pytest
from django.db import connection

from apps.audit.models import AuditEvent
from apps.core.actors import SYSTEM
from apps.kernels import services
from apps.kernels.cache import CorruptKernel, KernelStore, TierName, archive, clients, mover, stats
from apps.kernels.cache.segments import SEGMENT_BYTES
from apps.kernels.cache.tiers import tiers
from apps.kernels.lifecycle import KernelState
from apps.kernels.models import CHUNK_BYTES, Kernel, KernelBlob, KernelChunk, StorageTier
from tests.support.objects import Folder
from tests.support.problems import assert_problem
from tests.support.store_in_trouble import (
    admin,
    body_of,
    configure,
    downloaded,
    is_caught_up,
    kernel_of,
    path_of,
    read,
)
from tests.support.waiting import wait_until

pytestmark = pytest.mark.usefixtures("committed_db")

__all__ = ["configure"]

DATA = random.Random(41).randbytes(700_000)
"""Two chunks."""
BIG = random.Random(42).randbytes(SEGMENT_BYTES + CHUNK_BYTES)
"""Two segments."""


@pytest.fixture
def storage(folder_storage: Folder, configure: Callable[..., None]) -> Folder:
    configure()
    return folder_storage


@pytest.fixture
def counted() -> Callable[[str, TierName], int]:
    """How much of something this process counted in a tier since the test began."""
    before = stats.process()

    def since(what: str, tier: TierName) -> int:
        return (stats.process() - before).total(what, tier)

    return since


def with_copy(data: bytes, *, tier: str = StorageTier.WARM) -> Kernel:
    """In L4 too, or alone (cold); no faster tier has it."""
    kernel = kernel_of(data)
    wait_until(is_caught_up, seconds=10)
    if tier == StorageTier.COLD:
        services.change_tier(kernel=kernel, tier=StorageTier.COLD, actor=SYSTEM)
    forget(kernel)
    return kernel


def without_copy(configure: Callable[..., None], data: bytes) -> Kernel:
    configure(copies=False)
    kernel = kernel_of(data)
    forget(kernel)
    return kernel


def forget(kernel: Kernel) -> None:
    found = tiers()
    assert found.redis is not None
    found.redis.drop(kernel.digest or "")
    found.memory.drop(kernel.digest or "")


def corrupt_in_memory(kernel: Kernel) -> None:
    """The bytes rot where they lie; what proves them stays."""
    memory = tiers().memory.cache
    key = (kernel.digest, 0)
    held = memory.get(key)
    rotten = replace(held, data=bytes([held.data[0] ^ 1]) + held.data[1:])
    assert memory.put(key, rotten, size=len(rotten.data), cost=1.0)


def corrupt_in_redis(kernel: Kernel) -> None:
    key = f"esper:k1:{{{kernel.digest}}}"
    byte = clients.client().getrange(key, 5000, 5000)
    clients.client().setrange(key, 5000, bytes([byte[0] ^ 1]))


def corrupt_in_database(kernel: Kernel, index: int = 1) -> None:
    rows = KernelChunk.objects.filter(blob_id=kernel.digest, index=index)
    data = bytes(rows.get().data)
    rows.update(data=data[:-1] + bytes([data[-1] ^ 1]))


def corrupt_in_storage(storage: Folder, kernel: Kernel, data: bytes) -> None:
    storage.plant(archive.name_of(kernel.digest or ""), data[:-1] + bytes([data[-1] ^ 1]))


@contextmanager
def held_by_another(kernel: Kernel) -> Iterator[None]:
    """Another process moves, copies or heals the bytes meanwhile."""
    begun, over = threading.Event(), threading.Event()

    def hold() -> None:
        with mover._alone_with(kernel.digest or ""):
            begun.set()
            over.wait()
        connection.close()

    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(hold)
        begun.wait()
        try:
            yield
        finally:
            over.set()
        held.result()


def state_of(kernel: Kernel) -> str:
    return Kernel.objects.values_list("state", flat=True).get(pk=kernel.pk)


def tier_of_next_read(kernel: Kernel) -> TierName:
    reading = KernelStore().stream(kernel.digest or "")
    assert b"".join(reading)
    return reading.tier


class TestInMemory:
    def test_another_tier_answers_and_the_memory_has_it_again(
        self, storage: Folder, counted: Callable[[str, TierName], int]
    ) -> None:
        kernel, client = kernel_of(DATA), admin()
        for _ in range(2):
            assert KernelStore().get(kernel.digest or "") == DATA
        corrupt_in_memory(kernel)

        assert body_of(client.get(path_of(kernel))) == DATA
        assert (counted("corrupt", TierName.L1), counted("heals", TierName.L1)) == (1, 1)
        assert tier_of_next_read(kernel) == TierName.L1
        assert KernelStore().get(kernel.digest or "") == DATA

    def test_when_no_other_tier_has_it_it_is_a_clear_error(self, configure: Callable[..., None]) -> None:
        kernel, client = without_copy(configure, DATA), admin()
        for _ in range(2):
            KernelStore().get(kernel.digest or "")
        redis = tiers().redis
        assert redis is not None
        redis.drop(kernel.digest or "")
        corrupt_in_database(kernel)
        corrupt_in_memory(kernel)

        assert_problem(client.get(path_of(kernel)), 503, "corrupt_kernel")
        assert state_of(kernel) == KernelState.QUARANTINED


class TestInRedis:
    def test_the_database_answers_and_redis_has_it_again(
        self, storage: Folder, counted: Callable[[str, TierName], int]
    ) -> None:
        kernel, client = kernel_of(DATA), admin()
        corrupt_in_redis(kernel)

        assert downloaded(client, kernel) == DATA
        assert (counted("corrupt", TierName.L2), counted("heals", TierName.L2)) == (1, 1)
        tiers().memory.drop(kernel.digest or "")
        assert tier_of_next_read(kernel) == TierName.L2


class TestInDatabase:
    def test_the_copy_answers_and_the_database_is_healed(
        self, storage: Folder, counted: Callable[[str, TierName], int]
    ) -> None:
        kernel, client = with_copy(DATA), admin()
        corrupt_in_database(kernel)

        assert downloaded(client, kernel) == DATA
        assert (counted("corrupt", TierName.L3), counted("heals", TierName.L3)) == (1, 1)
        assert AuditEvent.objects.filter(type="kernel.healed", subject_id=str(kernel.pk)).count() == 1
        forget(kernel)
        assert tier_of_next_read(kernel) == TierName.L3
        assert state_of(kernel) == KernelState.VALIDATED

    def test_what_proves_the_bytes_is_healed_too(self, storage: Folder) -> None:
        kernel, client = with_copy(DATA), admin()
        rows = KernelChunk.objects.filter(blob_id=kernel.digest, index=1)
        for damage in (rows.delete, lambda: rows.update(sha256=b"\0" * 32)):
            damage()
            forget(kernel)

            assert downloaded(client, kernel) == DATA
            assert state_of(kernel) == KernelState.VALIDATED

    def test_without_a_copy_it_is_a_clear_error_and_the_kernel_is_out_of_use(
        self, configure: Callable[..., None]
    ) -> None:
        kernel, client = without_copy(configure, DATA), admin()
        corrupt_in_database(kernel)

        for _ in range(2):
            with pytest.raises(CorruptKernel):
                read(kernel)
        assert_problem(client.get(path_of(kernel)), 503, "corrupt_kernel")
        assert_problem(client.get(path_of(kernel)), 409, "not_downloadable")

    def test_uploading_the_same_bytes_again_heals_it(self, configure: Callable[..., None]) -> None:
        kernel = without_copy(configure, DATA)
        corrupt_in_database(kernel)

        KernelStore().put(DATA)

        assert read(kernel) == DATA

    def test_a_kernel_that_another_heals_at_this_moment_is_not_out_of_use(self, storage: Folder) -> None:
        """Readers beside the healer get the right bytes, or are told to come again."""
        kernel, client = with_copy(BIG), admin()
        KernelChunk.objects.filter(blob_id=kernel.digest).update(sha256=b"\0" * 32)
        with held_by_another(kernel):
            response = client.get(path_of(kernel))
            assert_problem(response, 503)
        assert state_of(kernel) == KernelState.VALIDATED
        assert downloaded(client, kernel) == BIG


class TestInStorage:
    def test_it_does_not_matter_while_the_database_has_the_bytes(self, storage: Folder) -> None:
        kernel, client = with_copy(DATA), admin()
        corrupt_in_storage(storage, kernel, DATA)

        assert downloaded(client, kernel) == DATA

    def test_a_kernel_that_goes_down_gets_a_right_copy_first(self, storage: Folder) -> None:
        kernel = with_copy(DATA)
        corrupt_in_storage(storage, kernel, DATA)

        services.change_tier(kernel=kernel, tier=StorageTier.COLD, actor=SYSTEM)

        assert not KernelBlob.objects.get(pk=kernel.digest).in_database
        assert read(kernel) == DATA

    def test_of_a_cold_kernel_it_is_a_clear_error_and_the_kernel_is_out_of_use(self, storage: Folder) -> None:
        kernel, client = with_copy(DATA, tier=StorageTier.COLD), admin()
        corrupt_in_storage(storage, kernel, DATA)

        with pytest.raises(CorruptKernel):
            read(kernel)
        assert_problem(client.get(path_of(kernel)), 503, "corrupt_kernel")
        assert state_of(kernel) == KernelState.QUARANTINED

    def test_a_cold_kernel_that_redis_still_has_is_served_from_it(self, storage: Folder) -> None:
        kernel, client = with_copy(DATA, tier=StorageTier.COLD), admin()
        assert downloaded(client, kernel) == DATA
        corrupt_in_storage(storage, kernel, DATA)

        assert downloaded(client, kernel) == DATA

    def test_in_the_database_and_in_the_storage_at_once_it_is_a_clear_error(self, storage: Folder) -> None:
        kernel, client = with_copy(DATA), admin()
        corrupt_in_database(kernel)
        corrupt_in_storage(storage, kernel, DATA)

        assert_problem(client.get(path_of(kernel)), 503, "corrupt_kernel")
        assert state_of(kernel) == KernelState.QUARANTINED
