"""Recording events. ``record`` is called inside the transaction of the write that it describes."""

from collections.abc import Mapping
from typing import Any, Protocol

from django.db import connection
from django.utils import timezone
from psycopg.types.json import Jsonb

from apps.audit import pseudonyms
from apps.audit.canonical import dumps, plain
from apps.audit.catalogue import EVENT_TYPES
from apps.audit.models import AuditEvent
from apps.audit.verifier import leaf_hash
from apps.audit.watched import Personal
from apps.core import context
from apps.core.actors import Actor

COLUMNS = tuple(field.attname for field in AuditEvent._meta.concrete_fields)
LEAF_COLUMNS = tuple(name for name in COLUMNS if name != "leaf")
LEAF_ORDER = sorted(LEAF_COLUMNS)
DOCUMENTS = frozenset({"diff", "payload"})
MAX_REASON = 4000
# Plain SQL: the ORM's own work for one row took longer than the database's.
INSERT = (
    f"INSERT INTO {AuditEvent._meta.db_table} ({', '.join(COLUMNS)}) "  # noqa: S608 - names of our own columns
    f"VALUES ({', '.join(['%s'] * len(COLUMNS))})"
)


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

    ``before`` and ``after`` (``watched.image`` of the row) become a JSON Patch (RFC 6902); ``payload`` holds what was
    measured. A subject given as a pair names its kind where the catalogue leaves it open.

    Raises:
        ValueError: the type is not in the catalogue.
        RuntimeError: there is no transaction, so the event could outlive a write that is rolled back.
    """
    kind = EVENT_TYPES.get(type)
    if kind is None:
        raise ValueError(f"{type!r} is not an audit event type (apps/audit/catalogue.py)")
    if not connection.in_atomic_block:
        raise RuntimeError(f"{type} was recorded outside a transaction")
    subject_type, subject_id = subject if isinstance(subject, tuple) else ("", str(getattr(subject, "id", subject.pk)))
    ids = context.current()
    person = pseudonyms.pseudonym_of(actor.id) if actor.id is not None else None
    event = AuditEvent(
        at=timezone.now(),
        type=type,
        workspace_id=getattr(subject, "workspace_id", None),
        subject_type=kind.subject or subject_type,
        subject_id=subject_id,
        actor_id=person.id if person else None,
        actor_kind=str(actor.kind),
        actor_digest=pseudonyms.commit(person, "name", actor.name),
        address_digest=pseudonyms.commit(person, "address", actor.address),
        token_id=actor.token_id,
        request_id=ids.request_id,
        trace_id=ids.trace_id,
        reason=reason[:MAX_REASON],
        outcome=outcome,
        diff=json_patch(told(before), told(after)),
        payload=plain(payload or {}),
    )
    return _insert(event)


def _insert(event: AuditEvent) -> AuditEvent:
    """Store the event with its leaf. Its documents are plain already: they are not walked a second time."""
    values = {name: getattr(event, name) for name in COLUMNS}
    told = {name: values[name] if name in DOCUMENTS else plain(values[name]) for name in LEAF_ORDER}
    values["leaf"] = event.leaf = leaf_hash(dumps(told))
    values |= {name: Jsonb(values[name], dumps=dumps) for name in DOCUMENTS}
    with connection.cursor() as cursor:
        cursor.execute(INSERT, list(values.values()))
    event._state.adding, event._state.db = False, connection.alias
    return event


def told(image: Mapping[str, Any] | None) -> dict[str, Any]:
    """The image with each personal value replaced by its HMAC."""
    return {name: committed(value) if isinstance(value, Personal) else value for name, value in (image or {}).items()}


def committed(value: Personal) -> str:
    """What stands for a personal value in a diff."""
    return f"hmac:{pseudonyms.commit(pseudonyms.pseudonym_of(value.user_id), value.kind, value.value)}"


def json_patch(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The RFC 6902 operations that turn ``before`` into ``after``, one per top-level member."""
    old, new = plain(before), plain(after)
    removed = [{"op": "remove", "path": _pointer(name)} for name in sorted(old.keys() - new.keys())]
    added = [{"op": "add", "path": _pointer(name), "value": new[name]} for name in sorted(new.keys() - old.keys())]
    changed = [
        {"op": "replace", "path": _pointer(name), "value": new[name]}
        for name in sorted(old.keys() & new.keys())
        if not _is_same(old[name], new[name])
    ]
    return removed + added + changed


def _is_same(old: Any, new: Any) -> bool:
    """As JSON, where true is not 1."""
    return old == new and (dumps(old) == dumps(new) if isinstance(old, dict | list) else type(old) is type(new))


def _pointer(name: str) -> str:
    return "/" + name.replace("~", "~0").replace("/", "~1")
