"""What grafts of kernels came to: how many were kept, and the mean gain with its interval."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from django.db.models import Avg, Count, Max, Min, Q

from apps.kernels.models import FieldReport, Kernel
from apps.morphogenesis.lifecycle import SeedState


@dataclass(frozen=True, slots=True)
class Outcome:
    """``gain`` in nats per held-out sample, with its 95 % interval; None: not measured."""

    reports: int = 0
    kept: int = 0
    gain: float | None = None
    low: float | None = None
    high: float | None = None


def outcomes_of(kernels: Sequence[Kernel]) -> dict[UUID, Outcome]:
    """Kernel id -> outcome, for every kernel given, in one query.

    The lower bound is the one that the kernel's record keeps. Over several grafts it is Student's, symmetric about the
    mean; of a single graft the interval is the one that its ablation gave.
    """
    rows = (
        FieldReport.objects.filter(kernel_id__in=[kernel.pk for kernel in kernels])
        .order_by()
        .values("kernel_id")
        .annotate(
            reports=Count("pk"),
            kept=Count("pk", filter=Q(verdict=SeedState.FOSSILIZED)),
            measured=Count("contribution"),
            gain=Avg("contribution"),
            least=Min("contribution_low"),
            most=Max("contribution_high"),
        )
    )
    found = {row["kernel_id"]: row for row in rows}
    outcomes = {kernel.pk: Outcome() for kernel in kernels}
    for kernel in kernels:
        row = found.get(kernel.pk)
        if row is None:
            continue
        low, high = row["least"], row["most"]
        if row["measured"] > 1:
            low = kernel.metrics.get("gain_low")
            high = None if low is None else 2 * row["gain"] - low
        outcomes[kernel.pk] = Outcome(row["reports"], row["kept"], row["gain"], low, high)
    return outcomes
