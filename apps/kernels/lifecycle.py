"""Life cycles of a kernel (only a VALIDATED kernel ever reaches a run), of a plan to retire some, and of one to move
bytes."""

from enum import StrEnum

from apps.core.lifecycle import Lifecycle


class KernelState(StrEnum):
    REGISTERED = "REGISTERED"
    UPLOADED = "UPLOADED"
    COMPILED = "COMPILED"
    BENCHMARKING = "BENCHMARKING"
    VALIDATED = "VALIDATED"
    REJECTED = "REJECTED"
    DEPRECATED = "DEPRECATED"
    RETIRED = "RETIRED"
    QUARANTINED = "QUARANTINED"
    PURGED = "PURGED"


S = KernelState

KERNEL_LIFECYCLE = Lifecycle.of(
    "kernel",
    initial=[S.REGISTERED],
    transitions=[
        (S.REGISTERED, S.UPLOADED),
        (S.REGISTERED, S.COMPILED),
        (S.REGISTERED, S.REJECTED),  # the spec cannot be built: there is no artefact to benchmark
        (S.UPLOADED, S.BENCHMARKING),
        (S.COMPILED, S.BENCHMARKING),
        (S.BENCHMARKING, S.VALIDATED),
        (S.BENCHMARKING, S.REJECTED),
        (S.VALIDATED, S.DEPRECATED),
        (S.DEPRECATED, S.RETIRED),
        (S.RETIRED, S.VALIDATED),
        (S.RETIRED, S.PURGED),
        *((state, S.QUARANTINED) for state in S if state not in {S.QUARANTINED, S.PURGED}),
        (S.QUARANTINED, S.RETIRED),
    ],
)

ENDED = frozenset({S.REJECTED, S.RETIRED, S.PURGED})
"""A kernel in one of these holds its contract no longer: another may be registered for it."""

DOWNLOADABLE = frozenset({S.UPLOADED, S.COMPILED, S.BENCHMARKING, S.VALIDATED, S.DEPRECATED})


class PlanState(StrEnum):
    PLANNED = "PLANNED"
    APPROVED = "APPROVED"
    APPLIED = "APPLIED"
    DISCARDED = "DISCARDED"


PLAN_LIFECYCLE = Lifecycle.of(
    "retention plan",
    initial=[PlanState.PLANNED],
    transitions=[
        (PlanState.PLANNED, PlanState.APPROVED),
        (PlanState.APPROVED, PlanState.APPLIED),
        (PlanState.PLANNED, PlanState.DISCARDED),
        (PlanState.APPROVED, PlanState.DISCARDED),
    ],
)


class CachePlanState(StrEnum):
    PLANNED = "PLANNED"
    APPLYING = "APPLYING"
    APPLIED = "APPLIED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


CACHE_PLAN_LIFECYCLE = Lifecycle.of(
    "cache plan",
    initial=[CachePlanState.PLANNED],
    transitions=[
        (CachePlanState.PLANNED, CachePlanState.APPLYING),
        (CachePlanState.PLANNED, CachePlanState.CANCELLED),
        (CachePlanState.APPLYING, CachePlanState.APPLIED),
        (CachePlanState.APPLYING, CachePlanState.FAILED),
        (CachePlanState.APPLYING, CachePlanState.CANCELLED),
    ],
)
