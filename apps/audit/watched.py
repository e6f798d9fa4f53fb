"""What the trail knows of a table: one declaration that the events, the net, the replay and the tests read.

    class Kernel(WorkspaceOwned):
        audit = Watched(subject="kernel", outside={"usage_count", "last_used_at"})

``image(row)`` is the row as its events tell it: services pass it to ``audit.record`` as ``before`` and ``after``. So
the events of a subject, folded, are its row (``projections``), and a change that no event tells of is found: at once by
the net's triggers, later by ``manage.py replay_audit``.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.apps import apps
from django.db.models import Field, Model

BOOKKEEPING = frozenset({"id", "created_at", "updated_at", "row_version"})
"""Columns that every row has and that say nothing by themselves; ``id`` is the subject's."""


@dataclass(frozen=True, slots=True)
class Personal:
    """A name or an address of a user: the event gets its HMAC, the side table its value."""

    user_id: UUID
    kind: str
    value: str


@dataclass(frozen=True, slots=True)
class Watched:
    """A watched table. Columns are named by their attribute (``owner_id``).

    ``outside``: counters, signs of life and measurements, which change without an event. ``secret``: told as changed by
    a digest, never by value. ``personal``: names and addresses of the user whose row it is. ``of``: the column that
    holds the subject's id; where it is not the row's own ``id``, the row is a part of another subject's story, and only
    the net looks at it.
    """

    subject: str
    outside: Iterable[str] = field(default=())
    secret: Iterable[str] = field(default=())
    personal: Iterable[str] = field(default=())
    of: str = "id"

    @property
    def is_subject(self) -> bool:
        return self.of == "id"


def watched_models() -> dict[type[Model], Watched]:
    """Every watched model with its declaration."""
    found = ((model, getattr(model, "audit", None)) for model in apps.get_models())
    return {model: watch for model, watch in found if isinstance(watch, Watched)}


def columns(model: type[Model]) -> Iterator["Field[Any, Any]"]:
    """The columns of a watched model that events tell of."""
    watch: Watched = model.audit  # type: ignore[attr-defined]
    passed_over = BOOKKEEPING | set(watch.outside)
    return (column for column in model._meta.concrete_fields if column.attname not in passed_over)


def image(row: Model) -> dict[str, Any]:
    """The row as its events tell it: column -> value, a ``Personal``, or the digest of a secret."""
    watch: Watched = row.audit  # type: ignore[attr-defined]
    return {column.attname: _told(row, watch, column) for column in columns(type(row))}


def _told(row: Model, watch: Watched, column: "Field[Any, Any]") -> Any:
    name = column.attname
    value = column.to_python(getattr(row, name))  # what a new row was given may be of another type than what is stored
    if name in watch.personal:
        return Personal(user_id=row.pk, kind=name, value=value) if value else value
    if name in watch.secret:
        return secret_digest(value)
    return value


def secret_digest(value: object) -> str:
    """Stands for a secret in events: it changes with it and says nothing about it."""
    return f"sha256:{hashlib.sha256(str(value).encode()).hexdigest()}" if value else ""
