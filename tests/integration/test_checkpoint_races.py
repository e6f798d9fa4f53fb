"""Checkpoints while others move, expire or spoil their files: nothing good is set aside, nothing wrong is trusted."""

from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import pytest
import torch

from apps.accounts.models import default_workspace_id
from apps.checkpoints import contents, places, services
from apps.checkpoints.lifecycle import CheckpointState
from apps.checkpoints.models import Checkpoint, Pack, SaveReason, StoredObject
from apps.checkpoints.services import compaction, rounds
from apps.checkpoints.services.archiving import archive, copy
from apps.checkpoints.services.saving import RunSaver
from apps.checkpoints.store import crashpoints, restoring
from apps.checkpoints.store.folder import Folder as StoreFolder
from apps.core.actors import SYSTEM, WORKER
from apps.core.errors import Unavailable
from apps.core.ids import new_id
from tests.support.checkpoints import checkpoint_folder, flip, pack_of, save, state_of
from tests.support.objects import Folder, folder_storage

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("checkpoint_folder")]

__all__ = ["checkpoint_folder", "folder_storage"]


@pytest.fixture
def run_id() -> UUID:
    return new_id()


@pytest.fixture
def before_reading(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Has something happen once, after a reader has looked up where the bytes are and before it reads them."""

    def arrange(happen: Callable[[], object]) -> None:
        waiting = [happen]
        for name in ("load", "verify"):
            monkeypatch.setattr(restoring, name, _after(waiting, getattr(restoring, name)))

    return arrange


def _after(waiting: list[Callable[[], object]], read: Callable[..., object]) -> Callable[..., object]:
    def reading(*args: object, **options: object) -> object:
        if waiting:
            waiting.pop()()
        return read(*args, **options)

    return reading


def state_in_rows(checkpoint: Checkpoint) -> str:
    return str(Checkpoint.objects.get(pk=checkpoint.pk).state)


class TestAReader:
    """Of a checkpoint whose files go elsewhere while it reads."""

    def test_follows_it_into_the_archive(
        self, run_id: UUID, folder_storage: Folder, before_reading: Callable[[Callable[[], object]], None]
    ) -> None:
        checkpoint = save(run_id, 10)
        before_reading(lambda: archive(checkpoint=checkpoint, actor=SYSTEM))

        loaded = services.load_latest(run_id=run_id, actor=WORKER)

        assert loaded is not None
        assert loaded.skipped == []
        assert state_in_rows(checkpoint) == CheckpointState.COMMITTED

    def test_follows_its_objects_into_another_pack(
        self, run_id: UUID, before_reading: Callable[[Callable[[], object]], None]
    ) -> None:
        checkpoint = save(run_id, 10)
        old = pack_of(checkpoint)

        def compact() -> None:
            Pack.objects.update(size=10**9)  # as if most of it were garbage
            compaction.compact()
            old.unlink()  # the grace is over

        before_reading(compact)

        services.verify(checkpoint=checkpoint, actor=WORKER)

        assert state_in_rows(checkpoint) == CheckpointState.COMMITTED


class TestAPackThatTheFolderHasSpoilt:
    """And that the archive has whole, with a copied checkpoint; a newer one, not copied yet, shares its objects."""

    @pytest.fixture
    def newer(self, run_id: UUID, folder_storage: Folder) -> Checkpoint:
        first = copy(checkpoint=save(run_id, 10))
        newer = save(run_id, 20)
        body = StoredObject.objects.get(references__checkpoint=first, raw_size=30_000 * 4)
        flip(pack_of(first), body.offset + body.stored_size // 2)
        return newer

    def test_costs_the_newer_one_nothing(self, run_id: UUID, newer: Checkpoint) -> None:
        loaded = services.load_latest(run_id=run_id, actor=WORKER)

        assert loaded is not None
        assert (loaded.checkpoint, loaded.skipped) == (newer, [])

    def test_is_brought_back_by_beat(self, newer: Checkpoint, folder_storage: Folder) -> None:
        services.verify(checkpoint=newer, actor=WORKER)

        rounds.bring_back_needed()

        for pack in Pack.objects.exclude(copied_at=None):
            assert (
                places.folder().pack_path(pack.pk).read_bytes()
                == (folder_storage.path / places.pack_name(pack.pk)).read_bytes()
            )

    def test_is_downloaded_from_the_archive(self, newer: Checkpoint) -> None:
        body = StoredObject.objects.get(references__checkpoint=newer, raw_size=30_000 * 4)

        data = contents.object_of(newer, body.digest)

        assert bytes(data) == state_of(20)["tolaria"]["model"]["body"].numpy().tobytes()
        assert state_in_rows(newer) == CheckpointState.COMMITTED


def test_comparing_sets_aside_the_broken_one_and_not_the_other(run_id: UUID) -> None:
    older, newer = save(run_id, 10, small(1.0)), save(run_id, 20, small(2.0))
    flip(pack_of(older), 40)

    with pytest.raises(Unavailable):
        contents.compared(older=older, newer=newer)

    assert state_in_rows(older) == CheckpointState.QUARANTINED
    assert state_in_rows(newer) == CheckpointState.COMMITTED


def small(value: float) -> dict[str, object]:
    """Two small tensors that share an object."""
    return {"tolaria": {"a": torch.full((10,), value), "b": torch.zeros(10)}}


class TestASaverOfWhichTheFolderIsTakenAway:
    """Unmounted under a run that saves: an empty folder is left in its place, which takes files as gladly."""

    @pytest.fixture
    def saver(self, run_id: UUID) -> Iterator[RunSaver]:
        saver = saver_of(run_id)
        yield saver
        saver.close()

    @pytest.mark.parametrize("is_another_store", [False, True])
    def test_stores_nothing_there(
        self, run_id: UUID, saver: RunSaver, checkpoint_folder: Path, is_another_store: bool
    ) -> None:
        store(saver, 10)
        aside = checkpoint_folder.rename(checkpoint_folder.with_name("aside"))
        checkpoint_folder.mkdir()
        if is_another_store:
            assert places.folder().identity
        was_there = list(checkpoint_folder.rglob("*"))

        with pytest.raises(Unavailable, match="mounted"):
            store(saver, 20)

        assert list(checkpoint_folder.rglob("*")) == was_there
        for path in sorted(was_there, reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        checkpoint_folder.rmdir()
        aside.rename(checkpoint_folder)
        store(saver, 30)
        loaded = services.load_latest(run_id=run_id, actor=WORKER)
        assert loaded is not None
        assert (loaded.checkpoint.step, loaded.skipped) == (30, [])

    def test_commits_nothing_whose_files_went_meanwhile(
        self, run_id: UUID, saver: RunSaver, checkpoint_folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def lose(point: str) -> None:
            if point == "commit.before":
                for path in (checkpoint_folder / "packs").iterdir():
                    path.unlink()

        monkeypatch.setattr(crashpoints, "hook", lose)

        with pytest.raises(Unavailable):
            store(saver, 10)

        assert not Checkpoint.objects.filter(run_id=run_id, state=CheckpointState.COMMITTED).exists()


def test_a_save_counts_on_no_pack_that_is_gone(run_id: UUID) -> None:
    pack_of(save(run_id, 10)).unlink()

    newer = save(run_id, 20)

    services.verify(checkpoint=newer, actor=WORKER)
    assert newer.shared_bytes == 0


def saver_of(run_id: UUID) -> RunSaver:
    return RunSaver(
        run_id=run_id,
        workspace_id=default_workspace_id(),
        fencing_token=1,
        guard=lambda: None,
        actor=WORKER,
        background=False,
    )


def store(saver: RunSaver, step: int) -> None:
    """Raises Unavailable."""
    saver.save(state_of(step), epoch=1, step=step, reason=SaveReason.EPOCH)
    saver.flush(required=True)


class TestRoomThatAMoveLeaves:
    """In the folder, though the archive is where all checkpoints that need it lie."""

    def test_after_a_crash_is_freed_by_beat(
        self, run_id: UUID, folder_storage: Folder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        checkpoint = save(run_id, 10)
        pack = pack_of(checkpoint)
        with monkeypatch.context() as patch:
            patch.setattr(StoreFolder, "delete_pack", lambda folder, key: 0)  # killed just before
            archive(checkpoint=checkpoint, actor=SYSTEM)
        assert pack.exists()

        assert rounds.free_archived() == 1

        assert not pack.exists()
        services.verify(checkpoint=Checkpoint.objects.get(pk=checkpoint.pk), actor=WORKER)

    def test_is_freed_once_the_local_one_that_shared_it_has_gone(self, run_id: UUID, folder_storage: Folder) -> None:
        older, newer = save(run_id, 10), save(run_id, 20)
        pack = pack_of(older)
        archive(checkpoint=older, actor=SYSTEM)
        assert (rounds.free_archived(), pack.exists()) == (0, True)
        newer.references.all().delete()

        assert rounds.free_archived() == 1

        assert not pack.exists()
