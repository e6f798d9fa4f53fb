"""The end of a kernel: retired by hand, restored while its time lasts, purged after it."""

from typing import Any

import pytest

from apps.core.actors import SYSTEM
from apps.core.errors import Conflict, Invalid
from apps.kernels import services, tasks
from apps.kernels.cache import KernelStore
from apps.kernels.lifecycle import KernelState
from apps.kernels.metrics import stored
from apps.kernels.models import Kernel, KernelBlob, KernelChunk, KernelVariant, StorageTier
from tests.support.factories import KernelFactory
from tests.support.objects import object_storage
from tests.support.retention import kernel, retired, state_of

__all__ = ["object_storage"]

pytestmark = pytest.mark.django_db


# --- Restoring


def test_a_restored_kernel_is_in_the_library_again() -> None:
    row = services.restore_kernel(kernel=retired(), reason="missed", actor=SYSTEM)

    assert (row.state, row.retired_at, row.purge_after) == (KernelState.VALIDATED, None, None)


def test_a_restored_kernel_has_its_bytes_in_the_database(
    object_storage: Any, django_capture_on_commit_callbacks: Any
) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        row = services.change_tier(kernel=retired(b"weights"), tier=StorageTier.ARCHIVE, actor=SYSTEM)
    row = services.restore_kernel(kernel=row, actor=SYSTEM)

    assert row.storage_tier == StorageTier.WARM
    assert KernelStore().get(row.digest or "") == b"weights"


def test_a_kernel_whose_bytes_are_corrupt_is_not_restored() -> None:
    row = retired()
    KernelChunk.objects.filter(blob_id=row.digest).update(data=b"rot")

    with pytest.raises(Conflict) as refusal:
        services.restore_kernel(kernel=row, actor=SYSTEM)
    assert (refusal.value.code, state_of(row)) == ("bytes_lost", KernelState.RETIRED)


def test_a_kernel_whose_contract_a_newer_one_has_is_not_restored() -> None:
    row = retired()
    twin = KernelFactory(blueprint_version=row.blueprint_version, bindings=row.bindings)

    with pytest.raises(Conflict, match=str(twin.pk)) as refusal:
        services.restore_kernel(kernel=row, actor=SYSTEM)
    assert refusal.value.code == "duplicate_contract"


@pytest.mark.parametrize("state", [KernelState.BENCHMARKING, KernelState.VALIDATED, KernelState.PURGED])
def test_only_a_retired_kernel_is_restored(state: str) -> None:
    with pytest.raises(Conflict, match="only a RETIRED one"):
        services.restore_kernel(kernel=kernel(state=state), actor=SYSTEM)


@pytest.mark.parametrize("state", [KernelState.UPLOADED, KernelState.RETIRED, KernelState.REJECTED])
def test_only_a_kernel_in_use_or_in_quarantine_is_retired(state: str) -> None:
    with pytest.raises(Conflict, match="only a VALIDATED, DEPRECATED or QUARANTINED one"):
        services.retire_kernel(kernel=kernel(state=state), reason="old", actor=SYSTEM)


def quarantined(row: Kernel) -> Kernel:
    return services.quarantine_kernel(kernel=row, reason="odd", actor=SYSTEM)


def test_the_contract_of_a_kernel_that_was_retired_from_quarantine_is_free_again() -> None:
    row = quarantined(kernel())
    services.retire_kernel(kernel=row, reason="compile it anew", actor=SYSTEM)

    anew = services.ensure_kernel(version=row.blueprint_version, bindings=row.bindings, actor=SYSTEM)

    assert (anew.pk != row.pk, anew.state) == (True, KernelState.REGISTERED)


def test_a_kernel_that_was_quarantined_in_use_comes_back_through_retirement() -> None:
    row = services.retire_kernel(kernel=quarantined(kernel()), reason="look again", actor=SYSTEM)

    assert services.restore_kernel(kernel=row, actor=SYSTEM).state == KernelState.VALIDATED


@pytest.mark.parametrize("state", [KernelState.REGISTERED, KernelState.UPLOADED, KernelState.REJECTED])
def test_a_kernel_that_was_never_validated_does_not_become_so_by_a_restore(state: str) -> None:
    row = services.retire_kernel(kernel=quarantined(kernel(state=state)), reason="old", actor=SYSTEM)

    with pytest.raises(Conflict) as refusal:
        services.restore_kernel(kernel=row, actor=SYSTEM)
    assert refusal.value.code == "never_validated"


