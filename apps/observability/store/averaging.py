"""Averages of five minutes and of an hour, made of samples that are there to stay.

How far each series has got is what its averages say: nothing else is remembered, so a roll-up that died half way is
gone on with. What came late is marked where it is written (``observability_late``) and made anew.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import connection, transaction

from apps.observability.models import FiveMinuteRollup, HourRollup, Series, SeriesKind
from apps.observability.store import buckets, rows
from apps.observability.store.buckets import COLUMNS, Buckets
from apps.observability.store.curves import TABLES
from apps.observability.store.gathering import gathered
from apps.observability.store.times import AHEAD, INSTANT, floor, hot_since, moment

FIVE_MINUTES, HOUR = timedelta(seconds=FiveMinuteRollup.SECONDS), timedelta(seconds=HourRollup.SECONDS)
DAY = timedelta(days=1)
UNSETTLED = timedelta(minutes=15)
"""The last averages so long are made again each time: who wrote in time may have committed after them."""
SERIES_AT_ONCE = 500
LENGTH_AT_ONCE = timedelta(days=20)
"""Of time, added over series: what is read at once (at 15 seconds a sample, 115,000 samples)."""
MARKS_AT_ONCE, MOST_ROUNDS = 2_000, 50
"""What is marked beyond them waits for the next minute."""
MOST = 5_000_000
"""Samples of one series that are read at once."""

Bucket = tuple[int, datetime]
"""Series and start."""

PROGRESS = """
SELECT series.id, series.kind, series.last_at, newest.at, five.start, hour.start
FROM observability_series AS series
CROSS JOIN LATERAL (
    SELECT at FROM observability_sample WHERE series_id = series.id AND at BETWEEN %s AND %s
    ORDER BY at DESC LIMIT 1
) AS newest
LEFT JOIN LATERAL (
    SELECT start FROM observability_rollup5m WHERE series_id = series.id AND start >= %s ORDER BY start DESC LIMIT 1
) AS five ON true
LEFT JOIN LATERAL (
    SELECT start FROM observability_rollup1h WHERE series_id = series.id AND start >= %s ORDER BY start DESC LIMIT 1
) AS hour ON true
WHERE series.id = ANY(%s::bigint[])
"""
UPSERT = """
INSERT INTO {table} AS kept (series_id, start, least, mean, greatest, last, count)
SELECT * FROM unnest(
    %s::bigint[], %s::timestamptz[], %s::float8[], %s::float8[], %s::float8[], %s::float8[], %s::int[]
)
ON CONFLICT (series_id, start) DO UPDATE SET
    least = excluded.least, mean = excluded.mean, greatest = excluded.greatest, last = excluded.last,
    count = excluded.count
WHERE (kept.least, kept.mean, kept.greatest, kept.last, kept.count)
    IS DISTINCT FROM (excluded.least, excluded.mean, excluded.greatest, excluded.last, excluded.count)
RETURNING series_id, start
"""
TAKE_MARKS = """
DELETE FROM observability_late WHERE ctid = ANY(ARRAY(SELECT ctid FROM observability_late LIMIT %s))
RETURNING series_id, hour
"""
NOTE_NEWEST = """
UPDATE observability_series AS series SET last_at = newest.at
FROM unnest(%s::bigint[], %s::timestamptz[]) AS newest (id, at) WHERE series.id = newest.id
"""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the averages of a series have got: its newest sample, and the starts of its newest averages."""

    id: int
    is_counter: bool
    last_at: datetime | None
    newest: datetime
    five_minutes: datetime | None
    hour: datetime | None


def make(now: datetime) -> int:
    """Make what is due of all series; how many averages were made or changed.

    First in order of time, then what came late: an average that a late sample makes must not look like progress.
    """
    ids = list(Series.objects.order_by("pk").values_list("pk", flat=True))
    parts = [ids[place : place + SERIES_AT_ONCE] for place in range(0, len(ids), SERIES_AT_ONCE)]
    made = sum(_make_due(part, now) for part in parts)
    for _ in range(MOST_ROUNDS):
        if (changed := _make_late(now)) is None:
            break
        made += changed
    return made


@transaction.atomic
def _make_due(ids: Sequence[int], now: datetime) -> int:
    progress = _progress(ids, now)
    _note_newest(progress)
    counters = {each.id for each in progress if each.is_counter}
    spans = {each.id: span for each in progress if (span := _due(each, now))}
    changed: list[Bucket] = []
    for portion in _portions(spans):
        firsts = {id: first for id, (first, _) in portion.items()}
        found = gathered(rows.hot(portion, most=MOST), firsts, counters, FIVE_MINUTES.seconds)
        changed += _upserted(FIVE_MINUTES, found, is_due=lambda _: True)
    stopped = {(each.id, hour) for each in progress if (hour := _hour_due(each))}
    return len(changed) + _make_hours(_hours_of(changed) | stopped, now)


