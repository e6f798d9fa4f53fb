"""What runs tell of kernels: which they hold, and what became of each graft."""

from collections.abc import Iterable
from typing import Any
from uuid import UUID

from django.db import connection, transaction
from django.db.models import Count, Q
from django.utils import timezone

from apps.audit import services as audit
from apps.audit.watched import image
from apps.core.actors import Actor
from apps.kernels import risk
from apps.kernels.models import FieldReport, Kernel, KernelUse

KEPT = ("FOSSILIZED",)
FAILED = ("CULLED", "ROLLED_BACK")
"""A graft that was CANCELLED was not judged: it counts for neither."""


@transaction.atomic
def hold_kernels(*, kernels: Iterable[Kernel], run_id: UUID) -> None:
    """A run starts to depend on these kernels (a sign of life, not an audited change)."""
    uses = [KernelUse(kernel=kernel, run_id=run_id) for kernel in kernels]
    with connection.cursor() as cursor:
        # Whoever retires, purges or moves one waits for this and sees it: the foreign key is checked at commit only.
        held = "SELECT FROM kernels_kernel WHERE id = ANY(%s) ORDER BY id FOR KEY SHARE"
        cursor.execute(held, [[use.kernel_id for use in uses]])
    KernelUse.objects.bulk_create(uses, ignore_conflicts=True)
    # A run that was over, and is set back to a checkpoint, needs them again.
    KernelUse.objects.filter(run_id=run_id, kernel__in=[use.kernel_id for use in uses]).update(until=None)


def release_kernels(*, run_id: UUID) -> None:
    """The run needs none of its kernels any more."""
    KernelUse.objects.filter(run_id=run_id, until=None).update(until=timezone.now())


@transaction.atomic
def record_field_report(*, kernel: Kernel, run_id: UUID, seed_number: int, actor: Actor, **outcome: Any) -> FieldReport:
    """What a graft did to a run, and what the kernel's record is with it: risk, gain, rate of grafts kept.

    Idempotent per (run, seed): a resumed run reports the same again.
    """
    row = Kernel.objects.select_for_update(of=("self",)).get(pk=kernel.pk)  # its reports are counted one at a time
    existing = FieldReport.objects.filter(run_id=run_id, seed_number=seed_number).first()
    if existing is not None:
        return existing
    report = FieldReport(kernel=row, run_id=run_id, seed_number=seed_number, **outcome)
    report.full_clean()
    report.save(force_insert=True)
    before = image(row)
    _learn(row)
    row.usage_count += 1
    row.last_used_at = timezone.now()
    row.save()
    audit.record(
        type="kernel.field_report",
        subject=row,
        actor=actor,
        before=before,
        after=image(row),
        payload={"run": run_id, "seed": seed_number, **outcome},
    )
    return report


def _learn(kernel: Kernel) -> None:
    """Risk and gain of the kernel from its reports, and from how its blueprint's other kernels fared.

    Those keep the risk that their own last report gave them: another's outcome moves them at their next one.
    """
    counts = {
        row["kernel_id"]: risk.Outcomes(failed=row["failed"], kept=row["kept"])
        for row in FieldReport.objects.filter(
            kernel__blueprint_version__blueprint=kernel.blueprint_version.blueprint_id, verdict__in=(*KEPT, *FAILED)
        )
        .order_by()
        .values("kernel_id")
        .annotate(kept=Count("pk", filter=Q(verdict__in=KEPT)), failed=Count("pk", filter=Q(verdict__in=FAILED)))
    }
    own = counts.pop(kernel.pk, risk.Outcomes(failed=0, kept=0))
    grafts = own.failed + own.kept
    metrics: dict[str, Any] = {**kernel.metrics, "grafts": grafts}
    if grafts:
        assessed = risk.assess(own, counts.values())
        kernel.risk, kernel.risk_confidence = round(assessed.value, 6), round(assessed.confidence, 6)
        metrics["kept_rate"] = round(own.kept / grafts, 6)
    measured = kernel.field_reports.exclude(contribution=None).values_list("contribution", "contribution_low")
    lows = [low for _, low in measured]
    gain = risk.gain([value for value, _ in measured if value is not None], low_of_one=lows[0] if lows else None)
    if gain is not None:
        metrics |= {"gain_mean": gain.mean, "gain_low": gain.low}
    kernel.metrics = metrics
