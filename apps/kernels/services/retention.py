"""Policies of retention, and their plans: made, approved, then applied to what has not changed since.

A plan is applied in batches, each one transaction: whatever kills it, the next call goes on where it stopped.
"""

from collections import Counter
from collections.abc import Collection, Iterable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from django.db import transaction
from django.utils import timezone

from apps.audit import services as audit
from apps.audit.transitions import move
from apps.audit.watched import image
from apps.core.actors import Actor
from apps.core.errors import Conflict, Invalid, field_errors
from apps.core.queue import enqueue_after_commit
from apps.kernels.lifecycle import PLAN_LIFECYCLE, PlanState
from apps.kernels.models import Kernel, RetentionItem, RetentionPlan, RetentionPolicy
from apps.kernels.retention import facts
from apps.kernels.retention.planning import draft
from apps.kernels.retention.rules import NAMES, Facts, verdict
from apps.kernels.services.retirement import retire_kernel

APPLY_TASK = "apps.kernels.tasks.apply_plan"
PLAN_LIVES = timedelta(hours=24)
BATCH = 50
"""Items of one transaction: how long the kernels of a plan are locked together."""
DAYS = ("unused_for_days", "older_than_days", "grace_days", "purge_after_days")
MAX_DAYS = 36_500
SETTABLE = frozenset(
    {
        "description", "is_enabled", "match", "metric", "max_share", "max_bytes", "grace_days", "purge_after_days",
        *NAMES,
    }
)  # fmt: skip


@transaction.atomic
def create_policy(*, name: str, actor: Actor, reason: str = "", **settings: Any) -> RetentionPolicy:
    """A policy of retention; it makes plans by itself once it is enabled, and never applies any.

    Raises:
        Invalid: a setting is wrong, no criterion is set or ``match`` does not parse. Conflict: the name is taken.
    """
    policy = RetentionPolicy(name=name, **_known(settings))
    _check(policy)
    policy.save(force_insert=True)
    audit.record(type="retention.policy_created", subject=policy, actor=actor, reason=reason, after=image(policy))
    return policy


@transaction.atomic
def update_policy(*, policy: RetentionPolicy, actor: Actor, reason: str = "", **changes: Any) -> RetentionPolicy:
    """Change a policy; plans that are made already are applied by what it says then.

    Raises:
        Invalid: as ``create_policy`` does.
    """
    fresh = RetentionPolicy.objects.select_for_update(of=("self",)).get(pk=policy.pk)
    before = image(fresh)
    for name, value in _known(changes).items():
        setattr(fresh, name, value)
    _check(fresh)
    if image(fresh) == before:
        return fresh
    fresh.save()
    audit.record(
        type="retention.policy_changed", subject=fresh, actor=actor, reason=reason, before=before, after=image(fresh)
    )
    return fresh


def _known(settings: dict[str, Any]) -> dict[str, Any]:
    if unknown := set(settings) - SETTABLE:
        raise TypeError(f"a policy has no {min(unknown)}")
    return settings


def _check(policy: RetentionPolicy) -> None:
    """Raises Invalid, naming the field; Conflict: the name is taken."""
    try:
        policy.full_clean()
    except ValidationError as error:
        if any(fault.code == "unique_together" for fault in error.error_dict.get(NON_FIELD_ERRORS, ())):
            detail = f"there is a policy {policy.name} already"
            raise Conflict(detail, pointer="/name", code="duplicate") from None
        errors = field_errors(error)
        raise Invalid(errors[0].detail, errors=errors) from None
    for name in DAYS:
        if (getattr(policy, name) or 0) > MAX_DAYS:
            raise Invalid(f"is at most {MAX_DAYS}", pointer=f"/{name}", code="max_value")
    if all(getattr(policy, name) is None for name in NAMES):
        raise Invalid(f"set at least one of {', '.join(NAMES)}", pointer=f"/{NAMES[0]}", code="no_criterion")
    if not policy.metric and (policy.metric_below is not None or policy.keep_best is not None):
        raise Invalid("says which metric metric_below and keep_best look at", pointer="/metric", code="required")
    facts.population(policy)  # it parses


@transaction.atomic
def make_plan(
    *, policy: RetentionPolicy, actor: Actor, reason: str = "", among: Collection[UUID] | None = None
) -> RetentionPlan:
    """Write down what ``policy`` would retire now, of the kernels ``among`` only if they are given. None is touched.

    Raises:
        Invalid: the policy's match does not parse any more.
    """
    now = timezone.now()
    drafted = draft(policy, now, among)
    plan = RetentionPlan(
        policy=policy,
        workspace_id=policy.workspace_id,
        item_count=len(drafted.items),
        byte_count=sum(item.bytes for item in drafted.items),
        kept=dict(sorted(drafted.kept.items())),
        expires_at=now + PLAN_LIVES,
    )
    plan.full_clean()
    plan.save(force_insert=True)
    RetentionItem.objects.bulk_create(
        (
            RetentionItem(
                plan=plan, kernel_id=item.kernel_id, row_version=item.row_version, reason=item.reason, bytes=item.bytes
            )
            for item in drafted.items
        ),
        batch_size=1_000,
    )
    audit.record(type="retention.planned", subject=plan, actor=actor, reason=reason, after=image(plan))
    return plan


