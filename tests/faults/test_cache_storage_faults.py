"""The kernel store while the object storage is away, frozen, slow or lies: a cold kernel is a clear error, never wrong
bytes, and what was owed to the storage is done when it is back."""

import random
from collections.abc import Callable, Iterator

import pytest

from apps.core.actors import SYSTEM
from apps.core.errors import Unavailable
from apps.kernels import services
from apps.kernels.cache import CorruptKernel, KernelStore, archive, relay
from apps.kernels.cache.segments import TierName
from apps.kernels.cache.tiers import tiers
from apps.kernels.lifecycle import KernelState
from apps.kernels.models import CHUNK_BYTES, Kernel, KernelBlob, KernelChunk, OutboxKind, StorageTier
from tests.support.cache import Counts
from tests.support.objects import Bucket, Folder
from tests.support.problems import assert_problem
from tests.support.store_in_trouble import (
    OPEN_SECONDS,
    admin,
    be_impatient,
    configure,
    downloaded,
    is_caught_up,
    kernel_of,
    owed,
    path_of,
    read,
    seconds_of,
)
from tests.support.waiting import wait_until

pytestmark = pytest.mark.usefixtures("committed_db")

__all__ = ["configure"]

DATA = random.Random(51).randbytes(700_000)
"""Two chunks."""
READ_SECONDS = 0.3
STALL_SECONDS = 2 * READ_SECONDS + 2.0
"""Two attempts, the pause between them, and a busy machine."""


@pytest.fixture
def storage(s3_storage: Bucket, configure: Callable[..., None]) -> Iterator[Bucket]:
    """A bucket that is waited for a short time. L2 does not exist here: it would have the bytes."""
    s3_storage.be_patient_for(READ_SECONDS)
    configure(l2_url="")
    yield s3_storage
    s3_storage.proxy.mend()


@pytest.fixture
def cold(storage: Bucket) -> Kernel:
    return cold_kernel(DATA)


def cold_kernel(data: bytes) -> Kernel:
    """Its bytes are in the storage alone."""
    kernel = services.change_tier(kernel=kernel_of(data), tier=StorageTier.COLD, actor=SYSTEM)
    wait_until(is_caught_up, seconds=10)
    assert not KernelBlob.objects.get(pk=kernel.digest).in_database
    return kernel


def state_of(kernel: Kernel) -> str:
    return Kernel.objects.values_list("state", flat=True).get(pk=kernel.pk)


def unavailable(kernel: Kernel) -> None:
    with pytest.raises(Unavailable) as told:
        read(kernel)
    assert told.value.code == "storage"


OUTAGES: dict[str, Callable[[Bucket], None]] = {
    "away": lambda storage: storage.proxy.cut(),
    "frozen": lambda storage: storage.proxy.freeze(),
    "breaking off": lambda storage: storage.proxy.break_after(CHUNK_BYTES),
}


@pytest.mark.parametrize("outage", OUTAGES)
def test_a_cold_kernel_is_a_clear_error_until_it_is_back(storage: Bucket, cold: Kernel, outage: str) -> None:
    client = admin()
    OUTAGES[outage](storage)

    assert seconds_of(lambda: unavailable(cold)) < STALL_SECONDS
    assert_problem(client.get(path_of(cold)), 503, "storage")
    assert state_of(cold) == KernelState.VALIDATED, "it is not the kernel's fault"

    storage.proxy.mend()
    wait_until(lambda: tiers().storage.breaker.state != "open", seconds=10)
    assert downloaded(client, cold) == DATA


@pytest.mark.parametrize("is_mount_point_left", [True, False])
def test_a_folder_that_is_not_mounted_has_lost_no_kernel(
    folder_storage: Folder, configure: Callable[..., None], is_mount_point_left: bool
) -> None:
    configure(l2_url="")
    cold, client = cold_kernel(DATA), admin()
    mounted = folder_storage.path.rename(folder_storage.path.with_name("elsewhere"))
    if is_mount_point_left:
        folder_storage.path.mkdir()

    counts = Counts()
    assert "is it mounted?" in assert_problem(client.get(path_of(cold)), 503, "storage")["detail"]
    assert counts.of("errors", TierName.L4) == 1
    assert state_of(cold) == KernelState.VALIDATED

    if is_mount_point_left:
        folder_storage.path.rmdir()
    mounted.rename(folder_storage.path)
    assert downloaded(client, cold) == DATA


