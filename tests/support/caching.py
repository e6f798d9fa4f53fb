"""Kernels that are read often or seldom, and plans of the cache, for tests."""

from datetime import timedelta
from typing import Any

from django.utils import timezone

from apps.core.actors import SYSTEM
from apps.kernels import services
from apps.kernels.lifecycle import KernelState
from apps.kernels.models import BlobAccess, CachePlan, CachePlanKind, Kernel, StorageTier
from tests.support.factories import KernelFactory


def kernel(*, reads: float = 0.0, tier: str = StorageTier.WARM, **values: Any) -> Kernel:
    """Read ``reads`` times a moment ago."""
    made: Kernel = KernelFactory(state=KernelState.VALIDATED, storage_tier=tier, **values)
    if reads:
        now = timezone.now()
        BlobAccess.objects.create(digest=made.digest, score=reads, scored_at=now, reads=int(reads), last_read_at=now)
    return made


def planned(kind: str = CachePlanKind.OPTIMISE, *, moves: int = 1) -> CachePlan:
    """Of kernels that are warm, and read often enough to be hot."""
    for _ in range(moves):
        kernel(reads=10)
    return services.plan_cache(kind=kind, actor=SYSTEM)


def applying(*, moves: int = 1) -> CachePlan:
    """A worker may begin at any moment."""
    return services.apply_cache_plan(plan=planned(moves=moves), actor=SYSTEM)


def carried_out(*, moves: int = 1) -> CachePlan:
    return services.carry_out_cache_plan(plan=applying(moves=moves), actor=SYSTEM)


def expire(plan: CachePlan) -> None:
    CachePlan.objects.filter(pk=plan.pk).update(expires_at=timezone.now() - timedelta(seconds=1))


def tier_of(row: Kernel) -> str:
    return Kernel.objects.values_list("storage_tier", flat=True).get(pk=row.pk)
