"""Pins: a checkpoint that somebody wants to keep stays, whatever the policy says."""

from django.db import transaction

from apps.audit import services as audit
from apps.audit.watched import image
from apps.checkpoints.lifecycle import CheckpointState
from apps.checkpoints.models import Checkpoint
from apps.core.actors import Actor
from apps.core.errors import Conflict

PINNABLE = frozenset({CheckpointState.STAGING, CheckpointState.COMMITTED, CheckpointState.QUARANTINED})


def pin(*, checkpoint: Checkpoint, actor: Actor, reason: str = "") -> Checkpoint:
    """Keep the checkpoint until somebody unpins it. Pinned already: it is answered again.

    Raises:
        Conflict: its bytes are gone already.
    """
    return _set(checkpoint, True, "checkpoint.pinned", actor, reason)


def unpin(*, checkpoint: Checkpoint, actor: Actor, reason: str = "") -> Checkpoint:
    """Leave the checkpoint to the policy of its run again. Not pinned: it is answered again."""
    return _set(checkpoint, False, "checkpoint.unpinned", actor, reason)


@transaction.atomic
def _set(checkpoint: Checkpoint, pinned: bool, event: str, actor: Actor, reason: str) -> Checkpoint:
    fresh = Checkpoint.objects.select_for_update(of=("self",)).get(pk=checkpoint.pk)
    if fresh.pinned == pinned:
        return fresh
    if pinned and fresh.state not in PINNABLE:
        raise Conflict(f"the checkpoint is {fresh.state}: there is nothing left to keep", code="no_bytes")
    before = image(fresh)
    fresh.pinned = pinned
    fresh.full_clean()
    fresh.save()
    audit.record(type=event, subject=fresh, actor=actor, reason=reason, before=before, after=image(fresh))
    return fresh
