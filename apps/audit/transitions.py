"""The one way to move a row along its life cycle: locked, checked, saved and recorded in one transaction."""

from collections.abc import Mapping
from typing import Any, TypeVar

from django.db import transaction
from django.db.models import Model

from apps.audit import services as audit
from apps.audit.watched import image
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
    payload: Mapping[str, Any] | None = None,
) -> Row:
    """Bring ``row`` into state ``to`` with ``changes`` to other columns; returns the fresh row.

    The event's diff has the state and every other column that changed; ``payload`` is what no column holds.

    Raises:
        InvalidTransition: the table has no such move from the state that the row is in now.
    """
    fresh = type(row)._default_manager.select_for_update(of=("self",)).get(pk=row.pk)
    lifecycle.check(_state(fresh), to)
    before = image(fresh)
    for name, value in {**(changes or {}), "state": to}.items():
        setattr(fresh, name, value)
    fresh.save()
    audit.record(
        type=event, subject=fresh, actor=actor, reason=reason, before=before, after=image(fresh), payload=payload
    )
    return fresh


def _state(row: Model) -> str:
    return str(getattr(row, "state"))  # noqa: B009 - every row with a life cycle has one
