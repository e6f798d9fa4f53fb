"""The contract of the object storage, on a folder and on a real S3 server, and its three users on both of them."""

import hashlib
import io
import os
import signal
import time
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from django.conf import LazySettings
from django.core.files.storage import Storage, storages

from apps.audit import services as audit
from apps.audit.models import AuditArchive, AuditCheckpoint, AuditCopy
from apps.audit.verification import verify
from apps.checkpoints import places
from apps.checkpoints import services as checkpoints
from apps.checkpoints.lifecycle import CheckpointState
from apps.checkpoints.models import Checkpoint, Location, Pack, StoredObject
from apps.checkpoints.services import archiving, garbage
from apps.checkpoints.services.policies import create_policy
from apps.checkpoints.services.retention import expire_due
from apps.core.actors import SYSTEM, WORKER
from apps.core.errors import Unavailable
from apps.core.ids import new_id
from apps.core.objects import (
    ABANDONED_SECONDS,
    INCOMING,
    STORAGE_FAULTS,
    ShortObject,
    delete,
    exists,
    get,
    listed,
    opened,
    put,
    put_once,
    read_range,
    size,
)
from apps.kernels import services as kernels
from apps.kernels.cache import KernelStore, archive
from apps.kernels.cache.segments import SEGMENT_BYTES, CorruptSegment, Segment, TierAway, chunk_digests
from apps.kernels.lifecycle import KernelState
from apps.kernels.models import CHUNK_BYTES, StorageTier
from tests.support.audit import backdated, sealed
from tests.support.checkpoints import checkpoint_folder, save
from tests.support.factories import KernelFactory
from tests.support.objects import Bucket, Folder, StorageOfATest
from tests.support.stack import Servers

__all__ = ["checkpoint_folder"]

MIB = 1024 * 1024
NAME = "folder/of/one.bin"


