"""Searching the trail: the API, the page and the export ask here, and each page reads a bounded number of disk pages.

A month is walked at a time, newest first. In a month *candidates* come out of the index of the leading filter (a
subject, an actor, types; without one: the primary key) in the order of the walk, and the other filters are applied to
them. When the budget of disk pages is spent before the page is full, the page ends there: it may be short or empty and
still have a next one. Text in a month that is over is looked up in the month's trigram index, if it is rare there.

The order is total and never changes: month, then (at, id), or id alone where the primary key leads. Ids are UUIDv7, so
both are the order of recording. A position of the walk is therefore good for ever, whatever is recorded meanwhile.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import connection, transaction
from django.utils import timezone

from apps.audit.catalogue import EVENT_TYPES
from apps.audit.models import AuditEvent

TABLE = AuditEvent._meta.db_table
COLUMNS = ", ".join(field.attname for field in AuditEvent._meta.concrete_fields)
TEXT = "(reason || ' ' || diff::text)"
"""What free text is looked for in; the trigram indexes of closed months are over this expression."""
SUBJECT_TYPES = tuple(sorted({kind.subject for kind in EVENT_TYPES.values()} - {""}))
OPEN_TYPES = frozenset(kind.name for kind in EVENT_TYPES.values() if not kind.subject)
"""Types that may be about anything."""

PAGES = 330
"""Disk pages that one page of results may read before it ends short; the hard bound is 500."""
LEAST_CHUNK, MAX_CHUNK = 20, 2_000
"""Candidates that are read at once. A page looks at the least in any case: each walk comes to an end."""
MAX_TYPES = 12
"""More types than this are no leading filter: each costs a descent of the index in each month."""
PROBE_PAGES = 4
CLOCK_SLACK = timedelta(days=1)
"""How far the clock of who searches may be behind that of the database, which stamps events."""
TEXT_MATCHES = 100
"""Text with more matches in a month is frequent: then a window finds it sooner than the trigram index."""
TEXT_WORD = re.compile(r"[A-Za-z0-9]{3,}")
TEXT_LETTERS = 12
ID_SLACK = timedelta(minutes=10)
"""How far the time in an id and ``at`` may be apart."""
LOWEST, HIGHEST = UUID(int=0), UUID(int=2**128 - 1)

PLANS = {"jit": "off", "enable_seqscan": "off", "enable_bitmapscan": "off"}
"""Whatever the planner guesses, an index is read in its order, row by row, and no further than asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What is wanted: empty means any. ``since`` is included, ``until`` is not; ``text`` ignores case."""

    types: tuple[str, ...] = ()
    subject_types: tuple[str, ...] = ()
    subject_id: str = ""
    actor_id: UUID | None = None
    actor_kind: str = ""
    outcome: str = ""
    request_id: str = ""
    token_id: str = ""
    since: datetime | None = None
    until: datetime | None = None
    text: str = ""
    is_impossible: bool = False
    """Filters that exclude each other: nothing fits."""


@dataclass(frozen=True, slots=True)
class Position:
    """How far a walk has come: everything up to here was looked at."""

    at: datetime
    id: UUID


@dataclass(frozen=True, slots=True)
class Found:
    """One page. ``after`` is where the next one begins, None at the end of the trail."""

    events: list[AuditEvent]
    after: Position | None
    is_short: bool
    """It ended because enough was read, not because it was full: there may be none further on."""


@dataclass(frozen=True, slots=True)
class Month:
    """A partition: the events of ``start`` <= at < ``end``."""

    partition: str
    start: datetime
    end: datetime
    has_text_index: bool

    def last_position(self, newest_first: bool) -> Position:
        """Where a walk stands that has seen all of it."""
        return Position(self.start, LOWEST) if newest_first else Position(self.end - datetime.resolution, HIGHEST)

    def is_behind(self, position: Position, newest_first: bool) -> bool:
        """Whether a walk that stands there has anything of it left to see."""
        last = self.last_position(newest_first)
        here, there = (position.at, position.id), (last.at, last.id)
        return here > there if newest_first else here < there


Condition = tuple[str, list[Any]]


def search(
    wanted: Search, *, size: int, after: Position | None = None, newest_first: bool = True, pages: int | None = None
) -> Found:
    """Up to ``size`` events that fit, from ``after`` on, for about ``pages`` disk pages."""
    if wanted.is_impossible:
        return Found(events=[], after=None, is_short=False)
    with _bounded_plans():
        return _Walk(wanted, size, after, newest_first, PAGES if pages is None else pages).run()


@contextmanager
def _bounded_plans() -> Iterator[None]:
    with transaction.atomic():
        _set(**PLANS)
        yield
        _set(**dict.fromkeys(PLANS, "DEFAULT"))


def _set(**values: str) -> None:
    """Until the end of the transaction."""
    with connection.cursor() as cursor:
        cursor.execute("; ".join(f"SET LOCAL {name} TO {value}" for name, value in values.items()))


def months_of(wanted: Search, after: Position | None, newest_first: bool) -> list[Month]:
    """The partitions that a walk still has to look at, in its order; those that wait for the future hold nothing."""
    horizon = timezone.now() + CLOCK_SLACK
    months = [
        month
        for month in _months()
        if month.start <= horizon
        and (wanted.since is None or month.end > wanted.since)
        and (wanted.until is None or month.start < wanted.until)
        and (after is None or month.is_behind(after, newest_first))
    ]
    return months[::-1] if newest_first else months


def _months() -> Iterator[Month]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT child.relname, to_regclass(quote_ident(child.relname || '_text')) IS NOT NULL "
            "FROM pg_inherits JOIN pg_class AS child ON child.oid = inhrelid "
            "WHERE inhparent = %s::regclass ORDER BY 1",
            [TABLE],
        )
        rows = cursor.fetchall()
    for name, has_text_index in rows:
        year, month = int(name[-7:-3]), int(name[-2:])
        start = datetime(year, month, 1, tzinfo=UTC)
        end = datetime(year + month // 12, month % 12 + 1, 1, tzinfo=UTC)
        yield Month(partition=name, start=start, end=end, has_text_index=has_text_index)


class _Walk:
    """One page of one search."""

    def __init__(self, wanted: Search, size: int, after: Position | None, newest_first: bool, pages: int) -> None:
        self.wanted, self.size, self.newest_first = wanted, size, newest_first
        self.start = self.position = after
        self.lead, self.by_time = _lead(wanted)
        self.fits, self.fit_values = _fits(wanted)
        self.pages_left, self.density, self.chunk = float(pages), 1.0, size + 1
        self.found: list[AuditEvent] = []
        self.word = "" if wanted.subject_id or wanted.actor_id else _text_word(wanted.text)
        direction = "DESC" if newest_first else "ASC"
        self.order = f"at {direction}, id {direction}" if self.by_time else f"id {direction}"

    def run(self) -> Found:
        for month in months_of(self.wanted, self.position, self.newest_first):
            if len(self.found) > self.size:
                break
            if self.pages_left <= 0 and self.position != self.start:
                return Found(events=self.found, after=self.position, is_short=True)
            if not self._look_up_text(month) and not self._scan(month):
                return Found(events=self.found, after=self.position, is_short=True)
            self.position = month.last_position(self.newest_first)
        if len(self.found) <= self.size:
            return Found(events=self.found, after=None, is_short=False)
        events = self.found[: self.size]
        return Found(events=events, after=Position(events[-1].at, events[-1].pk), is_short=False)

    def _scan(self, month: Month) -> bool:
        """Look at the candidates of a month until the page is full. Returns False if the budget ended before it."""
        while len(self.found) <= self.size:
            limit = self._chunk_size()
            if limit <= 0:
                return False
            scanned, pages = 0, 0
            for row in _rows(*self._window(month, limit)):
                scanned, pages = row.place, row.pages
                if row.fits:
                    self.found.append(row)
                self.position = Position(row.at, row.pk)
            if scanned:
                self.pages_left -= float(pages) + scanned / 100
                self.density = max(float(pages) / scanned, 0.05)
            self.pages_left -= PROBE_PAGES * len(self.lead)
            if scanned < limit:
                return True
            self.chunk = min(self.chunk * 4, MAX_CHUNK)
        return True

    def _chunk_size(self) -> int:
        """As many candidates as the page needs, then more the closer together they were found to lie."""
        missing = self.size + 1 - len(self.found)
        affordable = int(self.pages_left * 0.8 / self.density)
        if affordable >= min(missing, LEAST_CHUNK):
            return min(max(missing, self.chunk), affordable)
        return LEAST_CHUNK if self.position == self.start else 0

    def _window(self, month: Month, limit: int) -> tuple[str, list[Any]]:
        """The next candidates: those that fit, and the last one, with how many disk pages they lie on."""
        bounds, bound_values = self._bounds(month)
        branches = [
            f"(SELECT {COLUMNS}, ctid FROM {TABLE} WHERE {condition} AND {bounds} "  # noqa: S608 - names of our own
            f"ORDER BY {self.order} LIMIT %s)"
            for condition, _ in self.lead
        ]
        values = [value for _, given in self.lead for value in (*given, *bound_values, limit)]
        candidates = branches[0]
        if len(branches) > 1:
            candidates = (
                f"(SELECT * FROM ({' UNION ALL '.join(branches)}) AS branch "  # noqa: S608
                f"ORDER BY {self.order} LIMIT %s)"
            )
            values.append(limit)
        statement = (
            f"SELECT {COLUMNS}, fits, place, pages FROM ("  # noqa: S608
            f"SELECT *, sum(turn) OVER (ORDER BY place) AS pages FROM ("
            f"SELECT *, {self.fits} AS fits, row_number() OVER walk AS place, lead(id) OVER walk IS NULL AS is_last, "
            f"(block IS DISTINCT FROM lag(block) OVER walk)::int AS turn FROM ("
            f"SELECT *, (ctid::text::point)[0] AS block FROM {candidates} AS candidate) AS placed "
            f"WINDOW walk AS (ORDER BY {self.order})) AS counted) AS seen WHERE fits OR is_last ORDER BY place"
        )
        return statement, [*self.fit_values, *values]

    def _bounds(self, month: Month) -> tuple[str, list[Any]]:
        """Within the month and the wanted time, behind the position."""
        since = max(month.start, self.wanted.since or month.start)
        until = min(month.end, self.wanted.until or month.end)
        conditions: list[Condition] = [("at >= %s AND at < %s", [since, until])]
        if not self.by_time:
            conditions += [("id >= %s", [_id_at(since - ID_SLACK)])] if since > month.start else []
            conditions += [("id < %s", [_id_at(until + ID_SLACK)])] if until < month.end else []
        at = self.position
        if at is not None and month.start <= at.at < month.end:
            sign = "<" if self.newest_first else ">"
            behind: Condition = (f"at {sign}= %s AND (at, id) {sign} (%s, %s)", [at.at, at.at, at.id])
            conditions.append(behind if self.by_time else (f"id {sign} %s", [at.id]))
        return _all(conditions)

    def _look_up_text(self, month: Month) -> bool:
        """Take a month's matches out of its trigram index. Returns False where there is none, or they are too many.

        Only one word is looked up: what a long text would read of the index has no bound.
        """
        if not self.word or not month.has_text_index:
            return False
        bounds, bound_values = self._bounds(month)
        statement = (
            f"SELECT {COLUMNS}, {self.fits} AND {bounds} AS fits FROM "  # noqa: S608
            f"(SELECT * FROM {connection.ops.quote_name(month.partition)} WHERE {TEXT} ILIKE %s LIMIT %s) AS candidate"
        )
        values = [*self.fit_values, *bound_values, f"%{self.word}%", TEXT_MATCHES]
        _set(enable_bitmapscan="on")
        rows = _rows(statement, values)
        _set(enable_bitmapscan="off")
        is_rare = len(rows) < TEXT_MATCHES
        self.pages_left -= len(rows) + (PROBE_PAGES if is_rare else 2 * PROBE_PAGES) * (len(self.word) - 2)
        if is_rare:
            fitting = [row for row in rows if row.fits]
            fitting.sort(key=lambda row: (row.at if self.by_time else 0, row.pk), reverse=self.newest_first)
            self.found += fitting
        return is_rare


def _rows(statement: str, values: list[Any]) -> list[Any]:
    """Events with what the statement tells beside them."""
    return list(AuditEvent.objects.raw(statement, values))


def _lead(wanted: Search) -> tuple[list[Condition], bool]:
    """The conditions that an index serves, one for each of its ranges; and whether that index is in order of time."""
    if wanted.subject_id:
        kinds = wanted.subject_types or SUBJECT_TYPES
        return [("subject_type = %s AND subject_id = %s", [kind, wanted.subject_id]) for kind in kinds], True
    if wanted.actor_id is not None:
        return [("actor_id = %s", [wanted.actor_id])], True
    if 0 < len(wanted.types) <= MAX_TYPES:
        return [("type = %s", [name]) for name in wanted.types], True
    return [("TRUE", [])], False


def _fits(wanted: Search) -> tuple[str, list[Any]]:
    """Every filter but time, as one condition."""
    equal = ("subject_id", "actor_id", "actor_kind", "outcome", "request_id", "token_id")
    given = {name: getattr(wanted, name) for name in equal}
    conditions: list[Condition] = [(f"{name} = %s", [value]) for name, value in given.items() if value]
    for name, values in (("type", wanted.types), ("subject_type", wanted.subject_types)):
        conditions += [(f"{name} = ANY (%s)", [list(values)])] if values else []
    if wanted.text:
        conditions.append((f"{TEXT} ILIKE %s", [f"%{_literal(wanted.text)}%"]))
    return _all(conditions or [("TRUE", [])])


def _all(conditions: Sequence[Condition]) -> tuple[str, list[Any]]:
    return "(" + " AND ".join(text for text, _ in conditions) + ")", [v for _, values in conditions for v in values]


def _literal(text: str) -> str:
    """The LIKE pattern that only matches ``text`` itself."""
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def _text_word(text: str) -> str:
    """The longest word of ``text`` that trigrams can find, cut to ``TEXT_LETTERS``; empty if there is none."""
    words = TEXT_WORD.findall(text)
    return str(max(words, key=len))[:TEXT_LETTERS] if words else ""


def _id_at(moment: datetime) -> UUID:
    """The lowest UUIDv7 of a time."""
    return UUID(int=max(0, int(moment.timestamp() * 1000)) << 80)
