"""Retirement of kernels: policies as rows, and plans that say what a policy would do before it does it."""

from typing import ClassVar

from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator
from django.db import models
from django.db.models import Q

from apps.accounts.models import WorkspaceOwned
from apps.audit.watched import Watched
from apps.core.ids import new_id
from apps.core.lifecycle import choices, state_check
from apps.kernels.lifecycle import PLAN_LIFECYCLE, PlanState
from apps.kernels.models.kernel import Kernel

POLICY_NAME = RegexValidator(
    r"^[a-z][a-z0-9_-]{0,63}\Z", "use lower-case letters, digits, '_' and '-', starting with a letter; at most 64"
)


class RetentionPolicy(WorkspaceOwned):
    """Which kernels may go. A kernel is condemned when it matches and every criterion that is set holds.

    ``keep_latest`` and ``keep_best`` spare the first K of those that match; ``storage_cap_bytes`` condemns the least
    recently used until the rest fits. Guards bound what one plan may retire, whatever the criteria say.
    """

    audit: ClassVar[Watched] = Watched(subject="retention_policy")

    name = models.CharField(max_length=64, validators=[POLICY_NAME])
    description = models.CharField(max_length=200, blank=True)
    is_enabled = models.BooleanField(default=False)
    """Beat makes plans of enabled policies only; anybody may preview any."""
    match = models.TextField(blank=True)
    """In the language of the search; empty: every kernel."""
    unused_for_days = models.PositiveIntegerField(null=True, blank=True)
    older_than_days = models.PositiveIntegerField(null=True, blank=True)
    metric = models.CharField(max_length=64, blank=True)
    """A key of the kernel's metrics: what ``metric_below`` and ``keep_best`` look at."""
    metric_below = models.FloatField(null=True, blank=True)
    risk_above = models.FloatField(null=True, blank=True, validators=[MinValueValidator(0.0), MaxValueValidator(1.0)])
    keep_latest = models.PositiveIntegerField(null=True, blank=True)
    keep_best = models.PositiveIntegerField(null=True, blank=True)
    storage_cap_bytes = models.BigIntegerField(null=True, blank=True, validators=[MinValueValidator(0)])
    max_share = models.FloatField(default=0.2, validators=[MinValueValidator(0.0), MaxValueValidator(1.0)])
    """Guard: the largest share of the kernels in use that one plan may retire."""
    max_bytes = models.BigIntegerField(null=True, blank=True, validators=[MinValueValidator(0)])
    """Guard: the most bytes that one plan may retire."""
    grace_days = models.PositiveIntegerField(default=7)
    """Guard: a kernel younger than this stays."""
    purge_after_days = models.PositiveIntegerField(default=30)
    """How long a retired kernel can still be restored."""

    class Meta:
        verbose_name_plural = "retention policies"
        ordering = ["name"]
        constraints = [
            models.UniqueConstraint(fields=["workspace", "name"], name="retention_policy_once_per_workspace"),
            models.CheckConstraint(condition=Q(max_share__gte=0, max_share__lte=1), name="retention_share_is_a_share"),
        ]

    def __str__(self) -> str:
        return self.name


class RetentionPlan(WorkspaceOwned):
    """What a policy would retire, written down: looked at, approved, then applied to what has not changed since."""

    audit: ClassVar[Watched] = Watched(subject="retention_plan")

    policy = models.ForeignKey(RetentionPolicy, on_delete=models.PROTECT, related_name="plans")
    state = models.CharField(max_length=16, choices=choices(PlanState), default=PlanState.PLANNED, editable=False)
    item_count = models.PositiveIntegerField(default=0, editable=False)
    byte_count = models.BigIntegerField(default=0, editable=False)
    """Bytes that would be freed after the grace: of blobs that nothing else refers to."""
    kept = models.JSONField(default=dict, editable=False)
    """Reason -> how many kernels that the policy condemned were kept for it."""
    outcome = models.JSONField(default=dict, editable=False)
    """After it was applied: outcome -> how many items."""
    expires_at = models.DateTimeField(editable=False)
    """After this it can no longer be approved or applied: make a new one."""

    class Meta:
        ordering = ["-id"]
        constraints = [models.CheckConstraint(condition=state_check("state", PlanState), name="plan_state_is_known")]
        triggers = PLAN_LIFECYCLE.triggers()

    def __str__(self) -> str:
        return f"plan …{str(self.pk)[-6:]} of {self.policy.name}"


class RetentionItem(models.Model):
    """One kernel of a plan, as it was when the plan was made."""

    audit: ClassVar[Watched] = Watched(subject="retention_plan", of="plan_id")

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    plan = models.ForeignKey(RetentionPlan, on_delete=models.PROTECT, related_name="items")
    kernel = models.ForeignKey(Kernel, on_delete=models.PROTECT, related_name="retention_items")
    row_version = models.PositiveIntegerField()
    reason = models.CharField(max_length=300)
    bytes = models.BigIntegerField()
    outcome = models.CharField(max_length=16, blank=True)
    """"": not applied yet; "retired"; "changed", "protected": it was left alone, and ``detail`` says why."""
    detail = models.CharField(max_length=300, blank=True)

    class Meta:
        ordering = ["-bytes", "id"]
        constraints = [models.UniqueConstraint(fields=["plan", "kernel"], name="retention_item_once_per_plan")]

    def __str__(self) -> str:
        return f"{self.kernel_id} in {self.plan_id}"
