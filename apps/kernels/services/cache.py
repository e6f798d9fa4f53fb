"""Plans of the cache: made (a preview), applied by a worker move by move, cancelled."""

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.db.models import F
from django.db.models.functions import Greatest
from django.utils import timezone

from apps.audit import services as audit
from apps.audit.transitions import move
from apps.audit.watched import image
from apps.core.actors import Actor
from apps.core.errors import Conflict, ServiceError, Unavailable
from apps.core.locks import alone
from apps.core.queue import enqueue_after_commit
from apps.kernels.cache import CorruptKernel, changes, filling, mover, planning
from apps.kernels.cache.config import config
from apps.kernels.cache.segments import CorruptSegment, TierAway, TierName
from apps.kernels.cache.warming import Pace
from apps.kernels.lifecycle import CACHE_PLAN_LIFECYCLE, CachePlanState
from apps.kernels.models import CachePlan, CachePlanKind, Kernel, StorageTier

CARRY_OUT_TASK = "apps.kernels.tasks.carry_out_cache_plan"
PLAN_LIVES = timedelta(hours=1)


@transaction.atomic
def plan_cache(*, kind: str, actor: Actor, reason: str = "") -> CachePlan:
    """Write down what the cache would move now. Nothing is moved.

    Raises:
        Unavailable: to warm L2, it has to answer.
    """
    try:
        moves = planning.warm() if kind == CachePlanKind.WARM else planning.optimise()
    except TierAway as error:
        raise Unavailable(f"L2 does not answer: {error}", code="l2_away") from error
    plan = CachePlan(
        kind=kind,
        moves=[planned.told() for planned in moves],
        facts=planning.facts(moves),
        expires_at=timezone.now() + PLAN_LIVES,
    )
    plan.full_clean()
    plan.save(force_insert=True)
    audit.record(type="cache.planned", subject=plan, actor=actor, reason=reason, after=image(plan))
    return plan


@transaction.atomic
def apply_cache_plan(*, plan: CachePlan, actor: Actor, reason: str = "") -> CachePlan:
    """Let a worker carry the plan out. One that is under way, or over, is answered again.

    Raises:
        Conflict: it has expired, or was cancelled.
    """
    fresh = CachePlan.objects.select_for_update().get(pk=plan.pk)
    if fresh.state in {CachePlanState.APPLYING, CachePlanState.APPLIED}:
        return fresh
    if fresh.state == CachePlanState.PLANNED and fresh.expires_at <= timezone.now():
        raise Conflict("the plan has expired: make a new one", code="expired")
    begun = _step(fresh, CachePlanState.APPLYING, "cache.applying", actor, reason)
    enqueue_after_commit(CARRY_OUT_TASK, str(plan.pk))
    return begun


def cancel_cache_plan(*, plan: CachePlan, actor: Actor, reason: str = "") -> CachePlan:
    """Give the plan up; what it has moved already stays moved. Cancelled already: it is answered again.

    Raises:
        InvalidTransition: it is over.
    """
    if plan.state == CachePlanState.CANCELLED:
        return plan
    return _step(plan, CachePlanState.CANCELLED, "cache.cancelled", actor, reason)


def carry_out_cache_plan(
    *, plan: CachePlan, actor: Actor, progress: Callable[[int, int], None] = lambda done, total: None
) -> CachePlan:
    """Make the moves, and say what came of them. A repetition, after a crash, finds those that are made already.

    ``progress`` hears how many of how many moves were tried. A plan that is cancelled meanwhile is returned as it is.

    Raises:
        Conflict: another worker is at it.
    """
    with alone(f"cache plan {plan.pk}", busy="the plan is being carried out", code="being_applied"):
        result: dict[str, Any] = {"moved": 0, "bytes": 0, "left": []}
        pace = Pace(config().warm_bytes_per_second)
        for number, planned in enumerate(plan.moves):
            if not _is_applying(plan):
                return CachePlan.objects.get(pk=plan.pk)
            problem = _make(planned, plan, actor)
            if problem:
                result["left"].append({"kernel": planned["kernel"], "name": planned["name"], "reason": problem})
            else:
                result["moved"] += 1
                result["bytes"] += planned["bytes"]
            tried = Greatest(F("done"), number + 1)  # after a crash, what is shown does not go back
            CachePlan.objects.filter(pk=plan.pk).update(done=tried, updated_at=timezone.now())
            progress(number + 1, len(plan.moves))
            pace.moved(planned["bytes"])
        if plan.kind == CachePlanKind.WARM:
            _warm_processes()
        return _step(plan, CachePlanState.APPLIED, "cache.applied", actor, "", result=result)


def fail_cache_plan(*, plan: CachePlan, problem: str, actor: Actor) -> CachePlan:
    """The plan cannot be carried out. What it has moved already stays moved."""
    return _step(plan, CachePlanState.FAILED, "cache.failed", actor, problem, problem=problem)


def _step(plan: CachePlan, to: str, event: str, actor: Actor, reason: str, **changes: Any) -> CachePlan:
    return move(plan, lifecycle=CACHE_PLAN_LIFECYCLE, to=to, event=event, actor=actor, reason=reason, changes=changes)


def _is_applying(plan: CachePlan) -> bool:
    return CachePlan.objects.filter(pk=plan.pk, state=CachePlanState.APPLYING).exists()


def _make(planned: Mapping[str, Any], plan: CachePlan, actor: Actor) -> str:
    """Make one move, again if need be; why it was left, or nothing."""
    try:
        if planned["to"] == TierName.L2:
            return "" if filling.fill(planned["digest"]) else "L2 did not take it, or has it by now"
        kernel = Kernel.objects.filter(pk=planned["kernel"]).first()
        if kernel is None or kernel.digest != planned["digest"]:
            return "it has changed since"
        if kernel.storage_tier not in {planned["from"], planned["to"]}:
            return f"it is {kernel.storage_tier} now"
        mover.move(kernel, to=StorageTier(planned["to"]), actor=actor, reason=f"{plan}: {planned['reason']}")
    except ServiceError as error:
        return error.detail
    except (CorruptKernel, CorruptSegment, TierAway) as error:
        return str(error)
    return ""


def _warm_processes() -> None:
    """Every process that serves loads into its L1 what is read most; one that does not hear warms when it starts."""
    try:
        changes.publish("warm", "")
    except TierAway:
        return
