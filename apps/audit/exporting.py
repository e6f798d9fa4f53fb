"""The trail as a file: JSON lines that the stand-alone verifier reads, or CSV that is safe to open in a spreadsheet.

Both are written as they are read, a few hundred events at a time. The last line says that nothing is missing: a file
without it was cut off, by an error or by the network.
"""

import csv
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any
from uuid import UUID

import orjson
from django.utils import timezone

from apps.audit.catalogue import EVENT_TYPES
from apps.audit.models import AuditLeaf
from apps.audit.proofs import exported
from apps.audit.reading import Wanted
from apps.audit.sealed import reader
from apps.audit.search import Search, search
from apps.audit.selectors import actor_names
from apps.audit.services.recording import DOCUMENTS
from apps.core.ids import parse_id

CHUNK = 500
CHUNK_PAGES = 5_000
"""An export may read more at a time than a page; it is read in the same windows."""
EVERYTHING = Wanted(types=("*",))
CSV_COLUMNS = (
    "index",
    "id",
    "at",
    "type",
    "sentence",
    "subject_type",
    "subject_id",
    "actor_id",
    "actor_kind",
    "actor_name",
    "token_id",
    "request_id",
    "trace_id",
    "outcome",
    "reason",
    "diff",
    "payload",
    "leaf",
)
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What makes a spreadsheet compute a cell (OWASP, CSV Injection), in full width too."""

Event = Mapping[str, Any]


def found_events(wanted: Search, *, newest_first: bool) -> Iterator[Event]:
    """Every event that fits and was committed before the first is read, as the verifier reads it."""
    after, is_first = None, True
    while is_first or after is not None:
        is_first = False
        found = search(wanted, size=CHUNK, after=after, newest_first=newest_first, pages=CHUNK_PAGES)
        after = found.after
        ids = [event.pk for event in found.events]
        places = dict(AuditLeaf.objects.filter(event_id__in=ids).values_list("event_id", "index"))
        for event in found.events:
            yield exported(event, places.get(event.pk))


def sealed_events(size: int) -> Iterator[Event]:
    """The first ``size`` leaves in the order of the tree, archived months included. Raises UnreadableArchive."""
    return reader(size=size, at=timezone.now())(EVERYTHING)


def json_lines(events: Iterable[Event]) -> Iterator[bytes]:
    """A line each, and ``{"end": true, "events": N}``."""
    count = 0
    for event in events:
        count += 1
        yield orjson.dumps(event) + b"\n"
    yield orjson.dumps({"end": True, "events": count}) + b"\n"


def csv_lines(events: Iterable[Event]) -> Iterator[bytes]:
    """Fixed columns, and a last row ``END, N``. Names stand beside the pseudonyms of those who were not erased."""
    line = _Line()
    writer = csv.writer(line)
    writer.writerow(CSV_COLUMNS)
    yield line.taken()
    count, events = 0, iter(events)
    while chunk := list(islice(events, CHUNK)):
        names = actor_names(_actor(event) for event in chunk)
        count += len(chunk)
        for event in chunk:
            writer.writerow([_cell(event, column, names) for column in CSV_COLUMNS])
            yield line.taken()
    writer.writerow(["END", count])
    yield line.taken()


class _Line:
    """The file that the CSV writer writes to: one row."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def taken(self) -> bytes:
        text, self.text = self.text, ""
        return text.encode()


def _actor(event: Event) -> UUID | None:
    return parse_id(event["actor_id"])


def _cell(event: Event, column: str, names: Mapping[UUID, str]) -> str:
    if column == "sentence":
        kind = EVENT_TYPES.get(event["type"])
        return kind.sentence if kind else ""
    if column == "actor_name":
        actor = _actor(event)
        return safe_cell(names.get(actor, "")) if actor else ""
    value = event[column]
    if value is None:
        return ""
    return safe_cell(orjson.dumps(value).decode() if column in DOCUMENTS else str(value))


def safe_cell(text: str) -> str:
    """``text`` that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(FORMULA) else text
