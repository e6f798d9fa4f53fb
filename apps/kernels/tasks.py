"""Queue ``compile``: one kernel at a time, in a sandboxed subprocess of the worker. Queue default: retention, cache."""

from contextlib import suppress
from datetime import timedelta
from typing import Any

import structlog
from celery import shared_task
from django.db import DatabaseError, InterfaceError
from django.utils import timezone

from apps.accounts.models import User
from apps.core.actors import SYSTEM, WORKER, Actor, ActorKind
from apps.core.errors import Conflict, InvalidTransition, ServiceError
from apps.core.queue import enqueue
from apps.kernels import services
from apps.kernels.cache import accesses, mover, planning, relay
from apps.kernels.cache.segments import TierAway
from apps.kernels.lifecycle import CachePlanState, KernelState, PlanState
from apps.kernels.models import CachePlan, CachePlanKind, Kernel, RetentionPlan, RetentionPolicy
from apps.kernels.retention.purging import due
from apps.kernels.sandbox import InfrastructureFault
from apps.kernels.selectors import PENDING

log = structlog.get_logger(__name__)
STUCK = timedelta(minutes=2)
FUTILE_PAUSE = timedelta(hours=1)
"""After a plan of the cache of which nothing could be moved, because a tier is away or too small."""
OPEN_PLANS = (PlanState.PLANNED, PlanState.APPROVED)


@shared_task(bind=True, max_retries=5)
def compile_kernel(self: Any, kernel_id: str) -> None:
    kernel = Kernel.objects.select_related("blueprint_version__blueprint").filter(pk=kernel_id).first()
    if kernel is None:
        log.warning("kernel_gone", kernel=kernel_id)
        return
    try:
        kernel = services.process_kernel(kernel=kernel)
    except InfrastructureFault as fault:
        raise self.retry(exc=fault, countdown=2**self.request.retries) from fault
    except InvalidTransition:
        log.info("kernel_processed_elsewhere", kernel=kernel_id)
        return
    log.info("kernel_processed", kernel=kernel_id, name=kernel.name, state=kernel.state, rejection=kernel.rejection)


@shared_task
def grade_kernels() -> None:
    """Bring the grades of all cohorts up to date, a batch in each transaction."""
    while changed := services.grade_kernels():
        log.info("kernels_graded", kernels=len(changed))


@shared_task
def retry_stuck() -> None:
    """Kernels whose message was lost (a flushed broker, a killed worker) are queued again."""
    stuck = Kernel.objects.filter(state__in=PENDING, updated_at__lt=timezone.now() - STUCK).exclude(
        state=KernelState.REGISTERED, awaits_upload=True
    )
    for kernel_id in stuck.values_list("pk", flat=True)[:100]:
        Kernel.objects.filter(pk=kernel_id).update(updated_at=timezone.now())
        enqueue(services.COMPILE_TASK, str(kernel_id))


# --- Retention


@shared_task
def plan_retention() -> None:
    """A plan of each enabled policy, for people to look at. None is applied by itself."""
    for policy in RetentionPolicy.objects.filter(is_enabled=True):
        try:
            plan = services.make_plan(policy=policy, actor=SYSTEM, reason="the daily plan")
        except ServiceError as error:
            log.error("policy_unreadable", policy=policy.name, reason=error.detail)
            continue
        log.info("retention_planned", policy=policy.name, plan=str(plan.pk), items=plan.item_count)


@shared_task
def apply_plan(plan_id: str, user_id: str = "") -> None:
    """The next batch of a plan, for the user who applied it; it queues the one after."""
    plan = RetentionPlan.objects.filter(pk=plan_id).first()
    if plan is None:
        log.warning("plan_gone", plan=plan_id)
        return
    try:
        services.apply_plan(plan=plan, actor=_user(user_id))
    except Conflict as error:
        log.warning("plan_not_applied", plan=plan_id, reason=error.detail)


