"""Aliases: pointing a name of a blueprint at one of its kernels, with the history of what it pointed at.

Every writer locks the blueprint first, then the kernel: the aliases of one blueprint change one after the other, and
the periods of an alias meet and never overlap.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.db import transaction
from django.utils import timezone

from apps.audit import services as audit
from apps.audit.watched import image
from apps.core.actors import Actor
from apps.core.errors import Conflict, Invalid
from apps.kernels.lifecycle import KernelState
from apps.kernels.models import AliasPeriod, Kernel, KernelAlias
from apps.kernels.selectors import lock_alias

PROTECTED_NAMES = frozenset({"prod"})
"""Names that are protected from their birth."""

NEVER_TARGETS = frozenset({KernelState.REJECTED, KernelState.QUARANTINED, KernelState.RETIRED, KernelState.PURGED})
"""States of kernels that no alias may be pointed at."""


@transaction.atomic
def set_alias(*, kernel: Kernel, name: str, actor: Actor, reason: str = "") -> KernelAlias:
    """Point the alias ``name`` of the kernel's blueprint at ``kernel``. Pointing it where it points changes nothing.

    Raises:
        ValidationError: the name is malformed. Invalid: a protected alias is moved without a reason.
        Conflict: the state of the kernel does not allow it.
    """
    blueprint_id = kernel.blueprint_version.blueprint_id
    alias = lock_alias(blueprint_id, name)
    if alias is not None and alias.kernel_id == kernel.pk:
        return alias
    before = image(alias) if alias is not None else None
    if alias is None:
        alias = KernelAlias(blueprint_id=blueprint_id, name=name, is_protected=name in PROTECTED_NAMES)
    elif alias.kernel_id is not None:
        _need_reason(alias, reason, "moving it")
    alias.kernel = Kernel.objects.select_for_update(of=("self",)).get(pk=kernel.pk)
    _check_target(alias.kernel, protected=alias.is_protected)
    _save(alias, before, "alias.set", actor, reason)
    AliasPeriod.objects.create(alias=alias, kernel=kernel, started_at=_end_period(alias))
    return alias


@transaction.atomic
def remove_alias(*, alias: KernelAlias, actor: Actor, reason: str = "") -> KernelAlias:
    """Take the alias away: it points at nothing, and its history stays. Again changes nothing.

    Raises:
        Invalid: it is protected, and there is no reason.
    """
    alias = _locked(alias)
    if alias.kernel_id is None:
        return alias
    _need_reason(alias, reason, "removing it")
    before = image(alias)
    alias.kernel = None
    _end_period(alias)
    return _save(alias, before, "alias.removed", actor, reason)


@transaction.atomic
def protect_alias(*, alias: KernelAlias, actor: Actor, reason: str = "") -> KernelAlias:
    """From now on it moves only with a reason, to VALIDATED kernels, and what it points at is never retired.

    Raises:
        Conflict: it points at a kernel that is not VALIDATED.
    """
    alias = _locked(alias)
    if alias.is_protected:
        return alias
    if alias.kernel_id is not None:
        _check_target(Kernel.objects.select_for_update(of=("self",)).get(pk=alias.kernel_id), protected=True)
    before = image(alias)
    alias.is_protected = True
    return _save(alias, before, "alias.protection_changed", actor, reason)


@transaction.atomic
def unprotect_alias(*, alias: KernelAlias, actor: Actor, reason: str = "") -> KernelAlias:
    """Lift the protection.

    Raises:
        Invalid: there is no reason.
    """
    alias = _locked(alias)
    if not alias.is_protected:
        return alias
    _need_reason(alias, reason, "lifting that")
    before = image(alias)
    alias.is_protected = False
    return _save(alias, before, "alias.protection_changed", actor, reason)


def _locked(alias: KernelAlias) -> KernelAlias:
    """The alias as it is now, and as it stays for others until the transaction ends."""
    fresh = lock_alias(alias.blueprint_id, alias.name)
    if fresh is None:
        raise TypeError("an alias is never deleted")
    return fresh


def _save(alias: KernelAlias, before: Mapping[str, Any] | None, event: str, actor: Actor, reason: str) -> KernelAlias:
    # Without the kernel where there is none: NULL is no mistake here. Twins: one writer at a time, and the constraint.
    alias.full_clean(exclude=() if alias.kernel_id else ("kernel",), validate_unique=False)
    alias.save(force_insert=before is None)
    audit.record(type=event, subject=alias, actor=actor, reason=reason, before=before, after=image(alias))
    return alias


def _need_reason(alias: KernelAlias, reason: str, act: str) -> None:
    if alias.is_protected and not reason.strip():
        raise Invalid(f"{alias.name} is protected: {act} needs a reason", pointer="/reason", code="required")


def _check_target(kernel: Kernel, *, protected: bool) -> None:
    if kernel.state in NEVER_TARGETS:
        raise Conflict(f"the kernel is {kernel.state}: no alias may point at it", code="not_a_target")
    if protected and kernel.state != KernelState.VALIDATED:
        raise Conflict(
            f"the kernel is {kernel.state}: a protected alias points at VALIDATED ones", code="not_validated"
        )


def _end_period(alias: KernelAlias) -> datetime:
    """Close the open period of a locked alias. Returns when the next one starts: never before this one did."""
    now = timezone.now()
    last = AliasPeriod.objects.filter(alias=alias).order_by("-started_at", "-id").first()
    if last is None:
        return now
    now = max(now, last.ended_at or last.started_at)  # the clock of another host may be ahead
    if last.ended_at is None:
        last.ended_at = now
        last.save(update_fields=["ended_at"])
    return now
