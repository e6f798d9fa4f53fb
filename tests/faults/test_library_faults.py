"""A run whose kernels are gone, archived, corrupt or out of reach: it refuses the kernel, or is given up and goes on
later with the same result. It never trains with wrong bytes."""

import os
import random
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from django.conf import LazySettings

from apps.core.actors import SYSTEM
from apps.core.errors import Unavailable
from apps.kernels import services as kernels
from apps.kernels.cache import archive
from apps.kernels.lifecycle import KernelState
from apps.kernels.models import Kernel, KernelBlob, KernelChunk, StorageTier
from apps.morphogenesis.protocols import KernelUnavailable
from apps.training import services
from apps.training.lifecycle import RunState
from apps.training.models import TrainingRun
from apps.training.runner import FrozenLibrary, train_segment
from esper_site.settings import object_storage as settings_of
from tests.support.factories import KernelFactory, RunFactory
from tests.support.objects import Folder
from tests.support.proxy import proxy_to
from tests.support.store_in_trouble import (
    be_impatient,
    configure,
    database_through,
    is_caught_up,
    kernel_of,
)
from tests.support.waiting import wait_until
from tests.unit.morphogenesis.support import kernels as kernels_for
from tests.unit.morphogenesis.support import quick_settings

pytestmark = pytest.mark.usefixtures("committed_db")

__all__ = ["configure"]

DATA = random.Random(71).randbytes(700_000)


@pytest.fixture
def storage(folder_storage: Folder, settings: LazySettings, tmp_path: Path, configure: Callable[..., None]) -> Folder:
    """L4 of this process, not where its checkpoints are. L2 does not exist here: it would have the bytes."""
    path = tmp_path / "kernels"
    path.mkdir()
    settings.STORAGES = {**settings.STORAGES, "default": settings_of.folder(path)}
    configure(l2_url="")
    return Folder(path)


def load(kernel: Kernel) -> bytes:
    return FrozenLibrary([]).load(kernel.digest or "")


def cold(data: bytes) -> Kernel:
    return kernels.change_tier(kernel=kernel_of(data), tier=StorageTier.COLD, actor=SYSTEM)


class TestLoading:
    def test_bytes_that_are_gone_are_unavailable(self, storage: Folder) -> None:
        kernel = kernel_of(DATA)
        KernelBlob.objects.filter(pk=kernel.digest).delete()

        with pytest.raises(KernelUnavailable, match="no bytes"):
            load(kernel)

    def test_archived_bytes_are_unavailable(self, storage: Folder) -> None:
        kernel = kernels.change_tier(kernel=kernel_of(DATA), tier=StorageTier.ARCHIVE, actor=SYSTEM)

        with pytest.raises(KernelUnavailable, match="archived"):
            load(kernel)

    def test_corrupt_bytes_are_unavailable_and_all_their_kernels_out_of_use(self, storage: Folder) -> None:
        twins = [kernel_of(DATA), kernel_of(DATA)]
        KernelChunk.objects.filter(blob_id=twins[0].digest, index=1).update(data=b"\0" * 1000)

        with pytest.raises(KernelUnavailable, match="corrupt"):
            load(twins[0])
        assert set(Kernel.objects.values_list("state", flat=True)) == {KernelState.QUARANTINED}

    def test_corrupt_bytes_with_a_copy_are_right(self, storage: Folder) -> None:
        kernel = kernel_of(DATA)
        wait_until(is_caught_up, seconds=10)
        KernelChunk.objects.filter(blob_id=kernel.digest, index=1).update(data=b"\0" * 1000)

        assert load(kernel) == DATA

    def test_a_lying_storage_gives_no_bytes(self, storage: Folder) -> None:
        kernel = cold(DATA)
        storage.plant(archive.name_of(kernel.digest or ""), DATA[:-1] + b"?")

        with pytest.raises(KernelUnavailable, match="corrupt"):
            load(kernel)

    def test_a_storage_that_is_away_is_a_fault_from_outside(self, storage: Folder) -> None:
        kernel = cold(DATA)
        with storage.gone(), pytest.raises(Unavailable) as told:
            load(kernel)

        assert told.value.code == "storage"
        assert Kernel.objects.get(pk=kernel.pk).state == KernelState.VALIDATED
        assert load(kernel) == DATA

    def test_a_database_that_is_away_is_a_fault_from_outside(self, storage: Folder) -> None:
        kernel = kernel_of(DATA)
        with proxy_to(os.environ["DATABASE_URL"]) as proxy, database_through(proxy):
            proxy.cut()
            with pytest.raises(Unavailable) as told:
                load(kernel)
        assert told.value.code == "database"
        assert load(kernel) == DATA


# --- A whole run


def run_with_its_kernels() -> tuple[TrainingRun, list[Kernel]]:
    """A run whose library is frozen already, and the kernels in it."""
    settings = quick_settings(epochs=8)
    source = kernels_for(settings)
    rows = [KernelFactory(state=KernelState.VALIDATED, data=source.load(offer.digest)) for offer in source.offers()]
    return run_of(settings.to_dict(), [asdict(offer) for offer in source.offers()]), rows


def run_of(settings: dict[str, Any], library: list[dict[str, Any]]) -> TrainingRun:
    columns = {name: settings[name] for name in ("task", "host", "seed", "epochs")}
    run: TrainingRun = RunFactory(settings=settings, library=library, **columns)
    return run


def trained(run: TrainingRun) -> TrainingRun:
    """After one worker had it; a run that was given up is taken up by beat."""
    train_segment(run_id=run.pk, holder="a worker")
    run.refresh_from_db()
    return run


WEIGHTS = ("weights_digest", "topology_digest", "decisions", "germinated")


def test_a_run_waits_for_a_storage_that_is_away_and_ends_as_if_it_had_not_been(storage: Folder) -> None:
    undisturbed, rows = run_with_its_kernels()
    assert trained(undisturbed).state == RunState.COMPLETED, undisturbed.failure
    assert undisturbed.result["germinated"] > 0
    for row in rows:
        kernels.change_tier(kernel=row, tier=StorageTier.COLD, actor=SYSTEM)
    run = run_of(undisturbed.settings, undisturbed.library)

    with storage.gone():
        assert trained(run).state == RunState.RUNNING
        assert "object storage" in run.failure
        assert not Kernel.objects.filter(state=KernelState.QUARANTINED).exists()
    be_impatient()
    wait_until(lambda: run.pk in services.recover_orphans(), seconds=10)

    assert trained(run).state == RunState.COMPLETED, run.failure
    assert [run.result[name] for name in WEIGHTS] == [undisturbed.result[name] for name in WEIGHTS]
    assert run.failure == ""


def test_a_run_refuses_corrupt_kernels_and_goes_on_without_them(
    storage: Folder, configure: Callable[..., None]
) -> None:
    configure(copies=False)
    run, rows = run_with_its_kernels()
    for row in rows:
        chunk = KernelChunk.objects.get(blob_id=row.digest, index=0)
        data = bytes(chunk.data or b"")
        KernelChunk.objects.filter(pk=chunk.pk).update(data=data[:-1] + bytes([data[-1] ^ 1]))

    assert trained(run).state == RunState.COMPLETED, run.failure

    assert run.result["germinated"] == 0
    refusals = run.decisions.filter(rule="gate_refused")
    assert refusals
    assert all("not available" in decision.reason for decision in refusals)
    assert Kernel.objects.filter(state=KernelState.QUARANTINED).exists()