@transaction.atomic
def approve_plan(*, plan: RetentionPlan, reason: str, actor: Actor) -> RetentionPlan:
    """Let a plan be applied.

    Raises:
        Invalid: no reason. Conflict: it is approved or over already, or has expired.
    """
    if not reason.strip():
        raise Invalid("is needed: it stands in the trail", pointer="/reason", code="required")
    fresh = _locked(plan)
    _require_current(fresh)
    return _move(fresh, PlanState.APPROVED, actor, reason)


@transaction.atomic
def discard_plan(*, plan: RetentionPlan, reason: str, actor: Actor) -> RetentionPlan:
    """Give up a plan, or what is left of it. Raises Conflict: it is over already."""
    return _move(plan, PlanState.DISCARDED, actor, reason)


def _move(plan: RetentionPlan, to: PlanState, actor: Actor, reason: str) -> RetentionPlan:
    return move(plan, lifecycle=PLAN_LIFECYCLE, to=to, event="retention.transition", actor=actor, reason=reason)


def _locked(plan: RetentionPlan) -> RetentionPlan:
    return RetentionPlan.objects.select_for_update(of=("self",)).select_related("policy").get(pk=plan.pk)


def _require_current(plan: RetentionPlan) -> None:
    if plan.expires_at <= timezone.now():
        raise Conflict(f"the plan expired {plan.expires_at:%Y-%m-%d %H:%M}: make a new one", code="expired")


@transaction.atomic
def apply_plan(*, plan: RetentionPlan, actor: Actor, most: int | None = None) -> RetentionPlan:
    """Retire the next ``most`` (BATCH) kernels of an approved plan, and queue the rest; an applied plan stays as it is.

    Only kernels that have not changed since, that the policy still condemns and that nothing protects: all of it is
    read again under the locks of their rows. The others are left alone, and their items say why.

    Raises:
        Conflict: it is not approved, or has expired.
    """
    fresh = _locked(plan)
    if fresh.state == PlanState.APPLIED:
        return fresh
    if fresh.state != PlanState.APPROVED:
        remedy = "approve it first" if fresh.state == PlanState.PLANNED else "make another"
        raise Conflict(f"the plan is {fresh.state}: only an APPROVED one is applied; {remedy}", code="state")
    _require_current(fresh)
    items = list(fresh.items.filter(outcome="").order_by("kernel_id")[: most or BATCH])
    done = Counter(_applied(fresh.policy, items, actor))
    RetentionItem.objects.bulk_update(items, ["outcome", "detail"], batch_size=BATCH)
    outcome = dict(sorted((Counter(fresh.outcome) + done).items()))
    left = fresh.items.filter(outcome="").count()
    if left:
        enqueue_after_commit(APPLY_TASK, str(fresh.pk), str(actor.id or ""))
        return _note(fresh, outcome, actor, {**done, "left": left})
    return move(
        fresh,
        lifecycle=PLAN_LIFECYCLE,
        to=PlanState.APPLIED,
        event="retention.applied",
        actor=actor,
        reason="",
        changes={"outcome": outcome},
        payload={**done, "left": 0},
    )


def _note(plan: RetentionPlan, outcome: dict[str, int], actor: Actor, payload: dict[str, int]) -> RetentionPlan:
    before = image(plan)
    plan.outcome = outcome
    plan.save()
    audit.record(type="retention.applied", subject=plan, actor=actor, before=before, after=image(plan), payload=payload)
    return plan


def _applied(policy: RetentionPolicy, items: Iterable[RetentionItem], actor: Actor) -> Iterable[str]:
    """The outcome of each item, which is written on it."""
    ids = [item.kernel_id for item in items]
    rows = Kernel.objects.select_for_update(of=("self",)).filter(pk__in=ids).order_by("pk")
    kernels = {kernel.pk: kernel for kernel in rows}
    known, now = facts.of_policy(policy, ids), timezone.now()
    for item in items:
        kernel = kernels[item.kernel_id]
        item.outcome, item.detail = _judged(kernel, policy, item, known[kernel.pk], now)
        if item.outcome == "retired":
            after = timedelta(days=policy.purge_after_days)
            retire_kernel(kernel=kernel, reason=f"{policy.name}: {item.reason}", actor=actor, restorable_for=after)
        yield item.outcome


def _judged(
    kernel: Kernel, policy: RetentionPolicy, item: RetentionItem, known: Facts, now: datetime
) -> tuple[str, str]:
    """(outcome, why)."""
    found = verdict(kernel, policy, known, now)
    if found.kept_by:
        return "protected", "; ".join(finding.detail for finding in found.kept_by)[:300]
    if kernel.row_version != item.row_version:
        return "changed", f"it was version {item.row_version} and is {kernel.row_version} now ({kernel.state})"
    if not found.is_condemned:
        return "changed", "the policy does not condemn it any more"
    return "retired", ""
