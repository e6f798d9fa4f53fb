"""The archive: checkpoints in the object storage, beside those in the checkpoint folder or instead of them.

    copied:  packs -> read back and compared -> manifest -> ``copied_at``                      (it is in both)
    archive: LOCAL -> UPLOADING -> copied -> ARCHIVED -> the packs that no LOCAL one needs leave the folder
    recall:  packs and manifest into the folder, verified -> LOCAL                             (the copies stay)

Each step can be done again: whatever kills it, the next call goes on where it stopped. A storage that is away raises
Unavailable, and nothing is lost. Both ways hold a lock on the checkpoint, and on a pack while its file comes or goes.
"""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from uuid import UUID

import structlog
from blake3 import blake3
from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from apps.audit import services as audit
from apps.audit.watched import image
from apps.checkpoints import places
from apps.checkpoints.lifecycle import CheckpointState
from apps.checkpoints.models import Checkpoint, Location, Pack, StoredObject
from apps.checkpoints.services import loading
from apps.checkpoints.store import crashpoints
from apps.checkpoints.store.errors import CorruptCheckpoint
from apps.checkpoints.store.folder import PackFile
from apps.checkpoints.store.manifests import parse
from apps.checkpoints.store.packs import HEADER_BYTES, check_stored, read_index
from apps.core.actors import SYSTEM, Actor
from apps.core.errors import Conflict, Unavailable
from apps.core.locks import alone
from apps.core.objects import STORAGE_FAULTS, delete, exists, get, opened, put

log = structlog.get_logger(__name__)

Progress = Callable[[int, int], None]
"""Bytes done, bytes in all."""

PIECE_BYTES = 4 * 1024 * 1024
ROUNDS = 3
"""How often it is looked again whether a compaction moved objects to another pack meanwhile."""


@contextmanager
def told(what: str) -> Iterator[None]:
    """Raises Unavailable in the place of STORAGE_FAULTS."""
    try:
        yield
    except STORAGE_FAULTS as error:
        raise Unavailable(f"the storage could not {what}: {error}", code="storage") from error


# --- Into the archive


def copy(*, checkpoint: Checkpoint, progress: Progress | None = None) -> Checkpoint:
    """Have all of a checkpoint in the object storage as well; one that is there already is left as it is.

    Raises:
        CorruptCheckpoint: it is not what was stored, and is QUARANTINED now. Unavailable: a storage does not answer, or
        the files are another machine's. Conflict: it has no bytes.
    """
    fresh = Checkpoint.objects.get(pk=checkpoint.pk)
    _require_bytes(fresh)
    with told("copy the checkpoint"), _set_aside_if_broken(fresh):
        for _ in range(ROUNDS):
            _copy_packs(fresh, progress)
            _copy_manifest(fresh)
            if _record_copy(fresh):
                return Checkpoint.objects.get(pk=fresh.pk)
    raise Conflict("its objects are being moved to other packs: try again", code="busy")


@contextmanager
def _set_aside_if_broken(checkpoint: Checkpoint) -> Iterator[None]:
    try:
        yield
    except CorruptCheckpoint:
        loading.verify(checkpoint=checkpoint, actor=SYSTEM)
        raise


def _require_bytes(checkpoint: Checkpoint) -> None:
    if checkpoint.state != CheckpointState.COMMITTED:
        raise Conflict(
            f"the checkpoint is {checkpoint.state}: only a COMMITTED one is copied, archived or recalled", code="state"
        )


def _packs_of(checkpoint: Checkpoint) -> QuerySet[Pack]:
    needed = StoredObject.objects.filter(references__checkpoint=checkpoint)
    return Pack.objects.filter(pk__in=needed.values("pack_id")).order_by("pk")


def _copy_packs(checkpoint: Checkpoint, progress: Progress | None) -> None:
    packs = list(_packs_of(checkpoint).filter(copied_at__isnull=True))
    total, done = sum(pack.size for pack in packs), 0
    for pack in packs:
        _require_here(pack)
        broken = put_pack(pack)
        if broken:
            note_broken(pack.workspace.pk, broken)
            if StoredObject.objects.filter(references__checkpoint=checkpoint, digest__in=broken).exists():
                raise CorruptCheckpoint(f"{len(broken)} objects are not what was stored.", part=f"pack {pack.pk}")
        Pack.objects.filter(pk=pack.pk).update(copied_at=timezone.now())
        done += pack.size
        if progress:
            progress(done, total)


def _require_here(pack: Pack) -> None:
    here = places.folder().identity
    if pack.in_folder and pack.store_id != here:
        raise Unavailable(
            f"the pack {pack.pk} lies in another machine's checkpoint folder ({pack.store_id}, here it is {here}): "
            "mount one folder on all of them (ESPER_CHECKPOINTS)",
            code="elsewhere",
        )


