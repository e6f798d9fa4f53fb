"""The folder of a store: a file is there whole or not at all, and never another than the one that was named."""

import errno
import os
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest

from apps.checkpoints.store import crashpoints
from apps.checkpoints.store.encodings import Encoding
from apps.checkpoints.store.errors import CorruptCheckpoint, MissingObjects
from apps.checkpoints.store.folder import Folder
from apps.checkpoints.store.index import FolderIndex, Saved
from apps.checkpoints.store.manifests import Component, LeafRef
from apps.checkpoints.store.packs import digest_of, read_index
from tests.unit.checkpoints.making import CHECKPOINT_ID, PACK_ID, manifest_of, pack_of

RAW = b"some weights" * 100
PACK, INDEX = pack_of((RAW, Encoding.RAW))
MANIFEST = manifest_of({"tolaria": Component({"$leaf": 0}, (LeafRef("uint8", (1200,), ((digest_of(RAW), 0, 1200),)),))})
PACK_POINTS = ("pack.created", "pack.fsynced", "pack.named", "pack.folder_fsynced")
MANIFEST_POINTS = ("manifest.written", "manifest.fsynced", "manifest.named", "manifest.folder_fsynced")


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "store")


@pytest.fixture
def disk_full_at() -> Iterator[list[str]]:
    """Points at which the disk is full."""
    points: list[str] = []

    def fail(name: str) -> None:
        if name in points:
            raise OSError(errno.ENOSPC, "No space left on device")

    crashpoints.hook = fail
    yield points
    crashpoints.hook = None


def write(folder: Folder, pack_id: UUID = PACK_ID, data: bytes = PACK) -> None:
    with folder.write_pack(pack_id) as file:
        file.write(data)


def test_what_was_written_is_read_back(folder: Folder) -> None:
    write(folder)
    folder.write_manifest(CHECKPOINT_ID, MANIFEST.to_bytes())
    with folder.open_pack(PACK_ID) as pack:
        assert read_index(pack.read, pack.size, PACK_ID) == INDEX
    assert folder.read_manifest(CHECKPOINT_ID) == MANIFEST.to_bytes()
    assert (folder.packs(), folder.manifests()) == ([PACK_ID], [CHECKPOINT_ID])
    assert folder.size() == len(PACK) + len(MANIFEST.to_bytes())


def test_a_small_manifest_costs_little_memory(folder: Folder) -> None:
    folder.write_manifest(CHECKPOINT_ID, b"small")
    tracemalloc.start()
    folder.read_manifest(CHECKPOINT_ID)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


def test_a_read_past_the_end_gives_what_there_is(folder: Folder) -> None:
    write(folder, data=b"abc")
    with folder.open_pack(PACK_ID) as pack:
        assert (pack.read(1, 10**15), pack.read(5, 7), pack.read_into(2, memoryview(bytearray(9)))) == (b"bc", b"", 1)


def test_a_name_is_given_once(folder: Folder) -> None:
    write(folder)
    with pytest.raises(FileExistsError):
        write(folder, data=b"other")
    folder.write_manifest(CHECKPOINT_ID, b"first")
    with pytest.raises(FileExistsError):
        folder.write_manifest(CHECKPOINT_ID, b"second")
    assert (folder.pack_path(PACK_ID).read_bytes(), folder.read_manifest(CHECKPOINT_ID)) == (PACK, b"first")


def test_a_name_that_another_writer_took_meanwhile_stays_the_others(folder: Folder) -> None:
    def late() -> None:
        with folder.write_pack(PACK_ID) as file:
            file.write(b"late")
            write(folder)

    with pytest.raises(FileExistsError):
        late()
    assert folder.pack_path(PACK_ID).read_bytes() == PACK


@pytest.mark.parametrize("point", PACK_POINTS)
def test_a_pack_that_fails_leaves_nothing_behind(folder: Folder, disk_full_at: list[str], point: str) -> None:
    disk_full_at.append(point)
    with pytest.raises(OSError, match="No space left"):
        write(folder)
    assert [path for path in folder.root.rglob("*") if path.is_file()] == [folder.root / "store.json"]


@pytest.mark.parametrize("point", MANIFEST_POINTS)
def test_a_manifest_that_fails_leaves_nothing_behind(folder: Folder, disk_full_at: list[str], point: str) -> None:
    disk_full_at.append(point)
    with pytest.raises(OSError, match="No space left"):
        folder.write_manifest(CHECKPOINT_ID, b"data")
    assert folder.manifests() == []


@pytest.mark.parametrize("point", PACK_POINTS)
def test_a_kill_leaves_a_whole_pack_or_none(folder: Folder, point: str) -> None:
    assert folder.identity
    program = (
        "import sys; from pathlib import Path; from uuid import UUID\n"
        "from apps.checkpoints.store.folder import Folder\n"
        f"with Folder(Path(sys.argv[1])).write_pack(UUID({str(PACK_ID)!r})) as file: file.write(b'whole')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, folder.root], env={**os.environ, crashpoints.VARIABLE: point}, check=False
    )
    assert done.returncode == -signal.SIGKILL
    named = point in ("pack.named", "pack.folder_fsynced")
    assert folder.packs() == ([PACK_ID] if named else [])
    assert not named or folder.pack_path(PACK_ID).read_bytes() == b"whole"
    assert folder.remove_abandoned(older_than=0) == (0 if named else 1)


