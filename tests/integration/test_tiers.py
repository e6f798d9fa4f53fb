"""Storage tiers: bytes move between the database and the object storage, and at any time one of them has them."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
from django.core.files.storage import storages
from django.utils import timezone

from apps.audit.models import AuditEvent
from apps.core.actors import SYSTEM
from apps.core.errors import Conflict, NotFound, Unavailable
from apps.core.ids import new_id
from apps.kernels import selectors, services
from apps.kernels.cache import CorruptKernel, KernelStore, archive, mover
from apps.kernels.lifecycle import KernelState
from apps.kernels.models import CHUNK_BYTES, Kernel, KernelBlob, KernelChunk, KernelVariant, StorageTier
from apps.morphogenesis.protocols import KernelUnavailable
from apps.training.runner import FrozenLibrary
from tests.support.factories import KernelFactory
from tests.support.objects import object_storage

pytestmark = pytest.mark.django_db

HOT, WARM, COLD, ARCHIVE = StorageTier.HOT, StorageTier.WARM, StorageTier.COLD, StorageTier.ARCHIVE

__all__ = ["object_storage"]


def content(chunks: float = 2.5) -> bytes:
    """Bytes of several chunks, none like another."""
    return b"".join(hashlib.sha256(str(number).encode()).digest() for number in range(int(chunks * CHUNK_BYTES / 32)))


@pytest.fixture
def commits(object_storage: Path, django_capture_on_commit_callbacks: Any) -> Any:
    """What is done after the commit is done."""
    return lambda: django_capture_on_commit_callbacks(execute=True)


def validated(data: bytes | None = None, **values: Any) -> Kernel:
    kernel: Kernel = KernelFactory(state=KernelState.VALIDATED, data=data, **values)
    return kernel


def moved(kernel: Kernel, tier: StorageTier, commits: Any) -> Kernel:
    with commits():
        return services.change_tier(kernel=kernel, tier=tier, actor=SYSTEM, reason="room")


def in_database(kernel: Kernel) -> bool:
    has_bytes = KernelChunk.objects.filter(blob_id=kernel.digest, data__isnull=False).exists()
    assert KernelBlob.objects.get(pk=kernel.digest).in_database == has_bytes
    return has_bytes


def in_storage(kernel: Kernel) -> bool:
    return storages["default"].exists(archive.name_of(kernel.digest or ""))


def overwrite(kernel: Kernel, data: bytes) -> None:
    Path(storages["default"].path(archive.name_of(kernel.digest or ""))).write_bytes(data)


def test_a_cold_kernel_has_its_bytes_in_the_object_storage_alone(commits: Any) -> None:
    kernel = moved(validated(content()), COLD, commits)

    assert (kernel.storage_tier, in_database(kernel), in_storage(kernel)) == (COLD, False, True)


def test_a_cold_kernel_is_read_as_before_whole_and_in_ranges(commits: Any) -> None:
    data = content()
    kernel = moved(validated(data), COLD, commits)
    store = KernelStore()

    assert store.get(kernel.digest or "") == data
    assert store.size(kernel.digest or "") == len(data)
    start, stop = CHUNK_BYTES - 5, 2 * CHUNK_BYTES + 7
    assert b"".join(store.stream(kernel.digest or "", start, stop)) == data[start:stop]


def test_a_kernel_that_is_warm_again_has_its_bytes_in_the_database(commits: Any) -> None:
    data = content()
    kernel = moved(moved(validated(data), COLD, commits), WARM, commits)
    archive.delete(kernel.digest or "")

    assert in_database(kernel)
    assert KernelStore().get(kernel.digest or "") == data


def test_hot_and_warm_have_their_bytes_in_the_database(commits: Any) -> None:
    kernel = moved(moved(validated(), ARCHIVE, commits), HOT, commits)

    assert (kernel.storage_tier, in_database(kernel)) == (HOT, True)


def test_an_archived_kernel_is_not_read_and_the_error_names_the_way_back(commits: Any) -> None:
    kernel = moved(validated(), ARCHIVE, commits)

    with pytest.raises(Conflict, match=r"POST /api/v1/kernels/\{id\}/tier") as refusal:
        KernelStore().get(kernel.digest or "")
    assert refusal.value.code == "archived"


def test_an_archived_kernel_is_unavailable_to_a_run_that_has_it_in_its_library(commits: Any) -> None:
    kernel = moved(validated(content()), ARCHIVE, commits)

    with pytest.raises(KernelUnavailable, match="archived"):
        FrozenLibrary([]).load(kernel.digest or "")


def test_an_archived_kernel_is_not_offered_to_runs(commits: Any) -> None:
    kernel = moved(validated(), ARCHIVE, commits)

    assert kernel not in selectors.validated()


def test_the_move_is_an_event_with_its_tier_and_bytes(commits: Any) -> None:
    kernel = moved(validated(b"x" * 100), COLD, commits)

    event = AuditEvent.objects.get(type="kernel.tier_changed", subject_id=str(kernel.pk))
    assert {"op": "replace", "path": "/storage_tier", "value": "cold"} in event.diff
    assert (event.payload, event.reason) == ({"bytes": 100}, "room")


def test_a_move_to_where_the_kernel_is_changes_nothing(commits: Any) -> None:
    kernel = validated()

    assert moved(kernel, WARM, commits).row_version == kernel.row_version


def test_variants_move_with_their_kernel(commits: Any) -> None:
    kernel = validated()
    digest = KernelStore().put(b"the same in half precision")
    KernelVariant.objects.create(kernel=kernel, memory_format="contiguous", dtype="float16", digest=digest, size=26)
    moved(kernel, COLD, commits)

    assert not KernelBlob.objects.get(pk=digest).in_database


class TestSharedBytes:
    def test_stay_in_the_database_while_one_kernel_is_warm(self, commits: Any) -> None:
        data = content()
        cold, warm = validated(data), validated(data)
        moved(cold, COLD, commits)

        assert in_database(warm)
        assert in_storage(cold)

    def test_leave_the_database_with_the_last_warm_kernel(self, commits: Any) -> None:
        data = content()
        kernels = [validated(data), validated(data)]
        for kernel in kernels:
            moved(kernel, COLD, commits)

        assert not in_database(kernels[0])

    def test_are_readable_while_one_kernel_is_not_archived(self, commits: Any) -> None:
        data = content()
        moved(validated(data), ARCHIVE, commits)
        kernel = moved(validated(data), COLD, commits)

        assert KernelStore().get(kernel.digest or "") == data

    def test_come_back_to_the_database_with_an_upload(self, commits: Any) -> None:
        data = content()
        moved(validated(data), COLD, commits)

        assert in_database(validated(data))

    def test_that_a_warm_kernel_was_given_while_they_were_away_come_back(self, commits: Any) -> None:
        kernel = moved(validated(content()), COLD, commits)
        Kernel.objects.filter(pk=kernel.pk).update(storage_tier=WARM)

        assert mover.settle() == 1
        assert in_database(kernel)


class TestRefusals:
    def test_a_kernel_that_a_run_holds_stays_in_the_database(self, commits: Any) -> None:
        kernel = validated()
        services.hold_kernels(kernels=[kernel], run_id=new_id())

        with pytest.raises(Conflict, match="a run holds"):
            moved(kernel, COLD, commits)
        assert in_database(kernel)

    def test_a_kernel_without_bytes_cannot_move(self, commits: Any) -> None:
        with pytest.raises(Conflict, match="no bytes"):
            moved(KernelFactory(), COLD, commits)

    def test_corrupt_bytes_stay_where_they_are(self, commits: Any) -> None:
        kernel = validated(content())
        KernelChunk.objects.filter(blob_id=kernel.digest, index=1).update(data=b"rot")

        with pytest.raises(Conflict, match="corrupt"):
            moved(kernel, COLD, commits)
        kernel.refresh_from_db()
        assert (kernel.storage_tier, in_storage(kernel)) == (WARM, False)

    def test_rot_in_the_object_storage_does_not_come_back(self, commits: Any) -> None:
        kernel = moved(validated(content()), COLD, commits)
        overwrite(kernel, b"rot" * 1000)

        with pytest.raises(Conflict, match="corrupt"):
            moved(kernel, WARM, commits)
        kernel.refresh_from_db()
        assert (kernel.storage_tier, in_database(kernel)) == (COLD, False)

    def test_rot_in_the_object_storage_is_not_read(self, commits: Any) -> None:
        data = content()
        kernel = moved(validated(data), COLD, commits)
        overwrite(kernel, data[:CHUNK_BYTES] + b"\0" + data[CHUNK_BYTES + 1 :])

        with pytest.raises(CorruptKernel):
            KernelStore().stream(kernel.digest or "")

    def test_a_copy_that_was_damaged_keeps_the_bytes_in_the_database(self, commits: Any) -> None:
        kernel = validated(content())
        services.change_tier(kernel=kernel, tier=COLD, actor=SYSTEM)
        overwrite(kernel, b"rot")

        assert not mover.release(kernel.digest or "")
        assert in_database(kernel)

    def test_a_damaged_copy_is_replaced_by_the_next_move(self, commits: Any) -> None:
        data = content()
        kernel = validated(data)
        services.change_tier(kernel=kernel, tier=COLD, actor=SYSTEM)
        overwrite(kernel, b"rot")
        moved(kernel, COLD, commits)

        assert KernelStore().get(kernel.digest or "") == data
        assert not in_database(kernel)


class TestAnAbsentStorage:
    @pytest.fixture
    def absent(self, object_storage: Path) -> Any:
        """The object storage can be taken away."""

        def take_away() -> None:
            object_storage.rename(object_storage.with_suffix(".away"))
            object_storage.write_text("no folder")

        return take_away

    def test_refuses_the_move_and_leaves_the_kernel_where_it_was(self, absent: Any, commits: Any) -> None:
        kernel = validated()
        absent()

        with pytest.raises(Unavailable):
            moved(kernel, COLD, commits)
        kernel.refresh_from_db()
        assert (kernel.storage_tier, in_database(kernel)) == (WARM, True)

    def test_makes_a_cold_kernel_unavailable_and_not_corrupt(self, absent: Any, commits: Any) -> None:
        kernel = moved(validated(), COLD, commits)
        absent()

        with pytest.raises(Unavailable):
            KernelStore().get(kernel.digest or "")


class TestFreedBytes:
    def test_are_gone_from_both(self, commits: Any) -> None:
        kernel = moved(validated(), COLD, commits)
        Kernel.objects.filter(pk=kernel.pk).update(digest=None, state=KernelState.DEPRECATED)
        with commits():
            assert mover.free(KernelBlob.objects.get(pk=kernel.digest))

        assert not in_storage(kernel)
        with pytest.raises(NotFound):
            KernelStore().get(kernel.digest or "")
        assert not KernelBlob.objects.filter(pk=kernel.digest).exists()

    def test_whose_copy_could_not_be_deleted_are_swept_later(self, commits: Any) -> None:
        kernel = moved(validated(), COLD, commits)
        Kernel.objects.filter(pk=kernel.pk).update(digest=None, state=KernelState.DEPRECATED)
        mover.free(KernelBlob.objects.get(pk=kernel.digest))

        assert in_storage(kernel)
        assert mover.settle() == 1
        assert not in_storage(kernel)

    def test_whose_copy_is_gone_already_are_swept_too(self, commits: Any) -> None:
        kernel = validated()
        KernelBlob.objects.filter(pk=kernel.digest).update(freed_at=timezone.now())

        assert mover.sweep(kernel.digest or "")

    def test_come_back_with_an_upload_before_the_sweep(self, commits: Any) -> None:
        data = content()
        kernel = moved(validated(data), COLD, commits)
        Kernel.objects.filter(pk=kernel.pk).update(digest=None, state=KernelState.DEPRECATED)
        mover.free(KernelBlob.objects.get(pk=kernel.digest))
        KernelStore().put(data)

        assert not mover.sweep(kernel.digest or "")
        assert KernelStore().get(kernel.digest or "") == data
