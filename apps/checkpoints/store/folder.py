"""Where packs and manifests lie: a folder, on a disk that may be full, read-only or gone, and that may lose its power.

    <root>/store.json             which store this is
    <root>/packs/<uuid>.pack      <root>/manifests/<uuid>.json      named once, never written again
    <root>/.incoming/             what is being written; locked by its writer, else abandoned

A file is written in ``.incoming``, synchronised, linked to its name (never over another file), and the folder of the
name synchronised: after that it survives a power cut, and before it nobody sees it.
"""

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from errno import ENOTSUP, EPERM
from pathlib import Path
from typing import BinaryIO
from uuid import UUID, uuid4

from apps.checkpoints.store import crashpoints
from apps.checkpoints.store.errors import CorruptCheckpoint
from apps.checkpoints.store.manifests import MAX_BYTES
from apps.core.files import hand_to_owner, synchronise

IDENTITY_FILE = "store.json"
_PACK, _MANIFEST = ".pack", ".json"


class PackFile:
    """An open pack; threads may read it at the same time."""

    def __init__(self, file: BinaryIO) -> None:
        self._descriptor = file.fileno()
        self.size = os.fstat(self._descriptor).st_size

    def read(self, start: int, stop: int) -> bytes:
        """The bytes ``start`` to ``stop``, less where the file ends before. Raises OSError."""
        data = bytearray(max(0, min(stop, self.size) - start))
        return bytes(memoryview(data)[: self.read_into(start, memoryview(data))])

    def read_into(self, start: int, into: memoryview) -> int:
        """Fill ``into`` from ``start`` on; how many bytes there were. Raises OSError."""
        done = 0
        while done < len(into):
            count = os.preadv(self._descriptor, [into[done:]], start + done)
            if count == 0:
                break
            done += count
        return done


