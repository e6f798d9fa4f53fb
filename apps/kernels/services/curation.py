"""What people decide about one kernel: its tags, how long it must stay, and what replaces it."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, TypedDict, Unpack

from django.db import transaction
from django.utils import timezone

from apps.audit import services as audit
from apps.audit.watched import image
from apps.core.actors import Actor
from apps.core.errors import Conflict, Invalid
from apps.core.flat import flat_object
from apps.kernels.grading import given_tags
from apps.kernels.lifecycle import KernelState
from apps.kernels.models import Kernel
from apps.kernels.successors import leads_to, lock_successors, require_same_contract
from apps.kernels.tags import check_tags

MAX_PIN = timedelta(days=5 * 366)
"""How far ahead a kernel may be pinned. What must stay for longer is a legal hold."""


class Changes(TypedDict, total=False):
    """What is left out stays as it is. None lifts the pin, or takes the successor away."""

    tags: Mapping[str, Any]
    pinned_until: datetime | None
    legal_hold: bool
    successor: Kernel | None


@transaction.atomic
def update_kernel(*, kernel: Kernel, actor: Actor, reason: str = "", **changes: Unpack[Changes]) -> Kernel:
    """Change what people decide about a kernel. The same values again change nothing.

    Raises:
        Invalid: a tag, a pin or a successor that cannot be; a hold that is lifted without a reason.
        Conflict: the kernel is gone, or the successor does not live.
    """
    if "successor" in changes:
        lock_successors()  # before the row: in the order of everybody
    kernel = Kernel.objects.select_for_update(of=("self",)).get(pk=kernel.pk)
    if kernel.state == KernelState.PURGED:
        raise Conflict("the kernel was purged: nothing of it changes any more", code="purged")
    before = image(kernel)
    if "tags" in changes:
        kernel.tags = given_tags("/tags", flat_object("/tags", changes["tags"]), kernel.tags)
        check_tags("/tags", kernel.tags)
    if "pinned_until" in changes and changes["pinned_until"] != kernel.pinned_until:
        kernel.pinned_until = _pin(changes["pinned_until"])
    if "legal_hold" in changes:
        _check_hold(kernel, changes["legal_hold"], reason)
        kernel.legal_hold = changes["legal_hold"]
    if "successor" in changes:
        _check_successor(kernel, changes["successor"])
        kernel.successor = changes["successor"]
    after = image(kernel)
    if after == before and not audit.json_patch(before, after):  # true is 1 to Python, not to JSON
        return kernel
    kernel.full_clean()
    kernel.save()
    audit.record(type="kernel.modified", subject=kernel, actor=actor, reason=reason, before=before, after=after)
    return kernel


def _pin(until: datetime | None) -> datetime | None:
    now = timezone.now()
    if until is not None and not now < until <= now + MAX_PIN:
        detail = f"must be in the future, at most {MAX_PIN.days} days ahead"
        raise Invalid(detail, pointer="/pinned_until", code="range")
    return until


def _check_hold(kernel: Kernel, hold: bool, reason: str) -> None:
    if kernel.legal_hold and not hold and not reason.strip():
        raise Invalid("lifting a legal hold needs a reason", pointer="/reason", code="required")


def _check_successor(kernel: Kernel, successor: Kernel | None) -> None:
    """Raises Invalid, Conflict."""
    if successor is None or successor.pk == kernel.successor_id:
        return
    # Nobody retires it meanwhile; a run that takes hold of both in the other order does not wait for this lock.
    successor = Kernel.objects.select_for_update(of=("self",), no_key=True).get(pk=successor.pk)
    require_same_contract(kernel, successor)
    if leads_to(successor, kernel):
        raise Invalid("would be replaced by this kernel in turn", pointer="/successor", code="cycle")
    if successor.state != KernelState.VALIDATED:
        raise Conflict(
            f"the successor is {successor.state}: only a VALIDATED kernel replaces another", code="not_validated"
        )