@pytest.mark.parametrize("state", [KernelState.RETIRED, KernelState.REJECTED])
def test_a_kernel_out_of_use_is_not_quarantined_where_another_has_its_contract(state: str) -> None:
    row = kernel(state=state)
    twin = KernelFactory(blueprint_version=row.blueprint_version, bindings=row.bindings)

    with pytest.raises(services.DuplicateContract) as refusal:
        quarantined(row)
    assert refusal.value.kernel == twin


def test_a_successor_is_another_kernel_in_use() -> None:
    row = kernel()
    for successor in (row, kernel(state=KernelState.DEPRECATED)):
        with pytest.raises(Invalid, match="VALIDATED"):
            services.retire_kernel(kernel=row, reason="old", successor=successor, actor=SYSTEM)


def test_a_successor_has_the_same_contract() -> None:
    with pytest.raises(Invalid, match="fits other slots"):
        services.retire_kernel(kernel=kernel(), reason="old", successor=kernel(compat={"input": []}), actor=SYSTEM)


def test_what_was_quarantined_since_it_was_looked_at_is_no_successor() -> None:
    row, successor = kernel(), kernel()
    quarantined(Kernel.objects.get(pk=successor.pk))

    with pytest.raises(Invalid, match="VALIDATED"):
        services.retire_kernel(kernel=row, reason="old", successor=successor, actor=SYSTEM)
    with pytest.raises(Conflict, match="QUARANTINED"):
        services.update_kernel(kernel=row, successor=successor, actor=SYSTEM)


# --- Purging


def has_bytes(digest: str | None) -> bool:
    return KernelBlob.objects.filter(pk=digest, freed_at=None).exists()


def test_a_purged_kernel_gives_up_its_bytes_and_those_of_its_variants() -> None:
    row = retired()
    digest = KernelStore().put(b"variant")
    KernelVariant.objects.create(kernel=row, memory_format="contiguous", dtype="float16", digest=digest, size=7)
    tasks.purge_retired()

    assert state_of(row) == KernelState.PURGED
    assert [has_bytes(row.digest), has_bytes(digest)] == [False, False]


@pytest.mark.parametrize("state", [KernelState.VALIDATED, KernelState.RETIRED, KernelState.REJECTED])
def test_bytes_that_another_kernel_refers_to_stay(state: str) -> None:
    row = retired(b"shared")
    kernel(state=state, data=b"shared")
    tasks.purge_retired()

    assert state_of(row) == KernelState.PURGED
    assert KernelStore().get(row.digest or "") == b"shared"


def test_bytes_that_a_variant_of_another_kernel_refers_to_stay() -> None:
    row = retired(b"shared")
    KernelVariant.objects.create(
        kernel=kernel(), memory_format="contiguous", dtype="float16", digest=row.digest or "", size=6
    )
    tasks.purge_retired()

    assert has_bytes(row.digest)


def test_bytes_go_with_the_last_kernel_that_refers_to_them() -> None:
    rows = [retired(b"shared"), retired(b"shared")]
    tasks.purge_retired()

    assert not has_bytes(rows[0].digest)


def test_a_kernel_whose_time_is_not_over_is_not_purged() -> None:
    row = retired(over=False)
    tasks.purge_retired()

    assert state_of(row) == KernelState.RETIRED
    with pytest.raises(Conflict, match="can still be restored"):
        services.purge_kernel(kernel=row, actor=SYSTEM)


def test_the_copy_in_the_object_storage_goes_too(object_storage: Any, django_capture_on_commit_callbacks: Any) -> None:
    row = retired()
    with django_capture_on_commit_callbacks(execute=True):
        services.change_tier(kernel=row, tier=StorageTier.COLD, actor=SYSTEM)
    with django_capture_on_commit_callbacks(execute=True):
        tasks.purge_retired()

    assert [path for path in object_storage.rglob("*") if path.is_file()] == []
    assert not KernelBlob.objects.filter(pk=row.digest).exists()


# --- Metrics


def test_the_metrics_tell_bytes_by_tier_and_what_was_purged() -> None:
    kernel(data=b"x" * 10), retired(b"y" * 5)
    before = {sample.labels.get("tier", sample.name): sample.value for family in stored() for sample in family.samples}
    tasks.purge_retired()
    after = {sample.labels.get("tier", sample.name): sample.value for family in stored() for sample in family.samples}

    assert (before["warm"], before["cold"], before["esper_kernels_purged_total"]) == (15, 0, 0)
    assert (after["warm"], after["esper_kernels_purged_total"]) == (10, 1)
