"""What stands beside the tree: events that wait for their seal, strays, archived months, names and addresses."""

from typing import Any

from django.db import connection
from django.db.models import Exists, OuterRef

from apps.audit.archives import sha256_of
from apps.audit.merkle import TILE
from apps.audit.models import (
    AuditArchive,
    AuditCheckpoint,
    AuditCopy,
    AuditEvent,
    AuditLeaf,
    AuditNode,
    AuditPerson,
    AuditPersonalValue,
)
from apps.audit.pseudonyms import Pseudonym
from apps.audit.verification.events import CHUNK, ORDERED, Walk, leaf_of
from apps.audit.verification.findings import MAX_FINDINGS, Outcome
from apps.core.objects import STORAGE_FAULTS

UNSEALED = f"""
    SELECT pending.event_id, pending.leaf, event.leaf, {", ".join(f"event.{name}" for name in ORDERED)}
    FROM audit_auditpending AS pending
    LEFT JOIN audit_auditevent AS event ON event.id = pending.event_id AND event.at = pending.at
    WHERE %(last)s::uuid IS NULL OR pending.event_id > %(last)s ORDER BY pending.event_id LIMIT %(most)s
"""  # noqa: S608 - names of our own columns
STRAYS = """
    SELECT event.id, event.at FROM audit_auditevent AS event
    LEFT JOIN audit_auditleaf AS leaf ON leaf.event_id = event.id AND leaf.at = event.at
    LEFT JOIN audit_auditpending AS pending ON pending.event_id = event.id AND pending.at = event.at
    WHERE leaf.event_id IS NULL AND pending.event_id IS NULL ORDER BY event.id LIMIT %s
"""


def leaf_count() -> int:
    """Up to the last leaf, but no further than there are leaves and findings: an altered index may be any number."""
    bound = AuditLeaf.objects.count() + MAX_FINDINGS
    within = AuditLeaf.objects.filter(index__gte=0, index__lt=bound).order_by("-index")
    last = within.values_list("index", flat=True).first()
    return 0 if last is None else int(last) + 1


def check_unsealed(outcome: Outcome) -> None:
    """Events that wait for their seal are still as they were queued."""
    last: Any = None
    while True:
        with connection.cursor() as cursor:
            cursor.execute(UNSEALED, {"last": last, "most": CHUNK})
            rows = cursor.fetchall()
        for event_id, queued, stored, *values in rows:
            outcome.unsealed += 1
            if stored is None:
                outcome.wrong("event", event_id, "waits for its seal and is missing from the event store")
            elif not leaf_of(values) == bytes(stored) == bytes(queued):
                outcome.wrong("event", event_id, "was changed before it was sealed: it does not have its leaf")
        if len(rows) < CHUNK:
            return
        last = rows[-1][0]


def check_strays(outcome: Outcome) -> None:
    """Rows that belong to nothing: events outside of the tree, leaves, nodes and copies without what they stand for."""
    with connection.cursor() as cursor:
        cursor.execute(STRAYS, [MAX_FINDINGS])
        for event_id, at in cursor.fetchall():
            outcome.wrong("event", event_id, f"({at.isoformat()}) is neither sealed nor waiting for its seal")
    left = leaf_count()
    strays = AuditLeaf.objects.exclude(index__gte=0, index__lt=left).values_list("index", flat=True)
    for index in strays[:MAX_FINDINGS]:
        outcome.wrong("leaf", index, "stands outside of the tree")
    for node in AuditNode.objects.iterator(chunk_size=CHUNK):
        if node.group < 1 or node.index < 0 or (node.index + 1) * TILE**node.group > left:
            outcome.wrong("node", f"{node.group}/{node.index}", "stands over leaves that do not exist")
    signed = AuditCheckpoint.objects.filter(pk=OuterRef("pk"))
    for copy in AuditCopy.objects.filter(~Exists(signed))[:MAX_FINDINGS]:
        outcome.wrong("copy", copy.pk, "is of a checkpoint that is not there")


def check_archives(outcome: Outcome) -> None:
    """Each archive has the bytes that the event of its making names."""
    told = {
        event.subject_id: event.payload
        for event in AuditEvent.objects.filter(type="audit.partition_archived").iterator()
    }
    for archive in AuditArchive.objects.all():
        said = told.get(archive.partition)
        values = {name: getattr(archive, name) for name in ("name", "sha256", "events", "bytes")}
        if said is not None and {name: said.get(name) for name in values} != values:
            outcome.wrong("archive", archive.partition, "is not what the event of its making says")
        try:
            digest = sha256_of(archive.name)
        except FileNotFoundError:
            outcome.wrong("archive", archive.partition, f"{archive.name} is gone from the object storage")
        except STORAGE_FAULTS as error:
            outcome.unchecked.append(f"{archive.name}: {error}")
        else:
            if digest != archive.sha256:
                outcome.wrong("archive", archive.partition, f"{archive.name} does not have its sha256")


def check_personal_values(outcome: Outcome, walk: Walk) -> None:
    """Names and addresses against the HMACs in the events; only an erasure, itself an event, takes one away."""
    people: dict[Any, Pseudonym | None] = {}
    unsealed = AuditEvent.objects.filter(type="access.person_erased").order_by().values_list("subject_id", flat=True)
    erased = walk.erased | set(unsealed)
    for value in AuditPersonalValue.objects.iterator(chunk_size=CHUNK):
        walk.commitments.discard((str(value.person_id), value.kind, value.digest))
        walk.commitments.discard(("", value.kind, value.digest))
        person = people.setdefault(value.person_id, _person(value.person_id))
        if person is None:
            outcome.wrong("value", value.pk, f"belongs to {value.person_id}, whom nobody knows")
        elif value.value is None or person.salt is None:
            if str(person.id) not in erased:
                outcome.wrong("value", value.pk, f"of {person.id} is gone, and no event says that it was erased")
        elif person.digest(value.kind, value.value) != value.digest:
            outcome.wrong("value", value.pk, f"is not the {value.kind} that the events of {person.id} commit to")
    for person_id, kind, digest in sorted(walk.commitments):
        outcome.wrong("value", digest, f"the {kind} of {person_id or 'somebody'} that events commit to is gone")


def _person(person_id: Any) -> Pseudonym | None:
    row = AuditPerson.objects.filter(pk=person_id).first()
    if row is None:
        return None
    return Pseudonym(id=row.pk, salt=bytes(row.salt) if row.salt is not None else None)
