"""What no checkpoint needs any more: marked, left alone for a grace, then swept; half-empty packs are written anew.

    referenced -> (the last reference goes) unreferenced -> an hour later: no row -> the pack has no object: emptied
               -> an hour later: no row, then no file

A saver that references an object meanwhile wins: it locks the rows that it counts on, and the sweep passes those over.
Rows go first, in one transaction, and files after the commit, so a crash leaves at most a file that no row knows:
``collect_orphans`` removes it a day later. Objects and packs are outside the audit net: they are how checkpoints are
stored, not what anybody decided.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import structlog
from django.db import transaction
from django.utils import timezone

from apps.audit.transitions import move
from apps.checkpoints import places
from apps.checkpoints.lifecycle import CHECKPOINT_LIFECYCLE, CheckpointState
from apps.checkpoints.models import Checkpoint, ObjectReference, Pack, StoredObject
from apps.checkpoints.services.uploads import collect_uploads
from apps.checkpoints.store import crashpoints
from apps.checkpoints.store.errors import CorruptCheckpoint
from apps.checkpoints.store.manifests import parse
from apps.checkpoints.store.packs import PackIndex, read_index
from apps.core.actors import SYSTEM, Actor
from apps.core.errors import InvalidTransition, Unavailable
from apps.core.ids import parse_id
from apps.core.locks import alone
from apps.core.objects import STORAGE_FAULTS, delete, get, listed, read_range, size

log = structlog.get_logger(__name__)

GRACE = timedelta(hours=1)
"""For how long garbage stays: a save or a restore that is under way may still look at it."""
ABANDONED_AFTER = timedelta(hours=1)
"""After which a save that has not ended never will: its process is gone."""
ORPHANED_AFTER = timedelta(days=1)
"""After which a file that no row knows is nobody's who is still writing."""
FIRST_FORMAT = "safetensors+json/1"
"""Of the first snapshot writer: two files in the object storage, which nothing reads any more."""
BATCH = 1000
"""Objects of one transaction."""


@dataclass(slots=True)
class Collected:
    """What a round of collecting did."""

    abandoned: int = 0
    marked: int = 0
    objects: int = 0
    packs: int = 0
    orphans: int = 0
    uploads: int = 0
    bytes: int = 0
    """Of the files that were deleted."""
    problems: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def collect_garbage() -> Collected:
    """One round: abandoned saves, mark, sweep, emptied packs, orphaned files. (Compaction is a task of its own.)

    A storage that is away, or rows that are missing, leave the files where they are and are told in ``problems``.

    Raises:
        Conflict: another worker is at it.
    """
    collected = Collected()
    with alone("checkpoint garbage", busy="another worker is collecting garbage"):
        collected.abandoned = expire_abandoned()
        collected.marked = mark()
        collected.objects = sweep()
        for part in (_delete_emptied_packs, _collect_orphans, _collect_uploads):
            try:
                part(collected)
            except (Unavailable, *STORAGE_FAULTS) as error:
                collected.problems.append(str(error))
                log.warning("checkpoint_garbage_left", error=str(error))
    return collected


def _collect_uploads(collected: Collected) -> None:
    """What clients began to send and never finished. Raises OSError."""
    collected.uploads = collect_uploads()


# --- Saves that never ended


def expire_abandoned(*, actor: Actor = SYSTEM) -> int:
    """Give up saves that have not ended for an hour, and delete what lies of them; returns how many."""
    stale = Checkpoint.objects.filter(state=CheckpointState.STAGING, created_at__lt=timezone.now() - ABANDONED_AFTER)
    abandoned = []
    for checkpoint in stale:
        with suppress(InvalidTransition):  # it has ended in this moment
            abandoned.append(_abandon(checkpoint, actor))
    remove_manifests(abandoned)
    try:
        places.folder().remove_abandoned(ABANDONED_AFTER.total_seconds())
    except OSError as error:
        log.warning("checkpoint_garbage_left", error=str(error))
    return len(abandoned)


def _abandon(checkpoint: Checkpoint, actor: Actor) -> Checkpoint:
    return move(
        checkpoint,
        lifecycle=CHECKPOINT_LIFECYCLE,
        to=CheckpointState.ABANDONED,
        event="checkpoint.transition",
        actor=actor,
        reason="the save never ended",
        payload={"run": checkpoint.run_id, "epoch": checkpoint.epoch, "step": checkpoint.step},
    )


def remove_manifests(checkpoints: Iterable[Checkpoint]) -> None:
    """Delete the files of manifests that nobody needs. A storage that is away keeps them: they are orphans then."""
    for checkpoint in checkpoints:
        try:
            _remove_manifest(checkpoint)
        except STORAGE_FAULTS as error:
            log.warning("checkpoint_manifest_left", checkpoint=checkpoint.name, error=str(error))


