"""What the cache did and how it is, in numbers for people and programs: the API, the page, the command.

    counted = reporting.counted("fleet", "1h")
    reporting.tier(counted, TierName.L1).hit_rate
    reporting.gauges("fleet").queue.rows

What is counted comes from the broker's Redis, or from this process alone; what is stored from the database.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from django.db.models import Count, Min, Q, Sum

from apps.core.errors import Invalid, Unavailable
from apps.kernels.cache import fleet, planning, stats
from apps.kernels.cache.segments import TierAway, TierName
from apps.kernels.cache.stats import BOUNDS, SIZE_CLASSES, Snapshot
from apps.kernels.cache.tiers import tiers
from apps.kernels.lifecycle import KernelState
from apps.kernels.models import CacheOutbox, Kernel, KernelBlob, OutboxKind, StorageTier

FLEET, PROCESS = SCOPES = ("fleet", "process")
"""All processes together, or the one that answers."""
TOTAL = "total"
WINDOWS = (*fleet.WINDOWS, TOTAL)


# --- What was counted


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """How long hits took, in milliseconds; None: there were none. A percentile is at most 21 % off."""

    mean_ms: float | None
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What a tier did for blobs of every size, or of one size class: see ``stats.What``."""

    hits: int
    misses: int
    bytes: int
    fills: int
    refused: int
    evictions: int
    promotions: int
    demotions: int
    coalesced: int
    heals: int
    corrupt: int
    errors: int
    hit_rate: float | None
    """Of the reads that came as far as this tier, the share that it answered; None: none came."""
    answered_share: float | None
    """Of all reads that any tier answered, the share that this one did; None: there were none."""
    latency: Latency


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeClass(Counts):
    size: str
    """One of ``stats.SIZE_CLASSES``: the size of the largest blob in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """``hits`` that took at most ``le_ms`` and more than the bound before it; None: longer than the last bound."""

    le_ms: float | None
    hits: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TierReport(Counts):
    """``buckets`` and ``by_size`` have no members in which nothing was counted."""

    buckets: list[Bucket]
    by_size: list[SizeClass]


def window_of(scope: str, window: str | None) -> str:
    """The window that is meant. Raises Invalid: a process only knows what it counted since it started."""
    if scope == PROCESS:
        if window not in (None, TOTAL):
            raise Invalid(
                f"a process keeps no windows: ask for {TOTAL} (since it started), or for the fleet",
                pointer="/window",
                code="no_window",
            )
        return TOTAL
    return window or "1h"


def counted(scope: str, window: str) -> Snapshot:
    """Raises Unavailable: the fleet's counts cannot be read."""
    if scope == PROCESS:
        return stats.process()
    try:
        return fleet.fleet(window)
    except Unavailable as error:
        raise _silent(error) from error


def tier(counted: Snapshot, name: TierName) -> TierReport:
    own = _only(counted, name)
    parts = [_only(own, name, size_class) for size_class in range(len(SIZE_CLASSES))]
    by_size = [
        SizeClass(size=SIZE_CLASSES[size_class], **_counts(part, name, counted.total("hits", None, size_class)))
        for size_class, part in enumerate(parts)
        if part
    ]
    buckets = [
        Bucket(le_ms=_rounded(BOUNDS[index] * 1000) if index < len(BOUNDS) else None, hits=hits)
        for index, hits in enumerate(own.buckets())
        if hits
    ]
    return TierReport(buckets=buckets, by_size=by_size, **_counts(own, name, counted.total("hits")))


def _only(counted: Snapshot, name: TierName, size_class: int | None = None) -> Snapshot:
    """What is counted of one tier, and of one size class: a smaller table to add up again and again."""
    return Snapshot(
        {key: count for key, count in counted.counts.items() if key[0] == name and size_class in (None, key[1])}
    )


def _counts(own: Snapshot, name: TierName, answered: int) -> dict[str, Any]:
    """``answered`` is how many reads all tiers answered together."""
    return {
        **{what: own.total(what) for what in stats.COUNTERS},
        "hit_rate": own.hit_rate(name),
        "answered_share": own.total("hits") / answered if answered else None,
        "latency": _latency(own),
    }


def _latency(own: Snapshot) -> Latency:
    hits = sum(own.buckets())
    percentiles = {f"p{percent}_ms": _in_ms(own.percentile(percent / 100)) for percent in (50, 95, 99)}
    return Latency(mean_ms=_in_ms(own.seconds() / hits if hits else None), **percentiles)


def _in_ms(seconds: float | None) -> float | None:
    return None if seconds is None else _rounded(seconds * 1000)


def _rounded(value: float) -> float:
    """To four figures: more would be noise."""
    return float(f"{value:.4g}")


