"""Packs that are mostly garbage: what is still needed of them is written into a new pack, as it is stored.

    new pack, durable (and in the archive, where the old one is) -> one transaction moves the rows -> old pack: emptied

The stored bytes are verified by their digest on the way, and never decoded. A reader that is at the old pack goes on:
its file stays for the grace.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from uuid import UUID

import structlog
from django.db import transaction
from django.db.models import F, Q, Sum
from django.utils import timezone

from apps.checkpoints import places
from apps.checkpoints.models import Pack, StoredObject
from apps.checkpoints.services.archiving import note_broken, put_pack, told
from apps.checkpoints.store import crashpoints
from apps.checkpoints.store.errors import CorruptCheckpoint
from apps.checkpoints.store.packs import PackIndex, PackWriter, check_stored
from apps.core.ids import new_id
from apps.core.locks import alone

log = structlog.get_logger(__name__)

LIVE_SHARE = 0.5
"""A pack of which less than this is needed is written anew."""
PACK_BYTES = 256 * 1024 * 1024
"""What is needed of several packs goes into one, up to about this size."""
ROUND_BYTES = 2 * 1024**3
"""What one round writes at most."""
BATCH = 1000

_Placement = tuple[UUID, UUID, bool, bool]
"""Workspace, store, in the folder, in the archive: packs that are alike in it go together."""


@dataclass(slots=True)
class Compacted:
    """Packs that were written anew, and the bytes that become free after the grace."""

    packs: int = 0
    bytes: int = 0


def compact() -> Compacted:
    """Write anew what is needed of the packs that are mostly garbage.

    Raises:
        Conflict: another worker is at it. Unavailable: a storage does not answer; what is done stays done.
    """
    compacted = Compacted()
    written = 0
    with alone("checkpoint garbage", busy="another worker is collecting garbage"), told("write packs anew"):
        for packs in _groups():
            if written >= ROUND_BYTES:
                break
            new_size = _compact(packs)
            written += new_size
            compacted.packs += len(packs)
            compacted.bytes += sum(pack.size for pack in packs) - new_size
    return compacted


def _groups() -> Iterator[list[Pack]]:
    needed = Sum("contents__stored_size", filter=Q(contents__broken_at__isnull=True))
    candidates = Pack.objects.annotate(needed=needed).filter(needed__gt=0, needed__lt=F("size") * LIVE_SHARE)
    here = places.folder().identity
    groups: dict[_Placement, list[Pack]] = {}
    bytes_of: dict[_Placement, int] = {}
    for pack in candidates.order_by("pk"):
        if pack.in_folder and pack.store_id != here:
            continue  # a worker of the machine that has it does it
        placement = (pack.workspace.pk, pack.store_id, pack.in_folder, pack.copied_at is not None)
        group = groups.setdefault(placement, [])
        group.append(pack)
        bytes_of[placement] = bytes_of.get(placement, 0) + pack.needed
        if bytes_of[placement] >= PACK_BYTES:
            yield groups.pop(placement)
            del bytes_of[placement]
    yield from groups.values()


def _compact(old: list[Pack]) -> int:
    """Bytes of the new pack, 0 if nothing is needed any more. Raises STORAGE_FAULTS."""
    index = _write(old)
    crashpoints.reached("compact.named")
    model = old[0]
    new = Pack(
        id=index.pack_id,
        workspace=model.workspace,
        store_id=places.folder().identity,
        digest=index.digest,
        size=index.size,
    )
    if model.copied_at is not None:
        put_pack(new)
        new.copied_at, new.in_folder = timezone.now(), model.in_folder
    moved = _move_rows(old, new, index)
    crashpoints.reached("compact.committed")
    if not moved or not new.in_folder:
        places.folder().delete_pack(new.pk)
    return index.size if moved else 0


def _write(old: list[Pack]) -> PackIndex:
    rows = StoredObject.objects.filter(pack__in=old, broken_at__isnull=True).order_by("pack_id", "offset")
    source = places.Places({}, {pack.pk: pack for pack in old}, from_archive=not old[0].in_folder)
    pack_id = new_id()
    broken: list[str] = []
    with places.folder().write_pack(pack_id) as file:
        writer = PackWriter(file, pack_id)
        for row in rows.iterator():
            entry = places.place_of(row).entry
            stored = bytearray(row.stored_size)
            try:
                source.read_into(row.pack_id, row.offset, memoryview(stored))
                check_stored(entry, stored)
            except CorruptCheckpoint:
                broken.append(row.digest)
                continue
            writer.add(row.digest, stored, raw_size=row.raw_size, encoding=entry.encoding, itemsize=row.itemsize)
        index = writer.close()
    if broken:
        note_broken(old[0].workspace.pk, broken)
    return index


@transaction.atomic
def _move_rows(old: list[Pack], new: Pack, index: PackIndex) -> int:
    """Have the rows say where the objects are now; how many those are. What was swept meanwhile stays out."""
    offsets = {entry.digest: entry.offset for entry in index.entries}
    rows = StoredObject.objects.filter(pack__in=old, digest__in=offsets, broken_at__isnull=True).order_by("pk")
    locked = list(rows.select_for_update(no_key=True, of=("self",)))
    if not locked:
        return 0
    new.save(force_insert=True)
    for row in locked:
        row.pack, row.offset = new, offsets[row.digest]
    StoredObject.objects.bulk_update(locked, ["pack", "offset"], batch_size=BATCH)
    emptied = Pack.objects.filter(pk__in=[pack.pk for pack in old], contents__isnull=True)
    emptied.update(emptied_at=timezone.now())
    return len(locked)
