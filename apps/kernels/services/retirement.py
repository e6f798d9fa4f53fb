"""The end of a kernel's life: retired (and restored), then purged. Plans retire through here too.

Locks, in this order: the plan, the blobs by digest, the kernels by id. What a run, an alias or a descendant does to a
kernel refers to its row, and so waits for the lock or is seen under it.
"""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from apps.audit.transitions import move
from apps.blueprints.models import BlueprintVersion
from apps.core.actors import Actor
from apps.core.errors import Conflict, Invalid, NotFound
from apps.kernels.cache import CorruptKernel, KernelStore, mover
from apps.kernels.cache.references import IN_DATABASE, digests_of
from apps.kernels.lifecycle import KERNEL_LIFECYCLE, KernelState
from apps.kernels.models import Kernel, StorageTier
from apps.kernels.retention import facts
from apps.kernels.retention.planning import freed_bytes
from apps.kernels.retention.purging import purged_at
from apps.kernels.retention.rules import RETIRABLE, protections
from apps.kernels.selectors import holders
from apps.kernels.successors import lock_successors, require_same_contract

RESTORABLE_FOR = timedelta(days=30)
"""How long a kernel that was retired by hand is kept from the purge."""


@transaction.atomic
def retire_kernel(
    *,
    kernel: Kernel,
    reason: str,
    actor: Actor,
    successor: Kernel | None = None,
    restorable_for: timedelta = RESTORABLE_FOR,
) -> Kernel:
    """Take a kernel out of the library: VALIDATED -> DEPRECATED -> RETIRED. Afterwards it may be purged.

    A QUARANTINED one too: it would keep its contract and its bytes for ever.

    Raises:
        Invalid: no reason, or a successor that is not in use or of another contract. Conflict: its state does not allow
            it, or something protects it.
    """
    if not reason.strip():
        raise Invalid("is needed: it stands in the trail", pointer="/reason", code="required")
    if successor is not None:
        lock_successors()  # before the rows: in the order of everybody
    rows, now = _both_locked(kernel, successor), timezone.now()
    fresh = rows[kernel.pk]
    if successor is not None:
        _check_successor(fresh, rows[successor.pk])
    if fresh.state not in (*RETIRABLE, KernelState.QUARANTINED):
        raise Conflict(
            f"the kernel is {fresh.state}: only a VALIDATED, DEPRECATED or QUARANTINED one is retired", code="state"
        )
    _require_unprotected(fresh, now)
    if fresh.state == KernelState.VALIDATED:
        fresh = _move(fresh, KernelState.DEPRECATED, "kernel.transition", actor, reason)
    changes: dict[str, Any] = {"retired_at": now, "purge_after": now + restorable_for}
    if successor is not None:
        changes["successor_id"] = successor.pk
    return _move(fresh, KernelState.RETIRED, "kernel.retired", actor, reason, changes=changes)


def _move(kernel: Kernel, to: KernelState, event: str, actor: Actor, reason: str, **told: Any) -> Kernel:
    return move(kernel, lifecycle=KERNEL_LIFECYCLE, to=to, event=event, actor=actor, reason=reason, **told)


def _locked(kernel: Kernel) -> Kernel:
    return Kernel.objects.select_for_update(of=("self",)).get(pk=kernel.pk)


def _both_locked(kernel: Kernel, successor: Kernel | None) -> dict[UUID, Kernel]:
    """By id, as they are now: whoever retires the successor meanwhile waits, or is seen."""
    keys = [kernel.pk, *([successor.pk] if successor else [])]
    return {row.pk: row for row in Kernel.objects.select_for_update(of=("self",)).filter(pk__in=keys).order_by("pk")}


def _check_successor(kernel: Kernel, successor: Kernel) -> None:
    """Raises Invalid."""
    if successor.pk == kernel.pk or successor.state != KernelState.VALIDATED:
        raise Invalid("must be another kernel that is VALIDATED", pointer="/successor", code="successor")
    require_same_contract(kernel, successor)


def _require_unprotected(kernel: Kernel, now: datetime) -> None:
    held = protections(kernel, facts.of_kernels([kernel.pk])[kernel.pk], now)
    if held:
        raise Conflict(f"the kernel stays: {'; '.join(finding.detail for finding in held)}", code="protected")


def restore_kernel(*, kernel: Kernel, actor: Actor, reason: str = "") -> Kernel:
    """Bring a retired kernel back into the library, with its bytes verified and in the database.

    Raises:
        Conflict: it is not retired, was never validated, its bytes are gone or corrupt, or a newer kernel has its
            contract. Unavailable: its bytes are in the object storage, which does not answer.
    """
    if kernel.state != KernelState.RETIRED:
        raise Conflict(f"the kernel is {kernel.state}: only a RETIRED one is restored", code="state")
    if kernel.rejection or "validation" not in kernel.report:  # it was quarantined before it came so far
        raise Conflict("the kernel was never validated: register its contract anew", code="never_validated")
    try:
        if kernel.storage_tier not in IN_DATABASE:
            kernel = mover.move(kernel, to=StorageTier.WARM, actor=actor, reason=reason)
        for digest in digests_of(kernel):
            KernelStore().verify(digest)
    except (CorruptKernel, NotFound) as error:
        raise Conflict(f"the kernel cannot be restored: {error}", code="bytes_lost") from error
    return _bring_back(kernel, actor, reason)


@transaction.atomic
def _bring_back(kernel: Kernel, actor: Actor, reason: str) -> Kernel:
    BlueprintVersion.objects.select_for_update().get(pk=kernel.blueprint_version_id)  # no twin is registered meanwhile
    twin = holders(kernel.blueprint_version_id, kernel.bindings).first()
    if twin is not None:
        raise Conflict(f"kernel {twin.pk} has this contract now: retire it first", code="duplicate_contract")
    fresh = _locked(kernel)
    if fresh.state != KernelState.RETIRED:
        raise Conflict(f"the kernel is {fresh.state} now", code="state")
    changes = {"retired_at": None, "purge_after": None, "successor_id": None}
    return _move(fresh, KernelState.VALIDATED, "kernel.restored", actor, reason, changes=changes)


@transaction.atomic
def purge_kernel(*, kernel: Kernel, actor: Actor) -> Kernel:
    """Give up the bytes of a retired kernel whose time is over: those that nothing else refers to are freed with it.

    Their copies in the object storage go after the commit; what fails there is tried again by beat.

    Raises:
        Conflict: it is not retired, its time is not over, or something protects it.
    """
    blobs = mover.lock_blobs(digests_of(kernel))
    fresh, now = _locked(kernel), timezone.now()
    if fresh.state != KernelState.RETIRED:
        raise Conflict(f"the kernel is {fresh.state}: only a RETIRED one is purged", code="state")
    _require_unprotected(fresh, now)
    when = purged_at(fresh, (), now)
    if when is None or when > now:
        raise Conflict("the kernel can still be restored: its time is not over", code="too_early")
    reason = f"retired {fresh.retired_at:%Y-%m-%d}, kept until {when:%Y-%m-%d}"
    payload = {"bytes": freed_bytes([fresh.pk])[fresh.pk]}
    purged = _move(fresh, KernelState.PURGED, "kernel.purged", actor, reason, payload=payload)
    for blob in blobs:
        mover.free(blob)
    return purged
