"""Snapshots: durable before they are the latest, verified before they are used, collected when nobody needs them."""

from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from django.core.files.storage import Storage, storages
from django.utils import timezone

from apps.accounts.models import default_workspace_id
from apps.audit.models import AuditEvent
from apps.checkpoints import services
from apps.checkpoints.lifecycle import CheckpointState
from apps.checkpoints.models import Checkpoint
from apps.core.actors import WORKER
from apps.core.errors import LeaseLost, Unavailable
from apps.core.ids import new_id
from apps.core.objects import put

pytestmark = pytest.mark.django_db


@pytest.fixture
def run_id() -> UUID:
    return new_id()


def save(run_id: UUID, step: int, tensors: bytes = b"tensors", **changes: Any) -> Checkpoint:
    values: dict[str, Any] = {
        "run_id": run_id,
        "workspace_id": default_workspace_id(),
        "fencing_token": 1,
        "epoch": step // 10,
        "step": step,
        "tensors": tensors,
        "state": {"sequence": step},
        "actor": WORKER,
        "guard": lambda: None,
    }
    return services.save_snapshot(**(values | changes))


def file_of(checkpoint: Checkpoint, suffix: str = ".safetensors") -> Path:
    return Path(storages["checkpoints"].path(f"{checkpoint.name}{suffix}"))


def test_the_latest_snapshot_comes_back_as_it_was(run_id: UUID) -> None:
    save(run_id, 10, b"old")
    save(run_id, 20, b"new")

    stored = services.load_latest(run_id=run_id, actor=WORKER)

    assert stored is not None
    assert (stored.checkpoint.step, stored.tensors, stored.state) == (20, b"new", {"sequence": 20})


def test_a_fresh_run_has_no_snapshot(run_id: UUID) -> None:
    assert services.load_latest(run_id=run_id, actor=WORKER) is None


def test_a_worker_that_lost_the_run_does_not_commit(run_id: UUID) -> None:
    save(run_id, 10)

    def refuse() -> None:
        raise LeaseLost("out of date")

    with pytest.raises(LeaseLost):
        save(run_id, 20, guard=refuse)

    stored = services.load_latest(run_id=run_id, actor=WORKER)
    assert stored is not None
    assert stored.checkpoint.step == 10


def test_a_storage_that_refuses_leaves_the_previous_snapshot_the_latest(
    run_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(run_id, 10)
    monkeypatch.setattr(services, "put", _no_space)

    with pytest.raises(Unavailable, match="No space left"):
        save(run_id, 20)

    assert Checkpoint.objects.get(step=20).state == CheckpointState.ABANDONED
    stored = services.load_latest(run_id=run_id, actor=WORKER)
    assert stored is not None
    assert stored.checkpoint.step == 10


def _no_space(storage: Storage, name: str, data: bytes) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("suffix", [".safetensors", ".json"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "delete"])
def test_a_damaged_snapshot_is_quarantined_and_the_one_before_it_is_used(
    run_id: UUID, suffix: str, damage: str
) -> None:
    save(run_id, 10)
    path = file_of(newest := save(run_id, 20), suffix)
    data = path.read_bytes()
    if damage == "delete":
        path.unlink()
    else:
        path.write_bytes(data[:-1] if damage == "truncate" else bytes([data[0] ^ 1]) + data[1:])

    stored = services.load_latest(run_id=run_id, actor=WORKER)

    assert stored is not None
    assert stored.checkpoint.step == 10
    newest.refresh_from_db()
    assert newest.state == CheckpointState.QUARANTINED
    assert AuditEvent.objects.filter(type="checkpoint.transition", subject_id=str(newest.pk)).exists()


def test_only_the_newest_three_are_kept_and_pinned_ones(run_id: UUID) -> None:
    first = save(run_id, 10)
    Checkpoint.objects.filter(pk=first.pk).update(pinned=True)
    second = save(run_id, 20)
    for step in (30, 40, 50):
        save(run_id, step)

    committed = Checkpoint.objects.filter(run_id=run_id, state=CheckpointState.COMMITTED)
    assert set(committed.values_list("step", flat=True)) == {10, 30, 40, 50}
    assert file_of(first).exists()
    assert not file_of(second).exists()


def test_a_save_that_never_finished_is_collected_after_its_time(run_id: UUID) -> None:
    orphan = services._stage(run_id, default_workspace_id(), 1, 1, 10, WORKER)
    put(storages["checkpoints"], f"{orphan.name}.safetensors", b"half")
    assert services.expire_abandoned() == 0
    Checkpoint.objects.filter(pk=orphan.pk).update(created_at=timezone.now() - timedelta(hours=2))

    assert services.expire_abandoned() == 1

    orphan.refresh_from_db()
    assert orphan.state == CheckpointState.ABANDONED
    assert not file_of(orphan).exists()


def test_a_storage_that_cannot_be_read_now_condemns_no_snapshot(run_id: UUID, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = save(run_id, 10)
    with monkeypatch.context() as away:
        away.setattr(services, "get", _too_many_files)
        with pytest.raises(Unavailable, match="Too many open files"):
            services.load_latest(run_id=run_id, actor=WORKER)

    checkpoint.refresh_from_db()
    assert checkpoint.state == CheckpointState.COMMITTED
    assert services.load_latest(run_id=run_id, actor=WORKER) is not None


def _too_many_files(storage: Storage, name: str) -> bytes:
    raise OSError(24, "Too many open files")


def test_a_failed_save_leaves_no_file_behind(run_id: UUID, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(storage: Storage, name: str, data: bytes) -> None:
        if name.endswith(".json"):
            _no_space(storage, name, data)
        put(storage, name, data)

    monkeypatch.setattr(services, "put", half)

    with pytest.raises(Unavailable):
        save(run_id, 10)

    assert not file_of(Checkpoint.objects.get(step=10)).exists()
