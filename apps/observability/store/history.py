"""Samples that are older than the hot window, packed by the hour; then their partition goes.

A day is packed series by series, each in a transaction of its own, into what is packed of it already. Only then its
partition is dropped, and only when the database counts in it just the samples that were packed: whoever wrote
meanwhile keeps it until the next time. A death in between has packed some of it twice, into the same bytes.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta

import structlog
from django.db import connection, transaction

from apps.observability.store import packing, partitions, rows
from apps.observability.store.samples import EMPTY, Samples, united
from apps.observability.store.times import INSTANT, hot_since

DAY, HOUR = timedelta(days=1), timedelta(hours=1)
SAMPLES_AT_ONCE = 500_000
MARGIN = timedelta(hours=1)
"""Who wrote a sample while its time was in the hot window has committed it after so long."""
UPSERT = """
INSERT INTO observability_samplechunk (series_id, start, count, data)
SELECT * FROM unnest(%s::bigint[], %s::timestamptz[], %s::int[], %s::bytea[])
ON CONFLICT (series_id, start) DO UPDATE SET count = excluded.count, data = excluded.data
"""

log = structlog.get_logger(__name__)


def pack_oldest_day(now: datetime) -> datetime | None:
    """Pack and drop the oldest day that lies wholly before the hot window; the day, if there was one."""
    days = [_day_of(name) for name in partitions.names(partitions.SAMPLES)]
    due = [day for day in days if day + DAY <= hot_since(now) - MARGIN]
    if not due:
        return None
    day = min(due)
    partitions.make(partitions.CHUNKS, day, day)
    packed = sum(_pack(counts, day) for counts in _portions(_counts(day)))
    if partitions.drop_packed(day, packed):
        log.info("metrics_day_packed", day=f"{day:%Y-%m-%d}", samples=packed)
    else:
        log.info("metrics_day_kept", day=f"{day:%Y-%m-%d}", reason="samples came while it was packed")
    return day


def _day_of(partition: str) -> datetime:
    return datetime.strptime(partition[-8:], "%Y%m%d").replace(tzinfo=UTC)


def _counts(day: datetime) -> dict[int, int]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT series_id, count(*) FROM observability_sample WHERE at >= %s AND at < %s GROUP BY 1 ORDER BY 1",
            [day, day + DAY],
        )
        return dict(cursor.fetchall())


def _portions(counts: Mapping[int, int]) -> Iterator[dict[int, int]]:
    portion: dict[int, int] = {}
    for id, count in counts.items():
        if portion and sum(portion.values()) + count > SAMPLES_AT_ONCE:
            yield portion
            portion = {}
        portion[id] = count
    if portion:
        yield portion


@transaction.atomic
def _pack(counts: Mapping[int, int], day: datetime) -> int:
    """Pack a day of some series; how many samples."""
    is_small = sum(counts.values()) <= SAMPLES_AT_ONCE  # else it is one series, and goes by the hour
    length = DAY if is_small else HOUR
    return sum(_pack_span(list(counts), day + place * length, length) for place in range(DAY // length))


def _pack_span(ids: list[int], start: datetime, length: timedelta) -> int:
    last = start + length - INSTANT
    hot = rows.hot(dict.fromkeys(ids, (start, last)), most=packing.MOST * (length // HOUR))
    old = rows.packed(ids, start, last, most=packing.MOST * 24)
    hours = [
        (id, hour, part)
        for id, samples in hot.items()
        for hour, part in _hours(united(old.get(id, EMPTY), samples), start, length)
    ]
    with connection.cursor() as cursor:
        ids, starts = [id for id, _, _ in hours], [hour for _, hour, _ in hours]
        counts, data = [len(part) for _, _, part in hours], [packing.packed(part) for _, _, part in hours]
        cursor.execute(UPSERT, [ids, starts, counts, data])
    return sum(len(samples) for samples in hot.values())


def _hours(samples: Samples, start: datetime, length: timedelta) -> Iterator[tuple[datetime, Samples]]:
    for place in range(length // HOUR):
        hour = start + place * HOUR
        part = samples.within(hour, hour + HOUR - INSTANT)
        if len(part):
            yield hour, part
