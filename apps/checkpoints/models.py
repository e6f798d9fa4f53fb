"""Checkpoints of runs: one row each; the bytes are files named by it."""

from typing import ClassVar

from django.db import models

from apps.accounts.models import WorkspaceOwned
from apps.audit.watched import Watched
from apps.checkpoints.lifecycle import CHECKPOINT_LIFECYCLE, CheckpointState
from apps.core.lifecycle import choices, state_check


class Location(models.TextChoices):
    LOCAL = "LOCAL"
    UPLOADING = "UPLOADING"
    ARCHIVED = "ARCHIVED"


class Checkpoint(WorkspaceOwned):
    """A run's complete state after ``step`` steps, from which it goes on bit-exactly.

    ``name`` is never used twice. ``digest`` is the sha256 of the manifest, which holds that of the tensors.
    """

    audit: ClassVar[Watched] = Watched(subject="checkpoint", outside={"verified_at"})

    run_id = models.UUIDField(editable=False)
    epoch = models.PositiveIntegerField(editable=False)
    step = models.PositiveBigIntegerField(editable=False)
    fencing_token = models.PositiveBigIntegerField(editable=False)
    state = models.CharField(
        max_length=16, choices=choices(CheckpointState), default=CheckpointState.STAGING, editable=False
    )
    name = models.CharField(max_length=200, unique=True, editable=False)
    format = models.CharField(max_length=32, editable=False)
    digest = models.CharField(max_length=64, blank=True, editable=False)
    size = models.BigIntegerField(default=0, editable=False)
    location = models.CharField(max_length=16, choices=Location, default=Location.LOCAL, editable=False)
    verified_at = models.DateTimeField(null=True, editable=False)
    pinned = models.BooleanField(default=False)

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.CheckConstraint(condition=state_check("state", CheckpointState), name="checkpoint_state_is_known"),
        ]
        indexes = [
            models.Index(
                fields=["run_id", "-step", "-id"],
                name="checkpoint_latest",
                condition=models.Q(state=CheckpointState.COMMITTED),
            ),
            models.Index(fields=["run_id", "-id"], name="checkpoint_run"),
        ]
        triggers = CHECKPOINT_LIFECYCLE.triggers()

    def __str__(self) -> str:
        return self.name
