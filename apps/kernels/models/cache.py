"""What the tiered cache writes down: what it still owes to the other tiers, how often bytes are read, and plans."""

from typing import ClassVar

from django.db import models
from django.db.models import Q

from apps.accounts.models import WorkspaceOwned
from apps.audit.watched import Watched
from apps.core.lifecycle import choices, state_check
from apps.kernels.lifecycle import CACHE_PLAN_LIFECYCLE, CachePlanState


class OutboxKind(models.TextChoices):
    FILL = "fill", "put the bytes into L2"
    COPY = "copy", "have a copy of the bytes in L4"
    FORGET = "forget", "no process and no fast tier may keep the bytes"
    CHANGED = "changed", "what processes know of the kernel is out of date"


class CacheOutbox(models.Model):
    """What a committed transaction owes to the other tiers; a row goes once it is done.

    Written in the transaction itself, so neither a crash nor an absent server loses it. ``apps.kernels.cache.outbox``
    works it off; each kind may be done twice.
    """

    id = models.BigAutoField(primary_key=True)
    kind = models.CharField(max_length=8, choices=OutboxKind)
    key = models.CharField(max_length=64)
    """A sha256, or for CHANGED the id of the kernel."""
    created_at = models.DateTimeField(auto_now_add=True)
    due_at = models.DateTimeField()
    """Not to be tried before."""
    attempts = models.PositiveIntegerField(default=0)
    error = models.TextField(blank=True)
    """Why the last attempt failed."""

    class Meta:
        verbose_name_plural = "cache outbox"
        ordering = ["id"]
        constraints = [models.CheckConstraint(condition=Q(kind__in=OutboxKind.values), name="outbox_kind_is_known")]
        indexes = [models.Index(fields=["key"], name="outbox_key"), models.Index(fields=["due_at"], name="outbox_due")]

    def __str__(self) -> str:
        return f"{self.kind} …{self.key[-12:]}"


class BlobAccess(models.Model):
    """How often the bytes of a digest are read: counted in Redis, written in batches (``cache.accesses``)."""

    digest = models.CharField(primary_key=True, max_length=64)
    score = models.FloatField()
    """Reads, each halved in weight with every half-life until ``scored_at``."""
    scored_at = models.DateTimeField()
    reads = models.BigIntegerField(default=0)
    last_read_at = models.DateTimeField()

    class Meta:
        verbose_name_plural = "blob accesses"
        ordering = ["-score"]

    def __str__(self) -> str:
        return f"{self.digest[:12]}…, read {self.reads} times"


class AccessBatch(models.Model):
    """A batch of counts that was written: the same one again, after a crash, is left alone."""

    name = models.CharField(primary_key=True, max_length=64)
    flushed_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        verbose_name_plural = "access batches"
        ordering = ["-flushed_at"]

    def __str__(self) -> str:
        return self.name


class CachePlanKind(models.TextChoices):
    OPTIMISE = "optimise", "move kernels to the storage tier that their reads ask for"
    WARM = "warm", "load what is read most into the fast tiers"


class CachePlan(WorkspaceOwned):
    """What the cache would move and why, written down before it does; and how far the move has come."""

    audit: ClassVar[Watched] = Watched(subject="cache_plan", outside={"done"})

    kind = models.CharField(max_length=8, choices=CachePlanKind, editable=False)
    state = models.CharField(
        max_length=16, choices=choices(CachePlanState), default=CachePlanState.PLANNED, editable=False
    )
    moves = models.JSONField(default=list, editable=False)
    """[{"kernel", "name", "digest", "bytes", "from", "to", "reason"}]: at most MAX_MOVES of ``cache.planning``."""
    facts = models.JSONField(default=dict, editable=False)
    """What the plan was made from: bytes by tier before and after, how many kernels were looked at, which are held."""
    done = models.PositiveIntegerField(default=0, editable=False)
    """How many of the moves have been tried."""
    result = models.JSONField(default=dict, editable=False)
    """After it was applied: {"moved", "bytes", "left": [{"kernel", "name", "reason"}]}."""
    problem = models.TextField(blank=True, editable=False)
    expires_at = models.DateTimeField(editable=False)
    """After this it can no longer be applied: make a new one."""

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.CheckConstraint(condition=Q(kind__in=CachePlanKind.values), name="cache_plan_kind_is_known"),
            models.CheckConstraint(condition=state_check("state", CachePlanState), name="cache_plan_state_is_known"),
        ]
        triggers = CACHE_PLAN_LIFECYCLE.triggers()

    def __str__(self) -> str:
        return f"plan …{str(self.pk)[-6:]} to {self.kind}"