@transaction.atomic
def _make_late(now: datetime) -> int | None:
    """Averages of hours that were marked; None: there are no more marks."""
    marks: dict[datetime, set[int]] = {}
    with connection.cursor() as cursor:
        cursor.execute(TAKE_MARKS, [MARKS_AT_ONCE])
        for id, hour in cursor.fetchall():
            marks.setdefault(hour, set()).add(id)
    if not marks:
        return None
    kinds = dict(Series.objects.filter(pk__in=set().union(*marks.values())).values_list("pk", "kind"))
    counters = {id for id, kind in kinds.items() if kind == SeriesKind.COUNTER}
    return sum(_make_again(sorted(ids & kinds.keys()), counters, hour, now) for hour, ids in sorted(marks.items()))


def _make_again(ids: Sequence[int], counters: set[int], hour: datetime, now: datetime) -> int:
    last = hour + HOUR + FIVE_MINUTES - INSTANT  # a counter's next bucket grew from what is in this hour
    samples = rows.raw(ids, hour, last, most=MOST)
    found = gathered(samples, dict.fromkeys(ids, hour), counters, FIVE_MINUTES.seconds)
    changed = _upserted(FIVE_MINUTES, found, is_due=lambda bucket: bucket[1] + FIVE_MINUTES <= now)
    return len(changed) + _make_hours(_hours_of(changed), now)


def _due(each: Progress, now: datetime) -> rows.Span | None:
    """What of a series to make five-minute averages of: up to the last one that is over."""
    done, closed = each.five_minutes, floor(now, FIVE_MINUTES)
    if done is None:
        first = floor(hot_since(now), DAY)
    elif each.newest >= done + FIVE_MINUTES or now - done <= UNSETTLED + FIVE_MINUTES:
        first = done - UNSETTLED
    else:
        return None  # nothing has come since
    return (first, closed - INSTANT) if first < closed else None


def _hour_due(each: Progress) -> datetime | None:
    """The hour in which a series has stopped: no five-minute average of it changes after it is over."""
    if each.five_minutes is None:
        return None
    hour = floor(each.five_minutes, HOUR)
    return hour if each.hour is None or each.hour < hour else None


def _make_hours(hours: Collection[Bucket], now: datetime) -> int:
    """Those of the hours that are over, made of their five-minute averages."""
    over = {(id, start) for id, start in hours if start + HOUR <= now}
    if not over:
        return 0
    ids, starts = {id for id, _ in over}, {start for _, start in over}
    fine = rows.rollups(TABLES[FIVE_MINUTES.seconds], sorted(ids), min(starts), max(starts) + HOUR)
    merged = {id: buckets.merged(found, HOUR.seconds) for id, found in fine.items()}
    return len(_upserted(HOUR, merged, is_due=over.__contains__))


def _hours_of(changed: Iterable[Bucket]) -> set[Bucket]:
    return {(id, floor(start, HOUR)) for id, start in changed}


def _upserted(width: timedelta, found: Mapping[int, Buckets], *, is_due: Callable[[Bucket], bool]) -> list[Bucket]:
    """Keep the averages that are due; those that are new, or other than before."""
    kept = [
        (id, start, *numbers, int(count))
        for id, made in found.items()
        for start, *numbers, count in _rows_of(made)
        if is_due((id, start))
    ]
    if not kept:
        return []
    with connection.cursor() as cursor:
        cursor.execute(UPSERT.format(table=TABLES[width.seconds]), list(map(list, zip(*kept, strict=True))))
        changed: list[Bucket] = cursor.fetchall()
    return changed


def _rows_of(made: Buckets) -> Iterator[tuple[Any, ...]]:
    columns = [getattr(made, name).tolist() for name in COLUMNS[1:]]
    return zip(map(moment, made.starts.tolist()), *columns, strict=True)


def _portions(spans: Mapping[int, rows.Span]) -> Iterator[dict[int, rows.Span]]:
    """A few series at a time, where there is much to catch up with."""
    portion: dict[int, rows.Span] = {}
    length = timedelta()
    for id, span in spans.items():
        portion[id] = span
        length += span[1] - span[0]
        if length > LENGTH_AT_ONCE:
            yield portion
            portion, length = {}, timedelta()
    if portion:
        yield portion


def _progress(ids: Sequence[int], now: datetime) -> list[Progress]:
    since = floor(hot_since(now), DAY)
    with connection.cursor() as cursor:
        cursor.execute(PROGRESS, [since, now + AHEAD, since, since, list(ids)])
        return [
            Progress(id, kind == SeriesKind.COUNTER, last_at, newest, five, hour)
            for id, kind, last_at, newest, five, hour in cursor.fetchall()
        ]


def _note_newest(progress: Iterable[Progress]) -> None:
    """Not each time: a row that is written each minute grows its table."""
    stale = [each for each in progress if each.last_at is None or each.newest - each.last_at > FIVE_MINUTES]
    if stale:
        with connection.cursor() as cursor:
            cursor.execute(NOTE_NEWEST, [[each.id for each in stale], [each.newest for each in stale]])
