"""Reading the sealed trail as it stood: the first ``size`` leaves, from the event store and from archived months."""

import zlib
from collections.abc import Iterator
from datetime import datetime
from heapq import merge
from operator import itemgetter
from typing import Any

import orjson
from django.db import connection, transaction

from apps.audit.archives import archived_events, sha256_of
from apps.audit.canonical import plain
from apps.audit.models import AuditArchive
from apps.audit.reading import Event, Read, Wanted, is_wanted
from apps.audit.services.recording import DOCUMENTS, LEAF_COLUMNS
from apps.core.errors import Unavailable
from apps.core.objects import STORAGE_FAULTS


class UnreadableArchive(Unavailable):
    """An archived month that is asked for cannot be read from the object storage."""

    code = "archive"


CHUNK = 2_000
COLUMNS = ("index", *LEAF_COLUMNS, "leaf")
EVENTS = f"""
    SELECT leaf.index, {", ".join(f"event.{name}" for name in LEAF_COLUMNS)}, event.leaf
    FROM audit_auditleaf AS leaf
    JOIN audit_auditevent AS event ON event.id = leaf.event_id AND event.at = leaf.at
    WHERE leaf.index < %(size)s AND event.at <= %(at)s AND event.type LIKE ANY (%(types)s)
"""  # noqa: S608 - names of our own columns
NARROWED = {
    "since": " AND event.at >= %(since)s",
    "until": " AND event.at < %(until)s",
    "subject_type": " AND event.subject_type = %(subject_type)s",
    "subject_id": " AND event.subject_id = %(subject_id)s",
}


def reader(*, size: int, at: datetime) -> Read:
    """Reads the leaves below ``size`` whose events were recorded up to ``at``, in the order of the tree.

    Reading raises UnreadableArchive.
    """

    def read(wanted: Wanted) -> Iterator[Event]:
        archives = [_archived(archive, wanted, size, at) for archive in AuditArchive.objects.all()]
        last = -1
        for event in merge(_stored(wanted, size, at), *archives, key=itemgetter("index")):
            if event["index"] > last:  # a month that is being archived is in both places for a moment
                last = event["index"]
                yield event

    return read


def _stored(wanted: Wanted, size: int, at: datetime) -> Iterator[Event]:
    """A cursor on the server: one chunk of rows is held at a time."""
    conditions = {name: value for name in NARROWED if (value := getattr(wanted, name))}
    values = {"size": size, "at": at, "types": [_like(pattern) for pattern in wanted.types], **conditions}
    query = EVENTS + "".join(NARROWED[name] for name in conditions) + " ORDER BY leaf.index"
    with transaction.atomic(), connection.chunked_cursor() as cursor:
        cursor.execute(query, values)
        while rows := cursor.fetchmany(CHUNK):
            for row in rows:
                event = _event(row)
                if is_wanted(event, wanted):
                    yield event


def _like(pattern: str) -> str:
    """The LIKE pattern of a pattern with ``*``."""
    return pattern.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_").replace("*", "%")


def _event(row: tuple[Any, ...]) -> Event:
    """The row as ``proofs.exported`` gives it. Documents come as JSON text: Django leaves them to its fields."""
    values = dict(zip(COLUMNS, row, strict=True))
    return {name: orjson.loads(value) if name in DOCUMENTS else plain(value) for name, value in values.items()}


def _archived(archive: AuditArchive, wanted: Wanted, size: int, at: datetime) -> Iterator[Event]:
    """The same of a month that left the event store; a month outside of the range is not opened.

    Raises:
        UnreadableArchive: the file is away, damaged or altered: no report is signed over it.
    """
    month = archive.partition[-7:].replace("_", "-")
    if month > f"{at:%Y-%m}" or (wanted.since is not None and month < f"{wanted.since:%Y-%m}"):
        return
    try:
        if sha256_of(archive.name) != archive.sha256:
            raise UnreadableArchive(f"the archive {archive.name} was altered: run manage.py verify_audit")
        for event in archived_events(archive):
            if event["index"] < size and datetime.fromisoformat(event["at"]) <= at and is_wanted(event, wanted):
                yield event
    except (*STORAGE_FAULTS, ValueError, EOFError, KeyError, zlib.error) as error:
        raise UnreadableArchive(f"the archive {archive.name} cannot be read: {error}") from error