def put_pack(pack: Pack) -> list[str]:
    """Have the file of a pack in the archive, byte for byte; the digests of its objects that are broken in the folder.

    Raises:
        CorruptCheckpoint: its header or index is broken, or the file is gone. STORAGE_FAULTS.
    """
    storage, name = places.archive(), places.pack_name(pack.pk)
    with places.folder().open_pack(pack.pk) as file:
        digest, broken = _look_through(pack, file)
    if exists(storage, name):
        if _digest_of_archived(name) == digest:
            return broken
        delete(storage, name)  # what an interrupted attempt left
    with places.folder().pack_path(pack.pk).open("rb") as content, suppress(FileExistsError):
        put(storage, name, content)
    if _digest_of_archived(name) != digest:
        raise OSError(f"what comes back of {name} is not what was written")
    crashpoints.reached("archive.put")
    return broken


def _look_through(pack: Pack, file: PackFile) -> tuple[str, list[str]]:
    """Digest of the whole file, and the objects in it, of those that rows count on, whose bytes are wrong."""
    index = read_index(file.read, file.size, pack.pk)
    if index.digest != pack.digest:
        raise CorruptCheckpoint("It is not the one that was stored.", part=f"pack {pack.pk}")
    counted_on = set(
        StoredObject.objects.filter(pack_id=pack.pk, broken_at__isnull=True).values_list("digest", flat=True)
    )
    whole, broken = blake3(file.read(0, HEADER_BYTES)), []
    for entry in index.entries:
        stored = file.read(entry.offset, entry.end)
        whole.update(stored)
        if entry.digest in counted_on:
            try:
                check_stored(entry, stored)
            except CorruptCheckpoint:
                broken.append(entry.digest)
    end = index.entries[-1].end if index.entries else HEADER_BYTES
    whole.update(file.read(end, file.size))
    return whole.hexdigest(), broken


def _digest_of_archived(name: str) -> str:
    found = blake3()
    with opened(places.archive(), name) as file:
        while piece := file.read(PIECE_BYTES):
            found.update(piece)
    return found.hexdigest()


def note_broken(workspace_id: UUID, digests: Collection[str]) -> None:
    """These objects are not what was stored: the next save writes them anew, and the checkpoints that need them are
    the next to be verified, and set aside then."""
    log.warning("checkpoint_objects_broken", objects=sorted(digests))
    rows = StoredObject.objects.filter(workspace=workspace_id, digest__in=digests)
    rows.filter(broken_at__isnull=True).update(broken_at=timezone.now())
    needing = Checkpoint.objects.filter(references__object__in=rows, state=CheckpointState.COMMITTED)
    Checkpoint.objects.filter(pk__in=needing.values("pk")).update(verified_at=None)


def _copy_manifest(checkpoint: Checkpoint) -> None:
    storage, name = places.archive(), places.manifest_name(checkpoint.pk)
    if exists(storage, name):
        if _is_manifest_of(checkpoint, get(storage, name)):
            return
        delete(storage, name)
    data = places.folder().read_manifest(checkpoint.pk)
    if not _is_manifest_of(checkpoint, data):
        raise CorruptCheckpoint("It is not the one that was stored.", part="manifest")
    with suppress(FileExistsError):  # another worker was faster: what is there counts
        put(storage, name, data)
    if get(storage, name) != data:
        raise OSError(f"what comes back of {name} is not what was written")


def _is_manifest_of(checkpoint: Checkpoint, data: bytes) -> bool:
    try:
        return parse(data, checkpoint.pk).digest == checkpoint.digest
    except CorruptCheckpoint:
        return False


@transaction.atomic
def _record_copy(checkpoint: Checkpoint) -> bool:
    """False: a compaction moved objects of it to a pack that is not copied."""
    if not Checkpoint.objects.select_for_update(of=("self",)).filter(pk=checkpoint.pk).exists():
        return False
    if _packs_of(checkpoint).filter(copied_at__isnull=True).exists():
        return False
    Checkpoint.objects.filter(pk=checkpoint.pk, copied_at__isnull=True).update(copied_at=timezone.now())
    return True


def archive(*, checkpoint: Checkpoint, actor: Actor, reason: str = "", progress: Progress | None = None) -> Checkpoint:
    """Move a checkpoint to the object storage, and let its packs leave the folder unless a LOCAL one needs them.

    Raises:
        CorruptCheckpoint: it was not what was stored, and is QUARANTINED now. Unavailable: a storage does not answer;
        it stays UPLOADING, readable, and the next call goes on. Conflict: it has no bytes, or is being moved.
    """
    with _place_of(checkpoint):
        fresh = Checkpoint.objects.get(pk=checkpoint.pk)
        _require_bytes(fresh)
        if fresh.location == Location.LOCAL:
            fresh = _relocate(fresh, Location.UPLOADING, actor, reason)
        if fresh.location == Location.UPLOADING:
            fresh = copy(checkpoint=fresh, progress=progress)
            fresh = _relocate(fresh, Location.ARCHIVED, actor, reason)
            crashpoints.reached("archive.recorded")
        with told("free the checkpoint folder"):
            for pack_id in _packs_of(fresh).filter(in_folder=True).values_list("pk", flat=True):
                with suppress(Conflict):  # it is being brought back: it stays
                    free(pack_id)
            places.folder().delete_manifest(fresh.pk)
        crashpoints.reached("archive.freed")
        return fresh


