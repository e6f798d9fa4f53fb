"""Thirty days of samples twice: as the store keeps them, and in the table that one would make first.

Eight series of one name and four of another, a sample each 15 seconds: counters, whole numbers, percentages with one
digit, and noise in all its digits. What a page reads of them is the same for 8 series among 12 as among 50: the naive
table has an index on name and time.
"""

import statistics
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import psycopg
from django.db import connection
from django.test.utils import override_settings
from django.utils import timezone

from benchmarks.targets import Measurement

DAYS, STEP = 30, 15
NAME, OTHER = "bench_shown", "bench_other"
SHOWN, OTHERS = 8, 4
SEED = 0.26

FILL = """
INSERT INTO observability_sample (series_id, at, value)
SELECT id, at, CASE id %% 4
    WHEN 0 THEN floor(place * 3 + random() * 2)
    WHEN 1 THEN floor(random() * 40)
    WHEN 2 THEN round((50 + 30 * sin(place / 900.0) + random() * 10)::numeric, 1)
    ELSE 50 + 30 * sin(place / 900.0) + random()
END
FROM observability_series, generate_series(0, %s - 1) AS place,
    LATERAL (SELECT %s + place * %s * interval '1 s' AS at) AS moment
WHERE name = ANY(%s)
"""
NAIVE = """
CREATE TABLE bench_naive (
    id bigserial PRIMARY KEY, name text NOT NULL, labels jsonb NOT NULL, at timestamptz NOT NULL, value float8 NOT NULL
);
INSERT INTO bench_naive (name, labels, at, value)
SELECT name, labels, at, value FROM observability_sample JOIN observability_series AS series ON series.id = series_id
WHERE name = ANY(%s) ORDER BY at;
CREATE INDEX ON bench_naive (name, at);
"""
SIZE = """
SELECT coalesce(sum(pg_total_relation_size(relid)), pg_total_relation_size(%s::regclass))
FROM pg_partition_tree(%s::regclass)
"""
NAIVE_PAGE = """
SELECT labels, date_trunc('hour', at), min(value), avg(value), max(value) FROM bench_naive
WHERE name = %s AND at >= %s AND at < %s GROUP BY 1, 2 ORDER BY 1, 2
"""


def measure(owner_url: str, *, others: int, rounds: int, say: Callable[[str], Any]) -> dict[str, Any]:
    """Fill both, let the upkeep make history of ours, and read pages of both in turns."""
    from apps.observability.services.upkeep import roll_up

    end = timezone.now().replace(minute=0, second=0, microsecond=0)
    start = end - timedelta(days=DAYS)
    count = (SHOWN + others) * DAYS * 86_400 // STEP
    say(f"writing {count:,} samples, twice ...")
    _fill(owner_url, start, others)
    sizes = {"narrow": _bytes("observability_sample") / count, "naive": _bytes("bench_naive") / count}
    say("making averages and history ...")
    with override_settings(METRICS_HOT_DAYS=DAYS + 2):
        averaging = _seconds(roll_up)
    packing = _seconds(lambda: [roll_up() for _ in range(DAYS)])
    with connection.cursor() as cursor:
        cursor.execute("SELECT sum(count) FROM observability_samplechunk")
        packed = cursor.fetchone()[0]
    sizes["history"] = _bytes("observability_samplechunk") / int(packed)
    _analyze(owner_url)
    say("reading pages ...")
    return {
        "samples": count,
        "series": SHOWN + others,
        "bytes_per_sample": sizes,
        "averages_per_million_s": averaging / count * 1e6,
        "packing_per_million_s": packing / int(packed) * 1e6,
        **_pages(start, end, rounds),
    }


def measured(result: dict[str, Any]) -> dict[str, Measurement]:
    return {
        "page_30d_vs_naive_layout": Measurement.of(result["ratios"]),
        "bytes_per_sample_history": Measurement(value=result["bytes_per_sample"]["history"], n=1, spread=0.0),
    }


