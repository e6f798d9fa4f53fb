"""Reading checkpoints."""

from uuid import UUID

from django.db.models import QuerySet

from apps.checkpoints.models import Checkpoint


def checkpoints_of(run_id: UUID) -> QuerySet[Checkpoint]:
    """Newest first."""
    return Checkpoint.objects.filter(run_id=run_id).order_by("-id")
