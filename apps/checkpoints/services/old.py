"""Storing run snapshots: one safetensors file and one JSON file, found again only through a COMMITTED row.

Order of a save: row STAGING -> files, made durable -> row COMMITTED in one transaction with its guard. A crash anywhere
leaves the previous checkpoint the latest and at most an orphan, which ``expire_abandoned`` collects.
"""

import contextlib
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import structlog
from django.core.files.storage import Storage, storages
from django.db import transaction
from django.utils import timezone

from apps.audit import services as audit
from apps.audit.transitions import move
from apps.audit.watched import image
from apps.checkpoints.lifecycle import CHECKPOINT_LIFECYCLE, CheckpointState
from apps.checkpoints.models import Checkpoint
from apps.core.actors import SYSTEM, Actor
from apps.core.errors import Unavailable
from apps.core.ids import new_id
from apps.core.objects import STORAGE_FAULTS, delete, get, put

log = structlog.get_logger(__name__)

FORMAT = "safetensors+json/1"
KEEP = 3
ABANDONED_AFTER = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class StoredSnapshot:
    """What ``load_latest`` gives back: the safetensors bytes and the JSON state, both verified."""

    checkpoint: Checkpoint
    tensors: bytes
    state: dict[str, Any]


def _storage() -> Storage:
    return storages["checkpoints"]


def save_snapshot(
    *,
    run_id: UUID,
    workspace_id: UUID,
    fencing_token: int,
    epoch: int,
    step: int,
    tensors: bytes,
    state: Mapping[str, Any],
    actor: Actor,
    guard: Callable[[], None],
) -> Checkpoint:
    """Store a snapshot durably and make it the run's latest.

    ``guard`` runs inside the committing transaction and raises when the caller has lost the run.

    Raises:
        Unavailable: the storage did not take the files; the previous checkpoint stays the latest.
    """
    checkpoint = _stage(run_id, workspace_id, fencing_token, epoch, step, actor)
    manifest = json.dumps(
        {
            "format": FORMAT,
            "run": str(run_id),
            "epoch": epoch,
            "step": step,
            "tensors": {"sha256": hashlib.sha256(tensors).hexdigest(), "bytes": len(tensors)},
            "state": state,
        },
        sort_keys=True,
        separators=(",", ":"),
    ).encode()
    try:
        put(_storage(), f"{checkpoint.name}.safetensors", tensors)
        put(_storage(), f"{checkpoint.name}.json", manifest)
    except STORAGE_FAULTS as error:
        with contextlib.suppress(*STORAGE_FAULTS):  # half a file would fill a full disk further
            _delete_files(checkpoint)
        _move(checkpoint=checkpoint, to=CheckpointState.ABANDONED, actor=actor, reason=f"storage: {error}")
        raise Unavailable(f"the checkpoint could not be stored: {error}", code="storage") from error
    with transaction.atomic():
        guard()
        committed = _move(
            checkpoint=checkpoint,
            to=CheckpointState.COMMITTED,
            actor=actor,
            reason=f"after step {step}",
            event="checkpoint.committed",
            digest=hashlib.sha256(manifest).hexdigest(),
            size=len(tensors) + len(manifest),
        )
    try:
        expire_old(run_id=run_id, actor=actor)
    except STORAGE_FAULTS as error:  # the new checkpoint is safe; the old ones are tried again with the next
        log.warning("expire_failed", run=str(run_id), error=str(error))
    return committed


@transaction.atomic
def _stage(run_id: UUID, workspace_id: UUID, fencing_token: int, epoch: int, step: int, actor: Actor) -> Checkpoint:
    key = new_id()
    checkpoint = Checkpoint(
        id=key,
        workspace_id=workspace_id,
        run_id=run_id,
        epoch=epoch,
        step=step,
        fencing_token=fencing_token,
        name=f"checkpoints/{run_id}/{step:012d}-{key}",
        format=FORMAT,
    )
    checkpoint.full_clean()
    checkpoint.save(force_insert=True)
    audit.record(type="checkpoint.staged", subject=checkpoint, actor=actor, after=image(checkpoint))
    return checkpoint


def load_latest(*, run_id: UUID, actor: Actor) -> StoredSnapshot | None:
    """The newest COMMITTED snapshot whose files have their digests. Broken ones are quarantined and passed over.

    Raises:
        Unavailable: the storage does not answer; nothing is known about the checkpoints in it.
    """
    committed = Checkpoint.objects.filter(run_id=run_id, state=CheckpointState.COMMITTED).order_by("-step", "-id")
    for checkpoint in committed:
        try:
            return _read(checkpoint)
        except (FileNotFoundError, ValueError, KeyError) as error:
            log.warning("checkpoint_broken", checkpoint=checkpoint.name, error=str(error))
            _move(checkpoint=checkpoint, to=CheckpointState.QUARANTINED, actor=actor, reason=f"unreadable: {error}")
        except STORAGE_FAULTS as error:  # the store is at fault, not the checkpoint: it may be read later
            raise Unavailable(f"the checkpoint cannot be read now: {error}", code="storage") from error
    return None


def _read(checkpoint: Checkpoint) -> StoredSnapshot:
    manifest = get(_storage(), f"{checkpoint.name}.json")
    if hashlib.sha256(manifest).hexdigest() != checkpoint.digest:
        raise ValueError("the manifest does not have its digest")
    content = json.loads(manifest)
    tensors = get(_storage(), f"{checkpoint.name}.safetensors")
    if hashlib.sha256(tensors).hexdigest() != content["tensors"]["sha256"]:
        raise ValueError("the tensors do not have their digest")
    return StoredSnapshot(checkpoint=checkpoint, tensors=tensors, state=content["state"])


def expire_old(*, run_id: UUID, actor: Actor, keep: int = KEEP) -> int:
    """Expire all but the newest ``keep`` committed, unpinned checkpoints of a run; returns how many."""
    committed = Checkpoint.objects.filter(run_id=run_id, state=CheckpointState.COMMITTED).order_by("-step", "-id")
    expired = [checkpoint for checkpoint in committed[keep:] if not checkpoint.pinned]
    for checkpoint in expired:
        _move(checkpoint=checkpoint, to=CheckpointState.EXPIRED, actor=actor, reason=f"older than the newest {keep}")
        _delete_files(checkpoint)
    return len(expired)


def expire_abandoned(*, actor: Actor = SYSTEM) -> int:
    """Collect saves that never committed (a crash in the middle); returns how many."""
    stale = Checkpoint.objects.filter(state=CheckpointState.STAGING, created_at__lt=timezone.now() - ABANDONED_AFTER)
    for checkpoint in stale:
        _move(checkpoint=checkpoint, to=CheckpointState.ABANDONED, actor=actor, reason="the save never finished")
        _delete_files(checkpoint)
    return len(stale)


def _delete_files(checkpoint: Checkpoint) -> None:
    for suffix in (".safetensors", ".json"):
        delete(_storage(), f"{checkpoint.name}{suffix}")


def _move(
    *,
    checkpoint: Checkpoint,
    to: CheckpointState,
    actor: Actor,
    reason: str,
    event: str = "checkpoint.transition",
    **changes: Any,
) -> Checkpoint:
    return move(
        checkpoint,
        lifecycle=CHECKPOINT_LIFECYCLE,
        to=to,
        event=event,
        actor=actor,
        reason=reason,
        changes=changes,
        payload={"run": checkpoint.run_id, "epoch": checkpoint.epoch, "step": checkpoint.step},
    )
