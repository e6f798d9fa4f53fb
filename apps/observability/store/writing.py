"""How samples come into the store: a batch is one transaction, and each sample is kept once however often it comes."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from apps.accounts.models import default_workspace_id
from apps.core.errors import FieldError, Invalid
from apps.observability.contracts import Reading, Written
from apps.observability.models import SeriesSource
from apps.observability.store import identity, partitions, registering
from apps.observability.store.times import AHEAD, hot_since, whole

LATE = timedelta(minutes=5)
"""A sample that is older when it comes may belong to averages that are made already."""
SHOWN_FAULTS = 20
NO_PARTITION = "no partition of relation"

INSERT = """
WITH given AS (
    SELECT * FROM unnest(%s::bigint[], %s::timestamptz[], %s::float8[]) AS given (series_id, at, value)
), there AS (
    SELECT id FROM observability_series WHERE id = ANY(%s::bigint[])
), stored AS (
    INSERT INTO observability_sample (series_id, at, value)
    SELECT series_id, at, value FROM given JOIN there ON there.id = given.series_id
    ORDER BY series_id, at -- in one order by all, so that no two wait for each other
    ON CONFLICT DO NOTHING
    RETURNING series_id, at
), late AS (
    INSERT INTO observability_late (series_id, hour)
    SELECT DISTINCT series_id, date_trunc('hour', at, 'UTC') FROM stored WHERE at < %s
)
SELECT (SELECT count(*) FROM stored), (SELECT count(*) FROM there)
"""


def record(readings: Sequence[Reading], *, source: str, workspace_id: UUID | None = None) -> Written:
    """Keep the samples; series that are new begin. Times are kept in whole milliseconds.

    ``source`` is one of ``SeriesSource``. Without ``workspace_id``: the default workspace. All are kept or none.

    Raises:
        Invalid: samples are wrong, each named by ``/samples/<place>/<field>``; or there would be too many series
            (code "too_many_series").
    """
    if not readings:
        return Written(stored=0, known=0)
    workspace_id = workspace_id or default_workspace_id()
    check(readings, now=timezone.now())
    return _written(readings, SeriesSource(source), workspace_id, tries=3)


def mark_anomalous(pairs: Sequence[tuple[int, datetime]]) -> None:
    """Set the anomaly bit of the samples (series, time) of the hot window; others are passed over."""
    if not pairs:
        return
    ids, times = [pair[0] for pair in pairs], [_nearest(pair[1]) for pair in pairs]
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE observability_sample AS sample SET anomalous = true"
            " FROM unnest(%s::bigint[], %s::timestamptz[]) AS odd (series_id, at)"
            " WHERE sample.series_id = odd.series_id AND sample.at = odd.at AND sample.at BETWEEN %s AND %s"
            " AND NOT sample.anomalous",
            [ids, times, min(times), max(times)],
        )


def check(readings: Sequence[Reading], *, now: datetime) -> None:
    """Whether all samples can be kept.

    Raises:
        Invalid: naming each that cannot (at most 20).
    """
    earliest, latest = hot_since(now), now + AHEAD
    known: set[object] = set()
    errors: list[FieldError] = []
    for place, reading in enumerate(readings):
        pointer = f"/samples/{place}"
        if (key := _key_of(reading)) is None or key not in known:
            found = identity.faults(reading.name, reading.labels, pointer)
            if key is not None and not found:
                known.add(key)
            errors += found
        if reading.at.tzinfo is None:
            errors.append(FieldError(f"{pointer}/at", "invalid", "has no time zone"))
        elif reading.at < earliest:
            detail = f"is before {earliest:%Y-%m-%dT%H:%M:%SZ}: only samples of the last days are taken"
            errors.append(FieldError(f"{pointer}/at", "too_old", detail))
        elif reading.at > latest:
            errors.append(FieldError(f"{pointer}/at", "in_the_future", "is in the future: check the clock"))
        if len(errors) >= SHOWN_FAULTS:
            break
    if errors:
        raise Invalid(errors[0].detail, code=errors[0].code, errors=errors)


def _key_of(reading: Reading) -> object | None:
    """Name and labels as they were given; None: some of them are of no type that could be right."""
    try:
        key = reading.name, tuple(reading.labels.items())
        hash(key)
    except (AttributeError, TypeError):
        return None
    return key


def _written(readings: Sequence[Reading], source: SeriesSource, workspace_id: UUID, *, tries: int) -> Written:
    times = [whole(reading.at) for reading in readings]
    try:
        with transaction.atomic():
            ids = registering.ids_of(readings, source=source, workspace_id=workspace_id)
            unique = list(set(ids))
            late = timezone.now() - LATE
            with connection.cursor() as cursor:
                cursor.execute(INSERT, [ids, times, [float(r.value) for r in readings], unique, late])
                stored, there = cursor.fetchone()
            if there < len(unique):
                raise _SeriesGoneError
    except _SeriesGoneError:
        registering.forget()  # some were removed since this process met them: look again
    except IntegrityError as error:
        if NO_PARTITION not in str(error) or tries <= 1:
            raise
        partitions.make(partitions.SAMPLES, min(times), max(times))
    else:
        return Written(stored=stored, known=len(readings) - stored)
    return _written(readings, source, workspace_id, tries=tries - 1)


def _nearest(at: datetime) -> datetime:
    return whole(at + timedelta(microseconds=500))


class _SeriesGoneError(Exception):
    """A series of the batch was removed meanwhile."""
