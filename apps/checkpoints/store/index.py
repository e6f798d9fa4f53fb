"""Which objects there are and where; a checkpoint exists from the moment that an index has committed it.

The platform's index is its database. ``FolderIndex`` is the one beside the packs, for programs without a database:
it is read from the files themselves, which is also how a database is made anew.
"""

import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol
from uuid import UUID

from apps.checkpoints.store.errors import CorruptCheckpoint, MissingObjects
from apps.checkpoints.store.folder import Folder
from apps.checkpoints.store.manifests import Manifest, parse
from apps.checkpoints.store.packs import Entry, PackIndex, object_name, read_index


@dataclass(frozen=True, slots=True)
class Place:
    """Where an object is."""

    pack_id: UUID
    entry: Entry


@dataclass(frozen=True, slots=True)
class Saved:
    """A checkpoint whose files are durable: what an index commits.

    ``packs`` are the new ones, none if nothing had changed. Bytes: ``new_bytes`` stored in them, ``raw_bytes`` of the
    whole state, ``shared_bytes`` of it (raw) that earlier packs held already. ``seconds`` per stage.
    """

    manifest: Manifest
    packs: tuple[PackIndex, ...] = ()
    new_bytes: int = 0
    raw_bytes: int = 0
    shared_bytes: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)


class Index(Protocol):
    """What a saver asks of an index."""

    def find(self, digests: Collection[str]) -> dict[str, Place]:
        """Of these objects, those that a new checkpoint may reference, and where they are."""

    def commit(self, saved: Saved) -> None:
        """Make the checkpoint and its new objects known in one step.

        Raises:
            MissingObjects: it references objects that are gone; nothing is committed.
        """


class FolderIndex:
    """The index that a folder's own files make: a checkpoint is committed when its manifest has its name.

    A manifest that references what no pack holds is none. ``damaged`` says which files could not be read, and why.
    """

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self.packs: dict[UUID, PackIndex] = {}
        self.damaged: dict[UUID, CorruptCheckpoint] = {}
        self._places: dict[str, Place] = {}
        self._committed: dict[UUID, Manifest] = {}
        self._lock = threading.Lock()
        self.identity = folder.identity  # makes a folder that is new
        self._read_packs()
        self._read_manifests()

    def find(self, digests: Collection[str]) -> dict[str, Place]:
        with self._lock:
            return {digest: self._places[digest] for digest in digests if digest in self._places}

    def commit(self, saved: Saved) -> None:
        with self._lock:
            new = {entry.digest for pack in saved.packs for entry in pack.entries}
            there = {pack_id for pack_id in self.packs if self.folder.has_pack(pack_id)}
            known = {digest for digest, place in self._places.items() if place.pack_id in there}
            missing = saved.manifest.objects().keys() - new - known
            if missing:
                raise MissingObjects(missing)
            for pack in saved.packs:
                self._take(pack)
            self._committed[saved.manifest.id] = saved.manifest

    def place(self, digest: str) -> Place:
        """Where an object is. Raises CorruptCheckpoint: no pack holds it."""
        place = self._places.get(digest)
        if place is None:
            raise CorruptCheckpoint("No pack holds it.", part=object_name(digest))
        return place

    def checkpoints(self) -> list[Manifest]:
        """The committed checkpoints, the oldest first."""
        with self._lock:
            return list(self._committed.values())

    def _take(self, pack: PackIndex) -> None:
        self.packs[pack.pack_id] = pack
        for entry in pack.entries:
            self._places[entry.digest] = Place(
                pack.pack_id, entry
            )  # the newest: a lost pack's objects are written anew

    def _read_packs(self) -> None:
        for pack_id in self.folder.packs():
            try:
                with self.folder.open_pack(pack_id) as file:
                    self._take(read_index(file.read, file.size, pack_id))
            except CorruptCheckpoint as error:
                self.damaged[pack_id] = error

    def _read_manifests(self) -> None:
        """Oldest first by when they say they were made, after their parents wherever the clock was set back."""
        found = {}
        for manifest_id in self.folder.manifests():
            try:
                manifest = parse(self.folder.read_manifest(manifest_id), manifest_id)
                self._check_objects(manifest)
                found[manifest_id] = manifest
            except CorruptCheckpoint as error:
                self.damaged[manifest_id] = error
        for manifest in sorted(found.values(), key=lambda manifest: (manifest.created_at, manifest.id)):
            line: dict[UUID, Manifest] = {}
            ancestor: Manifest | None = manifest
            while ancestor is not None and ancestor.id not in self._committed and ancestor.id not in line:
                line[ancestor.id] = ancestor
                ancestor = found.get(ancestor.parent_id) if ancestor.parent_id else None
            self._committed.update(reversed(line.items()))

    def _check_objects(self, manifest: Manifest) -> None:
        for digest, size in manifest.objects().items():
            if size > self.place(digest).entry.raw_size:
                raise CorruptCheckpoint("It is referenced beyond its end.", part=object_name(digest))