# --- How it is now


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryReport:
    """The L1 of a process."""

    bytes: int
    budget: int
    entries: int
    policy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerReport:
    tier: str
    state: str
    """closed, open or half-open."""
    since: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessReport:
    """A process that published within the last half-minute, as it described itself then."""

    name: str
    role: str
    started_at: datetime
    published_at: datetime
    l1: MemoryReport
    breakers: list[BreakerReport]


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisReport:
    """The server of L2, all that it holds. The numbers are None while it does not answer; ``problem`` says why."""

    used_bytes: int | None = None
    limit_bytes: int | None = None
    """None: it has no limit, which is a mistake of its configuration."""
    keys: int | None = None
    evicted: int | None = None
    """Keys that the server dropped for others, since it started."""
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """Bytes that a tier of truth has, each blob once."""

    blobs: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Kernels, and the bytes that they refer to."""

    kernels: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueReport:
    """The outbox: what committed transactions owe to the other tiers."""

    rows: dict[str, int]
    """By kind: fill, copy, forget, changed."""
    failing: int
    """Of them, those that have failed at least once; each is tried again."""
    oldest_at: datetime | None
    error: str
    """Why the one that has failed most often did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gauges:
    processes: list[ProcessReport]
    l2: RedisReport | None
    """None: there is no L2 (ESPER_CACHE_L2_URL is empty)."""
    l3: Stored
    l4: Stored
    storage_tiers: dict[str, Held]
    """By storage tier: hot, warm, cold, archive."""
    queue: QueueReport
    pinned: Held
    """What live runs hold: it stays where it is near."""


def gauges(scope: str) -> Gauges:
    """Raises Unavailable: the processes of the fleet cannot be read."""
    l3, l4 = stored()
    return Gauges(
        processes=processes(scope),
        l2=redis(),
        l3=l3,
        l4=l4,
        storage_tiers=storage_tiers(),
        queue=queue(),
        pinned=pinned(),
    )


def processes(scope: str) -> list[ProcessReport]:
    """Raises Unavailable: those of the fleet cannot be read."""
    return [_process(told) for told in _processes(scope)]


def stored() -> tuple[Stored, Stored]:
    """What L3 has, and what L4 has."""
    blobs = KernelBlob.objects.aggregate(
        l3_blobs=Count("pk", filter=Q(in_database=True)),
        l3_bytes=Sum("size", filter=Q(in_database=True), default=0),
        l4_blobs=Count("pk", filter=Q(archived_at__isnull=False)),
        l4_bytes=Sum("size", filter=Q(archived_at__isnull=False), default=0),
    )
    return (
        Stored(blobs=blobs["l3_blobs"], bytes=blobs["l3_bytes"]),
        Stored(blobs=blobs["l4_blobs"], bytes=blobs["l4_bytes"]),
    )


def redis() -> RedisReport | None:
    """The server of L2; None: there is none."""
    found = tiers().redis
    if found is None:
        return None
    try:
        usage = found.usage()
    except TierAway as error:
        return RedisReport(problem=str(error))
    return RedisReport(
        used_bytes=usage.used, limit_bytes=usage.limit or None, keys=usage.keys, evicted=usage.evicted_keys
    )


def storage_tiers() -> dict[str, Held]:
    """Kernels that have bytes, by storage tier."""
    rows = _with_bytes().order_by().values_list("storage_tier").annotate(Count("pk"), Sum("size", default=0))
    found = {name: Held(kernels=kernels, bytes=size) for name, kernels, size in rows}
    return {str(name): found.get(name, Held(kernels=0, bytes=0)) for name in StorageTier}


def pinned() -> Held:
    held = _with_bytes().filter(planning.held()).aggregate(kernels=Count("pk"), bytes=Sum("size", default=0))
    return Held(**held)


def queue() -> QueueReport:
    waiting = dict(CacheOutbox.objects.order_by().values_list("kind").annotate(Count("pk")))
    failing = CacheOutbox.objects.filter(attempts__gt=0)
    worst = failing.order_by("-attempts", "-id").values_list("error", flat=True).first()
    return QueueReport(
        rows={str(kind): waiting.get(kind, 0) for kind in OutboxKind},
        failing=failing.count(),
        oldest_at=CacheOutbox.objects.aggregate(oldest=Min("created_at"))["oldest"],
        error=worst or "",
    )


def _with_bytes() -> Any:
    return Kernel.objects.exclude(state=KernelState.PURGED).filter(digest__isnull=False)


def _processes(scope: str) -> list[fleet.Process]:
    if scope == PROCESS:
        return [fleet.this_process()]
    try:
        return fleet.processes()
    except Unavailable as error:
        raise _silent(error) from error


def _process(told: fleet.Process) -> ProcessReport:
    return ProcessReport(
        name=told.name,
        role=told.role,
        started_at=_time(told.started_at),
        published_at=_time(told.published_at),
        l1=MemoryReport(**{name: told.gauges["l1"][name] for name in ("bytes", "budget", "entries", "policy")}),
        breakers=[_breaker(tier, breaker) for tier, breaker in sorted(told.gauges["breakers"].items())],
    )


def _breaker(tier: str, breaker: Mapping[str, Any]) -> BreakerReport:
    return BreakerReport(tier=tier, state=breaker["state"], since=_time(breaker["since"]))


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _silent(error: Unavailable) -> Unavailable:
    return Unavailable(
        f"{error.detail}. Is the broker (BROKER_URL) up? GET /api/v1/cache/stats?scope=process still tells what the "
        "process that answers has counted",
        code=error.code,
    )