def _remove_manifest(checkpoint: Checkpoint) -> None:
    if checkpoint.format == FIRST_FORMAT:
        for suffix in (".safetensors", ".json"):
            delete(places.archive(), f"{checkpoint.name}{suffix}")
        return
    places.folder().delete_manifest(checkpoint.pk)
    if checkpoint.copied_at:
        delete(places.archive(), places.manifest_name(checkpoint.pk))


# --- Objects


def release_objects(checkpoint: Checkpoint) -> None:
    """A checkpoint that has gone needs its objects no longer; those that no other needs are garbage from now on."""
    references = ObjectReference.objects.filter(checkpoint=checkpoint)
    objects = list(references.values_list("object_id", flat=True))
    references.delete()
    _mark(objects)


def mark() -> int:
    """Note since when objects are garbage that lost their last reference in another way; how many those are."""
    found = StoredObject.objects.filter(references__isnull=True, unreferenced_at__isnull=True)
    number = 0
    for objects in _in_batches(found.order_by("pk").values_list("pk", flat=True)):
        with transaction.atomic():
            number += _mark(objects)
    # A checkpoint that was found in the storage again may need what was garbage.
    StoredObject.objects.filter(references__isnull=False, unreferenced_at__isnull=False).update(unreferenced_at=None)
    return number


def _mark(objects: Iterable[int]) -> int:
    """One that a saver is about to reference is passed over, so that neither waits for the other."""
    free = _locked(StoredObject.objects.filter(pk__in=list(objects)))
    # By a statement of its own, which sees what was committed before the rows were locked.
    return StoredObject.objects.filter(pk__in=free, references__isnull=True).update(unreferenced_at=timezone.now())


def sweep() -> int:
    """Delete the rows of objects that have been garbage for the grace; how many. Their bytes go with their packs."""
    due = StoredObject.objects.filter(unreferenced_at__lt=timezone.now() - GRACE)
    number = 0
    for objects in _in_batches(due.order_by("pk").values_list("pk", flat=True)):
        with transaction.atomic():
            free = _locked(due.filter(pk__in=objects))
            number += StoredObject.objects.filter(pk__in=free, references__isnull=True).delete()[0]
    return number


def _locked(objects: Any) -> list[int]:
    """Those that nobody else has locked: a saver's lock is against deletion until it has committed its references."""
    return list(objects.order_by("pk").select_for_update(skip_locked=True).values_list("pk", flat=True))


def _in_batches(keys: Iterable[int]) -> Iterator[list[int]]:
    everything = list(keys)
    for start in range(0, len(everything), BATCH):
        yield everything[start : start + BATCH]


# --- Packs


def _delete_emptied_packs(collected: Collected) -> None:
    """Note which packs have no object any more, and delete those that have had none for the grace."""
    now = timezone.now()
    Pack.objects.filter(contents__isnull=True, emptied_at__isnull=True).update(emptied_at=now)
    for pack_id in Pack.objects.filter(emptied_at__lt=now - GRACE).order_by("pk").values_list("pk", flat=True):
        pack = _forget_emptied(pack_id)
        if pack is None:
            continue
        crashpoints.reached("sweep.recorded")
        _delete_pack_files(pack)
        crashpoints.reached("sweep.deleted")
        collected.packs += 1
        collected.bytes += pack.size


@transaction.atomic
def _forget_emptied(pack_id: UUID) -> Pack | None:
    """Delete the row of a pack that is still empty; None where it is not."""
    pack = Pack.objects.select_for_update(of=("self",)).filter(pk=pack_id).first()
    if pack is None:
        return None
    if pack.contents.exists():
        Pack.objects.filter(pk=pack_id).update(emptied_at=None)
        return None
    Pack.objects.filter(pk=pack_id).delete()
    pack.pk = pack_id
    return pack


def _delete_pack_files(pack: Pack) -> None:
    """Raises STORAGE_FAULTS: what is left is an orphan."""
    places.folder().delete_pack(pack.pk)
    if pack.copied_at:
        delete(places.archive(), places.pack_name(pack.pk))


# --- Files that no row knows


@dataclass(frozen=True, slots=True, kw_only=True)
class _Files:
    """The packs, or the manifests, of one place: which there are, when each was written, and what to do with one."""

    ids: list[UUID]
    written_at: Callable[[UUID], datetime]
    read: Callable[[UUID], Any]
    """The manifest, or the index of the pack. Raises CorruptCheckpoint, FileNotFoundError."""
    delete: Callable[[UUID], int]
    """Bytes that it took."""


