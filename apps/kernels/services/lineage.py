"""Which kernel came from which: edges that are written once and never change."""

from uuid import UUID

from django.db import transaction

from apps.audit import services as audit
from apps.core.actors import Actor
from apps.core.lineage import LineageKind, find_or_add_edge
from apps.kernels.models import Kernel, KernelLineage


@transaction.atomic
def link_kernels(
    *,
    child: Kernel,
    parent: Kernel,
    kind: LineageKind,
    actor: Actor,
    weight: float = 1.0,
    run_id: UUID | None = None,
    reason: str = "",
) -> KernelLineage:
    """``child`` came from ``parent``. The edge that is there already is returned as it is, and nothing is written.

    Raises:
        Invalid: the weight is no share, or a kernel would be its own parent. Conflict: the edge would close a cycle.
    """
    edge, is_new = find_or_add_edge(KernelLineage, child=child, parent=parent, kind=kind, weight=weight, run_id=run_id)
    if not is_new:
        return edge
    audit.record(
        type="kernel.linked",
        subject=child,
        actor=actor,
        reason=reason,
        payload={"parent": parent.pk, "kind": kind, "weight": weight, "run": run_id},
    )
    return edge
