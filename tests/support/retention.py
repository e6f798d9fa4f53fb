"""Kernels and policies for tests of retention."""

from datetime import timedelta
from typing import Any

from django.utils import timezone

from apps.core.actors import SYSTEM
from apps.kernels import services
from apps.kernels.lifecycle import KernelState
from apps.kernels.models import Kernel, RetentionPlan, RetentionPolicy
from tests.support.factories import KernelFactory


def kernel(*, age: int = 100, unused: int | None = None, state: str = KernelState.VALIDATED, **values: Any) -> Kernel:
    """Made ``age`` days ago; last used ``unused`` days ago, never if that is None."""
    made: Kernel = KernelFactory(state=state, **values)
    used_at = None if unused is None else timezone.now() - timedelta(days=unused)
    Kernel.objects.filter(pk=made.pk).update(created_at=timezone.now() - timedelta(days=age), last_used_at=used_at)
    made.refresh_from_db()
    return made


def policy(**settings: Any) -> RetentionPolicy:
    """Without a bound on its share; condemns what was not used for 90 days, unless the test says otherwise."""
    criteria = {"unused_for_days", "older_than_days", "metric_below", "risk_above", "keep_latest", "keep_best"}
    if not settings.keys() & {*criteria, "storage_cap_bytes"}:
        settings["unused_for_days"] = 90
    settings = {"name": "old", "max_share": 1.0, **settings}
    return services.create_policy(actor=SYSTEM, **settings)


def approved_plan(of: RetentionPolicy | None = None) -> RetentionPlan:
    plan = services.make_plan(policy=of or policy(), actor=SYSTEM)
    return services.approve_plan(plan=plan, reason="looked at", actor=SYSTEM)


def planned(plan: RetentionPlan) -> set[Any]:
    """The ids of the kernels that a plan would retire."""
    return set(plan.items.values_list("kernel_id", flat=True))


def retired(data: bytes | None = None, *, over: bool = True, **values: Any) -> Kernel:
    """A kernel that was retired by hand; its time is ``over`` or not."""
    row = services.retire_kernel(kernel=kernel(data=data, **values), reason="old", actor=SYSTEM)
    if over:
        Kernel.objects.filter(pk=row.pk).update(purge_after=timezone.now() - timedelta(seconds=1))
    return Kernel.objects.get(pk=row.pk)


def state_of(row: Kernel) -> str:
    return Kernel.objects.values_list("state", flat=True).get(pk=row.pk)
