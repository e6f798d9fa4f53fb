"""One row of every model of the admin, and the list of everything that the admin answers to."""

from collections.abc import Iterator
from dataclasses import dataclass

from django.contrib import admin
from django.contrib.admin import AdminSite
from django.db.models import Model
from django.urls import URLPattern, URLResolver, reverse
from django.utils import timezone

from apps.accounts.models import Workspace
from apps.audit.services import record, request_report
from apps.blueprints.models import VersionLineage
from apps.checkpoints.models import CheckpointPolicy
from apps.core.actors import SYSTEM
from apps.core.lineage import LineageKind
from apps.kernels.lifecycle import KernelState
from apps.kernels.models import BlobAccess, CacheOutbox, KernelLineage, KernelVariant, RetentionItem, TagType
from apps.kernels.services import create_policy, declare_tag, make_plan, plan_cache, set_alias
from apps.observability.models import AlertRule
from apps.training.lifecycle import RunState
from tests.support import factories


def make_rows() -> dict[str, Model]:
    """Model label -> a row of it that its buttons can do something with."""
    user = factories.UserFactory(role="operator")
    run = factories.RunFactory(state=RunState.RUNNING, owner=user)
    seed = factories.SeedFactory(run=run)
    checkpoint = factories.CheckpointFactory(run_id=run.pk)
    kernel = factories.KernelFactory(state=KernelState.VALIDATED)
    alias = set_alias(kernel=kernel, name="candidate", actor=SYSTEM)
    policy = create_policy(name=f"unused-{kernel.pk}", unused_for_days=0, grace_days=0, max_share=1.0, actor=SYSTEM)
    plan = make_plan(policy=policy, actor=SYSTEM)
    rows = [
        user,
        factories.TokenFactory(user=user),
        Workspace.objects.get(),
        kernel.blueprint_version.blueprint,
        kernel.blueprint_version,
        kernel,
        KernelVariant.objects.create(
            kernel=kernel, memory_format="channels_last", dtype="bfloat16", digest=kernel.digest, size=kernel.size
        ),
        KernelLineage.objects.create(child=kernel, parent=factories.KernelFactory(), kind=LineageKind.DERIVED),
        VersionLineage.objects.create(
            child=kernel.blueprint_version, parent=factories.BlueprintVersionFactory(), kind=LineageKind.DERIVED
        ),
        declare_tag(name=f"tag_{kernel.pk.hex}", type=TagType.TEXT, actor=SYSTEM),
        alias,
        alias.periods.get(),
        policy,
        plan,
        plan.items.first() or RetentionItem.objects.create(plan=plan, kernel=kernel, row_version=1, reason="", bytes=0),
        plan_cache(kind="optimise", actor=SYSTEM),
        CacheOutbox.objects.create(kind="fill", key=kernel.digest, due_at=timezone.now(), attempts=1, error="away"),
        BlobAccess.objects.create(
            digest=kernel.digest, score=2.0, scored_at=timezone.now(), reads=3, last_read_at=timezone.now()
        ),
        factories.FieldReportFactory(kernel=kernel, run_id=run.pk),
        checkpoint,
        factories.CheckpointJobFactory(checkpoint=checkpoint),
        CheckpointPolicy.objects.first() or factories.CheckpointPolicyFactory(),
        factories.PackFactory(),
        factories.RecoveryEventFactory(run=run, checkpoint=checkpoint),
        factories.AlertFactory(),
        AlertRule.objects.first() or factories.AlertRuleFactory(shipped="loss-spike"),
        factories.SilenceFactory(),
        factories.NotificationFactory(route_id=(route := factories.AlertRouteFactory()).pk, state="FAILED"),
        route,
        run,
        seed.slot,
        seed,
        factories.SeedTransitionFactory(seed=seed),
        factories.DecisionFactory(run=run),
        factories.EpochMetricFactory(run=run),
        request_report(kind="access", parameters={}, actor=SYSTEM),
        record(type="run.created", subject=run, actor=SYSTEM, after={"state": "QUEUED"}),
    ]
    return {row._meta.label_lower: row for row in rows}


@dataclass(frozen=True, slots=True)
class Page:
    """One address of the admin: of the site itself (no ``model``), of a list, or of a row (``takes_row``)."""

    name: str
    model: str = ""
    takes_row: bool = False

    def url(self, rows: dict[str, Model]) -> str:
        row = rows.get(self.model)
        arguments = [str(getattr(row, "id", None) or row.pk)] if self.takes_row and row is not None else []
        return reverse(f"admin:{self.name}", args=arguments)

    @property
    def verb(self) -> str:
        """``changelist``, ``add``, ``change``, or the name of a button."""
        return self.name.removeprefix(f"{self.model.replace('.', '_')}_")


def pages_of(site: AdminSite = admin.site) -> Iterator[Page]:
    """Everything in the site's URL conf that has a name, however it got there."""
    models = {model._meta.label_lower for model in site._registry}
    for pattern in site.get_urls():
        if isinstance(pattern, URLPattern):
            if pattern.name and "<" not in str(pattern.pattern):
                yield Page(pattern.name)
        elif isinstance(pattern, URLResolver):
            yield from _of_model(pattern, models)


def _of_model(resolver: URLResolver, models: set[str]) -> Iterator[Page]:
    model = str(resolver.pattern).rstrip("/").replace("/", ".")
    seen: set[str] = set()
    for pattern in resolver.url_patterns:
        if pattern.name and pattern.name not in seen:
            seen.add(pattern.name)
            yield Page(pattern.name, model if model in models else "", "object_id" in str(pattern.pattern))
