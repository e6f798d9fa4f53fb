"""Rows of the store as arrays. PostgreSQL sends one value a series, in its binary form: a row a sample would cost more
than to read it."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import numpy as np
import structlog
from django.db import connection
from django.utils import timezone

from apps.observability.store import packing
from apps.observability.store.buckets import Buckets
from apps.observability.store.samples import EMPTY, Samples, chained, united
from apps.observability.store.times import ALWAYS_HOT, INSTANT, POSTGRES_EPOCH_MS, floor

Span = tuple[datetime, datetime]
"""First and last moment, both within."""
HOUR = timedelta(hours=1)
PREDECESSOR = timedelta(days=1)
"""What a counter grew from is looked for so far back; among packed samples, an hour."""
SAMPLE = np.dtype([("at", ">i8"), ("value", ">f8"), ("anomalous", "?")])
AVERAGES = ("least", "mean", "greatest", "last", "count")
BUCKET = np.dtype([("start", ">i8"), *((name, ">f8") for name in AVERAGES)])

log = structlog.get_logger(__name__)

HOT = """
SELECT span.id, packed.data FROM unnest(%s::bigint[], %s::timestamptz[], %s::timestamptz[]) AS span (id, first, last)
CROSS JOIN LATERAL (
    SELECT string_agg(timestamptz_send(at) || float8send(value) || boolsend(anomalous), ''::bytea ORDER BY at) AS data
    FROM (
        SELECT at, value, anomalous FROM observability_sample
        WHERE series_id = span.id AND at BETWEEN span.first AND span.last AND at BETWEEN %s AND %s
        ORDER BY at DESC LIMIT %s
    ) AS newest
) AS packed WHERE packed.data IS NOT NULL
"""
CHUNKS = """
SELECT series_id, data FROM observability_samplechunk
WHERE series_id = ANY(%s::bigint[]) AND start BETWEEN %s AND %s ORDER BY series_id, start DESC
"""
ROLLUPS = """
SELECT wanted.id, packed.data FROM unnest(%s::bigint[]) AS wanted (id)
CROSS JOIN LATERAL (
    SELECT string_agg(
        timestamptz_send(start) || float8send(least) || float8send(mean) || float8send(greatest) || float8send(last)
        || float8send(count::float8), ''::bytea ORDER BY start
    ) AS data
    FROM {table} WHERE series_id = wanted.id AND start >= %s AND start < %s
) AS packed WHERE packed.data IS NOT NULL
"""


def hot(spans: Mapping[int, Span], *, most: int) -> dict[int, Samples]:
    """Samples that are not packed: of each series its newest ``most`` within its span."""
    if not spans:
        return {}
    firsts, lasts = [span[0] for span in spans.values()], [span[1] for span in spans.values()]
    with connection.cursor() as cursor:
        cursor.execute(HOT, [list(spans), firsts, lasts, min(firsts), max(lasts), most])
        return {id: _samples(data) for id, data in cursor.fetchall()}


def packed(ids: Sequence[int], first: datetime, last: datetime, *, most: int) -> dict[int, Samples]:
    """Packed samples from ``first`` to ``last``: of each series at least its newest ``most``, if it has as many."""
    hour = floor(first, HOUR)
    found: dict[int, list[Samples]] = {}
    held: dict[int, int] = {}
    with connection.cursor() as cursor:
        cursor.execute(CHUNKS, [list(ids), hour, last])
        for id, data in cursor:
            if held.get(id, 0) < most:
                try:
                    samples = packing.unpacked(data).within(first, last)
                except packing.CorruptChunk as error:  # one hour is missing; the rest is worth showing
                    log.error("metrics_chunk_corrupt", series=id, reason=str(error))
                    continue
                found.setdefault(id, []).append(samples)
                held[id] = held.get(id, 0) + len(samples)
    return {id: chained(chunks[::-1]) for id, chunks in found.items()}


def raw(ids: Sequence[int], start: datetime, end: datetime, *, most: int) -> dict[int, Samples]:
    """The newest ``most`` samples of each series from ``start`` to ``end``, packed ones too; each has an entry."""
    found = hot(dict.fromkeys(ids, (start, end)), most=most)  # first: what is packed meanwhile is found there
    short = [id for id in ids if len(found.get(id, EMPTY)) < most]
    old = packed(short, start, end, most=most) if short and timezone.now() - start > ALWAYS_HOT else {}
    return {id: united(old.get(id, EMPTY), found.get(id, EMPTY)).part(slice(-most, None)) for id in ids}


def before(moments: Mapping[int, datetime]) -> dict[int, Samples]:
    """The newest sample of each series before its moment, where there is one not long before."""
    found = hot({id: (moment - PREDECESSOR, moment - INSTANT) for id, moment in moments.items()}, most=1)
    left: dict[datetime, list[int]] = {}
    for id, moment in moments.items():
        if id not in found and timezone.now() - moment > ALWAYS_HOT:
            left.setdefault(moment, []).append(id)
    for moment, ids in left.items():
        found |= {
            id: samples.part(slice(-1, None))
            for id, samples in packed(ids, moment - HOUR, moment - INSTANT, most=1).items()
        }
    return found


def rollups(table: str, ids: Sequence[int], start: datetime, end: datetime) -> dict[int, Buckets]:
    """Rows of a table of averages that begin from ``start`` to before ``end``."""
    with connection.cursor() as cursor:
        cursor.execute(ROLLUPS.format(table=table), [list(ids), start, end])
        return {id: _buckets(data) for id, data in cursor.fetchall()}


def _samples(data: bytes) -> Samples:
    found = np.frombuffer(data, SAMPLE)
    return Samples(
        found["at"].astype(np.int64) // 1000 + POSTGRES_EPOCH_MS,
        found["value"].astype(np.float64),
        found["anomalous"].copy(),
    )


def _buckets(data: bytes) -> Buckets:
    found = np.frombuffer(data, BUCKET)
    least, mean, greatest, last, counts = (found[name].astype(np.float64) for name in AVERAGES)
    starts = found["start"].astype(np.int64) / 1e6 + POSTGRES_EPOCH_MS / 1000
    return Buckets(starts=starts, least=least, mean=mean, greatest=greatest, last=last, counts=counts)
