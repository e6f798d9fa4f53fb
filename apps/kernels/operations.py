"""Plans of the cache that are, or were, carried out, as `/operations/{id}` shows long work."""

from uuid import UUID

from apps.core.actors import Actor
from apps.core.errors import NotFound
from apps.core.operations import Operation, OperationState
from apps.core.registry import registry
from apps.kernels import selectors, services
from apps.kernels.lifecycle import CachePlanState
from apps.kernels.models import CachePlan

STATES = {
    CachePlanState.APPLYING: OperationState.RUNNING,
    CachePlanState.APPLIED: OperationState.SUCCEEDED,
    CachePlanState.FAILED: OperationState.FAILED,
    CachePlanState.CANCELLED: OperationState.CANCELLED,
}


class CachePlans:
    """A plan that nobody has applied yet is no operation."""

    read_scope = "library:read"
    write_scope = "library:write"

    def find(self, id: UUID) -> Operation | None:
        plan = selectors.cache_plans().filter(pk=id, state__in=STATES).first()
        return None if plan is None else _operation(plan)

    def cancel(self, id: UUID, *, actor: Actor) -> Operation:
        services.cancel_cache_plan(plan=CachePlan.objects.get(pk=id), actor=actor)
        return operation_of(id)


def operation_of(plan_id: UUID) -> Operation:
    """What carries the plan out. Raises NotFound: nothing does."""
    found = CachePlans().find(plan_id)
    if found is None:
        raise NotFound("the plan is not applied")
    return found


def _operation(plan: CachePlan) -> Operation:
    state = STATES[CachePlanState(plan.state)]
    if state == OperationState.RUNNING and not plan.done:
        state = OperationState.PENDING
    return Operation(
        id=plan.pk,
        kind=f"cache.{plan.kind}",
        state=state,
        done=plan.done,
        total=plan.move_count,  # type: ignore[attr-defined]  # selectors.cache_plans()
        subject=f"/api/v1/cache/plans/{plan.pk}",
        created_at=plan.created_at,
        updated_at=plan.updated_at,
        result=plan.result if state == OperationState.SUCCEEDED else None,
        problem=plan.problem or None,
    )


registry.operations["cache_plans"] = CachePlans()
