"""Which retired kernels may be purged."""

from datetime import datetime

from apps.kernels.lifecycle import KernelState
from apps.kernels.models import Kernel
from apps.kernels.retention import facts
from apps.kernels.retention.rules import Finding, protections

COLUMNS = ("id", "legal_hold", "pinned_until", "purge_after", "state")


def purged_at(kernel: Kernel, held: tuple[Finding, ...], now: datetime) -> datetime | None:
    """When a retired kernel may be purged at the earliest; None: never, as things are."""
    if kernel.purge_after is None or any(finding.when is None for finding in held):
        return None
    return max([kernel.purge_after, *(finding.when for finding in held if finding.when)])


def due(now: datetime) -> list[Kernel]:
    """Those whose time is over and that nothing protects, the longest waiting first."""
    over = Kernel.objects.filter(state=KernelState.RETIRED, purge_after__lte=now).only(*COLUMNS)
    kernels = list(over.order_by("purge_after", "pk"))
    known = facts.of_kernels([kernel.pk for kernel in kernels])
    return [kernel for kernel in kernels if not protections(kernel, known[kernel.pk], now)]
