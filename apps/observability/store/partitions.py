"""Partitions of the four tables of time, made and dropped by functions of the database (first migration)."""

from datetime import datetime

from django.db import connection

SAMPLES = "observability_sample"
CHUNKS = "observability_samplechunk"
FIVE_MINUTES = "observability_rollup5m"
HOURS = "observability_rollup1h"
HISTORY = (CHUNKS, FIVE_MINUTES, HOURS)


def make(parent: str, first: datetime, last: datetime) -> list[str]:
    """Those of ``parent`` that hold the moments ``first`` to ``last`` and are missing; their names."""
    return _names("SELECT esper_metrics_make_partitions(%s, %s, %s)", [parent, first, last])


def drop(parent: str, before: datetime) -> list[str]:
    """Those of ``parent`` that hold nothing after ``before``; their names."""
    return _names("SELECT esper_metrics_drop_partitions(%s, %s)", [parent, before])


def drop_packed(day: datetime, packed: int) -> bool:
    """Drop the samples of a day when there are exactly ``packed``; whether it did."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT esper_metrics_drop_packed(%s, %s)", [day, packed])
        return bool(cursor.fetchone()[0])


def names(parent: str) -> list[str]:
    """Of all its partitions, oldest first."""
    query = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = %s::regclass ORDER BY 1"
    return _names(query, [parent])


def _names(query: str, values: list[str | datetime]) -> list[str]:
    with connection.cursor() as cursor:
        cursor.execute(query, values)
        return [row[0] for row in cursor.fetchall()]
