"""Reading checkpoints."""

from uuid import UUID

from django.db.models import F, Q, QuerySet

from apps.checkpoints.lifecycle import CheckpointState
from apps.checkpoints.models import Checkpoint, CheckpointPolicy


def checkpoints_of(run_id: UUID) -> QuerySet[Checkpoint]:
    """Newest first."""
    return Checkpoint.objects.filter(run_id=run_id).order_by("-id")


def latest_epoch(run_id: UUID) -> int:
    """The epoch of the run's newest committed checkpoint; 0 if it has none."""
    committed = Checkpoint.objects.filter(run_id=run_id, state=CheckpointState.COMMITTED).order_by("-step", "-id")
    return committed.values_list("epoch", flat=True).first() or 0


def policy_of(*, run_id: UUID, workspace_id: UUID) -> CheckpointPolicy:
    """The run's own policy, else that of all runs of its workspace, else an unsaved one with the defaults."""
    policies = CheckpointPolicy.objects.filter(Q(run_id=run_id) | Q(run_id=None), workspace_id=workspace_id)
    found = policies.order_by(F("run_id").asc(nulls_last=True)).first()
    return found or CheckpointPolicy(workspace_id=workspace_id)
