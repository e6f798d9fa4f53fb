"""Loading: each byte checked, what is broken set aside and named, and a storage that is away no reason to give up."""

from errno import EIO
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from django.conf import LazySettings

from apps.audit.models import AuditEvent
from apps.checkpoints import services
from apps.checkpoints.lifecycle import CheckpointState
from apps.checkpoints.models import Checkpoint, StoredObject
from apps.checkpoints.services import rounds
from apps.checkpoints.store.errors import CorruptCheckpoint
from apps.checkpoints.store.folder import Folder
from apps.core.actors import WORKER
from apps.core.errors import Conflict, Unavailable
from apps.core.ids import new_id
from tests.support.checkpoints import checkpoint_folder, flip, manifest_of, pack_of, save
from tests.support.factories import CheckpointFactory

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("checkpoint_folder")]

__all__ = ["checkpoint_folder"]


def test_a_fresh_run_has_no_checkpoint() -> None:
    assert services.load_latest(run_id=new_id(), actor=WORKER) is None


def test_the_newest_is_taken() -> None:
    run_id = new_id()
    save(run_id, 10)
    newest = save(run_id, 20)

    loaded = services.load_latest(run_id=run_id, actor=WORKER)

    assert loaded is not None
    assert loaded.checkpoint == newest
    assert loaded.skipped == []


def test_another_is_taken_if_it_is_asked_for() -> None:
    run_id = new_id()
    older = save(run_id, 10)
    save(run_id, 20)

    loaded = services.load_latest(run_id=run_id, actor=WORKER, preferred=older.pk)

    assert loaded is not None
    assert loaded.checkpoint == older


def test_instead_of_a_broken_one_that_was_asked_for_the_one_before_it_is_taken() -> None:
    run_id = new_id()
    before, wanted, _after = save(run_id, 10), save(run_id, 20), save(run_id, 30)
    flip(manifest_of(wanted), 100)

    for _ in range(2):  # found broken, and then known to be
        loaded = services.load_latest(run_id=run_id, actor=WORKER, preferred=wanted.pk)

        assert loaded is not None
        assert loaded.checkpoint == before


