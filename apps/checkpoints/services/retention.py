"""Letting go of the checkpoints that no rule of their policy keeps (``apps.checkpoints.retention`` says which).

The row goes first, in one transaction with its references, and the file of its manifest after the commit: a crash in
between leaves a file that nobody needs, which ``garbage`` collects. What the checkpoint alone needed is swept later.
"""

from dataclasses import dataclass
from uuid import UUID

from django.db import transaction
from django.db.models import Count, Q
from django.utils import timezone

from apps.audit.transitions import move
from apps.checkpoints.lifecycle import CHECKPOINT_LIFECYCLE, CheckpointState
from apps.checkpoints.models import Checkpoint
from apps.checkpoints.needs import needed
from apps.checkpoints.retention import JUDGED, verdicts
from apps.checkpoints.selectors import policy_of
from apps.checkpoints.services.garbage import release_objects, remove_manifests
from apps.checkpoints.store import crashpoints
from apps.core.actors import Actor
from apps.core.errors import Conflict
from apps.core.locks import alone

BATCH = 20
"""Checkpoints of one transaction: for how long the rows of a run are locked."""


@dataclass(slots=True)
class Expired:
    """How many checkpoints of how many runs were let go."""

    checkpoints: int = 0
    runs: int = 0


def expire_due(*, run_id: UUID | None = None, actor: Actor) -> Expired:
    """Let go of every checkpoint that its policy keeps no longer, of one run or of all.

    A run that another worker is at is passed over: it is looked after already.
    """
    expired = Expired()
    for key in [run_id] if run_id else _runs():
        try:
            with alone(f"checkpoint retention of {key}", busy="another worker is at it"):
                number = _expire_run(key, actor)
        except Conflict:
            continue
        expired.checkpoints += number
        expired.runs += number > 0
    return expired


def _runs() -> list[UUID]:
    """Runs of which something could go: the only good one never does."""
    rows = Checkpoint.objects.filter(state__in=JUDGED).order_by("run_id").values_list("run_id")
    broken = Count("pk", filter=Q(state=CheckpointState.QUARANTINED))
    counted = rows.annotate(number=Count("pk"), broken=broken).filter(Q(number__gt=1) | Q(broken__gt=0))
    return [row[0] for row in counted]


def _expire_run(run_id: UUID, actor: Actor) -> int:
    number = 0
    while batch := _expire_batch(run_id, actor):
        crashpoints.reached("expire.recorded")
        remove_manifests(batch)
        crashpoints.reached("expire.deleted")
        number += len(batch)
    return number


@transaction.atomic
def _expire_batch(run_id: UUID, actor: Actor) -> list[Checkpoint]:
    """All rows of the run are locked and judged here: none of them becomes broken, pinned or verified meanwhile."""
    rows = Checkpoint.objects.filter(run_id=run_id, state__in=JUDGED).order_by("pk")
    locked = {row.pk: row for row in rows.select_for_update(of=("self",), no_key=True)}
    if not locked:
        return []
    workspace_id = next(iter(locked.values())).workspace_id
    policy = policy_of(run_id=run_id, workspace_id=workspace_id)
    found = verdicts(locked.values(), policy, timezone.now(), needed(run_id))
    going = [(locked[key], verdict) for key, verdict in reversed(found.items()) if not verdict.keep][:BATCH]
    return [_expire(row, ", ".join(verdict.reasons), actor) for row, verdict in going]


def _expire(checkpoint: Checkpoint, reason: str, actor: Actor) -> Checkpoint:
    """The row stays and says why the checkpoint went; its references go."""
    expired = move(
        checkpoint,
        lifecycle=CHECKPOINT_LIFECYCLE,
        to=CheckpointState.EXPIRED,
        event="checkpoint.transition",
        actor=actor,
        reason=reason,
        payload={"run": checkpoint.run_id, "epoch": checkpoint.epoch, "step": checkpoint.step},
    )
    release_objects(expired)
    return expired
