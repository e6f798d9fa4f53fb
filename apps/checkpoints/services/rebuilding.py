"""Making the rows anew from the files: what the folder and the archive hold is all that is needed.

Only what is missing is added; a row that is there stays as it is. A checkpoint that is told to be stored nowhere else
than in a manifest has been complete: its pack and its manifest were durable before anybody was told.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import partial
from itertools import count
from typing import Any
from uuid import UUID

import structlog
from django.core.files.storage import Storage
from django.db import transaction
from django.utils import timezone

from apps.accounts.models import Workspace
from apps.audit import services as audit
from apps.audit.transitions import move
from apps.audit.watched import image
from apps.checkpoints import places
from apps.checkpoints.lifecycle import CHECKPOINT_LIFECYCLE, CheckpointState
from apps.checkpoints.models import Checkpoint, Location, Pack, SaveReason
from apps.checkpoints.services.rows import add_objects, add_references, row_of
from apps.checkpoints.store.errors import CorruptCheckpoint
from apps.checkpoints.store.manifests import Manifest, parse
from apps.checkpoints.store.packs import PackIndex, read_index
from apps.core.actors import Actor
from apps.core.errors import Unavailable
from apps.core.ids import parse_id
from apps.core.locks import alone
from apps.core.objects import STORAGE_FAULTS, get, listed, read_range, size

log = structlog.get_logger(__name__)


@dataclass(kw_only=True)
class Rebuilt:
    """What was found in the files, and what of it was missing in the database."""

    checkpoints: int = 0
    packs: int = 0
    objects: int = 0
    known: int = 0
    """Checkpoints that have their row already."""
    broken: list[dict[str, str]] = field(default_factory=list)
    """[{"file", "problem"}]: files that cannot be used."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class _Place(StrEnum):
    FOLDER = "in_folder"
    ARCHIVE = "in_archive"


@dataclass(frozen=True, slots=True)
class _File:
    """``read`` raises CorruptCheckpoint and STORAGE_FAULTS."""

    name: str
    key: UUID
    place: _Place
    read: Callable[[], Any]


@dataclass(slots=True)
class _Found:
    """A file that is whole, and in which of the two places it lies."""

    content: Any
    in_folder: bool = False
    in_archive: bool = False


def rebuild(
    *, actor: Actor, dry_run: bool = False, progress: Callable[[int, int], None] = lambda done, total: None
) -> Rebuilt:
    """Add the rows of every whole checkpoint that the folder or the archive has and the database has not.

    Raises:
        Unavailable: one of the places does not answer; what was added until then stays. Conflict: garbage is being
        collected, which would delete files while they are counted on.
    """
    with alone("checkpoint garbage", busy="garbage is being collected: wait until that is done"):
        return _rebuild(actor, dry_run, progress)


def _rebuild(actor: Actor, dry_run: bool, progress: Callable[[int, int], None]) -> Rebuilt:
    rebuilt = Rebuilt()
    try:
        store_id = places.folder().identity
        pack_files, manifest_files = list(_packs()), list(_manifests())
        ticks = count(1)

        def tick() -> None:
            progress(next(ticks), len(pack_files) + len(manifest_files))

        packs, manifests = _survey(pack_files, rebuilt, tick), _survey(manifest_files, rebuilt, tick)
    except CorruptCheckpoint as error:
        raise Unavailable(str(error), code="storage") from error
    except STORAGE_FAULTS as error:
        raise Unavailable(f"the checkpoints cannot be read now: {error}", code="storage") from error
    known = set(Checkpoint.objects.filter(pk__in=manifests).values_list("pk", flat=True))
    rebuilt.known = len(known)
    where = _digests(packs)
    for found in sorted(manifests.values(), key=lambda found: (found.content.created_at, str(found.content.id))):
        if found.content.id in known:
            continue
        problem = _problem(found.content, where)
        if problem:
            rebuilt.broken.append({"file": f"manifests/{found.content.id}.json", "problem": problem})
        elif dry_run:
            rebuilt.checkpoints += 1
        else:
            _add(found, packs, where, store_id, actor, rebuilt)
    return rebuilt


def _survey(files: Iterable[_File], rebuilt: Rebuilt, tick: Callable[[], None]) -> dict[UUID, _Found]:
    """Read every file once. Raises STORAGE_FAULTS."""
    found: dict[UUID, _Found] = {}
    for file in files:
        tick()
        try:
            content = file.read()
        except CorruptCheckpoint as error:
            rebuilt.broken.append({"file": file.name, "problem": str(error)})
        else:
            setattr(found.setdefault(file.key, _Found(content)), file.place, True)
    return found