def _collect_orphans(collected: Collected) -> None:
    """Delete files that no row knows and nobody writes any more, in the folder and in the archive.

    A save makes its row before any file, and no row of a checkpoint is ever deleted: a whole checkpoint without one
    says that rows were lost. Then nothing is deleted before they were made anew.

    Raises:
        Unavailable: rows were lost. STORAGE_FAULTS: a place does not answer.
    """
    for packs, manifests in (_in_folder(), _in_archive()):
        strange_packs = _without_row(Pack.objects.all(), packs.ids)
        strange = _without_row(Checkpoint.objects.all(), manifests.ids)
        _refuse_if_rows_were_lost(strange, strange_packs, packs, manifests)
        for key in strange + _over(manifests.ids):
            _delete_orphan(manifests, key, collected)
        for key in strange_packs:
            _delete_orphan(packs, key, collected)


def _without_row(rows: Any, ids: list[UUID]) -> list[UUID]:
    return sorted(set(ids) - set(rows.filter(pk__in=ids).values_list("pk", flat=True)))


def _over(manifests: list[UUID]) -> list[UUID]:
    """Manifests of checkpoints that have no bytes any more: a crash, or a storage that was away, left them."""
    over = Checkpoint.objects.filter(state__in=[CheckpointState.ABANDONED, CheckpointState.EXPIRED])
    return list(over.filter(pk__in=manifests).values_list("pk", flat=True))


def _delete_orphan(files: _Files, key: UUID, collected: Collected) -> None:
    try:
        if files.written_at(key) < timezone.now() - ORPHANED_AFTER:
            collected.bytes += files.delete(key)
            collected.orphans += 1
    except FileNotFoundError:
        return  # another collector was faster


def _refuse_if_rows_were_lost(strange: list[UUID], strange_packs: list[UUID], packs: _Files, manifests: _Files) -> None:
    """Raises Unavailable: a manifest without a row is whole, and so is every object of it."""
    found: set[str] | None = None
    for key in strange:
        manifest = _readable(manifests, key)
        if manifest is None:
            continue
        if found is None:
            indexes = [_readable(packs, pack_id) for pack_id in strange_packs]
            found = {entry.digest for index in indexes if index is not None for entry in index.entries}
        missing = set(manifest.objects()) - found
        if StoredObject.objects.filter(digest__in=missing).values("digest").distinct().count() == len(missing):
            raise Unavailable(
                f"checkpoints lie in the storage without a row in the database ({key} is one of {len(strange)} "
                "manifests): run `manage.py rebuild_checkpoints`; until then no file without a row is deleted",
                code="rows_lost",
            )


def _readable(files: _Files, key: UUID) -> Any:
    try:
        return files.read(key)
    except (CorruptCheckpoint, FileNotFoundError):
        return None


def _in_folder() -> tuple[_Files, _Files]:
    """Packs and manifests. Raises OSError."""
    folder = places.folder()

    def index(key: UUID) -> PackIndex:
        with folder.open_pack(key) as pack:
            return read_index(pack.read, pack.size, key)

    packs = _Files(
        ids=folder.packs(),
        written_at=lambda key: _modified(folder.pack_path(key)),
        read=index,
        delete=folder.delete_pack,
    )
    manifests = _Files(
        ids=folder.manifests(),
        written_at=lambda key: _modified(folder.manifest_path(key)),
        read=lambda key: parse(folder.read_manifest(key), key),
        delete=folder.delete_manifest,
    )
    return packs, manifests


def _modified(path: Path) -> datetime:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC)


def _in_archive() -> tuple[_Files, _Files]:
    """Packs and manifests. Raises STORAGE_FAULTS."""
    storage = places.archive()

    def index(key: UUID) -> PackIndex:
        name = places.pack_name(key)
        return read_index(lambda start, stop: read_range(storage, name, start, stop), size(storage, name), key)

    packs = _archived("packs", ".pack", places.pack_name, index)
    manifests = _archived(
        "manifests", ".json", places.manifest_name, lambda key: parse(get(storage, places.manifest_name(key)), key)
    )
    return packs, manifests


def _archived(kind: str, suffix: str, name_of: Callable[[UUID], str], read: Callable[[UUID], Any]) -> _Files:
    storage = places.archive()

    def remove(key: UUID) -> int:
        taken = size(storage, name_of(key))
        delete(storage, name_of(key))
        return taken

    names = listed(storage, f"{places.ARCHIVE}/{kind}")[1]
    ids = [key for name in names if (key := parse_id(name.removesuffix(suffix))) and name == f"{key}{suffix}"]
    return _Files(
        ids=ids,
        written_at=lambda key: storage.get_modified_time(name_of(key)),
        read=read,
        delete=remove,
    )