def content(length: int) -> bytes:
    """Bytes of which no chunk is like another."""
    block = b"".join(hashlib.sha256(str(number).encode()).digest() for number in range(CHUNK_BYTES // 32))
    pieces = [index.to_bytes(8) + block[8:] for index in range(-(-length // CHUNK_BYTES))]
    return b"".join(pieces)[:length]


def pieces_of(data: bytes) -> list[bytes]:
    return [data[start : start + CHUNK_BYTES] for start in range(0, len(data), CHUNK_BYTES)]


@pytest.fixture
def storage(either_storage: StorageOfATest) -> Storage:
    return storages["default"]


class TestFiles:
    @pytest.mark.parametrize("data", [b"", b"one", content(9 * MIB)], ids=["empty", "small", "of several parts"])
    def test_what_was_put_comes_back(self, storage: Storage, data: bytes) -> None:
        put(storage, NAME, data)

        assert get(storage, NAME) == data
        assert size(storage, NAME) == len(data)

    def test_an_open_file_is_put_from_its_beginning(self, storage: Storage) -> None:
        file = io.BytesIO(content(3 * CHUNK_BYTES))
        put(storage, NAME, file)

        assert get(storage, NAME) == file.getvalue()

    def test_a_taken_name_is_refused_and_keeps_its_bytes(
        self, storage: Storage, either_storage: StorageOfATest
    ) -> None:
        put(storage, NAME, b"one")

        with pytest.raises(FileExistsError, match=f"the name {NAME} is taken"):
            put(storage, NAME, b"two")
        assert get(storage, NAME) == b"one"
        assert either_storage.names() == [NAME], "nothing lies beside it under another name"

    def test_a_repeated_step_stores_once_and_replaces_nothing_else(self, storage: Storage) -> None:
        assert put_once(storage, NAME, b"one") is True
        assert put_once(storage, NAME, b"one") is False

        with pytest.raises(FileExistsError, match="holds something else"):
            put_once(storage, NAME, b"two")

    def test_a_range_is_exactly_its_bytes(self, storage: Storage) -> None:
        put(storage, NAME, b"0123456789")

        for start, stop in ((0, 1), (0, 5), (3, 7), (9, 10), (0, 10)):
            assert read_range(storage, NAME, start, stop) == b"0123456789"[start:stop]

    def test_a_range_past_the_end_is_an_error_and_not_fewer_bytes(self, storage: Storage) -> None:
        put(storage, NAME, b"0123456789")

        for start, stop in ((9, 11), (10, 11), (50, 60)):
            with pytest.raises(ShortObject, match=f"ends before byte {stop}"):
                read_range(storage, NAME, start, stop)

    def test_a_file_that_is_there_no_more_is_gone_and_may_be_deleted_again(self, storage: Storage) -> None:
        put(storage, NAME, b"one")
        assert exists(storage, NAME)

        delete(storage, NAME)
        delete(storage, NAME)

        assert not exists(storage, NAME)

    def test_a_missing_file_is_told_alike(self, storage: Storage) -> None:
        put(storage, NAME, b"one")

        for reads in (get, size, first_byte, opened_whole):
            with pytest.raises(FileNotFoundError):
                reads(storage, "folder/of/another.bin")

    def test_a_storage_that_is_gone_is_not_taken_for_one_without_the_file(
        self, storage: Storage, either_storage: StorageOfATest
    ) -> None:
        put(storage, NAME, b"one")

        for asks in (get, size, exists, delete, listed, first_byte, opened_whole, put_one):
            with either_storage.gone(), pytest.raises(STORAGE_FAULTS) as told:
                asks(storages["default"], NAME)
            assert not isinstance(told.value, FileNotFoundError | FileExistsError | ShortObject)
        assert get(storages["default"], NAME) == b"one"

    def test_a_folder_lists_what_is_in_it_in_order(self, storage: Storage) -> None:
        for name in ("a/2.note", "a/1.note", "a/deep/3.note", "b/4.note"):
            put(storage, name, b"note")

        assert listed(storage, "a") == (["deep"], ["1.note", "2.note"])
        assert listed(storage, "c") == ([], [])

    def test_of_two_writers_of_one_name_the_whole_file_of_one_is_there(self, storage: Storage) -> None:
        given = [bytes([number]) * MIB for number in range(4)]

        def write(data: bytes) -> bool:
            try:
                put(storage, NAME, data)
            except FileExistsError:
                return False
            return True

        with ThreadPoolExecutor(4) as pool:
            stored = list(pool.map(write, given))

        assert any(stored)
        assert get(storage, NAME) in given

    def test_a_writer_that_is_killed_on_the_way_leaves_nothing_under_the_name(self, storage: Storage) -> None:
        child = in_child(lambda: put(storages["default"], NAME, DyingFile(content(20 * MIB))))

        assert exit_code(child) == -signal.SIGKILL

        assert not exists(storage, NAME)
        put(storage, NAME, b"one")
        assert get(storage, NAME) == b"one"

    def test_a_forked_process_reads_through_connections_of_its_own(
        self, storage: Storage, either_storage: StorageOfATest
    ) -> None:
        for number in range(3):
            put(storage, f"{number}.bin", bytes([number]) * MIB)

        def reads(number: int) -> None:
            for _ in range(8):
                assert get(storages["default"], f"{number}.bin") == bytes([number]) * MIB

        def child_reads(number: int) -> None:
            # This server closes each connection. On one that is kept, the two would read each other's answers.
            assert either_storage.kind == "folder" or storages["default"] is not storage
            reads(number)

        children = [in_child(partial(child_reads, number)) for number in (0, 1)]
        reads(2)
        assert [exit_code(child) for child in children] == [0, 0]


def first_byte(storage: Storage, name: str) -> bytes:
    return read_range(storage, name, 0, 1)


def opened_whole(storage: Storage, name: str) -> bytes:
    with opened(storage, name) as file:
        return file.read()


def put_one(storage: Storage, name: str) -> None:
    put(storage, name, b"one")


def in_child(call: Callable[[], object]) -> int:
    """Do it in a forked process, which ends with 1 if it fails; the id of that."""
    child = os.fork()
    if child == 0:
        try:
            call()
            os._exit(0)
        finally:
            os._exit(1)
    return child


def exit_code(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


class DyingFile(io.BytesIO):
    """Kills its process when the last of three parts is read."""

    def read(self, amount: int | None = -1) -> bytes:
        if self.tell() > len(self.getvalue()) // 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().read(amount)


def test_what_a_killed_writer_left_in_a_folder_is_removed_after_a_day(folder_storage: Folder) -> None:
    fresh, old = folder_storage.path / INCOMING / "fresh", folder_storage.path / INCOMING / "old"
    for path in (fresh, old):
        folder_storage.plant(f"{INCOMING}/{path.name}", b"half")
    yesterday = time.time() - ABANDONED_SECONDS - 60
    os.utime(old, (yesterday, yesterday))

    put(storages["default"], NAME, b"one")

    assert folder_storage.names() == [f"{INCOMING}/fresh", NAME]


def test_a_range_of_an_object_is_all_that_s3_sends(s3_storage: Bucket) -> None:
    s3_storage.plant(NAME, content(8 * MIB))
    before = s3_storage.proxy.answered

    read_range(storages["default"], NAME, 5 * MIB, 6 * MIB)

    assert MIB <= s3_storage.proxy.answered - before < 1.1 * MIB


class TestKernelArchive:
    """``apps.kernels.cache.archive``: whole blobs, and the segments of them."""

    DATA = content(2 * SEGMENT_BYTES + 3 * CHUNK_BYTES + 17)
    DIGEST = hashlib.sha256(DATA).hexdigest()
    OBJECT = archive.name_of(DIGEST)

    def read(self, index: int) -> Segment | None:
        digests = chunk_digests(self.DATA[index * SEGMENT_BYTES : (index + 1) * SEGMENT_BYTES])
        return archive.ArchiveTier().read(self.DIGEST, index, digests=digests, blob_size=len(self.DATA))

    def test_a_copy_is_whole_and_gives_each_segment(self, either_storage: StorageOfATest) -> None:
        archive.store(self.DIGEST, pieces_of(self.DATA))

        assert archive.is_whole(self.DIGEST)
        segments = [self.read(index) for index in range(3)]
        assert b"".join(segment.data for segment in segments if segment is not None) == self.DATA

    def test_a_reader_gives_each_chunk_in_any_order(self, either_storage: StorageOfATest) -> None:
        archive.store(self.DIGEST, pieces_of(self.DATA))
        reader = archive.Reader(self.DIGEST)

        for index in (19, 0, 1, 8, 18):
            assert reader.chunk(index) == pieces_of(self.DATA)[index]
        assert reader.chunk(20) == b""

    def test_storing_again_reads_the_copy_and_writes_nothing(self, either_storage: StorageOfATest) -> None:
        archive.store(self.DIGEST, pieces_of(self.DATA))

        archive.store(self.DIGEST, iter(()))

        assert archive.is_whole(self.DIGEST)

    @pytest.mark.parametrize("left", [DATA[: 5 * MIB], b"", DATA[:-1] + b"x"], ids=["half", "nothing", "other bytes"])
    def test_what_an_interrupted_attempt_left_is_replaced(self, either_storage: StorageOfATest, left: bytes) -> None:
        either_storage.plant(self.OBJECT, left)
        assert not archive.is_whole(self.DIGEST)

        archive.store(self.DIGEST, pieces_of(self.DATA))

        assert archive.is_whole(self.DIGEST)
        assert either_storage.names() == [self.OBJECT]

    def test_a_copy_that_does_not_read_back_is_no_copy(self, either_storage: StorageOfATest) -> None:
        with pytest.raises(Unavailable, match="not what was written"):
            archive.store(self.DIGEST, pieces_of(self.DATA)[:-1])

    def test_a_missing_copy_is_none(self, either_storage: StorageOfATest) -> None:
        either_storage.plant("kernels/ab/another", b"a kernel")  # without any, a folder is taken for one not mounted

        assert self.read(0) is None

    def test_a_changed_byte_is_found_in_its_segment_and_spares_the_others(self, either_storage: StorageOfATest) -> None:
        changed = bytearray(self.DATA)
        changed[SEGMENT_BYTES + 1] ^= 1
        either_storage.plant(self.OBJECT, bytes(changed))

        with pytest.raises(CorruptSegment, match="segment 1 "):
            self.read(1)
        assert (self.read(0), self.read(2)) != (None, None)

    def test_a_copy_that_ends_early_is_corrupt_where_it_ends(self, either_storage: StorageOfATest) -> None:
        either_storage.plant(self.OBJECT, self.DATA[:-1])

        with pytest.raises(CorruptSegment, match="too short"):
            self.read(2)
        assert self.read(1) is not None

    def test_a_deleted_copy_is_gone_and_may_be_deleted_again(self, either_storage: StorageOfATest) -> None:
        archive.store(self.DIGEST, pieces_of(self.DATA))

        archive.delete(self.DIGEST)
        archive.delete(self.DIGEST)

        assert either_storage.names() == []

    def test_a_storage_that_is_gone_is_told(self, either_storage: StorageOfATest) -> None:
        archive.store(self.DIGEST, pieces_of(self.DATA))

        with either_storage.gone():
            for attempt in (
                lambda: archive.store(self.DIGEST, pieces_of(self.DATA)),
                lambda: archive.delete(self.DIGEST),
                lambda: archive.Reader(self.DIGEST).chunk(0),
            ):
                with pytest.raises(Unavailable) as told:
                    attempt()
                assert told.value.code == "storage"
            with pytest.raises(TierAway):
                self.read(0)
        assert archive.is_whole(self.DIGEST)

    def test_checking_a_large_copy_takes_little_memory(self, either_storage: StorageOfATest) -> None:
        data = content(24 * MIB)
        digest = hashlib.sha256(data).hexdigest()
        archive.store(digest, pieces_of(data))

        tracemalloc.start()
        try:
            assert archive.is_whole(digest)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 4 * MIB

    @pytest.mark.django_db
    def test_a_kernel_goes_down_and_comes_back(
        self, either_storage: StorageOfATest, django_capture_on_commit_callbacks: Any
    ) -> None:
        data = content(3 * CHUNK_BYTES)
        kernel = KernelFactory(state=KernelState.VALIDATED, data=data)
        for tier, names in ((StorageTier.COLD, 1), (StorageTier.WARM, 1)):
            with django_capture_on_commit_callbacks(execute=True):
                kernel = kernels.change_tier(kernel=kernel, tier=tier, actor=SYSTEM, reason="room")
            assert KernelStore().get(kernel.digest) == data
            assert len(either_storage.names()) == names


@pytest.mark.django_db
@pytest.mark.usefixtures("checkpoint_folder")
class TestCheckpoints:
    """``apps.checkpoints``: the archive, a file for each pack and each manifest, found again through their rows."""

    @pytest.fixture
    def run_id(self) -> UUID:
        return new_id()

    def archived(self, run_id: UUID, step: int) -> Checkpoint:
        return archiving.archive(checkpoint=save(run_id, step), actor=SYSTEM)

    def step_of_latest(self, run_id: UUID) -> int | None:
        loaded = checkpoints.load_latest(run_id=run_id, actor=WORKER)
        return None if loaded is None else int(loaded.components["tolaria"]["step"])

    def files_of(self, checkpoint: Checkpoint) -> list[str]:
        packs = Pack.objects.filter(contents__references__checkpoint=checkpoint).distinct()
        return sorted([places.manifest_name(checkpoint.pk), *(places.pack_name(pack.pk) for pack in packs)])

    def test_the_latest_comes_back_from_there(self, run_id: UUID, either_storage: StorageOfATest) -> None:
        newest = [self.archived(run_id, step) for step in (1, 2)][-1]

        assert places.folder().packs() == []
        assert self.step_of_latest(run_id) == 2
        assert set(self.files_of(newest)) < set(either_storage.names())

    def test_expired_ones_leave_the_storage(
        self, run_id: UUID, either_storage: StorageOfATest, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        create_policy(run_id=run_id, keep_last=1, keep_days=0, keep_best=0, actor=SYSTEM)
        kept = [self.archived(run_id, step) for step in (1, 2)][-1]
        monkeypatch.setattr(garbage, "GRACE", timedelta(0))

        expire_due(run_id=run_id, actor=SYSTEM)
        for _ in range(2):
            garbage.collect_garbage()

        assert either_storage.names() == self.files_of(kept)

    def test_what_no_row_knows_leaves_the_storage_after_a_day(
        self, run_id: UUID, either_storage: StorageOfATest, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        kept = self.archived(run_id, 1)
        either_storage.plant(places.pack_name(new_id()), b"what a killed worker put there")
        either_storage.plant(places.manifest_name(new_id()), b"and its manifest, cut off")
        assert garbage.collect_garbage().orphans == 0

        monkeypatch.setattr(garbage, "ORPHANED_AFTER", timedelta(minutes=-1))

        assert garbage.collect_garbage().orphans == 2
        assert either_storage.names() == self.files_of(kept)

    @pytest.mark.parametrize("damage", ["changed", "truncated", "deleted"])
    def test_damaged_ones_are_quarantined_and_the_one_before_them_is_used(
        self, run_id: UUID, either_storage: StorageOfATest, damage: str
    ) -> None:
        self.archived(run_id, 1)
        damaged = [self.archived(run_id, 2), self.archived(run_id, 3)]
        shared = {row.pack_id for row in StoredObject.objects.filter(references__checkpoint__step=1)}
        for checkpoint, kind in zip(damaged, ("packs", "manifests"), strict=True):
            names = [name for name in self.files_of(checkpoint) if f"/{kind}/" in name]
            (name,) = (name for name in names if all(str(pack_id) not in name for pack_id in shared))
            data = get(storages["checkpoints"], name)
            if damage == "deleted":
                delete(storages["checkpoints"], name)
            else:
                changed = data[:1000] + bytes([data[1000] ^ 1]) + data[1001:]
                either_storage.plant(name, data[: len(data) // 2] if damage == "truncated" else changed)

        assert self.step_of_latest(run_id) == 1
        states = Checkpoint.objects.filter(run_id=run_id, step__gt=1).values_list("state", flat=True)
        assert set(states) == {CheckpointState.QUARANTINED}

    def test_a_storage_that_is_gone_costs_no_checkpoint(self, run_id: UUID, either_storage: StorageOfATest) -> None:
        self.archived(run_id, 1)

        with either_storage.gone():
            for attempt in (lambda: self.step_of_latest(run_id), lambda: self.archived(run_id, 2)):
                with pytest.raises(Unavailable) as told:
                    attempt()
                assert told.value.code == "storage"

        assert self.step_of_latest(run_id) == 2
        states = Checkpoint.objects.filter(run_id=run_id).order_by("step").values_list("state", "location")
        assert list(states) == [("COMMITTED", Location.ARCHIVED), ("COMMITTED", Location.UPLOADING)]


class TestAuditTrail:
    """``apps.audit``: the signed notes, and the months that left the event store."""

    @pytest.fixture(autouse=True)
    def _own_trail(
        self, either_storage: StorageOfATest, committed_db: str, tmp_path: Path, settings: LazySettings
    ) -> None:
        settings.ESPER_HOME = tmp_path

    @pytest.fixture
    def january(self, servers: Servers, committed_db: str) -> AuditArchive:
        """An archived month of three events."""
        with psycopg.connect(servers.url("owner", committed_db), autocommit=True) as owner:
            backdated(owner, "2026-01", 3)
        audit.seal()
        return audit.archive_partition(partition="audit_auditevent_2026_01", actor=SYSTEM, reason="old")

    def test_notes_are_copied_and_verify_from_there(self, either_storage: StorageOfATest) -> None:
        sealed(3)
        sealed(2)

        assert either_storage.names() == [copy.name for copy in AuditCopy.objects.order_by("pk")]
        note = get(storages["default"], either_storage.names()[-1])
        assert note.decode() == AuditCheckpoint.objects.latest("size").note
        assert verify().findings == []

    def test_a_note_that_is_another_is_found(self, either_storage: StorageOfATest) -> None:
        sealed(3)

        for left in (b"another note", b""):
            either_storage.plant(AuditCopy.objects.get().name, left)
            assert [(finding.kind, finding.id) for finding in verify().findings] == [("copy", "3")]

    def test_a_note_that_no_checkpoint_claims_is_found(self, either_storage: StorageOfATest) -> None:
        sealed(3)
        either_storage.plant(audit.sealing.copy_name(2), b"a note of a trail that was rewritten")

        assert [(finding.kind, finding.id) for finding in verify().findings] == [("checkpoint", "2")]

    def test_a_storage_that_is_gone_delays_copies_and_accuses_nobody(self, either_storage: StorageOfATest) -> None:
        sealed(3)
        with either_storage.gone():
            sealed(2)
            assert AuditCopy.objects.count() == 1
            outcome = verify()
            assert outcome.findings == []
            assert outcome.unchecked

        assert audit.copy_checkpoints() == 1
        assert verify().is_right

    def test_an_archived_month_verifies_until_it_is_damaged(
        self, january: AuditArchive, either_storage: StorageOfATest
    ) -> None:
        data = get(storages["default"], january.name)
        assert (len(data), hashlib.sha256(data).hexdigest()) == (january.bytes, january.sha256)
        audit.seal()
        assert verify().findings == []

        either_storage.plant(january.name, data[:-9])
        assert ("archive", january.partition) in {(finding.kind, finding.id) for finding in verify().findings}

    def test_what_an_interrupted_archiving_left_is_replaced(
        self, either_storage: StorageOfATest, servers: Servers, committed_db: str
    ) -> None:
        either_storage.plant("audit/archive/audit_auditevent_2026_01.jsonl.gz", b"half")
        with psycopg.connect(servers.url("owner", committed_db), autocommit=True) as owner:
            backdated(owner, "2026-01", 3)
        audit.seal()

        made = audit.archive_partition(partition="audit_auditevent_2026_01", actor=SYSTEM, reason="old")

        assert made.events == 3
        assert size(storages["default"], made.name) == made.bytes