def _fill(owner_url: str, start: datetime, others: int) -> None:
    from apps.observability.store import partitions

    names = [(NAME, number) for number in range(SHOWN)] + [(OTHER, number) for number in range(others)]
    for name, number in names:
        _add_series(name, {"host": f"host-{number}.example", "disk": "/var/lib"})
    partitions.make(partitions.SAMPLES, start, timezone.now())
    with psycopg.connect(owner_url, autocommit=True) as owner:
        owner.execute("SELECT setseed(%s)", [SEED])
        owner.execute(FILL, [DAYS * 86_400 // STEP, start, STEP, [NAME, OTHER]])
        for statement in NAIVE.split(";")[:-1]:
            owner.execute(statement, [[NAME, OTHER]] if "%s" in statement else None)
        owner.execute("GRANT SELECT ON bench_naive TO PUBLIC")
        owner.execute("VACUUM ANALYZE bench_naive")


def _add_series(name: str, labels: dict[str, str]) -> None:
    from apps.accounts.models import default_workspace_id
    from apps.observability.models import Series
    from apps.observability.store.identity import digest_of, key_of

    workspace_id = default_workspace_id()
    digest = digest_of(workspace_id, key_of(name, labels))
    Series.objects.create(workspace_id=workspace_id, name=name, labels=labels, digest=digest)


def _analyze(owner_url: str) -> None:
    with psycopg.connect(owner_url, autocommit=True) as owner:
        for table in ("rollup1h", "rollup5m", "samplechunk", "sample"):
            owner.execute(f"VACUUM ANALYZE observability_{table}")  # type: ignore[arg-type]


def _bytes(table: str) -> int:
    """On the disk: rows, what is kept beside them, and indexes, of all partitions."""
    with connection.cursor() as cursor:
        cursor.execute(SIZE, [table, table])
        return int(cursor.fetchone()[0])


def _pages(start: datetime, end: datetime, rounds: int) -> dict[str, Any]:
    from apps.observability.store import reading

    day, packed = end - timedelta(days=1), end - timedelta(days=6)
    pages: dict[str, Callable[[], Any]] = {
        "naive_30d_ms": lambda: _naive_page(start, end),
        "page_30d_ms": lambda: reading.query(name=NAME, start=start, end=end, step=3600),
        "page_24h_ms": lambda: reading.query(name=NAME, start=day, end=end),
        "packed_day_ms": lambda: reading.query(name=NAME, start=packed, end=packed + timedelta(days=1), step=STEP * 4),
    }
    times: dict[str, list[float]] = {name: [] for name in pages}
    for number in range(rounds + 1):
        for name, page in pages.items():
            seconds = _seconds(page)
            if number:  # the first warms both
                times[name].append(seconds * 1000)
    ratios = [naive / ours for naive, ours in zip(times["naive_30d_ms"], times["page_30d_ms"], strict=True)]
    _check_same(start, end)
    return {"ratios": ratios, **{name: statistics.median(found) for name, found in times.items()}}


def _naive_page(start: datetime, end: datetime) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(NAIVE_PAGE, [NAME, start, end])
        rows: list[tuple[Any, ...]] = cursor.fetchall()
    return rows


def _check_same(start: datetime, end: datetime) -> None:
    """Both pages show the same, or the comparison is of nothing."""
    from apps.observability.store import reading

    curves = reading.query(name=NAME, start=start, end=end - timedelta(seconds=1), step=3600)
    naive = [row[3] for row in _naive_page(start, end)]
    ours = [mean for curve in sorted(curves, key=lambda c: c.series.labels["host"]) for mean in curve.mean.tolist()]
    assert len(naive) == len(ours), (len(naive), len(ours))
    assert all(abs(a - b) <= 1e-9 * max(1.0, abs(a)) for a, b in zip(naive, ours, strict=True))


def _seconds(do: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    do()
    return time.perf_counter() - begun