def _user(user_id: str) -> Actor:
    user = User.objects.filter(pk=user_id).first() if user_id else None
    return Actor(kind=ActorKind.USER, id=user.pk, name=user.get_username()) if user else WORKER


@shared_task
def settle_plans() -> None:
    """Plans that have expired are over; those whose application was cut short go on."""
    for plan in RetentionPlan.objects.filter(state__in=OPEN_PLANS, expires_at__lte=timezone.now()):
        with suppress(InvalidTransition):  # somebody was faster
            services.discard_plan(plan=plan, reason="expired", actor=SYSTEM)
    begun = RetentionPlan.objects.filter(state=PlanState.APPROVED, updated_at__lt=timezone.now() - STUCK)
    for plan_id in begun.exclude(outcome={}).values_list("pk", flat=True):
        enqueue(services.APPLY_TASK, str(plan_id))


@shared_task
def purge_retired() -> None:
    """Retired kernels whose time is over give up their bytes; what an earlier purge or move left is finished."""
    for kernel in due(timezone.now()):
        try:
            services.purge_kernel(kernel=kernel, actor=SYSTEM)
        except Conflict as error:  # protected or restored meanwhile
            log.info("kernel_not_purged", kernel=str(kernel.pk), reason=error.detail)
    mover.settle()


# --- The cache


@shared_task
def relay_cache() -> None:
    """Do what committed transactions owe to the other tiers."""
    relay.drain()


@shared_task
def flush_accesses() -> None:
    """Write the counts of reads that the processes published."""
    accesses.flush()


@shared_task
def rebalance_cache() -> None:
    """Move kernels to the storage tier that their reads ask for, by a plan that tells why."""
    if _is_time_for(CachePlanKind.OPTIMISE) and planning.optimise():
        _plan_and_apply(CachePlanKind.OPTIMISE)


@shared_task
def warm_cache() -> None:
    """Put into L2 what it lacks of what is read most."""
    with suppress(TierAway):  # L2 comes back empty at worst: the next round fills it
        if _is_time_for(CachePlanKind.WARM) and planning.warm():
            _plan_and_apply(CachePlanKind.WARM)


def _is_time_for(kind: str) -> bool:
    """No plan of the kind is under way, and the last one moved something: else the next is made FUTILE_PAUSE later."""
    plans = CachePlan.objects.filter(kind=kind)
    if plans.filter(state=CachePlanState.APPLYING).exists():
        return False
    last = plans.filter(state=CachePlanState.APPLIED, updated_at__gt=timezone.now() - FUTILE_PAUSE).first()
    return last is None or not last.moves or last.result.get("moved", 0) > 0


def _plan_and_apply(kind: str) -> None:
    plan = services.plan_cache(kind=kind, actor=SYSTEM, reason="by schedule")
    services.apply_cache_plan(plan=plan, actor=SYSTEM, reason="by schedule")


@shared_task
def carry_out_cache_plan(plan_id: str) -> None:
    plan = CachePlan.objects.filter(pk=plan_id, state=CachePlanState.APPLYING).first()
    if plan is None:
        log.info("cache_plan_over", plan=plan_id)
        return
    try:
        services.carry_out_cache_plan(plan=plan, actor=WORKER)
    except Conflict as error:
        log.info("cache_plan_carried_out_elsewhere", plan=plan_id, reason=error.detail)
    except (DatabaseError, InterfaceError):  # it goes on once the database answers
        raise
    except Exception as error:  # a mistake of ours: tried again, it would only come again
        services.fail_cache_plan(plan=plan, problem=f"{type(error).__name__}: {error}", actor=WORKER)
        raise


@shared_task
def continue_cache_plans() -> None:
    """Plans whose worker died go on."""
    stuck = CachePlan.objects.filter(state=CachePlanState.APPLYING, updated_at__lt=timezone.now() - STUCK)
    for plan_id in stuck.values_list("pk", flat=True):
        enqueue(services.CARRY_OUT_TASK, str(plan_id))
