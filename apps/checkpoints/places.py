"""Where checkpoints lie: the checkpoint folder, and the archive in the object storage; and how the rows find an object.

components = restoring.load(manifest, Places.of(workspace_id, manifest))
"""

from collections.abc import Collection
from functools import partial
from typing import Self
from uuid import UUID

from django.conf import settings
from django.core.files.storage import Storage, storages
from django.db.models import Q

from apps.checkpoints.models import Pack, StoredObject
from apps.checkpoints.store.encodings import Encoding
from apps.checkpoints.store.errors import CorruptCheckpoint
from apps.checkpoints.store.folder import Folder
from apps.checkpoints.store.index import Place
from apps.checkpoints.store.manifests import Manifest
from apps.checkpoints.store.packs import Entry, PackIndex, object_name, read_index
from apps.core.objects import ShortObject, get, read_range, size

ARCHIVE = "checkpoints"
"""The folder of the object storage in which packs and manifests are kept."""


def folder() -> Folder:
    """Of this machine, or mounted by it. Raises OSError."""
    return Folder(settings.CHECKPOINTS_ROOT)


def archive() -> Storage:
    return storages["checkpoints"]


def pack_name(pack_id: UUID) -> str:
    """In the archive."""
    return f"{ARCHIVE}/packs/{pack_id}.pack"


def manifest_name(checkpoint_id: UUID) -> str:
    """In the archive."""
    return f"{ARCHIVE}/manifests/{checkpoint_id}.json"


def read_manifest(checkpoint_id: UUID, *, from_archive: bool = False) -> bytes:
    """The manifest's file, from the folder or from the archive.

    Raises:
        CorruptCheckpoint: it is not there. STORAGE_FAULTS: the place does not answer.
    """
    if not from_archive:
        return folder().read_manifest(checkpoint_id)
    try:
        return get(archive(), manifest_name(checkpoint_id))
    except FileNotFoundError as error:
        raise CorruptCheckpoint(f"{error}", part="manifest") from error


class Places:
    """``restoring.Source`` over the rows of one workspace: the folder where the pack is there, else the archive.

    With ``from_archive`` the archive is asked first, for what the folder has lost or spoilt.
    """

    def __init__(self, known: dict[str, Place], packs: dict[UUID, Pack], *, from_archive: bool) -> None:
        self._known = known
        self._packs = packs
        self._from_archive = from_archive
        self._folder = folder()

    @classmethod
    def of(cls, workspace_id: UUID, manifest: Manifest, *, from_archive: bool = False) -> Self:
        """For every object of a manifest, by two queries."""
        return cls.of_objects(workspace_id, manifest.objects(), from_archive=from_archive)

    @classmethod
    def of_objects(cls, workspace_id: UUID, digests: Collection[str], *, from_archive: bool = False) -> Self:
        rows = StoredObject.objects.filter(workspace_id=workspace_id, digest__in=digests)
        known = {row.digest: place_of(row) for row in rows}
        packs = Pack.objects.in_bulk({place.pack_id for place in known.values()})
        return cls(known, packs, from_archive=from_archive)

    def place(self, digest: str) -> Place:
        """Raises CorruptCheckpoint: no row knows the object."""
        try:
            return self._known[digest]
        except KeyError:
            raise CorruptCheckpoint("No pack has it.", part=object_name(digest), digest=digest) from None

    def read_into(self, pack_id: UUID, start: int, into: memoryview) -> int:
        """Fill ``into`` from byte ``start`` of a pack on; how many bytes there were.

        Raises:
            CorruptCheckpoint: neither the folder nor the archive has it. STORAGE_FAULTS: one of them does not answer.
        """
        if self._is_read_from_archive(pack_id):
            return _read_archived(pack_id, start, into)
        with self._folder.open_pack(pack_id) as pack:
            return pack.read_into(start, into)

    def check_indexes(self) -> None:
        """What the packs say of themselves is what the rows say: else nobody could make the rows anew.

        Raises:
            CorruptCheckpoint. STORAGE_FAULTS: a place does not answer.
        """
        for pack in self._packs.values():
            try:
                digest = self._index_of(pack.pk).digest
            except CorruptCheckpoint as error:
                raise CorruptCheckpoint(error.message, part=error.part, pack_id=pack.pk) from error
            if digest != pack.digest:
                raise CorruptCheckpoint("It is not the one that was written.", part="pack index", pack_id=pack.pk)

    def _index_of(self, pack_id: UUID) -> PackIndex:
        if self._is_read_from_archive(pack_id):
            storage, name = archive(), pack_name(pack_id)
            return read_index(partial(read_range, storage, name), size(storage, name), pack_id)
        with self._folder.open_pack(pack_id) as pack:
            return read_index(pack.read, pack.size, pack_id)

    def _is_read_from_archive(self, pack_id: UUID) -> bool:
        is_copied = self._packs[pack_id].copied_at is not None
        return is_copied and (self._from_archive or not self._folder.has_pack(pack_id))


def _read_archived(pack_id: UUID, start: int, into: memoryview) -> int:
    try:
        data = read_range(archive(), pack_name(pack_id), start, start + len(into))
    except (FileNotFoundError, ShortObject) as error:
        raise CorruptCheckpoint(f"{error}", part=f"pack {pack_id}", pack_id=pack_id) from error
    into[:] = data
    return len(data)


def place_of(row: StoredObject) -> Place:
    """Where the object lies."""
    return Place(row.pack_id, entry_of(row))


def entry_of(row: StoredObject) -> Entry:
    return Entry(
        digest=row.digest,
        offset=row.offset,
        stored_size=row.stored_size,
        raw_size=row.raw_size,
        encoding=Encoding(row.encoding),
        itemsize=row.itemsize,
        checksum=row.checksum,
    )


def reachable_objects(workspace_id: UUID, digests: Collection[str], store_id: UUID) -> list[StoredObject]:
    """Sound objects of these digests that can be read here: in this folder, or in the archive."""
    here = Q(pack__store_id=store_id) | Q(pack__copied_at__isnull=False)
    return list(StoredObject.objects.filter(here, workspace_id=workspace_id, digest__in=digests, broken_at=None))