class Folder:
    """A store of checkpoints in the folder ``root``."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        self._packs = self.root / "packs"
        self._manifests = self.root / "manifests"
        self._incoming = self.root / ".incoming"

    @property
    def identity(self) -> UUID:
        """Which store this is, made at the first call: a mount that is gone is another store, or none.

        Raises:
            OSError, CorruptCheckpoint.
        """
        known = self.read_identity()
        if known is not None:
            return known
        self._make_folders()
        with suppress(FileExistsError), self._writing(self.root / IDENTITY_FILE, "identity") as file:
            file.write(json.dumps({"format": "esper-store/1", "id": str(uuid4())}).encode())
        known = self.read_identity()
        if known is None:
            raise FileNotFoundError(self.root / IDENTITY_FILE)
        return known

    def read_identity(self) -> UUID | None:
        """Which store this is, None for a folder that is none. Raises OSError, CorruptCheckpoint."""
        try:
            data = (self.root / IDENTITY_FILE).read_bytes()[:1000]
        except FileNotFoundError:
            return None
        try:
            return UUID(json.loads(data)["id"])
        except (ValueError, KeyError, TypeError, AttributeError):
            raise CorruptCheckpoint("It does not say which store this is.", part=IDENTITY_FILE) from None

    @contextmanager
    def write_pack(self, pack_id: UUID) -> Iterator[BinaryIO]:
        """A file to write a pack into, which has its name and is durable when the block ends without an error.

        Raises:
            FileExistsError: there is a pack of that name; nothing is changed. OSError: nothing is left behind.
        """
        self.identity  # noqa: B018 - a store that anything is written to says which it is
        self._make_folders()
        with self._writing(self.pack_path(pack_id), "pack") as file:
            crashpoints.reached("pack.created")
            yield file

    def write_manifest(self, manifest_id: UUID, data: bytes) -> None:
        """Name a manifest, durably. Raises FileExistsError and OSError as ``write_pack``."""
        self.identity  # noqa: B018
        self._make_folders()
        with self._writing(self.manifest_path(manifest_id), "manifest") as file:
            file.write(data)
            crashpoints.reached("manifest.written")

    def read_manifest(self, manifest_id: UUID) -> bytes:
        """The bytes of a manifest, not verified yet. Raises CorruptCheckpoint where there is none, OSError."""
        try:
            with self.manifest_path(manifest_id).open("rb") as file:
                return file.read(min(os.fstat(file.fileno()).st_size, MAX_BYTES) + 1)
        except FileNotFoundError:
            self._refuse_to_be_gone()
            raise CorruptCheckpoint(f"The file of {manifest_id} is gone.", part="manifest") from None

    @contextmanager
    def open_pack(self, pack_id: UUID) -> Iterator[PackFile]:
        """A pack to read from. Raises CorruptCheckpoint where there is none, OSError where the store itself is gone."""
        try:
            file = self.pack_path(pack_id).open("rb")
        except FileNotFoundError:
            self._refuse_to_be_gone()
            raise CorruptCheckpoint("The file is gone.", part=f"pack {pack_id}", pack_id=pack_id) from None
        with file:
            yield PackFile(file)

    def pack_path(self, pack_id: UUID) -> Path:
        return self._packs / f"{pack_id}{_PACK}"

    def manifest_path(self, manifest_id: UUID) -> Path:
        return self._manifests / f"{manifest_id}{_MANIFEST}"

    def has_pack(self, pack_id: UUID) -> bool:
        return self.pack_path(pack_id).is_file()

    def has_manifest(self, manifest_id: UUID) -> bool:
        return self.manifest_path(manifest_id).is_file()

    def delete_pack(self, pack_id: UUID) -> int:
        """Remove a pack durably; the bytes that it took, 0 if it was gone. Raises OSError."""
        return self._delete(self.pack_path(pack_id))

    def delete_manifest(self, manifest_id: UUID) -> int:
        """Remove a manifest durably; the bytes that it took, 0 if it was gone. Raises OSError."""
        return self._delete(self.manifest_path(manifest_id))

    def packs(self) -> list[UUID]:
        """The packs there are, in the order of their ids. Raises OSError: a store that is gone is not an empty one."""
        return self._ids(self._packs, _PACK)

    def manifests(self) -> list[UUID]:
        """The manifests there are, in the order of their ids. Raises OSError."""
        return self._ids(self._manifests, _MANIFEST)

    def size(self) -> int:
        """Bytes of all packs and manifests. Raises OSError."""
        files = [self.pack_path(pack) for pack in self.packs()]
        files += [self.manifest_path(manifest) for manifest in self.manifests()]
        return sum(file.stat().st_size for file in files)

    def remove_abandoned(self, older_than: float) -> int:
        """Delete what dead writers left in ``.incoming``, untouched for that many seconds; returns how many files.

        A file that its writer still holds is left alone however the clock was set.
        """
        removed = 0
        for path in self._incoming.iterdir() if self._incoming.is_dir() else ():
            with suppress(FileNotFoundError, BlockingIOError), path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if time.time() - os.fstat(file.fileno()).st_mtime >= older_than:
                    path.unlink()
                    removed += 1
        return removed

    def _make_folders(self) -> None:
        if not self._incoming.is_dir() or not self._packs.is_dir() or not self._manifests.is_dir():
            for folder in (self._packs, self._manifests, self._incoming):
                folder.mkdir(parents=True, exist_ok=True)
                hand_to_owner(folder, of=self.root)
            synchronise(self.root)

    @contextmanager
    def _writing(self, target: Path, what: str) -> Iterator[BinaryIO]:
        """Write a file aside, and give it its name once it is whole and on the disk."""
        if target.exists():
            raise FileExistsError(target)
        path = self._incoming / f"{uuid4()}.part"
        try:
            with path.open("xb") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                yield file
                file.flush()
                os.fsync(file.fileno())
                _reached(what, "fsynced")
                hand_to_owner(path, of=self.root)
                _name(path, target)
        finally:
            path.unlink(missing_ok=True)
        try:
            _reached(what, "named")
            synchronise(target.parent)
            _reached(what, "folder_fsynced")
        except BaseException:
            target.unlink(missing_ok=True)  # who is told that it failed must not find it later
            raise

    def _delete(self, path: Path) -> int:
        try:
            size = path.stat().st_size
            path.unlink()
        except FileNotFoundError:
            self._refuse_to_be_gone()
            return 0
        synchronise(path.parent)
        return size

    def _ids(self, folder: Path, suffix: str) -> list[UUID]:
        self._refuse_to_be_gone()
        ids = []
        for path in folder.iterdir() if folder.is_dir() else ():
            with suppress(ValueError):
                if path.suffix == suffix and str(UUID(path.stem)) == path.stem:
                    ids.append(UUID(path.stem))
        return sorted(ids)

    def _refuse_to_be_gone(self) -> None:
        """A file that is not there is one thing, a storage that is not there another. Raises FileNotFoundError."""
        if not self.root.is_dir():
            raise FileNotFoundError(f"The checkpoint storage {self.root} is not there")


def _reached(what: str, step: str) -> None:
    if what != "identity":
        crashpoints.reached(f"{what}.{step}")


def _name(path: Path, target: Path) -> None:
    """Give a file its name, never over another file. Raises FileExistsError, OSError."""
    try:
        os.link(path, target)
    except OSError as error:
        # A file system without hard links. Names are random: that two writers have the same is out of the question.
        if error.errno not in (EPERM, ENOTSUP):
            raise
        if target.exists():
            raise FileExistsError(target) from None
        path.rename(target)
