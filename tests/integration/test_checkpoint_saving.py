"""A save: durable before it is the latest, of what is new only, and never the end of the training."""

from errno import ENOSPC
from pathlib import Path

import pytest
import torch

from apps.audit.models import AuditEvent
from apps.checkpoints import services
from apps.checkpoints.lifecycle import CheckpointState
from apps.checkpoints.models import Checkpoint, ObjectReference, Pack, StoredObject
from apps.checkpoints.store import crashpoints
from apps.checkpoints.store.errors import UnsupportedState
from apps.core.actors import WORKER
from apps.core.errors import LeaseLost, Unavailable
from apps.core.ids import new_id
from tests.support.checkpoints import checkpoint_folder, pack_of, save, state_of

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("checkpoint_folder")]

__all__ = ["checkpoint_folder"]


def test_what_was_saved_comes_back_bit_for_bit() -> None:
    saved = save(step=10)

    loaded = services.load(checkpoint=saved)

    wanted, model = state_of(10), loaded.components["tolaria"]["model"]
    assert {name: tensor.tolist() for name, tensor in model.items()} == {
        name: tensor.tolist() for name, tensor in wanted["tolaria"]["model"].items()
    }
    assert loaded.components["tolaria"]["step"] == 10
    assert loaded.components["tamiyo"] == wanted["tamiyo"]


def test_one_component_is_restored_alone() -> None:
    assert set(services.load(checkpoint=save(), components=["tamiyo"]).components) == {"tamiyo"}


def test_a_row_tells_what_was_stored() -> None:
    checkpoint = save(step=20, metrics={"validation_loss": 0.5})

    assert (checkpoint.state, checkpoint.epoch, checkpoint.step) == (CheckpointState.COMMITTED, 2, 20)
    assert checkpoint.metrics == {"validation_loss": 0.5}
    assert checkpoint.size == (40_000 + 30_000 + 3) * 4
    assert checkpoint.components["tolaria"] == {"tensors": 3, "bytes": 280_012, "stored": 280_012}
    assert checkpoint.stored_bytes == pack_of(checkpoint).stat().st_size
    assert checkpoint.stall_seconds is not None
    assert checkpoint.save_seconds is not None


def test_what_did_not_change_is_not_stored_again() -> None:
    run_id = new_id()
    first = save(run_id, 10)

    second = save(run_id, 20)

    assert second.shared_bytes == 30_000 * 4
    assert second.stored_bytes < first.stored_bytes
    assert second.components["tolaria"]["stored"] == 40_003 * 4
    assert StoredObject.objects.filter(references__checkpoint=first).filter(references__checkpoint=second).count() == 1


def test_a_state_that_is_known_wholly_adds_no_pack() -> None:
    save(step=10)

    again = save(step=10)

    assert again.stored_bytes == 0
    assert Pack.objects.count() == 1


def test_a_checkpoint_knows_the_one_before_it() -> None:
    run_id = new_id()

    assert save(run_id, 20).parent_id is None
    assert save(run_id, 30).parent_id == Checkpoint.objects.get(run_id=run_id, step=20).pk


def test_the_trail_tells_of_it() -> None:
    checkpoint = save()

    told = AuditEvent.objects.filter(subject_id=str(checkpoint.pk)).order_by("id").values_list("type", flat=True)
    assert list(told) == ["checkpoint.staged", "checkpoint.committed"]


def test_a_zombie_commits_nothing() -> None:
    run_id = new_id()
    before = save(run_id, 10)

    def lost() -> None:
        raise LeaseLost("another worker owns this run now")

    with pytest.raises(LeaseLost):
        save(run_id, 20, guard=lost)

    latest = services.load_latest(run_id=run_id, actor=WORKER)
    assert latest is not None
    assert latest.checkpoint == before
    assert Checkpoint.objects.get(run_id=run_id, step=20).state == CheckpointState.ABANDONED
    assert not ObjectReference.objects.filter(checkpoint__step=20).exists()


@pytest.mark.parametrize("point", ["save.begun", "pack.written", "pack.fsynced", "manifest.written"])
def test_a_full_disk_leaves_the_previous_checkpoint_and_no_file(
    point: str, checkpoint_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = new_id()
    before = save(run_id, 10)
    files = sorted(path for path in checkpoint_folder.rglob("*") if path.is_file())

    def fill(reached: str) -> None:
        if reached == point:
            raise OSError(ENOSPC, "No space left on device")

    monkeypatch.setattr(crashpoints, "hook", fill)
    with pytest.raises(Unavailable, match="No space left"):
        save(run_id, 20)
    monkeypatch.setattr(crashpoints, "hook", None)

    latest = services.load_latest(run_id=run_id, actor=WORKER)
    assert latest is not None
    assert latest.checkpoint == before
    assert sorted(path for path in checkpoint_folder.rglob("*") if path.is_file()) == files
    assert AuditEvent.objects.filter(type="alert.checkpoint_failed", subject_id=str(run_id)).count() == 1


def test_a_failed_save_is_made_up_for_by_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = new_id()

    def fail(reached: str) -> None:
        raise OSError(ENOSPC, "No space left on device")

    monkeypatch.setattr(crashpoints, "hook", fail)
    with pytest.raises(Unavailable):
        save(run_id, 10)
    monkeypatch.setattr(crashpoints, "hook", None)

    assert save(run_id, 20).state == CheckpointState.COMMITTED


def test_an_object_that_is_known_to_be_broken_is_written_anew_and_heals_whoever_shares_it() -> None:
    run_id = new_id()
    first = save(run_id, 10)
    body = StoredObject.objects.get(references__checkpoint=first, raw_size=30_000 * 4)
    StoredObject.objects.filter(pk=body.pk).update(broken_at=first.created_at)

    second = save(run_id, 20)

    healed = StoredObject.objects.get(pk=body.pk)
    assert healed.broken_at is None
    assert healed.pack_id != body.pack_id
    assert services.load(checkpoint=first).components["tolaria"]["step"] == 10
    assert second.shared_bytes == 0


def test_a_state_with_something_else_in_it_is_refused_by_its_path() -> None:
    with pytest.raises(UnsupportedState, match="tolaria/model/odd"):
        save(state={"tolaria": {"model": {"odd": object()}}})


def test_a_sparse_tensor_is_refused_by_its_path() -> None:
    with pytest.raises(UnsupportedState, match="tolaria/weight"):
        save(state={"tolaria": {"weight": torch.eye(3).to_sparse()}})