@pytest.mark.parametrize("of", [manifest_of, pack_of])
def test_a_flipped_bit_is_found_named_and_passed_over(of: object) -> None:
    run_id = new_id()
    older, newest = save(run_id, 10), save(run_id, 20)
    path: Path = of(newest)  # type: ignore[operator]
    flip(path, path.stat().st_size // 2)

    loaded = services.load_latest(run_id=run_id, actor=WORKER)

    assert loaded is not None
    assert loaded.checkpoint == older
    assert [(skipped["checkpoint"], skipped["step"]) for skipped in loaded.skipped] == [(str(newest.pk), 20)]
    newest.refresh_from_db()
    assert newest.state == CheckpointState.QUARANTINED
    assert newest.problem == loaded.skipped[0]["problem"]
    told = AuditEvent.objects.filter(subject_id=str(newest.pk)).latest("id")
    assert told.reason == newest.problem


@pytest.mark.parametrize("of", [manifest_of, pack_of])
def test_a_lost_file_is_passed_over(of: object) -> None:
    run_id = new_id()
    older, newest = save(run_id, 10), save(run_id, 20)
    of(newest).unlink()  # type: ignore[operator]

    loaded = services.load_latest(run_id=run_id, actor=WORKER)

    assert loaded is not None
    assert loaded.checkpoint == older


def test_a_run_none_of_whose_checkpoints_is_whole_begins_anew() -> None:
    run_id = new_id()
    flip(manifest_of(save(run_id, 10)), 100)

    assert services.load_latest(run_id=run_id, actor=WORKER) is None


def test_a_folder_that_is_gone_sets_nothing_aside(checkpoint_folder: Path) -> None:
    run_id = new_id()
    newest = save(run_id, 10)
    aside = checkpoint_folder.rename(checkpoint_folder.with_name("aside"))

    with pytest.raises(Unavailable):
        services.load_latest(run_id=run_id, actor=WORKER)

    aside.rename(checkpoint_folder)
    loaded = services.load_latest(run_id=run_id, actor=WORKER)
    assert loaded is not None
    assert loaded.checkpoint == newest


def test_a_folder_of_another_machine_is_named_with_the_remedies(settings: LazySettings, tmp_path: Path) -> None:
    run_id = new_id()
    save(run_id, 10)
    settings.CHECKPOINTS_ROOT = tmp_path / "another"
    save(new_id(), 10)

    with pytest.raises(Unavailable, match="ESPER_CHECKPOINT_COPIES"):
        services.load_latest(run_id=run_id, actor=WORKER)

    assert Checkpoint.objects.get(run_id=run_id).state == CheckpointState.COMMITTED


def test_verifying_tells_when_it_was_right() -> None:
    checkpoint = save()

    report = services.verify(checkpoint=checkpoint, actor=WORKER)

    checkpoint.refresh_from_db()
    assert report.bytes == checkpoint.size
    assert checkpoint.verified_at is not None


def test_verifying_sets_aside_what_is_broken_and_marks_what_others_share() -> None:
    run_id = new_id()
    first, second = save(run_id, 10), save(run_id, 20)
    body = StoredObject.objects.get(references__checkpoint=first, raw_size=30_000 * 4)
    flip(pack_of(first), body.offset + body.stored_size // 2)

    with pytest.raises(CorruptCheckpoint, match=body.digest[:12]):
        services.verify(checkpoint=second, actor=WORKER)

    body.refresh_from_db()
    assert body.broken_at is not None
    assert Checkpoint.objects.get(pk=second.pk).state == CheckpointState.QUARANTINED


def test_a_checkpoint_that_is_right_again_is_taken_back() -> None:
    checkpoint = save()
    flip(manifest_of(checkpoint), 100)
    with pytest.raises(CorruptCheckpoint):
        services.verify(checkpoint=checkpoint, actor=WORKER)
    flip(manifest_of(checkpoint), 100)

    services.verify(checkpoint=Checkpoint.objects.get(pk=checkpoint.pk), actor=WORKER)

    checkpoint.refresh_from_db()
    assert (checkpoint.state, checkpoint.problem) == (CheckpointState.COMMITTED, "")


def test_what_is_not_kept_cannot_be_loaded() -> None:
    expired: Checkpoint = CheckpointFactory.create(state=CheckpointState.EXPIRED)

    with pytest.raises(Conflict, match="EXPIRED"):
        services.load(checkpoint=expired)


def test_a_run_from_before_this_format_begins_anew_and_is_told_why() -> None:
    old: Checkpoint = CheckpointFactory.create(format="safetensors+json/1")

    assert services.load_latest(run_id=old.run_id, actor=WORKER) is None

    assert Checkpoint.objects.get(pk=old.pk).state == CheckpointState.EXPIRED
    assert "the run begins anew" in AuditEvent.objects.filter(subject_id=str(old.pk)).latest("id").reason


@pytest.mark.parametrize("at", [0, 10, -60, -44, -4], ids=["magic", "uuid", "index", "digest", "end"])
def test_a_flipped_bit_around_the_objects_of_a_pack_is_found_by_verifying(at: int) -> None:
    checkpoint = save()
    pack = pack_of(checkpoint)
    flip(pack, at % pack.stat().st_size)

    with pytest.raises(CorruptCheckpoint, match=r"^pack "):
        services.verify(checkpoint=checkpoint, actor=WORKER)

    assert Checkpoint.objects.get(pk=checkpoint.pk).state == CheckpointState.QUARANTINED
    assert not StoredObject.objects.filter(references__checkpoint=checkpoint, broken_at=None).exists()


def unreadable(pack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on the disk cannot read this pack."""
    opened = Folder.open_pack

    def open_pack(self: Folder, pack_id: UUID) -> Any:
        if self.pack_path(pack_id) == pack:
            raise OSError(EIO, "Input/output error", str(pack))
        return opened(self, pack_id)

    monkeypatch.setattr(Folder, "open_pack", open_pack)


def test_what_the_disk_cannot_read_is_passed_over_and_not_set_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = new_id()
    older, newest = save(run_id, 10), save(run_id, 20)
    unreadable(pack_of(newest), monkeypatch)

    loaded = services.load_latest(run_id=run_id, actor=WORKER)

    assert loaded is not None
    assert loaded.checkpoint == older
    assert "Input/output error" in loaded.skipped[0]["problem"]
    assert Checkpoint.objects.get(pk=newest.pk).state == CheckpointState.COMMITTED


def test_a_run_of_which_the_disk_can_read_nothing_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = new_id()
    unreadable(pack_of(save(run_id, 10)), monkeypatch)

    with pytest.raises(Unavailable, match="Input/output error"):
        services.load_latest(run_id=run_id, actor=WORKER)


def test_a_scrub_goes_on_behind_what_the_disk_cannot_read(monkeypatch: pytest.MonkeyPatch) -> None:
    readable, newest = save(step=10, state={"tolaria": {"step": 1}}), save(step=20)
    unreadable(pack_of(newest), monkeypatch)

    scrubbed = rounds.scrub()

    assert (scrubbed.checkpoints, scrubbed.broken) == (1, 1)
    assert Checkpoint.objects.get(pk=readable.pk).verified_at is not None
