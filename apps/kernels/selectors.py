"""Reading kernels."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db.models import Avg, QuerySet

from apps.blueprints.models import Blueprint, BlueprintVersion, VersionLineage
from apps.core.errors import NotFound
from apps.core.lineage import Lineage, LineageEdge, Relative, graph
from apps.kernels.lifecycle import KernelState
from apps.kernels.models import AliasPeriod, FieldReport, Kernel, KernelAlias, KernelLineage, StorageTier

PENDING = (KernelState.REGISTERED, KernelState.UPLOADED, KernelState.COMPILED, KernelState.BENCHMARKING)


def kernels() -> QuerySet[Kernel]:
    return Kernel.objects.select_related("blueprint_version__blueprint")


def pending() -> QuerySet[Kernel]:
    """Those whose validation has not been decided yet."""
    return Kernel.objects.filter(state__in=PENDING)


def validated() -> QuerySet[Kernel]:
    """Every kernel that a run may use, in a fixed order. Archived ones are brought back first."""
    usable = kernels().filter(state=KernelState.VALIDATED, digest__isnull=False)
    return usable.exclude(storage_tier=StorageTier.ARCHIVE).order_by("name", "digest")


def priors(kernels: Iterable[Kernel]) -> dict[Any, float]:
    """Kernel id -> mean measured contribution (nats per held-out sample) over its field reports."""
    rows = FieldReport.objects.filter(kernel__in=list(kernels), contribution__isnull=False)
    return dict(rows.values_list("kernel_id").annotate(mean=Avg("contribution")).values_list("kernel_id", "mean"))


def aliases_of(blueprint_id: Any) -> QuerySet[KernelAlias]:
    """The aliases of a blueprint that point at a kernel."""
    return KernelAlias.objects.select_related("blueprint", "kernel__blueprint_version").filter(
        blueprint_id=blueprint_id, kernel__isnull=False
    )


def alias_ever(blueprint_id: Any, name: str) -> KernelAlias:
    """The alias, also one that was removed. Raises NotFound."""
    found = KernelAlias.objects.filter(blueprint_id=blueprint_id, name=name).first()
    if found is None:
        raise NotFound(f"the blueprint never had an alias {name!r}")
    return found


def alias_periods(blueprint_id: Any, name: str) -> QuerySet[AliasPeriod]:
    """What an alias pointed at, and when."""
    return AliasPeriod.objects.select_related("kernel__blueprint_version").filter(
        alias__blueprint_id=blueprint_id, alias__name=name
    )


def lock_alias(blueprint_id: UUID, name: str) -> KernelAlias | None:
    """The alias, if there ever was one. Until the transaction ends nobody else changes an alias of the blueprint."""
    Blueprint.objects.select_for_update(no_key=True).get(pk=blueprint_id)
    return (
        KernelAlias.objects.select_related("blueprint", "kernel__blueprint_version")
        .filter(blueprint_id=blueprint_id, name=name)
        .first()
    )


@dataclass(frozen=True, slots=True)
class Family:
    """A lineage with the row of every relative: (relative, row) pairs, nearest to the oldest ancestor first."""

    members: list[tuple[Relative, Any]]
    lineage: Lineage


def family_of_kernel(kernel: Kernel, depth: int) -> Family:
    """What a kernel came from and what came from it. Four queries, whatever the number of relatives."""
    return _family(KernelLineage, kernel.pk, kernels().defer("report", "metrics", "blueprint_version__spec"), depth)


def family_of_version(version: BlueprintVersion, depth: int) -> Family:
    """The same of a blueprint version."""
    return _family(
        VersionLineage, version.pk, BlueprintVersion.objects.select_related("blueprint").defer("spec"), depth
    )


def _family(edges: type[LineageEdge], start: UUID, rows: QuerySet[Any], depth: int) -> Family:
    lineage = graph(edges, [start], depth=depth)
    found = rows.in_bulk([relative.id for relative in lineage.nodes])
    return Family(members=[(relative, found[relative.id]) for relative in lineage.nodes], lineage=lineage)
