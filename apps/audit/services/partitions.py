"""The monthly partitions of the event store. Functions of the tables' owner do the work on tables themselves."""

import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from django.conf import settings
from django.core.files.storage import storages
from django.db import DatabaseError, connection, transaction
from django.utils import timezone

from apps.audit import archives
from apps.audit import services as audit
from apps.audit.models import AuditArchive, AuditEvent, AuditLeaf
from apps.audit.proofs import exported
from apps.core.actors import Actor
from apps.core.errors import Conflict, NotFound, Unavailable
from apps.core.objects import STORAGE_FAULTS, delete, exists, put

PARENT = AuditEvent._meta.db_table
CHUNK = 2_000


def make_partitions(*, months_ahead: int = 3) -> list[str]:
    """Make the monthly partitions up to ``months_ahead`` from now; existing ones are left alone. Returns the new ones.

    A SECURITY DEFINER function of the owner does the work: the application role cannot create tables.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT name FROM esper_audit_make_partitions(%s) AS name", [months_ahead])
        return [name for (name,) in cursor.fetchall()]


def index_text() -> list[str]:
    """Make the trigram index of each month that is over and has none. Returns the partitions that got one.

    A function of the owner does the work; without the extension pg_trgm it does nothing, and text is found by scanning.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT name FROM esper_audit_index_text() AS name")
        return [name for (name,) in cursor.fetchall()]


def partitions() -> list[str]:
    """The partitions that the event store has, oldest first."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = %s::regclass ORDER BY 1", [PARENT]
        )
        return [name for (name,) in cursor.fetchall()]


def closed_partitions() -> list[str]:
    """Those whose month is over, oldest first."""
    return [name for name in partitions() if name < f"{PARENT}_{timezone.now():%Y_%m}"]


def archivable_partitions() -> list[str]:
    """Those that are older than ESPER_AUDIT_KEEP_MONTHS full months, oldest first; none while that is 0."""
    keep = settings.AUDIT_KEEP_MONTHS
    return closed_partitions()[:-keep] if keep else []


def archive_partition(*, partition: str, actor: Actor, reason: str) -> AuditArchive:
    """Move the events of a month that is over to the object storage: written, read back, then detached, in one event.

    The leaves stay in the tree, so the archived events still verify. The detached table stays until its owner drops it.

    Raises:
        NotFound: there is no such partition. Conflict: its month is not over, or an event of it is not sealed.
        Unavailable: the object storage does not take or give back the file; nothing was detached.
    """
    _require_archivable(partition)
    name = archives.NAME.format(partition=partition)
    try:
        digest, events, size = _store(partition, name)
    except STORAGE_FAULTS as error:
        raise Unavailable(f"the archive {name} could not be stored: {error}", code="storage") from error
    try:
        with transaction.atomic():
            audit.record(
                type="audit.partition_archived",
                subject=("partition", partition),
                actor=actor,
                reason=reason,
                payload={"name": name, "sha256": digest, "events": events, "bytes": size},
            )
            with connection.cursor() as cursor:
                values: list[str | int] = [partition, name, digest, events, size]
                cursor.execute("SELECT esper_audit_detach_partition(%s, %s, %s, %s, %s)", values)
    except DatabaseError as error:
        raise Conflict(f"{partition} cannot be detached now: {str(error).splitlines()[0]}", code="detach") from error
    return AuditArchive.objects.get(partition=partition)


def _require_archivable(partition: str) -> None:
    known = partitions()
    if partition not in known:
        raise NotFound(f"{partition!r:.80} is not a partition; partitions: {', '.join(known)}")
    if partition not in closed_partitions():
        raise Conflict(f"{partition} is not over yet", code="open_month")
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT count(*) FROM {connection.ops.quote_name(partition)} AS event "  # noqa: S608 - a known partition
            "LEFT JOIN audit_auditleaf AS leaf ON leaf.event_id = event.id AND leaf.at = event.at "
            "WHERE leaf.event_id IS NULL"
        )
        unsealed = int(cursor.fetchone()[0])
    if unsealed:
        raise Conflict(f"{unsealed} events of {partition} are not sealed yet", code="not_sealed")


def _store(partition: str, name: str) -> tuple[str, int, int]:
    """Write the archive and read it back: (sha256, events, bytes). A file of an interrupted attempt is replaced."""
    storage = storages["default"]
    with tempfile.TemporaryFile() as file:
        events = archives.write_events(_events_of(partition), file)
        size = file.tell()
        file.seek(0)
        if exists(storage, name):
            delete(storage, name)
        put(storage, name, file)
        file.seek(0)
        digest = archives.sha256_of_file(file)
    if archives.sha256_of(name) != digest:
        raise OSError("what comes back is not what was written")
    return digest, events, size


def _events_of(partition: str) -> Iterator[dict[str, Any]]:
    """The partition's events as the verifier reads them, in the order of the tree."""
    month = partition.removeprefix(f"{PARENT}_")
    year, number = (int(part) for part in month.split("_"))
    start = datetime(year, number, 1, tzinfo=UTC)
    end = datetime(year + number // 12, number % 12 + 1, 1, tzinfo=UTC)
    leaves = AuditLeaf.objects.filter(at__gte=start, at__lt=end).order_by("index")
    last = -1
    while rows := list(leaves.filter(index__gt=last).values_list("index", "event_id")[:CHUNK]):
        events = AuditEvent.objects.filter(at__gte=start, at__lt=end).in_bulk([event_id for _, event_id in rows])
        for index, event_id in rows:
            yield exported(events[event_id], index)
        last = rows[-1][0]
