"""Checkpoints of runs: rows here, bytes in packs and manifests (``apps.checkpoints.store``).

What is needed to read a checkpoint stands in its files as well: ``manage.py rebuild_checkpoints`` makes the rows anew.
"""

from typing import ClassVar

from django.db import models
from django.db.models import Q

from apps.accounts.models import WorkspaceOwned
from apps.audit.watched import Watched
from apps.checkpoints.lifecycle import CHECKPOINT_LIFECYCLE, JOB_LIFECYCLE, CheckpointState, JobState
from apps.core.lifecycle import choices, state_check


class Location(models.TextChoices):
    LOCAL = "LOCAL", "in the checkpoint folder"
    UPLOADING = "UPLOADING", "on its way to the object storage"
    ARCHIVED = "ARCHIVED", "in the object storage only"


class SaveReason(models.TextChoices):
    EPOCH = "epoch", "so many epochs were trained"
    INTERVAL = "interval", "so much time had passed"
    DEMAND = "demand", "somebody asked for it"
    END = "end", "the run, or its segment, ended"
    REPLAY = "replay", "a step was trained again"
    UPLOAD = "upload", "a client sent it"


class Checkpoint(WorkspaceOwned):
    """A run's complete state after ``step`` steps, from which it goes on bit-exactly.

    ``name`` is never used twice. ``digest`` is the blake3 of the manifest, which names every object by its own.
    ``size`` is what the state measures in memory; ``stored_bytes`` what this checkpoint added to the storage, and
    ``shared_bytes`` what it has in common with others (raw bytes).
    """

    audit: ClassVar[Watched] = Watched(
        subject="checkpoint", outside={"verified_at", "copied_at", "stall_seconds", "save_seconds", "components"}
    )

    run_id = models.UUIDField(editable=False)
    epoch = models.PositiveIntegerField(editable=False)
    step = models.PositiveBigIntegerField(editable=False)
    fencing_token = models.PositiveBigIntegerField(editable=False)
    state = models.CharField(
        max_length=16, choices=choices(CheckpointState), default=CheckpointState.STAGING, editable=False
    )
    name = models.CharField(max_length=200, unique=True, editable=False)
    format = models.CharField(max_length=32, editable=False)
    reason = models.CharField(max_length=16, choices=SaveReason, default=SaveReason.EPOCH, editable=False)
    parent_id = models.UUIDField(null=True, editable=False)
    """The checkpoint that was the run's latest when this one was made."""
    digest = models.CharField(max_length=64, blank=True, editable=False)
    size = models.BigIntegerField(default=0, editable=False)
    stored_bytes = models.BigIntegerField(default=0, editable=False)
    shared_bytes = models.BigIntegerField(default=0, editable=False)
    components = models.JSONField(default=dict, editable=False)
    """{name: {"tensors", "bytes", "stored"}}: raw bytes, and those of them that were new."""
    metrics = models.JSONField(default=dict, editable=False)
    """What the run measured last, e.g. {"validation_loss": 0.31}: what "the best" is chosen by."""
    fingerprint = models.CharField(max_length=64, blank=True, editable=False)
    """blake3 of the logits of one forward pass at the save: a restored network must give the same."""
    environment = models.JSONField(default=dict, editable=False)
    """What bits depend on besides the state (torch, threads, machine)."""
    location = models.CharField(max_length=16, choices=Location, default=Location.LOCAL, editable=False)
    store_id = models.UUIDField(null=True, editable=False)
    """The checkpoint folder that it was written to (``store.folder.Folder.identity``)."""
    copied_at = models.DateTimeField(null=True, editable=False)
    """Since then all of it is in the object storage as well."""
    verified_at = models.DateTimeField(null=True, editable=False)
    stall_seconds = models.FloatField(null=True, editable=False)
    """For how long training stood still."""
    save_seconds = models.FloatField(null=True, editable=False)
    """From the barrier until it was durable."""
    pinned = models.BooleanField(default=False)
    problem = models.TextField(blank=True, editable=False)
    """What is wrong with it, while it is QUARANTINED."""

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.CheckConstraint(condition=state_check("state", CheckpointState), name="checkpoint_state_is_known"),
        ]
        indexes = [
            models.Index(
                fields=["run_id", "-step", "-id"],
                name="checkpoint_latest",
                condition=Q(state=CheckpointState.COMMITTED),
            ),
            models.Index(fields=["run_id", "-id"], name="checkpoint_run"),
            models.Index(
                fields=["verified_at"], name="checkpoint_to_scrub", condition=Q(state=CheckpointState.COMMITTED)
            ),
        ]
        triggers = CHECKPOINT_LIFECYCLE.triggers()

    def __str__(self) -> str:
        return self.name


