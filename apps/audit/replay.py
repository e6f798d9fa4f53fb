"""Replay: the rows of the watched tables against the events that tell of them, and what differs, by name.

One snapshot of the database, read once in the order of subjects. In memory are one chunk of events and one batch of
subjects with their rows, whatever the trail's length.
"""

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from itertools import groupby, islice
from typing import Any
from uuid import UUID

import orjson
from django.db import connection, transaction
from django.db.models import CharField, Exists, Model, OuterRef
from django.db.models.functions import Cast

from apps.audit.canonical import canonical_json, plain
from apps.audit.models import AuditEvent, AuditPerson
from apps.audit.projections import archived_until, begins_before, fold
from apps.audit.pseudonyms import Pseudonym
from apps.audit.watched import Personal, Watched, columns, image, watched_models
from apps.core.ids import parse_id

CHUNK = 500
BATCH = 500
SHOWN_CHARACTERS = 200
# In the order of the index audit_subject, each event's place looked up: a join would be a quarter faster, and sort all
# diffs on disk (300 MB a million).
HISTORIES = """
    SELECT event.subject_type, event.subject_id, event.diff::text,
        (SELECT leaf.index FROM audit_auditleaf AS leaf WHERE leaf.event_id = event.id) AS place
    FROM audit_auditevent AS event WHERE event.subject_type = ANY(%s) AND event.diff <> '[]'
    ORDER BY event.subject_type, event.subject_id, place NULLS LAST, event.id
"""


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that events and table do not agree on.

    ``kind``: ``column`` (``events`` and ``table`` have the two values as JSON, "" for none), ``unrecorded`` (a row that
    no event tells of), ``missing`` (its row is gone and no event says so), ``undead`` (its events removed it and it is
    there), ``unreadable`` (its diffs cannot be applied).
    """

    subject_type: str
    id: str
    kind: str
    column: str = ""
    events: str = ""
    table: str = ""

    def __str__(self) -> str:
        told = f"events say {self.events or 'nothing'}, the table says {self.table or 'nothing'}"
        sentences = {
            "column": f"{self.column}: {told}",
            "unrecorded": "nobody recorded it",
            "missing": "its row is gone, and no event says so",
            "undead": "its events removed it, and it is still there",
            "unreadable": "its events cannot be applied",
        }
        return f"{self.subject_type} {self.id}: {sentences[self.kind]}"


@dataclass(slots=True)
class Comparison:
    """What a replay found. ``subjects``: compared, by kind; ``differences`` has the first ``limit`` of them.

    ``archived``: subjects that began in an archived month, of which only what the store still tells was compared.
    ``erased``: people whose names and addresses cannot be compared any more.
    """

    limit: int
    subjects: Counter[str] = field(default_factory=Counter)
    archived: Counter[str] = field(default_factory=Counter)
    differences: list[Difference] = field(default_factory=list)
    differences_count: int = 0
    erased: int = 0
    events: int = 0
    seconds: float = 0.0

    @property
    def is_equal(self) -> bool:
        return self.differences_count == 0

    def add(self, difference: Difference) -> None:
        self.differences_count += 1
        if len(self.differences) < self.limit:
            self.differences.append(difference)


@dataclass(frozen=True, slots=True)
class Told:
    """A subject as its events tell it; ``state`` is None when its diffs cannot be applied."""

    subject_type: str
    id: str
    state: dict[str, Any] | None


def subject_models() -> dict[str, type[Model]]:
    """Kind of subject -> the watched table that its rows are in."""
    return {watch.subject: model for model, watch in watched_models().items() if watch.is_subject}


def replay(
    *,
    kinds: Collection[str] = (),
    limit: int = 100,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Comparison:
    """Fold all events of these kinds of subjects (of all, if none is named) and compare them with their rows.

    ``progress`` is told (events read, events in all).
    """
    started = time.monotonic()
    models = {kind: model for kind, model in subject_models().items() if not kinds or kind in kinds}
    found = Comparison(limit)
    with _one_snapshot():
        archived = archived_until()
        subjects = _told(sorted(models), found, progress)
        for kind, of_kind in groupby(subjects, key=lambda told: told.subject_type):
            while batch := list(islice(of_kind, BATCH)):
                _compare(models[kind], batch, archived, found)
        for kind, model in models.items():
            _find_unrecorded(kind, model, archived, found)
    found.seconds = time.monotonic() - started
    return found


@contextmanager
def _one_snapshot() -> Iterator[None]:
    """Everything inside reads the database as it is now; a transaction of the caller's keeps its own rules."""
    outermost = not connection.in_atomic_block
    with transaction.atomic():
        if outermost:
            with connection.cursor() as cursor:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        yield


# --- What events say


