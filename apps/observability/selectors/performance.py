"""How the platform does over a window: what runs are worth, what growing comes to, what it takes, and the cache."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import numpy as np
from django.utils import timezone

from apps.accounts.models import default_workspace_id
from apps.core.errors import Unavailable
from apps.kernels.cache import reporting
from apps.kernels.cache.fleet import MINUTE, WINDOWS
from apps.kernels.cache.reporting import FLEET, Latency, Stored
from apps.kernels.cache.segments import TierName
from apps.kernels.cache.stats import Snapshot
from apps.observability.intervals import Share, Spread, share, spread
from apps.observability.models import Series
from apps.observability.performance import Adaptation, Efficiency, source
from apps.observability.selectors.trends import MOST_SERIES, SeriesTrend, trends
from apps.observability.store import reading

RESOURCES = (
    "esper_host_cpu_ratio",
    "esper_host_memory_used_ratio",
    "esper_host_disk_used_ratio",
    "esper_gpu_memory_used_ratio",
    "esper_database_bytes",
    "esper_database_connections_used_ratio",
    "esper_redis_memory_used_ratio",
    "esper_queue_messages",
    "esper_queue_oldest_age_seconds",
)
THROUGHPUT, OVERHEAD = "esper_run_samples_per_second", "esper_run_overhead_ratio"


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheTier:
    """``hits`` are of the reads that came as far as this tier; ``answered`` of all reads that any tier answered."""

    name: str
    hits: Share
    answered: Share
    bytes_given: int
    evictions: int
    latency: Latency


@dataclass(frozen=True, slots=True, kw_only=True)
class CachePerformance:
    """``problem`` tells why the counts are unknown; empty: they are not. The cache keeps whole windows of its own."""

    window: str
    tiers: Sequence[CacheTier]
    stored: Stored
    """What the database has, each blob once."""
    archived: Stored
    """What the object storage has."""
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Performance:
    """``since`` to ``until`` is the window of every number, but of the cache's."""

    since: datetime
    until: datetime
    samples_per_second: Spread
    """Over the runs that trained in the window: each counts with its mean."""
    overhead: Spread
    """Likewise: time of growing per time of pure training."""
    efficiency: Efficiency
    adaptation: Adaptation
    resources: Sequence[SeriesTrend]
    omitted_resources: int
    """Series that are not shown, since there are more than ``MOST_SERIES``."""
    cache: CachePerformance


def performance(*, hours: int, workspace_id: UUID | None = None) -> Performance:
    """A fixed number of queries, whatever there is."""
    until = timezone.now()
    since = until - timedelta(hours=hours)
    latest = [
        found
        for found in reading.latest(names=RESOURCES, within_seconds=hours * 3600, workspace_id=workspace_id)
        if found.series.name in RESOURCES
    ]
    order = {name: place for place, name in enumerate(RESOURCES)}
    ids = [found.series.id for found in sorted(latest, key=lambda found: order[found.series.name])]
    shown = trends(ids=ids[:MOST_SERIES], hours=hours, now=until, workspace_id=workspace_id) if ids else []
    return Performance(
        since=since,
        until=until,
        samples_per_second=_over_runs(THROUGHPUT, since, until, workspace_id),
        overhead=_over_runs(OVERHEAD, since, until, workspace_id),
        efficiency=source().efficiency(since, until),
        adaptation=source().adaptation(since, until),
        resources=sorted(shown, key=lambda found: (order[found.series.name], found.series.id)),
        omitted_resources=len(ids) - len(shown),
        cache=cache_performance(hours),
    )


def cache_performance(hours: int) -> CachePerformance:
    """Three queries at most; the counts are read from the broker's Redis."""
    window = cache_window(hours)
    stored, archived = reporting.stored()
    problem = ""
    tiers: list[CacheTier] = []
    try:
        counted = reporting.counted(FLEET, window)
        tiers = [_tier(counted, name) for name in TierName]
    except Unavailable as error:
        problem = error.detail
    return CachePerformance(window=window, tiers=tiers, stored=stored, archived=archived, problem=problem)


def cache_window(hours: int) -> str:
    """The shortest of the cache's own windows that has them all, or the longest."""
    lengths = {name: count if unit == MINUTE else count * 60 for name, (unit, count) in WINDOWS.items()}
    long_enough = [name for name, minutes in lengths.items() if minutes >= hours * 60]
    return min(long_enough, key=lengths.__getitem__) if long_enough else max(lengths, key=lengths.__getitem__)


def _tier(counted: Snapshot, name: TierName) -> CacheTier:
    found = reporting.tier(counted, name)
    return CacheTier(
        name=str(name),
        hits=share(found.hits, found.hits + found.misses),
        answered=share(found.hits, counted.total("hits")),
        bytes_given=found.bytes,
        evictions=found.evictions,
        latency=found.latency,
    )


def _over_runs(name: str, since: datetime, until: datetime, workspace_id: UUID | None) -> Spread:
    """Of the newest runs that told of it."""
    series = Series.objects.filter(workspace=workspace_id or default_workspace_id(), name=name)
    ids = list(series.order_by("-pk").values_list("pk", flat=True)[:MOST_SERIES])
    if not ids:
        return spread([])
    curves = reading.query(ids=ids, start=since, end=until, points=60, limit=MOST_SERIES, workspace_id=workspace_id)
    finite = (curve.mean[np.isfinite(curve.mean)] for curve in curves)
    return spread(float(values.mean()) for values in finite if len(values))