class Pack(WorkspaceOwned):
    """One file of objects, written once; its own index repeats the rows of its objects."""

    store_id = models.UUIDField(editable=False)
    digest = models.CharField(max_length=64, editable=False)
    """blake3 of its header and index."""
    size = models.BigIntegerField(editable=False)
    in_folder = models.BooleanField(default=True, editable=False)
    copied_at = models.DateTimeField(null=True, editable=False)
    """Since then it is in the object storage."""
    emptied_at = models.DateTimeField(null=True, editable=False)
    """Since then no object of it is needed: its files go after a grace."""

    class Meta:
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return f"pack …{str(self.pk)[-6:]}"


class StoredObject(models.Model):
    """Bytes that checkpoints of one workspace share: where they lie, and how they are encoded there."""

    id = models.BigAutoField(primary_key=True)
    workspace = models.ForeignKey("accounts.Workspace", on_delete=models.PROTECT, related_name="+")
    digest = models.CharField(max_length=64)
    """blake3 of the raw bytes."""
    pack = models.ForeignKey(Pack, on_delete=models.PROTECT, related_name="contents")
    offset = models.BigIntegerField()
    stored_size = models.BigIntegerField()
    raw_size = models.BigIntegerField()
    encoding = models.CharField(max_length=8)
    itemsize = models.PositiveSmallIntegerField()
    checksum = models.CharField(max_length=32)
    """XXH3 of the stored bytes: what a decoder is given was written by an encoder."""
    unreferenced_at = models.DateTimeField(null=True, default=None)
    """Since then no checkpoint needs it: it goes after a grace."""
    broken_at = models.DateTimeField(null=True, default=None)
    """Since then it is known not to have its digest: the next save that needs it writes it anew, which heals all."""

    class Meta:
        verbose_name_plural = "stored objects"
        ordering = ["id"]
        constraints = [models.UniqueConstraint(fields=["workspace", "digest"], name="object_once_per_workspace")]
        indexes = [
            models.Index(
                fields=["unreferenced_at"], name="object_to_sweep", condition=Q(unreferenced_at__isnull=False)
            ),
        ]

    def __str__(self) -> str:
        return f"{self.digest[:12]}…"


class ObjectReference(models.Model):
    """A checkpoint needs an object. What is referenced cannot be deleted, whoever tries."""

    id = models.BigAutoField(primary_key=True)
    checkpoint = models.ForeignKey(Checkpoint, on_delete=models.CASCADE, related_name="references")
    object = models.ForeignKey(StoredObject, on_delete=models.PROTECT, related_name="references")

    class Meta:
        verbose_name_plural = "object references"
        ordering = ["id"]
        constraints = [models.UniqueConstraint(fields=["checkpoint", "object"], name="object_once_per_checkpoint")]

    def __str__(self) -> str:
        return f"{self.checkpoint_id} needs {self.object_id}"


class Schedule(models.TextChoices):
    INTERVAL = "interval", "whenever the interval has passed"
    AUTO = "auto", "as often as costs half a percent of the training time"
    OFF = "off", "only at epochs, on demand and at the end"


