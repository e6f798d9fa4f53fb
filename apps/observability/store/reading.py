"""How samples come out of the store: the newest, the raw ones of a window, and curves over any range of time."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from django.db import connection
from django.utils import timezone

from apps.core.errors import Invalid
from apps.observability.contracts import Curve, Latest, Numbers, SeriesInfo
from apps.observability.matchers import Matcher
from apps.observability.store import curves, rows
from apps.observability.store.curves import MOST_POINTS
from apps.observability.store.selecting import selected
from apps.observability.store.times import AHEAD, EPOCH, hot_since

MOST_SERIES = 50
MOST_LATEST = 20_000
LONGEST = timedelta(days=800)

LATEST = """
SELECT wanted.id, newest.at, newest.value, newest.anomalous FROM unnest(%s::bigint[]) AS wanted (id)
CROSS JOIN LATERAL (
    SELECT at, value, anomalous FROM observability_sample
    WHERE series_id = wanted.id AND at BETWEEN %s AND %s ORDER BY at DESC LIMIT 1
) AS newest
"""


def series(
    name: str | None = None,
    *,
    matchers: Sequence[Matcher] = (),
    ids: Sequence[int] | None = None,
    limit: int = 1000,
    workspace_id: UUID | None = None,
) -> list[SeriesInfo]:
    """What series there are, by name and id; at most ``limit``. Without ``workspace_id``: of the default workspace."""
    return selected(name, matchers=matchers, ids=ids, limit=limit, workspace_id=workspace_id)


def latest(
    name: str | None = None,
    *,
    matchers: Sequence[Matcher] = (),
    ids: Sequence[int] | None = None,
    names: Sequence[str] | None = None,
    within_seconds: int | None = None,
    workspace_id: UUID | None = None,
) -> list[Latest]:
    """The newest sample of each series that has one within the time (without it: within the hot window), by name and
    id; of at most 20,000 series."""
    wanted = selected(name, names=names, matchers=matchers, ids=ids, limit=MOST_LATEST, workspace_id=workspace_id)
    now = timezone.now()
    since = hot_since(now)
    if within_seconds is not None:
        since = max(since, now - timedelta(seconds=within_seconds))
    with connection.cursor() as cursor:
        cursor.execute(LATEST, [[info.id for info in wanted], since, now + AHEAD])
        found = {id: rest for id, *rest in cursor.fetchall()}
    return [
        Latest(series=info, at=found[info.id][0], value=found[info.id][1], anomalous=found[info.id][2])
        for info in wanted
        if info.id in found
    ]


def window(series_id: int, start: datetime, end: datetime) -> tuple[Numbers, Numbers]:
    """The samples from ``start`` to ``end``, both within: seconds since 1970, ascending, and values; the newest 20,000
    where there are more."""
    return windows([series_id], start, end)[series_id]


def windows(ids: Sequence[int], start: datetime, end: datetime) -> dict[int, tuple[Numbers, Numbers]]:
    """As ``window``, of several series: each has an entry."""
    found = rows.raw(ids, start, end, most=MOST_POINTS)
    return {id: (found[id].times, found[id].values) for id in ids}


def query(
    *,
    name: str | None = None,
    matchers: Sequence[Matcher] = (),
    ids: Sequence[int] | None = None,
    start: datetime,
    end: datetime,
    step: int | None = None,
    points: int = 600,
    limit: int = MOST_SERIES,
    workspace_id: UUID | None = None,
) -> list[Curve]:
    """Curves from ``start`` to ``end`` of at most ``limit`` series, by name and id.

    ``step`` is the length of the buckets in seconds, 0 for the samples themselves. Without it the shortest is taken
    with which no curve has more than ``points`` points. Where samples are kept no longer, or a step is a multiple of
    five minutes, averages are read.

    Raises:
        Invalid: a bound is wrong or exceeded, naming the parameter.
    """
    most = min(limit, MOST_SERIES)
    _check_range(start, end, points)
    wanted = selected(name, matchers=matchers, ids=ids, limit=most + 1, workspace_id=workspace_id)
    if len(wanted) > most:
        raise Invalid(
            f"more than {most} series match: name one metric, or add a label", pointer="/label", code="too_many"
        )
    if not wanted:
        return []
    points = min(points, MOST_POINTS // len(wanted))
    return curves.drawn(wanted, start, end, step=step, points=points)


def _check_range(start: datetime, end: datetime, points: int) -> None:
    for pointer, at in (("/start", start), ("/end", end)):
        if at.tzinfo is None:
            raise Invalid("has no time zone", pointer=pointer, code="invalid")
    if start < EPOCH:
        raise Invalid("is before 1970", pointer="/start", code="out_of_range")
    if end > timezone.now() + timedelta(days=1):
        raise Invalid("is in the future", pointer="/end", code="out_of_range")
    if start > end:
        raise Invalid("is before the start", pointer="/end", code="invalid")
    if end - start > LONGEST:
        raise Invalid(f"is more than {LONGEST.days} days before the end", pointer="/start", code="invalid")
    if not 2 <= points <= MOST_POINTS:
        raise Invalid(f"is between 2 and {MOST_POINTS:,}", pointer="/points", code="out_of_range")