def _packs() -> Iterator[_File]:
    folder, storage = places.folder(), places.archive()

    def read(pack_id: UUID) -> PackIndex:
        with folder.open_pack(pack_id) as file:
            return read_index(file.read, file.size, pack_id)

    def read_archived(name: str, pack_id: UUID) -> PackIndex:
        return read_index(partial(read_range, storage, name), size(storage, name), pack_id)

    for pack_id in folder.packs():
        yield _File(f"packs/{pack_id}.pack", pack_id, _Place.FOLDER, partial(read, pack_id))
    for name, pack_id in _archived(storage, "packs", ".pack"):
        yield _File(name, pack_id, _Place.ARCHIVE, partial(read_archived, name, pack_id))


def _manifests() -> Iterator[_File]:
    folder, storage = places.folder(), places.archive()

    def read(key: UUID) -> Manifest:
        return parse(folder.read_manifest(key), key)

    def read_archived(name: str, key: UUID) -> Manifest:
        return parse(get(storage, name), key)

    for key in folder.manifests():
        yield _File(f"manifests/{key}.json", key, _Place.FOLDER, partial(read, key))
    for name, key in _archived(storage, "manifests", ".json"):
        yield _File(name, key, _Place.ARCHIVE, partial(read_archived, name, key))


def _archived(storage: Storage, kind: str, suffix: str) -> Iterator[tuple[str, UUID]]:
    """Objects of ours; others have no business there, and are passed over."""
    folder = f"{places.ARCHIVE}/{kind}"
    _, files = listed(storage, folder)
    for file in files:
        key = parse_id(file.removesuffix(suffix))
        if file.endswith(suffix) and isinstance(key, UUID):
            yield f"{folder}/{file}", key


def _digests(packs: Mapping[UUID, _Found]) -> dict[str, list[UUID]]:
    where: dict[str, list[UUID]] = defaultdict(list)
    for pack_id, found in packs.items():
        for entry in found.content.entries:
            where[entry.digest].append(pack_id)
    return where


def _problem(manifest: Manifest, where: Mapping[str, list[UUID]]) -> str:
    missing = [digest for digest in manifest.objects() if digest not in where]
    if missing:
        return f"{len(missing)} of its objects are in no whole pack, e.g. {missing[0][:12]}"
    if not Workspace.objects.filter(pk=manifest.workspace_id).exists():
        return f"its workspace {manifest.workspace_id} is not in the database"
    if manifest.reason not in SaveReason.values:
        return f"it was saved for a reason that is not known: {manifest.reason:.40}"
    return ""


@transaction.atomic
def _add(
    found: _Found,
    packs: Mapping[UUID, _Found],
    where: Mapping[str, list[UUID]],
    store_id: UUID,
    actor: Actor,
    rebuilt: Rebuilt,
) -> None:
    manifest: Manifest = found.content
    for pack_id in sorted({where[digest][0] for digest in manifest.objects()}, key=str):
        _add_pack(packs[pack_id], manifest.workspace_id, store_id, rebuilt)
    checkpoint = row_of(manifest)
    checkpoint.store_id = store_id
    checkpoint.full_clean()
    checkpoint.save(force_insert=True)
    Checkpoint.objects.filter(pk=checkpoint.pk).update(created_at=datetime.fromisoformat(manifest.created_at))
    audit.record(
        type="checkpoint.rebuilt",
        subject=checkpoint,
        actor=actor,
        reason="found in the storage without a row",
        after=image(checkpoint),
    )
    add_references(checkpoint, manifest)
    move(
        checkpoint,
        lifecycle=CHECKPOINT_LIFECYCLE,
        to=CheckpointState.COMMITTED,
        event="checkpoint.transition",
        actor=actor,
        reason="found in the storage, whole",
        changes={
            "location": Location.LOCAL if found.in_folder else Location.ARCHIVED,
            "copied_at": timezone.now() if found.in_archive else None,
        },
        payload={"run": checkpoint.run_id, "epoch": checkpoint.epoch, "step": checkpoint.step},
    )
    rebuilt.checkpoints += 1


def _add_pack(found: _Found, workspace_id: UUID, store_id: UUID, rebuilt: Rebuilt) -> None:
    index: PackIndex = found.content
    pack, is_new = Pack.objects.get_or_create(
        pk=index.pack_id,
        defaults={
            "workspace_id": workspace_id,
            "store_id": store_id,
            "digest": index.digest,
            "size": index.size,
            "in_folder": found.in_folder,
            "copied_at": timezone.now() if found.in_archive else None,
        },
    )
    rebuilt.packs += is_new
    rebuilt.objects += add_objects(pack, index.entries, workspace_id)
