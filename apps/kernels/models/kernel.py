"""Kernels (Urza, Tezzeret): trainable artefacts compiled from blueprints, their variants, use and outcomes."""

from typing import ClassVar

import pgtrigger
from django.contrib.postgres.indexes import GinIndex
from django.core.serializers.json import DjangoJSONEncoder
from django.db import models
from django.db.models import Q

from apps.accounts.models import WorkspaceOwned
from apps.audit.watched import Watched
from apps.blueprints.models import BlueprintVersion
from apps.core.ids import new_id
from apps.core.lifecycle import choices, state_check
from apps.kernels.lifecycle import KERNEL_LIFECYCLE, KernelState
from apps.kernels.models.blobs import MAX_KERNEL_BYTES


class StorageTier(models.TextChoices):
    """Where the bytes may live: hot L1/L2, warm L3, cold and archive L4."""

    HOT = "hot"
    WARM = "warm"
    COLD = "cold"
    ARCHIVE = "archive"


class Pipeline(models.TextChoices):
    """How thoroughly a kernel is measured before it is validated; every pipeline makes the same checks."""

    FAST = "fast", "fast: each check once"
    STANDARD = "standard", "standard: more repetitions"
    AGGRESSIVE = "aggressive", "aggressive: more repetitions, then variants of memory format and dtype"


TELL_PROCESSES = pgtrigger.Trigger(
    name="tell_processes",
    when=pgtrigger.After,
    operation=pgtrigger.UpdateOf("state", "digest", "size", "name"),
    condition=pgtrigger.AnyChange("state", "digest", "size", "name"),
    func="""
        INSERT INTO kernels_cacheoutbox (kind, key, created_at, due_at, attempts, error)
        VALUES ('changed', NEW.id::text, now(), now(), 0, '');
        RETURN NULL;
    """,
)
"""Whoever changes what downloads go by, also by SQL, owes it to the processes that remember it (``cache.bindings``)."""


class Kernel(WorkspaceOwned):
    """One artefact: a blueprint version bound to a shape contract. ``digest`` (sha256) names its bytes."""

    audit: ClassVar[Watched] = Watched(subject="kernel", outside={"usage_count", "last_used_at"})

    blueprint_version = models.ForeignKey(BlueprintVersion, on_delete=models.PROTECT, related_name="kernels")
    name = models.CharField(max_length=160, editable=False)
    bindings = models.JSONField(default=dict, blank=True)
    """Symbol -> size: what the blueprint's free dimensions are bound to."""
    digest = models.CharField(max_length=64, null=True, editable=False)  # noqa: DJ001 - NULL until there are bytes
    size = models.BigIntegerField(null=True, editable=False)
    state = models.CharField(
        max_length=16, choices=choices(KernelState), default=KernelState.REGISTERED, editable=False
    )
    awaits_upload = models.BooleanField(default=False, editable=False)
    """Its bytes come from a client: the compiler leaves it alone."""
    rejection = models.TextField(blank=True, editable=False)
    pipeline = models.CharField(max_length=16, choices=Pipeline, default=Pipeline.FAST, editable=False)
    compile_ms = models.PositiveIntegerField(null=True, editable=False)
    """Wall-clock milliseconds that compiling and validating took, without the wait in the queue."""
    operator = models.CharField(max_length=16, editable=False)
    parameters = models.BigIntegerField(editable=False)
    compat = models.JSONField(default=dict, editable=False)
    """{"operator", "input": shape, "output": shape}: which slots it fits."""
    tags = models.JSONField(default=dict, blank=True)
    metrics = models.JSONField(default=dict, editable=False, encoder=DjangoJSONEncoder)
    report = models.JSONField(default=dict, editable=False, encoder=DjangoJSONEncoder)
    """The compile and validation report: stages with measured values and thresholds."""
    toolchain = models.JSONField(default=dict, editable=False)
    hardware = models.JSONField(default=dict, editable=False)
    """Where it was measured: {"profile": id, "cpu", "threads", ...}. Timings compare within one profile only."""
    risk = models.FloatField(null=True, editable=False)
    """Probability, 0 to 1, that its next graft is not kept; NULL before the first outcome."""
    risk_confidence = models.FloatField(null=True, editable=False)
    """0 to 1: one minus the width of the 90 % interval of ``risk``."""
    storage_tier = models.CharField(max_length=8, choices=StorageTier, default=StorageTier.WARM, editable=False)
    usage_count = models.BigIntegerField(default=0, editable=False)
    last_used_at = models.DateTimeField(null=True, editable=False)
    pinned_until = models.DateTimeField(null=True, blank=True)
    legal_hold = models.BooleanField(default=False)
    retired_at = models.DateTimeField(null=True, editable=False)
    purge_after = models.DateTimeField(null=True, editable=False)
    successor = models.ForeignKey("self", on_delete=models.PROTECT, null=True, blank=True, related_name="+")

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["blueprint_version", "bindings"],
                condition=~Q(state__in=[KernelState.REJECTED, KernelState.PURGED, KernelState.RETIRED]),
                name="kernel_once_per_contract",
            ),
            models.CheckConstraint(condition=state_check("state", KernelState), name="kernel_state_is_known"),
            models.CheckConstraint(
                condition=Q(digest__isnull=False) | ~Q(state=KernelState.VALIDATED), name="validated_kernel_has_bytes"
            ),
            models.CheckConstraint(
                condition=Q(size__isnull=True) | Q(size__gt=0, size__lte=MAX_KERNEL_BYTES),
                name="kernel_size_is_bounded",
            ),
            models.CheckConstraint(
                condition=Q(risk__isnull=True, risk_confidence__isnull=True)
                | Q(risk__gte=0, risk__lte=1, risk_confidence__gte=0, risk_confidence__lte=1),
                name="kernel_risk_is_a_probability",
            ),
        ]
        indexes = [
            GinIndex(fields=["tags"], name="kernel_tags_gin", opclasses=["jsonb_path_ops"]),
            GinIndex(fields=["compat"], name="kernel_compat_gin", opclasses=["jsonb_path_ops"]),
            models.Index(fields=["-id"], name="kernel_validated_newest", condition=Q(state=KernelState.VALIDATED)),
            models.Index(fields=["digest"], name="kernel_digest"),
            models.Index(fields=["storage_tier", "-id"], name="kernel_tier_newest"),
            models.Index(fields=["created_at"], name="kernel_created"),
            models.Index(fields=["purge_after"], name="kernel_purge", condition=Q(state=KernelState.RETIRED)),
        ]
        triggers = [*KERNEL_LIFECYCLE.triggers(), TELL_PROCESSES]

    def __str__(self) -> str:
        return self.name