def _told(kinds: list[str], found: Comparison, progress: Callable[[int, int], None]) -> Iterator[Told]:
    """Every subject of these kinds that has a diff, with its diffs folded as they stream by."""
    total = AuditEvent.objects.filter(subject_type__in=kinds).exclude(diff=[]).count()
    with connection.chunked_cursor() as cursor:
        cursor.execute(HISTORIES, [kinds])
        for (kind, key), history in groupby(_rows(cursor, total, found, progress), key=lambda row: row[:2]):
            yield Told(kind, key, _folded(diff for _, _, diff, _ in history))


def _rows(
    cursor: Any, total: int, found: Comparison, progress: Callable[[int, int], None]
) -> Iterator[tuple[str, str, str, int | None]]:
    while rows := cursor.fetchmany(CHUNK):
        found.events += len(rows)
        progress(found.events, max(total, found.events))
        yield from rows


def _folded(diffs: Iterable[str]) -> dict[str, Any] | None:
    try:
        return fold(orjson.loads(diff) for diff in diffs)
    except (AttributeError, KeyError, TypeError):
        return None


# --- What the table says


def _compare(model: type[Model], batch: list[Told], archived: datetime | None, found: Comparison) -> None:
    ids = [key for key in (parse_id(told.id) for told in batch) if key is not None]
    rows: dict[UUID | None, Model] = {getattr(row, "id"): row for row in model._base_manager.filter(id__in=ids)}  # noqa: B009
    people = _people(rows.values()) if _watch(model).personal else {}
    for told in batch:
        began_before = begins_before(told.id, archived)
        (found.archived if began_before else found.subjects)[told.subject_type] += 1
        for difference in _differences(told, rows.get(parse_id(told.id)), people, began_before, found):
            found.add(difference)


def _differences(
    told: Told, row: Model | None, people: Mapping[UUID, Pseudonym], began_before: bool, found: Comparison
) -> Iterator[Difference]:
    if told.state is None:
        yield Difference(told.subject_type, told.id, "unreadable")
    elif row is None:
        if told.state:
            yield Difference(told.subject_type, told.id, "missing")
    elif not told.state:
        yield Difference(told.subject_type, told.id, "undead")
    else:
        there, uncompared = _as_told(row, people)
        found.erased += bool(uncompared)
        wanted = told.state if began_before else _untold(type(row), told.state) | told.state
        for name in sorted(wanted.keys() & there.keys() - uncompared):
            if not _is_same(wanted[name], there[name]):
                events = _shown(wanted[name]) if name in told.state else ""
                yield Difference(told.subject_type, told.id, "column", name, events, _shown(there[name]))


def _find_unrecorded(kind: str, model: type[Model], archived: datetime | None, found: Comparison) -> None:
    events = AuditEvent.objects.filter(subject_type=kind, subject_id=Cast(OuterRef("id"), CharField()))
    strangers = model._base_manager.filter(~Exists(events.exclude(diff=[]))).order_by("id")
    for key in strangers.values_list("id", flat=True).iterator(chunk_size=CHUNK):
        if begins_before(str(key), archived):
            found.archived[kind] += 1
        else:
            found.subjects[kind] += 1
            found.add(Difference(kind, str(key), "unrecorded"))


def _watch(model: type[Model]) -> Watched:
    return watched_models()[model]


def _as_told(row: Model, people: Mapping[UUID, Pseudonym]) -> tuple[dict[str, Any], set[str]]:
    """The row in the words of its events, and the columns that cannot be compared: their person was erased."""
    told, uncompared = {}, set()
    for name, value in image(row).items():
        if isinstance(value, Personal):
            person = people.get(value.user_id)
            if person is None or person.salt is None:
                uncompared.add(name)
            told[name] = f"hmac:{person.digest(value.kind, value.value)}" if person else ""
        else:
            told[name] = plain(value)
    return told, uncompared


def _people(rows: Iterable[Model]) -> dict[UUID, Pseudonym]:
    people = AuditPerson.objects.filter(user_id__in=[row.pk for row in rows])
    return {
        person.user_id: Pseudonym(person.pk, bytes(person.salt) if person.salt else None)
        for person in people
        if person.user_id is not None
    }


def _untold(model: type[Model], told: Mapping[str, Any]) -> dict[str, Any]:
    """What a column holds that no event has told of: its default, as in a row that is older than the column."""
    return {column.attname: plain(column.get_default()) for column in columns(model) if column.attname not in told}


# --- Values


def _is_same(told: Any, there: Any) -> bool:
    """Whether the two are one value. JSON in PostgreSQL knows one zero and writes large floats out as integers."""
    if isinstance(told, dict) and isinstance(there, dict):
        return told.keys() == there.keys() and all(_is_same(told[name], there[name]) for name in told)
    if isinstance(told, list) and isinstance(there, list):
        return len(told) == len(there) and all(map(_is_same, told, there))
    if told == "-0.0" and there == "0.0":
        return True
    if isinstance(told, str) and "e+" in told and isinstance(there, str) and there.removeprefix("-").isdecimal():
        return Decimal(told) == Decimal(there)
    return told == there and type(told) is type(there)


def _shown(value: Any) -> str:
    text = canonical_json(value).decode()
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."