class CheckpointPolicy(WorkspaceOwned):
    """When runs save, and which checkpoints stay: of one run, or (``run_id`` null) of all that have none of their own.

    A checkpoint stays if any rule keeps it. The newest one, the newest verified one and pinned ones always do.
    """

    audit: ClassVar[Watched] = Watched(subject="checkpoint_policy")

    run_id = models.UUIDField(null=True, blank=True, editable=False)
    schedule = models.CharField(max_length=8, choices=Schedule, default=Schedule.INTERVAL)
    interval_seconds = models.PositiveIntegerField(default=1800)
    keep_last = models.PositiveIntegerField(default=3)
    keep_days = models.PositiveIntegerField(default=7)
    keep_daily = models.PositiveIntegerField(default=0)
    keep_weekly = models.PositiveIntegerField(default=0)
    keep_monthly = models.PositiveIntegerField(default=0)
    keep_best = models.PositiveIntegerField(default=1)
    best_metric = models.CharField(max_length=64, default="validation_loss")
    best_is_lowest = models.BooleanField(default=True)
    archive_after_hours = models.PositiveIntegerField(null=True, blank=True)
    """Then it leaves the checkpoint folder for the object storage; null: never."""

    class Meta:
        verbose_name_plural = "checkpoint policies"
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["workspace", "run_id"], nulls_distinct=False, name="checkpoint_policy_once_per_run"
            ),
            models.CheckConstraint(condition=Q(schedule__in=Schedule.values), name="checkpoint_schedule_is_known"),
            models.CheckConstraint(condition=Q(interval_seconds__gte=1), name="checkpoint_interval_is_positive"),
            models.CheckConstraint(condition=Q(keep_last__gte=1), name="checkpoint_last_one_stays"),
        ]

    def __str__(self) -> str:
        return f"policy of run …{str(self.run_id)[-6:]}" if self.run_id else "policy of all runs"


class JobKind(models.TextChoices):
    CREATE = "create", "save the run now"
    VERIFY = "verify", "read and check every byte of the checkpoint"
    RESTORE = "restore", "let the run go on from the checkpoint"
    REPLAY = "replay", "train from the checkpoint to a step, and save there"
    ARCHIVE = "archive", "move the checkpoint to the object storage"
    RECALL = "recall", "bring the checkpoint back from the object storage"


class CheckpointJob(WorkspaceOwned):
    """Long work with checkpoints that somebody asked for: what `/operations/{id}` shows."""

    audit: ClassVar[Watched] = Watched(subject="checkpoint_job", outside={"done", "total", "heartbeat_at"})

    kind = models.CharField(max_length=8, choices=JobKind, editable=False)
    state = models.CharField(max_length=16, choices=choices(JobState), default=JobState.PENDING, editable=False)
    run_id = models.UUIDField(editable=False)
    checkpoint = models.ForeignKey(Checkpoint, on_delete=models.PROTECT, null=True, related_name="jobs", editable=False)
    """What it is done to; null: a save that has not been made."""
    parameters = models.JSONField(default=dict, editable=False)
    done = models.BigIntegerField(default=0, editable=False)
    total = models.BigIntegerField(default=0, editable=False)
    """Bytes, or steps of a replay."""
    heartbeat_at = models.DateTimeField(null=True, editable=False)
    result = models.JSONField(default=dict, editable=False)
    problem = models.TextField(blank=True, editable=False)

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.CheckConstraint(condition=Q(kind__in=JobKind.values), name="checkpoint_job_kind_is_known"),
            models.CheckConstraint(condition=state_check("state", JobState), name="checkpoint_job_state_is_known"),
        ]
        indexes = [
            models.Index(
                fields=["run_id"],
                name="checkpoint_job_open",
                condition=Q(state__in=[JobState.PENDING, JobState.RUNNING]),
            ),
        ]
        triggers = JOB_LIFECYCLE.triggers()

    def __str__(self) -> str:
        return f"{self.kind} …{str(self.pk)[-6:]}"