class KernelVariant(models.Model):
    """The same weights in another memory format or dtype: an artefact with its own digest (pipeline aggressive)."""

    audit: ClassVar[Watched] = Watched(subject="kernel", of="kernel_id")

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    kernel = models.ForeignKey(Kernel, on_delete=models.PROTECT, related_name="variants")
    memory_format = models.CharField(max_length=32)
    dtype = models.CharField(max_length=16)
    digest = models.CharField(max_length=64, db_index=True)
    size = models.BigIntegerField()
    report = models.JSONField(default=dict, encoder=DjangoJSONEncoder)
    """How it was checked against the kernel, and its timings beside the kernel's in the same run."""
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["memory_format", "dtype"]
        constraints = [
            models.UniqueConstraint(fields=["kernel", "memory_format", "dtype"], name="kernel_variant_once"),
            models.CheckConstraint(condition=Q(size__gt=0, size__lte=MAX_KERNEL_BYTES), name="variant_size_is_bounded"),
        ]

    def __str__(self) -> str:
        return f"{self.kernel_id} {self.dtype} {self.memory_format}"


class KernelUse(models.Model):
    """A run holds a kernel: what retirement and demotion must leave alone until ``until``."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    kernel = models.ForeignKey(Kernel, on_delete=models.PROTECT, related_name="uses")
    run_id = models.UUIDField()
    until = models.DateTimeField(null=True)
    """None while the run may still need it."""

    class Meta:
        constraints = [models.UniqueConstraint(fields=["kernel", "run_id"], name="kernel_use_once_per_run")]
        indexes = [models.Index(fields=["run_id"], name="kernel_use_run")]

    def __str__(self) -> str:
        return f"{self.kernel_id} in {self.run_id}"


class FieldReport(models.Model):
    """What a graft did to a real run: gain in nats per held-out sample with its interval, and what it cost."""

    audit: ClassVar[Watched] = Watched(subject="kernel", of="kernel_id")

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    kernel = models.ForeignKey(Kernel, on_delete=models.PROTECT, related_name="field_reports")
    run_id = models.UUIDField()
    seed_number = models.PositiveIntegerField()
    task = models.CharField(max_length=64)
    host = models.CharField(max_length=64)
    site = models.CharField(max_length=200)
    verdict = models.CharField(max_length=16)
    parameters = models.BigIntegerField()
    train_flops = models.BigIntegerField()
    loss_before = models.FloatField()
    loss_after = models.FloatField()
    contribution = models.FloatField(null=True, blank=True)
    contribution_low = models.FloatField(null=True, blank=True)
    contribution_high = models.FloatField(null=True, blank=True)
    rent = models.FloatField()
    accuracy_difference = models.FloatField(null=True, blank=True)
    mcnemar_p = models.FloatField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-id"]
        constraints = [models.UniqueConstraint(fields=["run_id", "seed_number"], name="field_report_once_per_seed")]
        indexes = [models.Index(fields=["kernel", "-id"], name="field_report_kernel")]

    def __str__(self) -> str:
        return f"{self.kernel_id} {self.verdict}"
