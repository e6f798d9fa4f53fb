"""The detector looks at new samples: one state a series, kept in the database.

Gauges only: a counter goes up by itself, and what it stands for has gauges of its own. A batch of series is one
transaction, so that a sample whose anomaly is kept is one that its state has seen: nothing is found twice or lost.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from time import monotonic
from typing import Any

from django.db import connection, transaction
from django.db.models import F, Q
from django.utils import timezone

from apps.core.errors import Conflict
from apps.core.locks import alone
from apps.observability.anomalies import THRESHOLD, VERSION, StreamDetector
from apps.observability.models import Anomaly, DetectorState, Series, SeriesKind, SeriesSource
from apps.observability.store import writing
from apps.observability.store.times import AHEAD, hot_since

log = logging.getLogger(__name__)

BATCH = 500
"""Series in one transaction."""
MOST_SAMPLES = 240
"""Of one series in one scan; the rest is the next scan's."""
MOST_SECONDS = 10.0
"""After which a scan begins no other batch: those scanned longest ago come first."""
MOST_SERIES = 20_000
IDLE = timedelta(hours=1)
"""Series whose newest sample is older are not asked for new ones; the roll-up knows within minutes when one is back."""
SHORT_WAIT = timedelta(seconds=25)
"""A single new sample that is younger waits for the next: reading and writing a state costs more than judging samples."""
PROBATION = {SeriesSource.RUN: 20}
"""Samples that the detector only learns from, where it is not its default: a run may be over after fifty."""

UNSEEN = """
SELECT wanted.id, sample.at, sample.value
FROM unnest(%s::bigint[], %s::timestamptz[]) AS wanted (id, since)
CROSS JOIN LATERAL (
    SELECT at, value FROM observability_sample
    WHERE series_id = wanted.id AND at > wanted.since AND at <= %s ORDER BY at LIMIT %s
) AS sample
"""

KEEP = """
INSERT INTO observability_detectorstate AS kept (series_id, version, state, seen, last_at, last_score, updated_at)
SELECT series_id, version, state, seen, last_at, last_score, %s
FROM jsonb_to_recordset(%s) AS given (
    series_id bigint, version smallint, state jsonb, seen bigint, last_at timestamptz, last_score float8
)
ON CONFLICT (series_id) DO UPDATE SET
    version = excluded.version, state = excluded.state, seen = excluded.seen,
    last_at = excluded.last_at, last_score = excluded.last_score, updated_at = excluded.updated_at
"""
"""One parameter for all rows: psycopg takes ten times as long to quote as many states as an array."""

