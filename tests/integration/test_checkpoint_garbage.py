"""What nothing needs any more goes, after a grace and in the right order; what anything needs never does."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from threading import Event
from uuid import UUID

import pytest
from django.db import connection, transaction
from django.utils import timezone

from apps.checkpoints import places, services
from apps.checkpoints.lifecycle import CheckpointState
from apps.checkpoints.models import Checkpoint, ObjectReference, Pack, StoredObject
from apps.checkpoints.services import garbage, loading
from apps.checkpoints.services.archiving import archive, copy
from apps.checkpoints.services.compaction import compact
from apps.checkpoints.services.garbage import (
    FIRST_FORMAT,
    GRACE,
    Collected,
    collect_garbage,
    expire_abandoned,
    mark,
    sweep,
)
from apps.checkpoints.services.policies import create_policy
from apps.checkpoints.services.retention import expire_due
from apps.checkpoints.store import crashpoints, restoring
from apps.checkpoints.store.manifests import FORMAT
from apps.checkpoints.store.packs import PackWriter
from apps.core.actors import SYSTEM, Actor
from apps.core.errors import Conflict
from apps.core.ids import new_id
from apps.core.objects import put
from tests.support.checkpoint_garbage import collect_twice, gone, let_pass, loads, mostly_garbage, with_garbage
from tests.support.checkpoints import checkpoint_folder, flip, manifest_of, save, state_of
from tests.support.factories import CheckpointFactory
from tests.support.objects import Folder, folder_storage

pytestmark = [pytest.mark.usefixtures("checkpoint_folder", "folder_storage")]

__all__ = ["checkpoint_folder", "folder_storage"]


@pytest.fixture
def run_id() -> UUID:
    return new_id()


@pytest.mark.django_db
class TestSweep:
    def test_garbage_stays_for_the_grace(self, run_id: UUID) -> None:
        with_garbage(run_id)

        let_pass(GRACE * 0.9)

        assert sweep() == 0

    def test_only_garbage_is_swept(self, run_id: UUID) -> None:
        _, newest = with_garbage(run_id)
        let_pass(GRACE * 1.1)

        assert sweep() > 0

        assert not StoredObject.objects.filter(references__isnull=True).exists()
        assert loads(newest)

    def test_a_pack_goes_a_grace_after_its_last_object(self, run_id: UUID) -> None:
        pack = gone(run_id)
        let_pass(GRACE * 1.1)

        collect_garbage()
        assert pack.exists()
        let_pass(GRACE * 1.1)
        collected = collect_garbage()

        assert collected.packs == 1
        assert not pack.exists()
        assert not Pack.objects.exists()

    def test_what_is_needed_again_is_garbage_no_more(self, run_id: UUID) -> None:
        old, _ = with_garbage(run_id)
        again = save(new_id(), old.step)

        collect_twice()

        assert loads(again)

    def test_what_lost_its_references_in_another_way_is_marked(self, run_id: UUID) -> None:
        checkpoint = save(run_id, 10)
        ObjectReference.objects.filter(checkpoint=checkpoint).delete()

        assert mark() == StoredObject.objects.count() > 0

    def test_a_mark_on_what_is_needed_is_taken_back(self, run_id: UUID) -> None:
        save(run_id, 10)
        StoredObject.objects.update(unreferenced_at=timezone.now() - 2 * GRACE)

        assert (mark(), sweep()) == (0, 0)
        assert not StoredObject.objects.filter(unreferenced_at__isnull=False).exists()

    def test_a_save_stores_again_what_was_swept_while_it_was_written(self, run_id: UUID) -> None:
        old, _ = with_garbage(run_id)
        let_pass(GRACE * 1.1)
        swept: list[int] = []
        state = state_of(old.step)
        state["tolaria"]["model"]["bias"] += 1  # something is new: there is a pack to write

        def sweep_once(point: str) -> None:
            if point == "commit.before" and not swept:
                swept.append(sweep())

        crashpoints.hook = sweep_once
        try:
            saved = save(run_id, 30, state)
        finally:
            crashpoints.hook = None

        assert swept[0] > 0
        assert services.verify(checkpoint=saved, actor=SYSTEM).objects == saved.references.count()

    def test_one_worker_collects_at_a_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def busy(name: str, *, busy: str, code: str = "busy") -> None:
            raise Conflict(busy)

        monkeypatch.setattr("apps.checkpoints.services.garbage.alone", busy)

        with pytest.raises(Conflict, match="another worker"):
            collect_garbage()


def test_a_saver_that_counts_on_an_object_wins(committed_db: str) -> None:
    _, newest = with_garbage(new_id())
    let_pass(GRACE * 1.1)
    garbage = set(StoredObject.objects.filter(unreferenced_at__isnull=False).values_list("pk", flat=True))
    is_locked, may_end = Event(), Event()

    def count_on_them() -> None:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT id FROM checkpoints_storedobject WHERE id = ANY(%s) FOR KEY SHARE", [list(garbage)])
            is_locked.set()
            may_end.wait(30)
            ObjectReference.objects.bulk_create(
                ObjectReference(checkpoint=newest, object_id=object_id) for object_id in garbage
            )
        connection.close()

    with ThreadPoolExecutor(1) as pool:
        saver = pool.submit(count_on_them)
        assert is_locked.wait(30)
        swept = sweep()
        may_end.set()
        saver.result()

    assert swept == 0
    assert sweep() == 0
    assert set(StoredObject.objects.filter(pk__in=garbage).values_list("pk", flat=True)) == garbage


@pytest.mark.django_db
class TestAbandoned:
    def staged(self, age: timedelta) -> Checkpoint:
        checkpoint = CheckpointFactory.create(state=CheckpointState.STAGING, format=FORMAT)
        Checkpoint.objects.filter(pk=checkpoint.pk).update(created_at=timezone.now() - age)
        places.folder().write_manifest(checkpoint.pk, b"a manifest that was never committed")
        return checkpoint

    def test_a_save_that_never_ended_is_given_up_after_an_hour_with_its_files(self, checkpoint_folder: Path) -> None:
        dead, young = self.staged(timedelta(hours=2)), self.staged(timedelta(minutes=30))
        half = checkpoint_folder / ".incoming" / "half.part"
        half.write_bytes(b"half a pack")
        os.utime(half, times=(time.time() - 7200,) * 2)

        assert expire_abandoned() == 1

        dead.refresh_from_db()
        young.refresh_from_db()
        assert (dead.state, young.state) == (CheckpointState.ABANDONED, CheckpointState.STAGING)
        assert not manifest_of(dead).exists()
        assert not half.exists()
        assert manifest_of(young).exists()

    def test_one_that_ends_while_it_is_given_up_is_left_alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        faster, dead = self.staged(timedelta(hours=2)), self.staged(timedelta(hours=2))
        give_up = garbage._abandon

        def abandon(checkpoint: Checkpoint, actor: Actor) -> Checkpoint:
            Checkpoint.objects.filter(pk=faster.pk).update(state=CheckpointState.COMMITTED)
            return give_up(checkpoint, actor)

        monkeypatch.setattr(garbage, "_abandon", abandon)

        assert expire_abandoned() == 1

        dead.refresh_from_db()
        assert dead.state == CheckpointState.ABANDONED
        assert manifest_of(faster).exists()

    def test_the_files_of_the_first_format_go_with_their_checkpoint(self, folder_storage: Folder) -> None:
        dead = CheckpointFactory.create(state=CheckpointState.STAGING, format=FIRST_FORMAT)
        Checkpoint.objects.filter(pk=dead.pk).update(created_at=timezone.now() - timedelta(hours=2))
        for suffix in (".json", ".safetensors"):
            put(places.archive(), f"{dead.name}{suffix}", b"of an earlier version")

        expire_abandoned()

        assert folder_storage.names() == []

    def test_a_folder_that_is_away_keeps_nobody_from_it(self, checkpoint_folder: Path) -> None:
        dead = self.staged(timedelta(hours=2))
        checkpoint_folder.rename(checkpoint_folder.with_name("away"))

        assert expire_abandoned() == 1
        dead.refresh_from_db()
        assert dead.state == CheckpointState.ABANDONED


@pytest.mark.django_db
class TestOrphans:
    def strange_pack(self) -> Path:
        pack_id = new_id()
        with places.folder().write_pack(pack_id) as file:
            PackWriter(file, pack_id).close()
        return places.folder().pack_path(pack_id)

    def test_a_pack_that_no_row_knows_goes_after_a_day(self) -> None:
        old = self.strange_pack()
        let_pass(timedelta(days=1))
        young = self.strange_pack()

        collected = collect_garbage()

        assert (collected.orphans, old.exists(), young.exists()) == (1, False, True)

    def test_what_rows_know_stays(self, run_id: UUID) -> None:
        checkpoint = save(run_id, 10)
        let_pass(timedelta(days=30))

        assert collect_garbage() == Collected()
        assert loads(checkpoint)

    @pytest.mark.parametrize("lost", ["all", "one"])
    def test_nothing_is_deleted_while_rows_are_lost(self, run_id: UUID, lost: str) -> None:
        kept, forgotten = save(run_id, 10), save(run_id, 20)
        orphan = self.strange_pack()
        files = (places.folder().packs(), places.folder().manifests())
        forget = Checkpoint.objects.all() if lost == "all" else Checkpoint.objects.filter(pk=forgotten.pk)
        ObjectReference.objects.filter(checkpoint__in=forget).delete()
        forget.delete()
        if lost == "all":
            StoredObject.objects.all().delete()
            Pack.objects.all().delete()
        let_pass(timedelta(days=30))

        collected = collect_garbage()

        assert "manage.py rebuild_checkpoints" in collected.problems[0]
        assert (places.folder().packs(), places.folder().manifests()) == files
        services.rebuild(actor=SYSTEM)
        assert loads(Checkpoint.objects.get(pk=kept.pk))
        assert collect_garbage().problems == []
        assert not orphan.exists()

    def test_a_manifest_that_is_no_whole_checkpoint_does_not_stop_it(self) -> None:
        places.folder().write_manifest(new_id(), b"cut off")
        let_pass(timedelta(days=1))

        assert collect_garbage().orphans == 1

    def test_orphans_in_the_archive_go_too(self, folder_storage: Folder, run_id: UUID) -> None:
        checkpoint = copy(checkpoint=save(run_id, 10))
        put(places.archive(), places.pack_name(new_id()), b"no pack")
        put(places.archive(), places.manifest_name(new_id()), b"no manifest")
        for path in folder_storage.path.rglob("*.*"):
            os.utime(path, times=(time.time() - 90_000,) * 2)

        assert collect_garbage().orphans == 2
        kept = {places.pack_name(pack.pk) for pack in Pack.objects.all()} | {places.manifest_name(checkpoint.pk)}
        assert set(folder_storage.names()) == kept

    @pytest.mark.parametrize("place", ["folder", "archive"])
    def test_a_place_that_is_away_is_told(
        self, place: str, run_id: UUID, checkpoint_folder: Path, folder_storage: Folder
    ) -> None:
        save(run_id, 10)
        away = folder_storage.path if place == "archive" else checkpoint_folder
        away.rename(away.with_name("away"))
        away.write_text("a file where the folder should be")

        collected = collect_garbage()

        assert collected.problems
        assert collected.orphans == 0


@pytest.mark.django_db
class TestCompaction:
    def test_what_is_needed_is_written_anew_and_the_old_pack_goes(self, run_id: UUID) -> None:
        old, newest = mostly_garbage(run_id)
        size = places.folder().size()

        compacted = compact()

        assert compacted.packs == 1
        assert old.exists()
        assert loads(newest)
        collect_twice()
        assert not old.exists()
        assert loads(newest)
        assert size - places.folder().size() == compacted.bytes > 100_000

    def test_packs_that_are_mostly_needed_are_left_alone(self, run_id: UUID) -> None:
        save(run_id, 10)

        assert compact().packs == 0

    def test_several_go_into_one(self) -> None:
        kept = [mostly_garbage(new_id())[1]]
        kept += [save(new_id(), 40, state_of(40, frozen=1))]
        kept += [save(kept[1].run_id, 50, state_of(50, frozen=1))]
        create_policy(run_id=kept[1].run_id, actor=SYSTEM, keep_last=1, keep_days=0, keep_best=0)
        expire_due(actor=SYSTEM)
        let_pass(GRACE * 1.1)
        sweep()
        before = set(Pack.objects.values_list("pk", flat=True))

        assert compact().packs == 2

        (new,) = set(Pack.objects.values_list("pk", flat=True)) - before
        assert StoredObject.objects.filter(pack_id=new).count() == 2
        assert loads(kept[0])
        assert loads(kept[2])

    def test_it_is_done_once(self, run_id: UUID) -> None:
        mostly_garbage(run_id)
        compact()

        assert compact().packs == 0

    def test_broken_bytes_are_not_carried_on(self, run_id: UUID) -> None:
        old, newest = mostly_garbage(run_id)
        services.verify(checkpoint=newest, actor=SYSTEM)
        row = StoredObject.objects.get(pack_id=old.stem)
        flip(old, row.offset + 5)

        compact()

        row.refresh_from_db()
        newest.refresh_from_db()
        assert row.broken_at is not None
        assert str(row.pack_id) == old.stem
        assert newest.verified_at is None

    def test_a_copied_pack_is_in_the_archive_before_anything_counts_on_it(
        self, run_id: UUID, folder_storage: Folder
    ) -> None:
        _, newest = mostly_garbage(run_id)
        newest = copy(checkpoint=newest)

        compact()

        needed = Pack.objects.filter(contents__references__checkpoint=newest).distinct()
        assert {places.pack_name(pack.pk) for pack in needed} <= set(folder_storage.names())
        assert all(pack.copied_at and pack.in_folder for pack in needed)

    def test_an_archived_pack_is_compacted_in_the_archive(self, run_id: UUID, folder_storage: Folder) -> None:
        _, newest = mostly_garbage(run_id)
        newest = archive(checkpoint=newest, actor=SYSTEM)
        assert places.folder().packs() == []

        assert compact().packs == 1

        assert places.folder().packs() == []
        assert loads(newest)

    def test_a_reader_that_is_at_the_old_pack_goes_on(self, run_id: UUID) -> None:
        _, newest = mostly_garbage(run_id)
        manifest = loading.read(newest)
        source = places.Places.of(newest.workspace.pk, manifest)

        compact()
        collect_garbage()

        assert restoring.verify(manifest, source).objects == newest.references.count()
