"""Recording events. ``record`` is called inside the transaction of the write that it describes."""

import hmac
import secrets
from collections.abc import Mapping
from typing import Any, Protocol
from uuid import UUID

from django.db import connection
from django.utils import timezone

from apps.audit.canonical import leaf_digest, plain
from apps.audit.catalogue import EVENT_TYPES
from apps.audit.models import AuditEvent, AuditPerson, AuditPersonalValue
from apps.core import context
from apps.core.actors import Actor
from apps.core.ids import new_id

LEAF_COLUMNS = tuple(field.attname for field in AuditEvent._meta.concrete_fields if field.attname != "leaf")


class Subject(Protocol):
    """What an event is about: anything with a primary key, or an explicit (type, id) pair."""

    pk: Any


def record(
    *,
    type: str,
    subject: Subject | tuple[str, str],
    actor: Actor,
    reason: str = "",
    outcome: str = "success",
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
    payload: Mapping[str, Any] | None = None,
) -> AuditEvent:
    """Append one event, in the caller's transaction.

    ``before`` and ``after`` become a JSON Patch (RFC 6902); ``payload`` holds what was measured.

    Raises:
        ValueError: the type is not in the catalogue.
        RuntimeError: there is no transaction, so the event could outlive a write that is rolled back.
    """
    kind = EVENT_TYPES.get(type)
    if kind is None:
        raise ValueError(f"{type!r} is not an audit event type (apps/audit/catalogue.py)")
    if not connection.in_atomic_block:
        raise RuntimeError(f"{type} was recorded outside a transaction")
    subject_id = subject[1] if isinstance(subject, tuple) else str(getattr(subject, "id", subject.pk))
    ids = context.current()
    person = _person(actor.id) if actor.id is not None else None
    event = AuditEvent(
        at=timezone.now(),
        type=type,
        workspace_id=getattr(subject, "workspace_id", None),
        subject_type=kind.subject,
        subject_id=subject_id,
        actor_id=person.id if person else None,
        actor_kind=str(actor.kind),
        actor_digest=_commit(person, "name", actor.name),
        address_digest=_commit(person, "address", actor.address),
        token_id=actor.token_id,
        request_id=ids.request_id,
        trace_id=ids.trace_id,
        reason=reason[:4000],
        outcome=outcome,
        diff=json_patch(before or {}, after or {}),
        payload=plain(payload or {}),
    )
    event.leaf = leaf_digest({name: getattr(event, name) for name in LEAF_COLUMNS})
    event.save(force_insert=True)
    return event


def json_patch(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The RFC 6902 operations that turn ``before`` into ``after``, one per top-level member."""
    old, new = plain(before), plain(after)
    removed = [{"op": "remove", "path": _pointer(name)} for name in sorted(old.keys() - new.keys())]
    added = [{"op": "add", "path": _pointer(name), "value": new[name]} for name in sorted(new.keys() - old.keys())]
    changed = [
        {"op": "replace", "path": _pointer(name), "value": new[name]}
        for name in sorted(old.keys() & new.keys())
        if old[name] != new[name]
    ]
    return removed + added + changed


def _pointer(name: str) -> str:
    return "/" + name.replace("~", "~0").replace("/", "~1")


def _person(user_id: UUID) -> AuditPerson:
    person, _ = AuditPerson.objects.get_or_create(
        user_id=user_id, defaults={"id": new_id(), "salt": secrets.token_bytes(32)}
    )
    return person


def _commit(person: AuditPerson | None, kind: str, value: str) -> str:
    """The HMAC that stands for a personal value in the event; the value itself goes to the side table."""
    if person is None or person.salt is None or not value:
        return ""
    digest = hmac.digest(bytes(person.salt), f"{kind}\0{value}".encode(), "sha256").hex()
    AuditPersonalValue.objects.get_or_create(person=person, kind=kind, digest=digest, defaults={"value": value})
    return digest


def make_partitions(*, months_ahead: int = 3) -> list[str]:
    """Make the monthly partitions up to ``months_ahead`` from now; existing ones are left alone. Returns the new ones.

    A SECURITY DEFINER function of the owner does the work: the application role cannot create tables.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT name FROM esper_audit_make_partitions(%s) AS name", [months_ahead])
        return [name for (name,) in cursor.fetchall()]
