"""For every list of the API: how to make one more row that it shows, with relatives of its own.

    ROWS = {"/api/v1/kernels/{id}/variants": lambda world: ...}

``{id}`` in the path is that of the world's row of the kind that the path begins with.
"""

from collections.abc import Callable
from datetime import timedelta
from functools import cached_property
from itertools import count as numbers
from typing import Any

from django.utils import timezone

from apps.audit.models import AuditKey
from apps.audit.services import request_report
from apps.blueprints.models import Blueprint
from apps.core.actors import SYSTEM
from apps.core.ids import new_id
from apps.kernels.lifecycle import KernelState
from apps.kernels.models import (
    AliasPeriod,
    CachePlan,
    CachePlanKind,
    Kernel,
    KernelAlias,
    KernelVariant,
    RetentionItem,
    RetentionPlan,
    RetentionPolicy,
    TagKey,
    TagType,
)
from apps.observability.models import DeliveryAttempt
from apps.training.models import TrainingRun
from tests.support import factories
from tests.support.anomalies import add_anomaly
from tests.support.metrics import add_series

Make = Callable[["World"], Any]
_numbers = numbers(1)

EXEMPT = {
    "/api/v1/audit/checkpoints": "its rows come from sealing committed events only; it shows columns of its own table",
}


class World:
    """The parents of lists that belong to one thing, made when they are asked for."""

    @cached_property
    def blueprint(self) -> Blueprint:
        return factories.BlueprintFactory()

    @cached_property
    def kernel(self) -> Kernel:
        return factories.KernelFactory(state=KernelState.VALIDATED)

    @cached_property
    def run(self) -> TrainingRun:
        return factories.RunFactory()

    @cached_property
    def plan(self) -> RetentionPlan:
        return _plan()

    @cached_property
    def alias(self) -> KernelAlias:
        return KernelAlias.objects.create(blueprint=self.blueprint, name="sample", kernel=kernel_of(self.blueprint))

    def path(self, template: str) -> str:
        parents = {"blueprints": "blueprint", "kernels": "kernel", "runs": "run", "retention": "plan"}
        if "{id}" not in template:
            return template
        return template.replace("{id}", str(getattr(self, parents[template.split("/")[3]]).pk))


def kernel_of(blueprint: Blueprint) -> Kernel:
    version = factories.BlueprintVersionFactory(blueprint=blueprint)
    return factories.KernelFactory(blueprint_version=version, state=KernelState.VALIDATED)


def _policy() -> RetentionPolicy:
    return RetentionPolicy.objects.create(name=f"policy-{next(_numbers)}", unused_for_days=1)


def _plan() -> RetentionPlan:
    return RetentionPlan.objects.create(policy=_policy(), expires_at=timezone.now() + timedelta(days=1))


def _cache_plan(world: World) -> CachePlan:
    expires_at = timezone.now() + timedelta(hours=1)
    return CachePlan.objects.create(kind=CachePlanKind.OPTIMISE, moves=[{}], expires_at=expires_at)


def _item(world: World) -> RetentionItem:
    kernel = factories.KernelFactory()
    return RetentionItem.objects.create(plan=world.plan, kernel=kernel, row_version=1, reason="unused", bytes=1)


def _alias(world: World) -> KernelAlias:
    name = f"alias-{next(_numbers)}"
    return KernelAlias.objects.create(blueprint=world.blueprint, name=name, kernel=kernel_of(world.blueprint))


def _period(world: World) -> AliasPeriod:
    start = timezone.now()
    kernel = kernel_of(world.blueprint)
    return AliasPeriod.objects.create(alias=world.alias, kernel=kernel, started_at=start, ended_at=start)


def _variant(world: World) -> KernelVariant:
    name = f"format-{next(_numbers)}"
    return KernelVariant.objects.create(
        kernel=world.kernel, memory_format=name, dtype="bfloat16", digest="0" * 64, size=1
    )


def _key(world: World) -> AuditKey:
    number = next(_numbers)
    return AuditKey.objects.create(pk=f"{number:08x}", verifier=f"key {number}", admitted_at=timezone.now())


def _used_run(world: World) -> TrainingRun:
    """With an owner, an epoch and a seed: whatever the list shows of them."""
    run: TrainingRun = factories.RunFactory(owner=factories.UserFactory())
    factories.EpochMetricFactory(run=run)
    factories.SeedFactory(run=run)
    return run


def _notification(world: World) -> Any:
    """With two tries."""
    row: Any = factories.NotificationFactory()
    for status in (500, 204):
        DeliveryAttempt.objects.create(notification=row, seconds=0.1, status=status)
    return row


ROWS: dict[str, Make] = {
    "/api/v1/tokens": lambda world: factories.TokenFactory(),
    "/api/v1/users": lambda world: factories.UserFactory(),
    "/api/v1/audit/events": lambda world: factories.AuditEventFactory(),
    "/api/v1/audit/keys": _key,
    "/api/v1/audit/reports": lambda world: request_report(kind="access", parameters={}, actor=SYSTEM),
    "/api/v1/blueprints": lambda world: factories.BlueprintVersionFactory(),
    "/api/v1/blueprints/{id}/versions": lambda world: factories.BlueprintVersionFactory(blueprint=world.blueprint),
    "/api/v1/blueprints/{id}/aliases": _alias,
    "/api/v1/blueprints/{id}/aliases/sample/history": _period,
    "/api/v1/kernels": lambda world: factories.FieldReportFactory().kernel,
    "/api/v1/kernels/search": lambda world: factories.FieldReportFactory().kernel,
    "/api/v1/kernels/{id}/variants": _variant,
    "/api/v1/retention/policies": lambda world: _policy(),
    "/api/v1/retention/plans": lambda world: _plan(),
    "/api/v1/retention/plans/{id}/items": _item,
    "/api/v1/cache/plans": _cache_plan,
    "/api/v1/tag-keys": lambda world: TagKey.objects.create(name=f"tag_{next(_numbers)}", type=TagType.TEXT),
    "/api/v1/field-reports": lambda world: factories.FieldReportFactory(),
    "/api/v1/checkpoints": lambda world: factories.CheckpointFactory(),
    "/api/v1/checkpoint-policies": lambda world: factories.CheckpointPolicyFactory(run_id=new_id()),
    "/api/v1/analysis/anomalies": lambda world: add_anomaly(add_series(n=str(next(_numbers)))),
    "/api/v1/metrics/series": lambda world: add_series(n=str(next(_numbers))),
    "/api/v1/alerts": lambda world: factories.AlertFactory(),
    "/api/v1/alert-rules": lambda world: factories.AlertRuleFactory(),
    "/api/v1/silences": lambda world: factories.SilenceFactory(),
    "/api/v1/alert-routes": lambda world: factories.AlertRouteFactory(),
    "/api/v1/notifications": _notification,
    "/api/v1/recoveries": lambda world: factories.RecoveryEventFactory(),
    "/api/v1/runs": _used_run,
    "/api/v1/runs/{id}/metrics": lambda world: factories.EpochMetricFactory(run=world.run),
    "/api/v1/runs/{id}/seeds": lambda world: factories.SeedFactory(run=world.run),
    "/api/v1/runs/{id}/checkpoints": lambda world: factories.CheckpointFactory(run_id=world.run.pk),
    "/api/v1/seeds": lambda world: factories.SeedFactory(),
    "/api/v1/decisions": lambda world: factories.DecisionFactory(),
}
