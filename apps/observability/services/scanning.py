"""The detector looks at new samples: one state a series, kept in the database.

Gauges only: a counter goes up by itself, and what it stands for has gauges of its own. A batch of series is one
transaction. What a detector finds follows from the samples alone, and an anomaly is known by series and time: samples
that it is told of again, by another process or after a crash, are found as odd as before and written once.
"""

import logging
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from time import monotonic

from django.db import connection, transaction
from django.db.models import F, Q
from django.utils import timezone

from apps.core.locks import Busy, alone
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
STORED_EVERY = timedelta(minutes=5)
"""A detector's state is a few KB: written with each sample, those of 300 series would be gigabytes of log a day. A
process that begins tells the stored one again of the samples since, and finds the same."""
MOST_KEPT = 2_000
"""Detectors in memory, of some 20 KB each."""
IDLE = timedelta(hours=1)
"""Series whose newest sample is older are not asked for new ones; the roll-up knows within minutes when one is back."""
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

EXTEND = """
UPDATE observability_anomaly AS anomaly SET until = greatest(anomaly.until, given.until)
FROM unnest(%s::bigint[], %s::timestamptz[]) AS given (series_id, until)
CROSS JOIN LATERAL (
    SELECT id FROM observability_anomaly
    WHERE series_id = given.series_id AND at <= given.until ORDER BY at DESC LIMIT 1
) AS newest
WHERE anomaly.id = newest.id
"""


TOLD = """
UPDATE observability_detectorstate AS state
SET seen = given.seen, last_at = given.last_at, last_score = given.last_score, updated_at = now()
FROM unnest(%s::bigint[], %s::bigint[], %s::timestamptz[], %s::float8[]) AS given (series_id, seen, last_at, last_score)
WHERE state.series_id = given.series_id
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

    states: list[DetectorState] = field(default_factory=list)
    """Those whose learned state is written, too: now and then, it is a few KB."""
    told: list[DetectorState] = field(default_factory=list)
    anomalies: list[Anomaly] = field(default_factory=list)
    extended: dict[int, datetime] = field(default_factory=dict)
    """{series: until when its last anomaly goes on}."""
    odd: list[tuple[int, datetime]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Kept:
    """A detector in memory, after the sample of ``last_at``."""

    detector: StreamDetector
    last_at: datetime


_kept: OrderedDict[tuple[str, int], Kept] = OrderedDict()
"""(database, series) -> its detector: those used longest ago go."""


def scan() -> Scanned:
    """Tell each series' detector of the samples since it was told last, and write down the anomalies.

    Where another worker scans just now, nothing is done.
    """
    try:
        with alone("observability.scan_anomalies", busy="another worker scans"):
            return _scan()
    except Busy:
        return Scanned()


def forget() -> None:
    """Begin with the stored states again."""
    _kept.clear()


def _scan() -> Scanned:
    now, end = timezone.now(), monotonic() + MOST_SECONDS
    series = samples = anomalies = 0
    candidates = _candidates(now)
    for start in range(0, len(candidates), BATCH):
        some = candidates[start : start + BATCH]
        try:
            with transaction.atomic():
                found, told = _batch({state.series_id: state for state in some}, now)
                _write(found)
        except Exception:
            for state in some:  # they know of samples of which nothing was written
                _kept.pop(_key(state.series_id), None)
            raise
        series, samples, anomalies = series + len(found.told), samples + told, anomalies + len(found.anomalies)
        if monotonic() > end:
            break
    return Scanned(series=series, samples=samples, anomalies=anomalies)


def _key(series_id: int) -> tuple[str, int]:
    return str(connection.settings_dict["NAME"]), series_id


def _candidates(now: datetime) -> list[DetectorState]:
    """Series that may have new samples, those scanned longest ago first; without the learned states."""
    rows = (
        Series.objects.filter(Q(last_at=None) | Q(last_at__gte=now - IDLE), kind=SeriesKind.GAUGE)
        .order_by(F("detector__updated_at").asc(nulls_first=True), "id")
        .values_list("id", "detector__state_at")
    )
    return [DetectorState(series_id=id, state_at=state_at) for id, state_at in rows[:MOST_SERIES]]


def _batch(known: dict[int, DetectorState], now: datetime) -> tuple[Found, int]:
    """What the detectors make of the new samples of the series, and how many samples that are."""
    unseen = _unseen({id: _since(state) for id, state in known.items()}, now)
    states = DetectorState.objects.in_bulk([id for id in unseen if _key(id) not in _kept])
    found = Found()
    for series in Series.objects.filter(pk__in=unseen).order_by("pk"):
        state = states.get(series.pk)
        _look(series, _detector(series, state), unseen[series.pk], known[series.pk].state_at, found)
    while len(_kept) > MOST_KEPT:
        _kept.popitem(last=False)
    return found, sum(len(unseen[state.series_id]) for state in found.told)


def _since(state: DetectorState) -> datetime | None:
    """The newest sample that the series' detector knows: the one in memory, or else the stored one."""
    kept = _kept.get(_key(state.series_id))
    return kept.last_at if kept else state.state_at


