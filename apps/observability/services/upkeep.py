"""House-keeping of samples: averages, packed history, partitions, retention."""

from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial

import structlog
from django.conf import settings
from django.db import OperationalError, connection, transaction
from django.db.models.functions import Coalesce
from django.utils import timezone

from apps.core.locks import Busy, alone
from apps.observability.models import Series
from apps.observability.store import averaging, history, partitions
from apps.observability.store.registering import lock_number
from apps.observability.store.times import hot_since

AHEAD, BEHIND = timedelta(days=2), timedelta(days=1)
MOST_REMOVED = 1_000

EMPTY = """
SELECT id FROM unnest(%s::bigint[]) AS wanted (id)
WHERE NOT EXISTS (SELECT FROM observability_sample WHERE series_id = id)
    AND NOT EXISTS (SELECT FROM observability_samplechunk WHERE series_id = id)
    AND NOT EXISTS (SELECT FROM observability_rollup5m WHERE series_id = id)
    AND NOT EXISTS (SELECT FROM observability_rollup1h WHERE series_id = id)
"""

log = structlog.get_logger(__name__)


def roll_up() -> None:
    """Do what is due; what was done already is not done again. One does it at a time, and a second goes home.

    Each step commits by itself: a death in between loses nothing, and the next call goes on.
    """
    try:
        with alone("metrics upkeep", busy="metrics are rolled up elsewhere"):
            _roll_up(timezone.now())
    except Busy:
        return


def _roll_up(now: datetime) -> None:
    _make_partitions(now)
    averaging.make(now)
    _unless_locked("pack", partial(history.pack_oldest_day, now))
    for table, days in _kept_days().items():
        _unless_locked("retention", partial(partitions.drop, table, now - timedelta(days=days)))
    _remove_idle_series(now)


def _make_partitions(now: datetime) -> None:
    """Those of the hot window, and of the next days: nobody who writes has to wait for one. The day before the window
    is packed and dropped: its samples get no partition again."""
    partitions.make(partitions.SAMPLES, hot_since(now), now + AHEAD)
    for table in partitions.HISTORY:
        partitions.make(table, hot_since(now) - BEHIND, now + AHEAD)


def _kept_days() -> dict[str, int]:
    """How long each table of history is kept: never less than the hot window."""
    hot = max(settings.METRICS_HOT_DAYS, 1) + 1
    return {
        partitions.CHUNKS: max(settings.METRICS_RAW_DAYS, hot),
        partitions.FIVE_MINUTES: max(settings.METRICS_5M_DAYS, hot),
        partitions.HOURS: max(settings.METRICS_1H_DAYS, hot),
    }


def _remove_idle_series(now: datetime) -> int:
    """Remove series of which nothing is kept any more, and with them their anomalies; how many."""
    since = now - timedelta(days=max(_kept_days().values()))
    idle = Series.objects.annotate(until=Coalesce("last_at", "created_at")).filter(until__lt=since)
    if not idle.exists():
        return 0
    with transaction.atomic():
        with connection.cursor() as cursor:  # who writes holds it shared: then next time
            cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [lock_number("series are removed")])
            if not cursor.fetchone()[0]:
                return 0
        ids = _empty([series.pk for series in idle[:MOST_REMOVED]])
        Series.objects.filter(pk__in=ids).delete()
    return len(ids)


def _empty(ids: list[int]) -> list[int]:
    with connection.cursor() as cursor:
        cursor.execute(EMPTY, [ids])
        return [row[0] for row in cursor.fetchall()]


def _unless_locked(step: str, do: Callable[[], object]) -> None:
    """A partition that somebody reads cannot go now: it goes the next time."""
    try:
        do()
    except OperationalError as error:
        if "lock timeout" not in str(error) and "deadlock" not in str(error):
            raise
        log.info("metrics_upkeep_waits", step=step, reason=str(error).strip())