EXTEND = """
UPDATE observability_anomaly AS anomaly SET until = greatest(anomaly.until, given.until)
FROM unnest(%s::bigint[], %s::timestamptz[]) AS given (series_id, until)
CROSS JOIN LATERAL (
    SELECT id FROM observability_anomaly
    WHERE series_id = given.series_id AND at <= given.until ORDER BY at DESC LIMIT 1
) AS newest
WHERE anomaly.id = newest.id
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scanned:
    """What one scan looked at and found."""

    series: int = 0
    samples: int = 0
    anomalies: int = 0


@dataclass(slots=True)
class Found:
    """What is to be written of a batch."""

    states: list[dict[str, Any]] = field(default_factory=list)
    """Rows of DetectorState."""
    anomalies: list[Anomaly] = field(default_factory=list)
    extended: dict[int, datetime] = field(default_factory=dict)
    """{series: until when its last anomaly goes on}."""
    odd: list[tuple[int, datetime]] = field(default_factory=list)


def scan() -> Scanned:
    """Tell each series' detector of the samples since it was told last, and write down the anomalies.

    Where another worker scans just now, nothing is done.
    """
    try:
        with alone("observability.scan_anomalies", busy="another worker scans"):
            return _scan()
    except Conflict:
        return Scanned()


def _scan() -> Scanned:
    now, end = timezone.now(), monotonic() + MOST_SECONDS
    series = samples = anomalies = 0
    candidates = _candidates(now)
    for start in range(0, len(candidates), BATCH):
        with transaction.atomic():
            found, told = _batch(dict(candidates[start : start + BATCH]), now)
            _write(found)
        series, samples, anomalies = series + len(found.states), samples + told, anomalies + len(found.anomalies)
        if monotonic() > end:
            break
    return Scanned(series=series, samples=samples, anomalies=anomalies)


def _candidates(now: datetime) -> list[tuple[int, datetime | None]]:
    """Series that may have new samples, those scanned longest ago first: (id, its newest sample that was seen)."""
    rows = (
        Series.objects.filter(Q(last_at=None) | Q(last_at__gte=now - IDLE), kind=SeriesKind.GAUGE)
        .order_by(F("detector__updated_at").asc(nulls_first=True), "id")
        .values_list("id", "detector__last_at")
    )
    return list(rows[:MOST_SERIES])


def _batch(since: dict[int, datetime | None], now: datetime) -> tuple[Found, int]:
    """What the detectors make of the new samples of the series, and how many samples that are."""
    unseen = _unseen(since, now)
    rows = (
        Series.objects.filter(pk__in=unseen)
        .select_related("detector")
        .defer("labels")
        .select_for_update(of=("self",), no_key=True)
    )
    found = Found()
    for series in rows:
        _look(series, unseen[series.pk], found)
    return found, sum(len(unseen[state["series_id"]]) for state in found.states)


def _unseen(since: dict[int, datetime | None], now: datetime) -> dict[int, list[tuple[datetime, float]]]:
    """{series: its next samples, the oldest first}."""
    earliest = hot_since(now)
    starts = [max(at, earliest) if at else earliest for at in since.values()]
    found: dict[int, list[tuple[datetime, float]]] = {}
    with connection.cursor() as cursor:
        cursor.execute(UNSEEN, [list(since), starts, now + AHEAD, MOST_SAMPLES])
        for series, at, value in cursor.fetchall():
            found.setdefault(series, []).append((at, value))
    return {series: samples for series, samples in found.items() if _is_worth_it(samples, now)}


def _is_worth_it(samples: Sequence[tuple[datetime, float]], now: datetime) -> bool:
    return len(samples) > 1 or samples[0][0] <= now - SHORT_WAIT


def _look(series: Series, samples: Sequence[tuple[datetime, float]], found: Found) -> None:
    detector = _detector(series)
    newest: Anomaly | None = None
    for at, value in samples:
        was_odd = detector.odd
        score = detector.update(at.timestamp(), value)
        if not detector.odd:
            continue
        found.odd.append((series.pk, at))
        if score >= THRESHOLD and not was_odd:
            newest = _anomaly(series, at, value, detector)
            found.anomalies.append(newest)
        elif newest:
            newest.until = at
        else:
            found.extended[series.pk] = at
    found.states.append(
        {
            "series_id": series.pk,
            "version": VERSION,
            "state": detector.to_state(),
            "seen": detector.seen,
            "last_at": samples[-1][0].isoformat(),
            "last_score": detector.score,
        }
    )


def _detector(series: Series) -> StreamDetector:
    """As its state has it; a new one where there is no state that can be read."""
    probation = PROBATION.get(SeriesSource(series.source))
    state: DetectorState | None = getattr(series, "detector", None)
    if state is None:
        return StreamDetector(probation)
    try:
        return StreamDetector.from_state(state.state)
    except ValueError as error:
        log.warning("the detector of series %s begins anew: %s", series.pk, error)
        return StreamDetector(probation)


def _anomaly(series: Series, at: datetime, value: float, detector: StreamDetector) -> Anomaly:
    why = detector.explain()
    return Anomaly(
        workspace_id=series.workspace_id,
        series=series,
        run_id=series.run_id,
        at=at,
        until=at,
        value=value,
        score=detector.score,
        component=why.component,
        components=why.components,
        expected_low=why.expected_low,
        expected_high=why.expected_high,
        explanation=f"{series.name} {why.text}",
    )


def _write(found: Found) -> None:
    with connection.cursor() as cursor:
        cursor.execute(KEEP, [timezone.now(), json.dumps(found.states)])
        if found.extended:
            cursor.execute(EXTEND, [list(found.extended), list(found.extended.values())])
    Anomaly.objects.bulk_create(found.anomalies, ignore_conflicts=True)
    writing.mark_anomalous(found.odd)
