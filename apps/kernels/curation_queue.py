"""Which kernels wait for a person, and what for: one table, read by the admin.

waiting(now)                    the kernels of the queue, any concern
counts(now)                     concern -> how many
with_concerns(kernels, now)     each row with ``waits_for``: the keys of its concerns
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.contrib.postgres.fields import ArrayField
from django.db.models import Case, CharField, Count, Exists, Func, OuterRef, Q, QuerySet, Value, When

from apps.kernels.lifecycle import KernelState
from apps.kernels.models import Kernel, KernelAlias, KernelUse
from apps.kernels.selectors import PENDING

RECENT = timedelta(days=7)
"""How long a rejection stays in the queue."""
STALLED = timedelta(hours=1)
"""How long compiling and validating may take, the wait in the queue included."""
LAST_CALL = timedelta(days=3)
"""How long before its purge a retired kernel is in the queue."""
RISKY, SURE = 0.5, 0.5
"""A risk above the first, known with a confidence of at least the second."""


@dataclass(frozen=True, slots=True)
class Concern:
    """Why a person should look at a kernel. ``condition`` tells which kernels, at a moment."""

    key: str
    title: str
    remedy: str
    label: str
    condition: Callable[[datetime], Q]


def _nobody_chose(now: datetime) -> Q:
    pointing = KernelAlias.objects.filter(
        blueprint_id=OuterRef("blueprint_version__blueprint_id"), kernel__isnull=False
    )
    return Q(state=KernelState.VALIDATED) & ~Q(Exists(pointing))


def _can_go(now: datetime) -> Q:
    held = KernelUse.objects.filter(kernel_id=OuterRef("pk"), until=None)
    named = KernelAlias.objects.filter(kernel_id=OuterRef("pk"))
    pinned = Q(pinned_until__gt=now) | Q(legal_hold=True)
    return Q(state=KernelState.DEPRECATED) & ~pinned & ~Q(Exists(held)) & ~Q(Exists(named))


CONCERNS: dict[str, Concern] = {
    concern.key: concern
    for concern in (
        Concern(
            "quarantined",
            "Quarantined",
            "Its bytes are wrong, or somebody took it out of use: see its events. Retire it to free its contract.",
            "danger",
            lambda now: Q(state=KernelState.QUARANTINED),
        ),
        Concern(
            "rejected",
            "Rejected this week",
            "A check failed: its report says which. Submit a better version of its blueprint.",
            "danger",
            lambda now: Q(state=KernelState.REJECTED, updated_at__gt=now - RECENT),
        ),
        Concern(
            "risky",
            "High risk",
            "In use, and its grafts are more often undone than kept. Deprecate it, or name its successor.",
            "warning",
            lambda now: Q(state=KernelState.VALIDATED, risk__gt=RISKY, risk_confidence__gte=SURE),
        ),
        Concern(
            "stalled",
            "Stalled",
            "Not decided for an hour: its bytes were not uploaded, or no worker compiles.",
            "warning",
            lambda now: Q(state__in=PENDING, updated_at__lt=now - STALLED),
        ),
        Concern(
            "unnamed",
            "No alias",
            "Validated, and no alias of its blueprint points anywhere: clients cannot ask for it by name. Set one.",
            "info",
            _nobody_chose,
        ),
        Concern(
            "deprecated",
            "Deprecated",
            "Nothing holds it: no run, no pin, no alias. Retire it; it can be restored until its grace ends.",
            "info",
            _can_go,
        ),
        Concern(
            "leaving",
            "Purged soon",
            "Its grace ends within three days: restore it now, or let it go.",
            "warning",
            lambda now: Q(state=KernelState.RETIRED, purge_after__lt=now + LAST_CALL),
        ),
    )
}


def waiting(now: datetime) -> Q:
    """The condition of being in the queue at all."""
    found = Q()
    for concern in CONCERNS.values():
        found |= concern.condition(now)
    return found


def counts(now: datetime) -> dict[str, int]:
    """Concern -> how many kernels it is about; one statement."""
    counted = {key: Count("pk", filter=concern.condition(now)) for key, concern in CONCERNS.items()}
    return dict(Kernel.objects.aggregate(**counted))


def with_concerns(kernels: QuerySet[Kernel], now: datetime) -> QuerySet[Any]:
    """Each row with ``waits_for``, an array of keys of CONCERNS."""
    keys = [
        Case(When(concern.condition(now), then=Value(key)), default=None, output_field=CharField())
        for key, concern in CONCERNS.items()
    ]
    array = Func(*keys, template="array_remove(ARRAY[%(expressions)s], NULL)", output_field=ArrayField(CharField()))
    return kernels.annotate(waits_for=array)
