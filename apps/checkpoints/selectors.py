"""Reading checkpoints."""

from uuid import UUID

from django.db.models import QuerySet

from apps.checkpoints.lifecycle import CheckpointState
from apps.checkpoints.models import Checkpoint


def checkpoints_of(run_id: UUID) -> QuerySet[Checkpoint]:
    """Newest first."""
    return Checkpoint.objects.filter(run_id=run_id).order_by("-id")


def latest_epoch(run_id: UUID) -> int:
    """The epoch of the run's newest committed checkpoint; 0 if it has none."""
    committed = Checkpoint.objects.filter(run_id=run_id, state=CheckpointState.COMMITTED).order_by("-step", "-id")
    return committed.values_list("epoch", flat=True).first() or 0
