"""Reading kernels."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db.models import Avg, Count, F, Func, IntegerField, Max, Min, Q, QuerySet

from apps.blueprints.models import Blueprint
from apps.core.errors import NotFound
from apps.core.lineage import Family, family
from apps.kernels.lifecycle import DOWNLOADABLE, ENDED, KernelState
from apps.kernels.models import (
    AliasPeriod,
    CachePlan,
    FieldReport,
    Kernel,
    KernelAlias,
    KernelBlob,
    KernelLineage,
    RetentionPlan,
    StorageTier,
)
from apps.morphogenesis.lifecycle import SeedState

PENDING = (KernelState.REGISTERED, KernelState.UPLOADED, KernelState.COMPILED, KernelState.BENCHMARKING)


def kernels() -> QuerySet[Kernel]:
    return Kernel.objects.select_related("blueprint_version__blueprint")


def pending() -> QuerySet[Kernel]:
    """Those whose validation has not been decided yet."""
    return Kernel.objects.filter(state__in=PENDING)


def holders(version_id: UUID, bindings: Mapping[str, int]) -> QuerySet[Kernel]:
    """The kernel that holds this contract now; at most one. Whoever writes by it locks the version first."""
    return Kernel.objects.filter(blueprint_version=version_id, bindings=bindings).exclude(state__in=ENDED)


def validated() -> QuerySet[Kernel]:
    """Every kernel that a run may use, in a fixed order. Archived ones are brought back first."""
    usable = kernels().filter(state=KernelState.VALIDATED, digest__isnull=False)
    return usable.exclude(storage_tier=StorageTier.ARCHIVE).order_by("name", "digest")


def priors(kernels: Iterable[Kernel]) -> dict[Any, float]:
    """Kernel id -> mean measured contribution (nats per held-out sample) over its field reports."""
    rows = FieldReport.objects.filter(kernel__in=list(kernels), contribution__isnull=False)
    return dict(rows.values_list("kernel_id").annotate(mean=Avg("contribution")).values_list("kernel_id", "mean"))


@dataclass(frozen=True, slots=True)
class Performance:
    """What grafts of one kernel came to. Gains in nats per held-out sample, with a 95 % interval; None: unmeasured."""

    grafts: int
    kept: int
    gain_mean: float | None
    gain_low: float | None
    gain_high: float | None


def performance_of(kernel: Kernel) -> Performance:
    """One query. Of several grafts the interval is Student's, whose lower end the kernel's record keeps; of a single
    one it is the one that its ablation gave."""
    found = FieldReport.objects.filter(kernel=kernel).aggregate(
        grafts=Count("pk"),
        kept=Count("pk", filter=Q(verdict=SeedState.FOSSILIZED)),
        measured=Count("contribution"),
        mean=Avg("contribution"),
        low=Min("contribution_low"),
        high=Max("contribution_high"),
    )
    mean, low, high = found["mean"], found["low"], found["high"]
    if found["measured"] > 1:
        low = kernel.metrics.get("gain_low")
        high = None if low is None else 2 * mean - low
    return Performance(grafts=found["grafts"], kept=found["kept"], gain_mean=mean, gain_low=low, gain_high=high)


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


def family_of_kernel(kernel: Kernel, depth: int) -> Family:
    """What a kernel came from and what came from it. Four queries, whatever the number of relatives."""
    rows = kernels().defer("report", "metrics", "blueprint_version__spec")
    return family(KernelLineage, [kernel.pk], rows, depth=depth)


def cache_plans() -> QuerySet[CachePlan]:
    """Plans with ``move_count``, without the moves themselves and what they were made from: those are large."""
    moves = Func(F("moves"), function="jsonb_array_length", output_field=IntegerField())
    return CachePlan.objects.annotate(move_count=moves).defer("moves", "facts")


def retention_plans() -> QuerySet[RetentionPlan]:
    return RetentionPlan.objects.select_related("policy")


def blob_for_reuse(digest: str, workspace_id: Any, *, lock: bool = False) -> KernelBlob | None:
    """The blob, if the database has its bytes and a kernel of the workspace that gives its bytes out refers to it.

    With ``lock`` nobody frees it until the transaction ends; the references are read under the lock.
    """
    blobs = KernelBlob.objects.filter(pk=digest, in_database=True, freed_at=None)
    blob = (blobs.select_for_update() if lock else blobs).first()
    owners = Kernel.objects.filter(workspace_id=workspace_id, digest=digest, state__in=DOWNLOADABLE)
    return blob if blob is not None and owners.exists() else None