def test_a_storage_that_stays_away_is_not_waited_for_by_each(
    storage: Bucket, cold: Kernel, configure: Callable[..., None]
) -> None:
    storage.proxy.freeze()
    seconds_of(lambda: unavailable(cold))
    opened = tiers().storage.breaker.opened

    took = seconds_of(lambda: unavailable(cold), times=20)

    probes = tiers().storage.breaker.opened - opened
    assert opened == 1
    assert took < 1.0 + probes * STALL_SECONDS
    assert probes <= 1 + took / OPEN_SECONDS


def test_a_slow_storage_gives_the_right_bytes(storage: Bucket, cold: Kernel) -> None:
    client = admin()
    storage.proxy.slow(READ_SECONDS / 20)

    assert downloaded(client, cold) == DATA


def test_a_storage_that_lies_never_gives_out_wrong_bytes(storage: Bucket) -> None:
    client = admin()
    for number, lie in enumerate((DATA[:-1] + b"?", DATA[:-1], b"")):
        kernel = cold_kernel(DATA[number:])
        storage.plant(archive.name_of(kernel.digest or ""), lie[number:])

        with pytest.raises(CorruptKernel):
            read(kernel)
        assert_problem(client.get(path_of(kernel)), 503, "corrupt_kernel")
        assert state_of(kernel) == KernelState.QUARANTINED


def test_what_follows_the_bytes_in_the_storage_is_not_given_out(storage: Bucket, cold: Kernel) -> None:
    storage.plant(archive.name_of(cold.digest or ""), DATA + b"?")

    assert downloaded(admin(), cold) == DATA


def test_a_copy_that_is_gone_is_a_clear_error(storage: Bucket, cold: Kernel) -> None:
    storage.bucket.objects.all().delete()

    with pytest.raises(CorruptKernel):
        read(cold)
    assert_problem(admin().get(path_of(cold)), 503, "corrupt_kernel")


@pytest.mark.parametrize("outage", ["away", "frozen"])
def test_a_copy_is_put_off_and_done_when_it_is_back(storage: Bucket, outage: str) -> None:
    OUTAGES[outage](storage)
    kernel = kernel_of(DATA)
    assert seconds_of(relay.drain) < 2 * STALL_SECONDS
    assert owed(OutboxKind.COPY) == 1
    assert KernelStore().get(kernel.digest or "") == DATA

    storage.proxy.mend()
    wait_until(is_caught_up, seconds=10)
    assert archive.is_whole(kernel.digest or "")
    assert KernelBlob.objects.get(pk=kernel.digest).archived_at is not None


def test_a_copy_that_lies_when_it_is_read_back_is_no_copy(storage: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """The storage says that it took the bytes, and has others."""
    kernel, put = kernel_of(DATA), archive.put

    def put_others(*args: object) -> None:
        put(*args)
        storage.plant(archive.name_of(kernel.digest or ""), DATA[:-1] + b"?")

    with monkeypatch.context() as patch:
        patch.setattr(archive, "put", put_others)
        relay.drain()
        with pytest.raises(Unavailable):
            services.change_tier(kernel=kernel, tier=StorageTier.COLD, actor=SYSTEM)

    assert KernelBlob.objects.get(pk=kernel.digest).in_database
    assert KernelBlob.objects.get(pk=kernel.digest).archived_at is None
    assert owed(OutboxKind.COPY) == 1
    wait_until(is_caught_up, seconds=10)
    assert archive.is_whole(kernel.digest or "")


def test_a_kernel_does_not_go_down_into_a_storage_that_is_away(storage: Bucket) -> None:
    kernel, client = kernel_of(DATA), admin()
    storage.proxy.cut()

    with pytest.raises(Unavailable):
        services.change_tier(kernel=kernel, tier=StorageTier.COLD, actor=SYSTEM)

    assert downloaded(client, kernel) == DATA
    assert Kernel.objects.get(pk=kernel.pk).storage_tier == StorageTier.WARM


@pytest.mark.parametrize("what", ["other bytes", "a chunk is gone"])
def test_corrupt_bytes_whose_copy_cannot_be_had_now_are_no_reason_for_a_quarantine(storage: Bucket, what: str) -> None:
    kernel, client = kernel_of(DATA), admin()
    wait_until(is_caught_up, seconds=10)
    rows = KernelChunk.objects.filter(blob_id=kernel.digest, index=1)
    if what == "a chunk is gone":
        rows.delete()
    else:
        rows.update(data=b"\0" * 1000)
    storage.proxy.cut()

    tiers().memory.drop(kernel.digest or "")
    assert_problem(client.get(path_of(kernel)), 503)
    assert state_of(kernel) == KernelState.VALIDATED

    storage.proxy.mend()
    be_impatient()
    assert downloaded(client, kernel) == DATA
