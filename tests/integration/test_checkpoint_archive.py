"""The archive: into the object storage and back, byte for byte, whatever kills it in the middle."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
from django.conf import LazySettings
from django.utils import timezone

from apps.audit.models import AuditEvent
from apps.checkpoints import places, services
from apps.checkpoints.lifecycle import CheckpointState
from apps.checkpoints.models import Checkpoint, Location, Pack, StoredObject
from apps.checkpoints.services import rounds
from apps.checkpoints.services.archiving import archive, copy, recall
from apps.checkpoints.services.policies import create_policy
from apps.checkpoints.store import crashpoints
from apps.checkpoints.store.errors import CorruptCheckpoint
from apps.core.actors import SYSTEM
from apps.core.errors import Conflict, Unavailable
from apps.core.ids import new_id
from tests.support.checkpoints import checkpoint_folder, flip, manifest_of, pack_of, save
from tests.support.objects import (
    Folder,
    StorageOfATest,
    either_storage,
    folder_storage,
    s3_client,
    s3_server,
    s3_storage,
)

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("checkpoint_folder")]

__all__ = ["checkpoint_folder", "either_storage", "folder_storage", "s3_client", "s3_server", "s3_storage"]


@pytest.fixture
def run_id() -> UUID:
    return new_id()


def archived(run_id: UUID, step: int = 10) -> Checkpoint:
    return archive(checkpoint=save(run_id, step), actor=SYSTEM)


def is_right(checkpoint: Checkpoint) -> bool:
    checkpoint.refresh_from_db()
    services.verify(checkpoint=checkpoint, actor=SYSTEM)
    return checkpoint.state == CheckpointState.COMMITTED


class TestCopy:
    def test_a_copy_is_the_files_byte_for_byte(self, run_id: UUID, either_storage: StorageOfATest) -> None:
        checkpoint = save(run_id, 10)
        pack = pack_of(checkpoint)

        copied = copy(checkpoint=checkpoint)

        assert copied.copied_at is not None
        assert copied.location == Location.LOCAL
        assert either_storage.names() == sorted(
            [f"checkpoints/packs/{pack.name}", f"checkpoints/manifests/{checkpoint.pk}.json"]
        )
        with places.archive().open(f"checkpoints/packs/{pack.name}") as file:
            assert file.read() == pack.read_bytes()

    def test_only_packs_that_are_not_there_are_transferred(self, run_id: UUID, folder_storage: Folder) -> None:
        copy(checkpoint=save(run_id, 10))
        first = {path: path.stat().st_ino for path in folder_storage.path.rglob("*.pack")}

        copy(checkpoint=save(run_id, 20))

        again = {path: path.stat().st_ino for path in folder_storage.path.rglob("*.pack")}
        assert len(again) == 2
        assert first.items() < again.items()

    @pytest.mark.parametrize("left", ["nothing", "half", "other bytes"])
    def test_what_an_interrupted_attempt_left_is_replaced(
        self, run_id: UUID, folder_storage: Folder, left: str
    ) -> None:
        checkpoint = save(run_id, 10)
        pack = pack_of(checkpoint)
        data = pack.read_bytes()
        planted = {"nothing": b"", "half": data[: len(data) // 2], "other bytes": data[:-1] + b"x"}[left]
        folder_storage.plant(f"checkpoints/packs/{pack.name}", planted)
        folder_storage.plant(f"checkpoints/manifests/{checkpoint.pk}.json", planted)

        copy(checkpoint=checkpoint)

        pack.unlink()
        manifest_of(checkpoint).unlink()
        assert is_right(checkpoint)

    def test_a_copy_heals_what_the_folder_has_spoilt(self, run_id: UUID, folder_storage: Folder) -> None:
        checkpoint = copy(checkpoint=save(run_id, 10))
        flip(pack_of(checkpoint), 1000)

        assert is_right(checkpoint)

    def test_broken_bytes_are_not_copied_but_set_aside(self, run_id: UUID, folder_storage: Folder) -> None:
        checkpoint = save(run_id, 10)
        flip(pack_of(checkpoint), 1000)

        with pytest.raises(CorruptCheckpoint):
            copy(checkpoint=checkpoint)

        checkpoint.refresh_from_db()
        assert (checkpoint.state, checkpoint.copied_at) == (CheckpointState.QUARANTINED, None)
        assert StoredObject.objects.filter(broken_at__isnull=False).count() == 1

    def test_what_is_broken_for_others_only_does_not_stop_it(self, run_id: UUID, folder_storage: Folder) -> None:
        other, checkpoint = save(run_id, 10), save(run_id, 20)
        only_other = StoredObject.objects.filter(references__checkpoint=other).exclude(
            references__checkpoint=checkpoint
        )
        services.verify(checkpoint=other, actor=SYSTEM)
        flip(pack_of(other), only_other[0].offset)

        assert copy(checkpoint=checkpoint).copied_at is not None

        other.refresh_from_db()
        assert other.verified_at is None  # the next one to be looked at

    def test_files_of_another_machine_are_not_missing_but_elsewhere(
        self, run_id: UUID, folder_storage: Folder, settings: LazySettings, tmp_path: Path
    ) -> None:
        checkpoint = save(run_id, 10)
        settings.CHECKPOINTS_ROOT = tmp_path / "another"

        with pytest.raises(Unavailable, match="another machine") as told:
            copy(checkpoint=checkpoint)

        assert told.value.code == "elsewhere"

    def test_progress_is_told_in_bytes(self, run_id: UUID, folder_storage: Folder) -> None:
        checkpoint = save(run_id, 10)
        told: list[tuple[int, int]] = []

        copy(checkpoint=checkpoint, progress=lambda done, total: told.append((done, total)))

        assert told == [(checkpoint.stored_bytes, checkpoint.stored_bytes)]


class TestArchive:
    def test_it_leaves_the_folder_and_is_read_from_the_storage(
        self, run_id: UUID, either_storage: StorageOfATest
    ) -> None:
        checkpoint = archived(run_id)

        assert checkpoint.location == Location.ARCHIVED
        assert (places.folder().packs(), places.folder().manifests()) == ([], [])
        assert is_right(checkpoint)
        assert services.load(checkpoint=checkpoint, components=["tamiyo"]).components["tamiyo"] == {
            "policy": {"counts": [10, 11]}
        }

    def test_each_move_is_in_the_trail(self, run_id: UUID, folder_storage: Folder) -> None:
        checkpoint = archived(run_id)

        moves = AuditEvent.objects.filter(type="checkpoint.moved", subject_id=str(checkpoint.pk)).order_by("pk")
        assert [event.diff[0]["value"] for event in moves] == [Location.UPLOADING, Location.ARCHIVED]

    def test_packs_that_a_local_one_needs_stay(self, run_id: UUID, folder_storage: Folder) -> None:
        old, newest = save(run_id, 10), save(run_id, 20)

        archive(checkpoint=old, actor=SYSTEM)

        assert len(places.folder().packs()) == 2
        assert is_right(newest)
        archive(checkpoint=newest, actor=SYSTEM)
        assert places.folder().packs() == []

    def test_a_storage_that_is_away_costs_nothing(self, run_id: UUID, either_storage: StorageOfATest) -> None:
        checkpoint = save(run_id, 10)

        with either_storage.gone():
            with pytest.raises(Unavailable) as told:
                archive(checkpoint=checkpoint, actor=SYSTEM)
            assert told.value.code == "storage"
            assert is_right(checkpoint)

        assert checkpoint.location == Location.UPLOADING
        assert archive(checkpoint=checkpoint, actor=SYSTEM).location == Location.ARCHIVED

    @pytest.mark.parametrize("move", [archive, recall])
    def test_only_a_committed_one_moves(
        self, move: Callable[..., Checkpoint], run_id: UUID, folder_storage: Folder
    ) -> None:
        checkpoint = save(run_id, 10)
        services.quarantine(checkpoint=checkpoint, problem="a flipped bit", actor=SYSTEM)

        with pytest.raises(Conflict, match="QUARANTINED"):
            move(checkpoint=checkpoint, actor=SYSTEM)

    def test_one_worker_moves_it_at_a_time(
        self, run_id: UUID, folder_storage: Folder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        checkpoint = save(run_id, 10)

        def busy(name: str, *, busy: str, code: str = "busy") -> None:
            raise Conflict(busy)

        monkeypatch.setattr("apps.checkpoints.services.archiving.alone", busy)
        with pytest.raises(Conflict, match="being moved"):
            archive(checkpoint=checkpoint, actor=SYSTEM)


class TestRecall:
    def test_it_comes_back_into_the_folder_and_the_copy_stays(
        self, run_id: UUID, either_storage: StorageOfATest
    ) -> None:
        checkpoint = archived(run_id)
        names = either_storage.names()

        recalled = recall(checkpoint=checkpoint, actor=SYSTEM)

        assert recalled.location == Location.LOCAL
        assert either_storage.names() == names
        with either_storage.gone():
            assert is_right(checkpoint)

    def test_it_comes_into_the_folder_of_the_machine_that_asks(
        self, run_id: UUID, folder_storage: Folder, settings: LazySettings, tmp_path: Path
    ) -> None:
        checkpoint = archived(run_id)
        settings.CHECKPOINTS_ROOT = tmp_path / "another"

        recalled = recall(checkpoint=checkpoint, actor=SYSTEM)

        assert recalled.store_id == places.folder().identity
        assert set(Pack.objects.values_list("store_id", flat=True)) == {recalled.store_id}
        assert is_right(checkpoint)

    @pytest.mark.parametrize("of", ["packs", "manifests"])
    def test_a_copy_that_is_not_what_was_stored_does_not_come_back(
        self, of: str, run_id: UUID, folder_storage: Folder
    ) -> None:
        checkpoint = archived(run_id)
        (path,) = (folder_storage.path / "checkpoints" / of).iterdir()
        flip(path, path.stat().st_size // 2)

        with pytest.raises(CorruptCheckpoint):
            recall(checkpoint=checkpoint, actor=SYSTEM)

        assert (of == "manifests") is bool(places.folder().packs())
        assert places.folder().manifests() == []

    def test_a_broken_file_that_was_left_in_the_folder_is_replaced(self, run_id: UUID, folder_storage: Folder) -> None:
        checkpoint = archived(run_id)
        (pack,) = Pack.objects.all()
        with places.folder().write_pack(pack.pk) as file:
            file.write(b"half a pack")

        recall(checkpoint=checkpoint, actor=SYSTEM)

        assert is_right(checkpoint)

    def test_a_full_disk_leaves_it_archived(
        self, run_id: UUID, folder_storage: Folder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        checkpoint = archived(run_id)

        def full(point: str) -> None:
            if point == "pack.created":
                raise OSError(28, "No space left on device")

        monkeypatch.setattr(crashpoints, "hook", full)
        with pytest.raises(Unavailable, match="No space left"):
            recall(checkpoint=checkpoint, actor=SYSTEM)

        monkeypatch.setattr(crashpoints, "hook", None)
        checkpoint.refresh_from_db()
        assert checkpoint.location == Location.ARCHIVED
        assert is_right(checkpoint)


class TestRounds:
    @pytest.fixture(autouse=True)
    def _storage(self, folder_storage: Folder, settings: LazySettings) -> None:
        settings.CHECKPOINT_COPIES = True

    def old(self, run_id: UUID, *steps: int) -> list[Checkpoint]:
        saved = [save(run_id, step) for step in steps]
        Checkpoint.objects.filter(run_id=run_id).update(created_at=timezone.now() - timedelta(hours=3))
        return saved

    def locations(self, run_id: UUID) -> dict[int, str]:
        return dict(Checkpoint.objects.filter(run_id=run_id).values_list("step", "location"))

    def test_what_is_not_copied_yet_is_copied(self, run_id: UUID) -> None:
        self.old(run_id, 10, 20)

        assert rounds.copy_due() == 2
        assert rounds.copy_due() == 0
        assert not Checkpoint.objects.filter(copied_at__isnull=True).exists()

    def test_nothing_is_copied_where_copies_are_not_wanted(self, run_id: UUID, settings: LazySettings) -> None:
        settings.CHECKPOINT_COPIES = False
        self.old(run_id, 10)

        assert rounds.copy_due() == 0

    def test_what_a_policy_lets_leave_the_folder_is_archived_but_not_the_newest(self, run_id: UUID) -> None:
        create_policy(run_id=run_id, actor=SYSTEM, archive_after_hours=2)
        self.old(run_id, 10, 20)
        self.old(other := new_id(), 10, 20)

        assert rounds.archive_due() == 1
        assert self.locations(run_id) == {10: Location.ARCHIVED, 20: Location.LOCAL}
        assert set(self.locations(other).values()) == {Location.LOCAL}

    def test_young_ones_stay(self, run_id: UUID) -> None:
        create_policy(run_id=run_id, actor=SYSTEM, archive_after_hours=4)
        self.old(run_id, 10, 20)

        assert rounds.archive_due() == 0

    def test_what_was_on_its_way_goes_on(self, run_id: UUID) -> None:
        checkpoint = save(run_id, 10)
        Checkpoint.objects.filter(pk=checkpoint.pk).update(location=Location.UPLOADING)

        assert rounds.archive_due() == 1
        assert self.locations(run_id) == {10: Location.ARCHIVED}

    def test_trouble_is_in_the_trail_once_in_a_while(self, run_id: UUID, folder_storage: Folder) -> None:
        self.old(run_id, 10, 20)
        with folder_storage.gone():
            assert [rounds.copy_due(), rounds.copy_due()] == [0, 0]

        (event,) = AuditEvent.objects.filter(type="checkpoint.moved")
        assert event.outcome == "failure"
        assert "not copied" in event.reason

    def test_a_broken_one_does_not_stop_the_others(self, run_id: UUID) -> None:
        _, newest = self.old(run_id, 10, 20)
        flip(pack_of(newest), 1000)

        assert rounds.copy_due() == 1

    def test_packs_that_a_local_one_needs_again_come_back(self, run_id: UUID) -> None:
        archived(run_id)
        again = save(new_id(), 10)  # the same bytes, which are in the object storage only

        assert rounds.bring_back_needed() == 1
        assert rounds.bring_back_needed() == 0
        assert pack_of(again).exists()
