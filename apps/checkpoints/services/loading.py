"""Reading checkpoints: each byte is checked before it is used; what is broken is set aside, the one before is taken.

A storage that does not answer is another matter: nothing is known about what lies in it, and nothing is set aside.
"""

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from errno import EIO
from typing import Any
from uuid import UUID

import structlog
from django.db import transaction
from django.utils import timezone

from apps.audit.transitions import move
from apps.checkpoints.lifecycle import CHECKPOINT_LIFECYCLE, CheckpointState
from apps.checkpoints.models import Checkpoint, Location, Pack, StoredObject
from apps.checkpoints.places import Places, archive, folder, read_manifest
from apps.checkpoints.store import restoring
from apps.checkpoints.store.errors import CorruptCheckpoint, TooLarge
from apps.checkpoints.store.manifests import FORMAT, Manifest, parse
from apps.core.actors import Actor
from apps.core.errors import Conflict, Unavailable
from apps.core.objects import STORAGE_FAULTS, delete

log = structlog.get_logger(__name__)

LOOKS = 3
"""How often a checkpoint is read while its files are moved."""
BAD_SECTOR = "bad_sector"
"""The code of a storage that answers, but whose disk cannot read this file."""
READABLE = frozenset({CheckpointState.COMMITTED, CheckpointState.QUARANTINED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A checkpoint in memory. ``skipped``: newer ones that were found broken, [{"checkpoint", "step", "problem"}]."""

    checkpoint: Checkpoint
    manifest: Manifest
    components: Mapping[str, Any]
    load_seconds: float
    skipped: list[dict[str, Any]] = field(default_factory=list)


def load_latest(*, run_id: UUID, actor: Actor, preferred: UUID | None = None) -> Loaded | None:
    """The newest good checkpoint of a run; None: there is none, and the run begins anew. With ``preferred`` that one,
    if it is broken or gone the newest before it, and only then those after it.

    One whose sectors the disk cannot read now is passed over, and not set aside: the disk may be mended.

    Raises:
        Unavailable: the storage does not answer, or its disk can read none of them.
    """
    expire_first_format(run_id=run_id, actor=actor)
    skipped: list[dict[str, Any]] = []
    unread: Unavailable | None = None
    for checkpoint in _candidates(run_id, preferred):
        try:
            return load(checkpoint=checkpoint, skipped=skipped)
        except CorruptCheckpoint as error:
            quarantine(checkpoint=checkpoint, problem=str(error), actor=actor)
            skipped.append({"checkpoint": str(checkpoint.pk), "step": checkpoint.step, "problem": str(error)})
        except Unavailable as error:
            if error.code != BAD_SECTOR:
                raise
            unread = error
            skipped.append({"checkpoint": str(checkpoint.pk), "step": checkpoint.step, "problem": error.detail})
    if unread is not None:  # to begin anew would be worse than to wait
        raise unread
    return None


def _candidates(run_id: UUID, preferred: UUID | None) -> list[Checkpoint]:
    committed = Checkpoint.objects.filter(run_id=run_id, state=CheckpointState.COMMITTED).order_by("-step", "-id")
    wanted = Checkpoint.objects.filter(pk=preferred, run_id=run_id).first() if preferred else None
    if wanted is None:
        return list(committed)
    return sorted(committed, key=lambda checkpoint: (checkpoint.pk != wanted.pk, checkpoint.step > wanted.step))


def load(
    *,
    checkpoint: Checkpoint,
    components: Collection[str] | None = None,
    skipped: list[dict[str, Any]] | None = None,
) -> Loaded:
    """The components of a checkpoint (None: all) as trees of tensors, verified.

    What the folder has spoilt is read from the archive if that has it.

    Raises:
        CorruptCheckpoint: bytes are missing or not those that were stored. Unavailable: the storage does not answer.
        Conflict: a checkpoint in this state has no bytes.
    """
    began = time.perf_counter()
    manifest, trees = from_either_place(
        checkpoint, lambda manifest, places: restoring.load(manifest, places, components, torch=True)
    )
    return Loaded(
        checkpoint=checkpoint,
        manifest=manifest,
        components=trees,
        load_seconds=time.perf_counter() - began,
        skipped=skipped or [],
    )


def verify(
    *, checkpoint: Checkpoint, actor: Actor, progress: Callable[[int, int], None] | None = None
) -> restoring.Report:
    """Read and check every byte. Right: ``verified_at`` is now, and a quarantined one is COMMITTED again.

    ``progress`` is told bytes done and bytes in all.

    Raises:
        CorruptCheckpoint: it is QUARANTINED now. Unavailable: the storage does not answer. Conflict: it has no bytes.
    """

    def check(manifest: Manifest, places: Places) -> restoring.Report:
        places.check_indexes()
        return restoring.verify(manifest, places, progress=progress)

    try:
        _, found = from_either_place(checkpoint, check)
    except CorruptCheckpoint as error:
        _mark_objects_of_broken_pack(error)
        quarantine(checkpoint=checkpoint, problem=str(error), actor=actor)
        raise
    report: restoring.Report = found
    with transaction.atomic():
        Checkpoint.objects.filter(pk=checkpoint.pk).update(verified_at=timezone.now())
        if checkpoint.state == CheckpointState.QUARANTINED:
            _move(checkpoint, CheckpointState.COMMITTED, actor, "every byte is right again", problem="")
    return report


def read(checkpoint: Checkpoint, *, from_archive: bool = False) -> Manifest:
    """The manifest of a checkpoint, from the folder unless only the archive has it.

    Raises:
        CorruptCheckpoint: it is gone, or not the one that was stored. Unavailable: the storage does not answer.
    """
    from_archive = from_archive or checkpoint.location == Location.ARCHIVED
    with _in_its_words(checkpoint):
        manifest = parse(read_manifest(checkpoint.pk, from_archive=from_archive), checkpoint.pk)
    if manifest.digest != checkpoint.digest:
        raise CorruptCheckpoint("It is not the one that was stored.", part="manifest")
    return manifest


def from_either_place(checkpoint: Checkpoint, use: Callable[[Manifest, Places], Any]) -> tuple[Manifest, Any]:
    """The manifest, and what ``use`` makes of it: from the folder, and from the archive what the folder has spoilt.

    What was moved while it was read (to the archive, to another pack) is looked for again: it is elsewhere, not lost.

    Raises:
        CorruptCheckpoint, Unavailable, Conflict: as ``load``.
    """
    for is_last in [*[False] * (LOOKS - 1), True]:
        fresh = Checkpoint.objects.get(pk=checkpoint.pk)
        if fresh.state not in READABLE:
            raise Conflict(f"the checkpoint is {fresh.state}: its bytes are not kept", code="no_bytes")
        where = _where(fresh)
        try:
            return _from_folder_or_archive(fresh, use)
        except CorruptCheckpoint:
            now = Checkpoint.objects.get(pk=checkpoint.pk)
            if is_last or (now.state in READABLE and _where(now) == where):
                raise
    raise AssertionError("the last look answers or raises")


def _where(checkpoint: Checkpoint) -> tuple[Any, ...]:
    """Where its bytes are told to be."""
    packs = StoredObject.objects.filter(references__checkpoint=checkpoint).order_by().distinct()
    lying = packs.values_list("pack_id", "pack__in_folder", "pack__copied_at")
    return checkpoint.location, checkpoint.copied_at, frozenset(lying)


def _from_folder_or_archive(checkpoint: Checkpoint, use: Callable[[Manifest, Places], Any]) -> tuple[Manifest, Any]:
    try:
        return _read_and_use(checkpoint, use, from_archive=False)
    except CorruptCheckpoint as error:
        if not _has_copies(checkpoint):
            raise
        log.warning("checkpoint_read_from_archive", checkpoint=checkpoint.name, error=str(error))
        spoilt = error.pack_id
    found = _read_and_use(checkpoint, use, from_archive=True)
    if spoilt is not None:  # it is brought back from the archive, as what has left the folder
        Pack.objects.filter(pk=spoilt, copied_at__isnull=False).update(in_folder=False)
    return found


def _has_copies(checkpoint: Checkpoint) -> bool:
    """Whether any of its files is in the archive: what it shares with a copied one is."""
    packs = Pack.objects.filter(contents__references__checkpoint=checkpoint, copied_at__isnull=False)
    return checkpoint.copied_at is not None or packs.exists()


def _read_and_use(
    checkpoint: Checkpoint, use: Callable[[Manifest, Places], Any], *, from_archive: bool
) -> tuple[Manifest, Any]:
    manifest = read(checkpoint, from_archive=from_archive and checkpoint.copied_at is not None)
    with _in_its_words(checkpoint):
        return manifest, use(manifest, Places.of(checkpoint.workspace.pk, manifest, from_archive=from_archive))


@contextmanager
def _in_its_words(checkpoint: Checkpoint) -> Iterator[None]:
    """Tell a storage that does not answer from bytes that are lost.

    Raises:
        Unavailable: the storage is away, or it is another machine's. CorruptCheckpoint: the bytes are lost.
    """
    try:
        yield
    except CorruptCheckpoint as error:
        if checkpoint.copied_at is None and _is_elsewhere(checkpoint):
            raise Unavailable(
                f"the checkpoint lies in the folder {checkpoint.store_id} of another machine: mount one folder on all "
                "of them (ESPER_CHECKPOINTS), or keep copies (ESPER_CHECKPOINT_COPIES)",
                code="elsewhere",
            ) from error
        raise
    except STORAGE_FAULTS as error:
        code = BAD_SECTOR if isinstance(error, OSError) and error.errno == EIO else "storage"
        raise Unavailable(f"the checkpoint cannot be read now: {error}", code=code) from error
    except TooLarge as error:
        raise Unavailable(str(error), code="memory") from error


def _is_elsewhere(checkpoint: Checkpoint) -> bool:
    """Was it written to another folder than the one that is here?"""
    return checkpoint.store_id is not None and folder().read_identity() != checkpoint.store_id


def quarantine(*, checkpoint: Checkpoint, problem: str, actor: Actor) -> None:
    """Set a checkpoint aside: no run goes on from it. Objects that no longer have their digest are written anew by the
    next save that needs them, which heals every checkpoint that shares them.

    Done already: nothing happens.
    """
    log.warning("checkpoint_broken", checkpoint=checkpoint.name, problem=problem)
    _mark_broken_objects(checkpoint)
    with transaction.atomic():
        fresh = Checkpoint.objects.select_for_update(of=("self",)).get(pk=checkpoint.pk)
        if fresh.state == CheckpointState.COMMITTED:
            _move(fresh, CheckpointState.QUARANTINED, actor, problem, problem=problem)


def _mark_objects_of_broken_pack(error: CorruptCheckpoint) -> None:
    """A pack whose index is broken gives its objects as long as the rows are there, and not a day longer."""
    if error.pack_id is not None and error.digest is None:
        StoredObject.objects.filter(pack_id=error.pack_id, broken_at=None).update(broken_at=timezone.now())


def _mark_broken_objects(checkpoint: Checkpoint) -> None:
    """Every object of it that does not have its digest: the one that was found is seldom the only one."""
    try:
        manifest = read(checkpoint)
        broken = restoring.broken(manifest, Places.of(checkpoint.workspace.pk, manifest))
    except (CorruptCheckpoint, Unavailable, *STORAGE_FAULTS):  # without its manifest there is no telling
        return
    StoredObject.objects.filter(workspace_id=checkpoint.workspace.pk, digest__in=broken, broken_at=None).update(
        broken_at=timezone.now()
    )


def expire_first_format(*, run_id: UUID, actor: Actor) -> int:
    """Expire what the first snapshot writer left: this version does not read it, and the run begins anew."""
    old = Checkpoint.objects.filter(run_id=run_id, state=CheckpointState.COMMITTED).exclude(format=FORMAT)
    for checkpoint in old:
        reason = (
            f"written by an earlier version ({checkpoint.format}), which this one does not read: the run begins anew"
        )
        _move(checkpoint, CheckpointState.EXPIRED, actor, reason)
        log.warning("checkpoint_of_earlier_version", run=str(run_id), checkpoint=checkpoint.name)
        with suppress(*STORAGE_FAULTS):  # files that nobody reads any more
            for suffix in (".safetensors", ".json"):
                delete(archive(), f"{checkpoint.name}{suffix}")
    return len(old)


def _move(checkpoint: Checkpoint, to: CheckpointState, actor: Actor, reason: str, **changes: Any) -> Checkpoint:
    return move(
        checkpoint,
        lifecycle=CHECKPOINT_LIFECYCLE,
        to=to,
        event="checkpoint.transition",
        actor=actor,
        reason=reason,
        changes=changes,
        payload={"run": checkpoint.run_id, "epoch": checkpoint.epoch, "step": checkpoint.step},
    )
