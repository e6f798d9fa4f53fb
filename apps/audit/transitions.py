"""The one way to move a row along its life cycle: locked, checked, saved and recorded in one transaction."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from django.db import transaction
from django.db.models import Model

from apps.audit import services as audit
from apps.core.actors import Actor
from apps.core.lifecycle import Lifecycle

Row = TypeVar("Row", bound=Model)


@transaction.atomic
def move(
    row: Row,
    *,
    lifecycle: Lifecycle,
    to: str,
    event: str,
    actor: Actor,
    reason: str,
    changes: Mapping[str, Any] | None = None,
    told: Sequence[str] = (),
    payload: Mapping[str, Any] | None = None,
) -> Row:
    """Bring ``row`` into state ``to`` with ``changes`` to other columns; returns the fresh row.

    The event's diff has the state and the columns that ``told`` names; ``payload`` is what was measured.

    Raises:
        InvalidTransition: the table has no such move from the state that the row is in now.
    """
    fresh = type(row)._default_manager.select_for_update(of=("self",)).get(pk=row.pk)
    columns = ("state", *told)
    lifecycle.check(_state(fresh), to)
    before = {name: getattr(fresh, name) for name in columns}
    for name, value in {**(changes or {}), "state": to}.items():
        setattr(fresh, name, value)
    fresh.save()
    after = {name: getattr(fresh, name) for name in columns}
    audit.record(type=event, subject=fresh, actor=actor, reason=reason, before=before, after=after, payload=payload)
    return fresh


def _state(row: Model) -> str:
    return str(getattr(row, "state"))  # noqa: B009 - every row with a life cycle has one