@contextmanager
def _place_of(checkpoint: Checkpoint) -> Iterator[None]:
    with alone(f"checkpoint place of {checkpoint.pk}", busy="the checkpoint is being moved: wait until it is done"):
        yield


@contextmanager
def _file_of(pack_id: UUID) -> Iterator[None]:
    with alone(f"checkpoint pack {pack_id}", busy="a pack of the checkpoint is being moved: try again"):
        yield


@transaction.atomic
def _relocate(checkpoint: Checkpoint, to: Location, actor: Actor, reason: str) -> Checkpoint:
    fresh = Checkpoint.objects.select_for_update(of=("self",)).get(pk=checkpoint.pk)
    _require_bytes(fresh)
    before = image(fresh)
    fresh.location = to
    if to == Location.LOCAL:
        fresh.store_id = places.folder().identity
    fresh.save()
    audit.record(type="checkpoint.moved", subject=fresh, actor=actor, reason=reason, before=before, after=image(fresh))
    return fresh


def free(pack_id: UUID) -> bool:
    """Delete a pack's file from the folder if it is in the archive and no LOCAL checkpoint needs it."""
    with _file_of(pack_id):
        if not _may_leave(pack_id):
            return False
        places.folder().delete_pack(pack_id)
        return True


@transaction.atomic
def _may_leave(pack_id: UUID) -> bool:
    """Record that the pack has left the folder, if it may."""
    pack = Pack.objects.select_for_update(of=("self",)).filter(pk=pack_id, copied_at__isnull=False).first()
    if pack is None or pack.store_id != places.folder().identity:
        return False
    needing = Checkpoint.objects.filter(references__object__pack=pack).exclude(location=Location.ARCHIVED)
    if needing.exists():
        return False
    Pack.objects.filter(pk=pack_id).update(in_folder=False)
    return True


# --- Back into the folder


def recall(*, checkpoint: Checkpoint, actor: Actor, reason: str = "", progress: Progress | None = None) -> Checkpoint:
    """Bring a checkpoint back into the folder, verified; its copy stays in the object storage.

    Raises:
        CorruptCheckpoint: the copy is not what was stored. Unavailable: a storage does not answer. Conflict: it has no
        bytes, or is being moved.
    """
    with _place_of(checkpoint), told("recall the checkpoint"):
        fresh = Checkpoint.objects.get(pk=checkpoint.pk)
        _require_bytes(fresh)
        if fresh.location == Location.LOCAL:
            return fresh
        for _ in range(ROUNDS):
            _fetch_packs(fresh, progress)
            _fetch_manifest(fresh)
            recalled = _record_recall(fresh, actor, reason)
            if recalled is not None:
                crashpoints.reached("recall.recorded")
                return recalled
    raise Conflict("its packs are being moved: try again", code="busy")


def _fetch_packs(checkpoint: Checkpoint, progress: Progress | None) -> None:
    packs = list(_packs_of(checkpoint).filter(in_folder=False))
    total, done = sum(pack.size for pack in packs), 0
    for pack in packs:
        fetch_pack(pack)
        done += pack.size
        if progress:
            progress(done, total)


def fetch_pack(pack: Pack) -> None:
    """Have the file of a pack in the folder. Raises CorruptCheckpoint, Conflict, STORAGE_FAULTS."""
    folder = places.folder()
    with _file_of(pack.pk):
        if folder.has_pack(pack.pk) and not _is_whole(pack):
            folder.delete_pack(pack.pk)
        if not folder.has_pack(pack.pk):
            with opened(places.archive(), places.pack_name(pack.pk)) as source, folder.write_pack(pack.pk) as target:
                while piece := source.read(PIECE_BYTES):
                    target.write(piece)
            if not _is_whole(pack):
                folder.delete_pack(pack.pk)
                raise CorruptCheckpoint("The copy in the archive is not what was stored.", part=f"pack {pack.pk}")
        crashpoints.reached("recall.named")
        Pack.objects.filter(pk=pack.pk).update(in_folder=True, store_id=folder.identity)


def _is_whole(pack: Pack) -> bool:
    try:
        with places.folder().open_pack(pack.pk) as file:
            return _look_through(pack, file)[1] == []
    except CorruptCheckpoint:
        return False


def _fetch_manifest(checkpoint: Checkpoint) -> None:
    folder = places.folder()
    if folder.has_manifest(checkpoint.pk):
        if _is_manifest_of(checkpoint, folder.read_manifest(checkpoint.pk)):
            return
        folder.delete_manifest(checkpoint.pk)
    data = get(places.archive(), places.manifest_name(checkpoint.pk))
    if not _is_manifest_of(checkpoint, data):
        raise CorruptCheckpoint("The copy in the archive is not what was stored.", part="manifest")
    folder.write_manifest(checkpoint.pk, data)


@transaction.atomic
def _record_recall(checkpoint: Checkpoint, actor: Actor, reason: str) -> Checkpoint | None:
    """None: a pack of it has left the folder again."""
    packs = list(_packs_of(checkpoint).select_for_update(of=("self",)))
    if not all(pack.in_folder for pack in packs):
        return None
    return _relocate(checkpoint, Location.LOCAL, actor, reason)