def test_a_file_that_its_writer_still_holds_is_not_abandoned(folder: Folder) -> None:
    with folder.write_pack(PACK_ID) as file:
        file.write(PACK)
        assert folder.remove_abandoned(older_than=-1) == 0
    assert folder.packs() == [PACK_ID]


def test_an_abandoned_file_stays_until_it_is_old(folder: Folder) -> None:
    assert folder.identity
    (folder.root / ".incoming" / "dead.part").write_bytes(b"half")
    assert folder.remove_abandoned(older_than=3600) == 0
    assert folder.remove_abandoned(older_than=0) == 1


def test_files_of_other_names_are_not_taken_for_ours(folder: Folder) -> None:
    write(folder)
    for name in ("notes.pack", f"{PACK_ID}.pack.part", f"{UUID(int=5).hex}.pack", "..pack"):
        (folder.root / "packs" / name).write_bytes(b"")
    assert folder.packs() == [PACK_ID]


def test_a_deleted_file_is_gone_and_its_bytes_are_told(folder: Folder) -> None:
    write(folder)
    assert (folder.delete_pack(PACK_ID), folder.delete_pack(PACK_ID)) == (len(PACK), 0)
    assert not folder.has_pack(PACK_ID)


def test_a_pack_that_is_gone_is_corruption_and_a_storage_that_is_gone_is_not(folder: Folder, tmp_path: Path) -> None:
    assert folder.identity
    with pytest.raises(CorruptCheckpoint, match="The file is gone"), folder.open_pack(PACK_ID):
        pass
    with pytest.raises(CorruptCheckpoint, match="is gone"):
        folder.read_manifest(CHECKPOINT_ID)
    folder.root.rename(tmp_path / "away")
    with pytest.raises(FileNotFoundError, match="is not there"), folder.open_pack(PACK_ID):
        pass
    with pytest.raises(FileNotFoundError, match="is not there"):
        folder.packs()


def test_a_store_knows_which_it_is(folder: Folder, tmp_path: Path) -> None:
    assert folder.read_identity() is None
    identity = folder.identity
    assert Folder(folder.root).identity == folder.read_identity() == identity
    assert Folder(tmp_path / "other").identity != identity


def test_a_store_that_does_not_say_which_it_is_is_refused(folder: Folder) -> None:
    assert folder.identity
    (folder.root / "store.json").write_text('{"id": 3}')
    with pytest.raises(CorruptCheckpoint, match="which store this is"):
        folder.read_identity()


def test_an_index_is_read_from_the_files_alone(folder: Folder) -> None:
    write(folder)
    folder.write_manifest(CHECKPOINT_ID, MANIFEST.to_bytes())
    index = FolderIndex(folder)
    assert index.checkpoints() == [MANIFEST]
    assert index.find([digest_of(RAW), "f" * 64]) == {digest_of(RAW): index.place(digest_of(RAW))}
    assert index.packs == {PACK_ID: INDEX}


def test_an_index_leaves_out_what_is_damaged_and_says_why(folder: Folder) -> None:
    folder.write_manifest(CHECKPOINT_ID, MANIFEST.to_bytes())
    write(folder, data=PACK[:-1])
    index = FolderIndex(folder)
    assert index.checkpoints() == []
    assert str(index.damaged[PACK_ID]).startswith("pack trailer")
    assert "No pack holds it" in str(index.damaged[CHECKPOINT_ID])


def test_checkpoints_come_after_their_parents_wherever_the_clock_was_set(folder: Folder) -> None:
    parent = manifest_of({}, id=UUID(int=1), created_at="2026-05-01T00:00:00+00:00")
    child = manifest_of({}, id=UUID(int=2), created_at="1999-05-01T00:00:00+00:00", parent_id=parent.id)
    for manifest in (child, parent):
        folder.write_manifest(manifest.id, manifest.to_bytes())
    assert FolderIndex(folder).checkpoints() == [parent, child]


def test_parents_in_a_circle_are_read_all_the_same(folder: Folder) -> None:
    one = manifest_of({}, id=UUID(int=1), parent_id=UUID(int=2))
    other = manifest_of({}, id=UUID(int=2), parent_id=UUID(int=1))
    for manifest in (one, other):
        folder.write_manifest(manifest.id, manifest.to_bytes())
    assert len(FolderIndex(folder).checkpoints()) == 2


def test_a_commit_that_references_a_pack_that_went_meanwhile_is_refused(folder: Folder) -> None:
    write(folder)
    index = FolderIndex(folder)
    folder.delete_pack(PACK_ID)
    with pytest.raises(MissingObjects) as raised:
        index.commit(Saved(MANIFEST))
    assert raised.value.digests == {digest_of(RAW)}
    assert index.checkpoints() == []


def test_a_commit_makes_its_checkpoint_and_objects_known(folder: Folder) -> None:
    index = FolderIndex(folder)
    write(folder)
    index.commit(Saved(MANIFEST, (INDEX,)))
    assert index.checkpoints() == [MANIFEST]
    assert index.place(digest_of(RAW)).pack_id == PACK_ID