def _unseen(since: dict[int, datetime | None], now: datetime) -> dict[int, list[tuple[datetime, float]]]:
    """{series: its next samples, the oldest first}."""
    earliest = hot_since(now)
    starts = [max(at, earliest) if at else earliest for at in since.values()]
    found: dict[int, list[tuple[datetime, float]]] = {}
    with connection.cursor() as cursor:
        cursor.execute(UNSEEN, [list(since), starts, now + AHEAD, MOST_SAMPLES])
        for series, at, value in cursor.fetchall():
            found.setdefault(series, []).append((at, value))
    return found


def _look(
    series: Series,
    detector: StreamDetector,
    samples: Sequence[tuple[datetime, float]],
    state_at: datetime | None,
    found: Found,
) -> None:
    """Tell the detector of the samples. One that fails begins anew after them: the other series have to go on."""
    begins_anew = detector.seen == 0
    try:
        odd = list(_odd(series, detector, samples))
    except Exception:
        log.exception("the detector of series %s failed and begins anew", series.pk)
        detector, odd, begins_anew = _new(series), [], True
    newest: Anomaly | None = None
    for at, anomaly in odd:
        found.odd.append((series.pk, at))
        if anomaly:
            newest = anomaly
            found.anomalies.append(anomaly)
        elif newest:
            newest.until = at
        else:
            found.extended[series.pk] = at
    last_at = samples[-1][0]
    told = DetectorState(series=series, version=VERSION, seen=detector.seen, last_at=last_at, last_score=detector.score)
    found.told.append(told)
    if begins_anew or state_at is None or last_at - state_at >= STORED_EVERY:
        told.state, told.state_at = detector.to_state(), last_at
        found.states.append(told)
    _kept[_key(series.pk)] = Kept(detector, last_at)
    _kept.move_to_end(_key(series.pk))


def _odd(
    series: Series, detector: StreamDetector, samples: Sequence[tuple[datetime, float]]
) -> Iterator[tuple[datetime, Anomaly | None]]:
    """Each odd sample, with the anomaly that it begins, if it begins one."""
    for at, value in samples:
        was_odd = detector.odd
        score = detector.update(at.timestamp(), value)
        if detector.odd:
            begins = score >= THRESHOLD and not was_odd
            yield at, _anomaly(series, at, value, detector) if begins else None


def _new(series: Series) -> StreamDetector:
    return StreamDetector(PROBATION.get(SeriesSource(series.source)))


def _detector(series: Series, state: DetectorState | None) -> StreamDetector:
    """The one in memory, or as it was stored; a new one where there is no state that can be read."""
    kept = _kept.get(_key(series.pk))
    if kept:
        return kept.detector
    if state is None:
        return _new(series)
    try:
        return StreamDetector.from_state(state.state)
    except ValueError as error:
        log.warning("the detector of series %s begins anew: %s", series.pk, error)
        return _new(series)


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
    DetectorState.objects.bulk_create(
        found.states,
        update_conflicts=True,
        unique_fields=["series"],
        update_fields=["version", "state", "state_at"],
    )
    told = sorted(found.told, key=lambda state: state.series_id)
    with connection.cursor() as cursor:
        columns = [[getattr(state, name) for state in told] for name in ("series_id", "seen", "last_at", "last_score")]
        cursor.execute(TOLD, columns)
    Anomaly.objects.bulk_create(found.anomalies, ignore_conflicts=True)
    # One that another process found lasts as long as whoever has seen more says.
    lasts = [*found.extended.items(), *((anomaly.series_id, anomaly.until) for anomaly in found.anomalies)]
    if lasts:
        with connection.cursor() as cursor:
            cursor.execute(EXTEND, [[id for id, _ in lasts], [until for _, until in lasts]])
    writing.mark_anomalous(found.odd)
