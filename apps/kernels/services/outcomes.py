"""What runs tell of kernels: which they hold, and what became of each graft."""

from collections.abc import Iterable
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from apps.audit import services as audit
from apps.core.actors import Actor
from apps.kernels.models import FieldReport, Kernel, KernelUse


def hold_kernels(*, kernels: Iterable[Kernel], run_id: UUID) -> None:
    """A run starts to depend on these kernels (a sign of life, not an audited change)."""
    KernelUse.objects.bulk_create(
        (KernelUse(kernel=kernel, run_id=run_id) for kernel in kernels), ignore_conflicts=True
    )


def release_kernels(*, run_id: UUID) -> None:
    """The run needs none of its kernels any more."""
    KernelUse.objects.filter(run_id=run_id, until=None).update(until=timezone.now())


@transaction.atomic
def record_field_report(*, kernel: Kernel, run_id: UUID, seed_number: int, actor: Actor, **outcome: Any) -> FieldReport:
    """What a graft did to a run. Idempotent per (run, seed): a resumed run reports the same again."""
    existing = FieldReport.objects.filter(run_id=run_id, seed_number=seed_number).first()
    if existing is not None:
        return existing
    report = FieldReport(kernel=kernel, run_id=run_id, seed_number=seed_number, **outcome)
    report.full_clean()
    report.save(force_insert=True)
    Kernel.objects.filter(pk=kernel.pk).update(usage_count=F("usage_count") + 1, last_used_at=timezone.now())
    audit.record(
        type="kernel.field_report",
        subject=kernel,
        actor=actor,
        payload={"run": run_id, "seed": seed_number, **outcome},
    )
    return report
