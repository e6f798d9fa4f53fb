"""Reading kernels."""

from collections.abc import Iterable
from typing import Any

from django.db.models import Avg, QuerySet

from apps.kernels.lifecycle import KernelState
from apps.kernels.models import FieldReport, Kernel

PENDING = (KernelState.REGISTERED, KernelState.UPLOADED, KernelState.COMPILED, KernelState.BENCHMARKING)


def kernels() -> QuerySet[Kernel]:
    return Kernel.objects.select_related("blueprint_version__blueprint")


def pending() -> QuerySet[Kernel]:
    """Those whose validation has not been decided yet."""
    return Kernel.objects.filter(state__in=PENDING)


def validated() -> QuerySet[Kernel]:
    """Every kernel that a run may use, in a fixed order."""
    return kernels().filter(state=KernelState.VALIDATED, digest__isnull=False).order_by("name", "digest")


def priors(kernels: Iterable[Kernel]) -> dict[Any, float]:
    """Kernel id -> mean measured contribution (nats per held-out sample) over its field reports."""
    rows = FieldReport.objects.filter(kernel__in=list(kernels), contribution__isnull=False)
    return dict(rows.values_list("kernel_id").annotate(mean=Avg("contribution")).values_list("kernel_id", "mean"))
