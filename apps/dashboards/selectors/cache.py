"""The cache as people look at it: does it do its job, where are the bytes, what is owed, what moved and why."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.utils import timezone

from apps.audit import selectors as audit
from apps.audit.catalogue import EVENT_TYPES
from apps.audit.models import AuditEvent
from apps.core.errors import Unavailable
from apps.dashboards import latency_drawing, numbers
from apps.dashboards.selectors import trail
from apps.dashboards.selectors.paging import NewestPage, newest
from apps.kernels import selectors as kernels
from apps.kernels.cache import accesses, reporting
from apps.kernels.cache.planning import MAX_MOVES, held
from apps.kernels.cache.reporting import FLEET, MemoryReport, ProcessReport, QueueReport, RedisReport, Stored
from apps.kernels.cache.segments import TierAway, TierName
from apps.kernels.cache.stats import Snapshot, bucket_limits
from apps.kernels.cache.tiers import tiers
from apps.kernels.lifecycle import CachePlanState, KernelState
from apps.kernels.models import BlobAccess, CachePlan, CachePlanKind, Kernel, KernelUse, OutboxKind, StorageTier
from apps.training.models import TrainingRun

DEFAULT_WINDOW = "1h"
WINDOWS: dict[str, str] = {
    "5m": "5 minutes",
    "1h": "hour",
    "24h": "24 hours",
    "7d": "7 days",
    "total": "since it was counted first",
}
"""Window -> the words after "in the last"."""
HOLDS: dict[str, str] = {
    TierName.L1: "memory of each process",
    TierName.L2: "Redis, shared by all processes",
    TierName.L3: "PostgreSQL, the truth",
    TierName.L4: "object storage, the archive",
}
OWED: dict[str, str] = {
    OutboxKind.FILL: "bytes for L2",
    OutboxKind.COPY: "copies for L4",
    OutboxKind.FORGET: "bytes to forget",
    OutboxKind.CHANGED: "changes to tell",
}
PLACES: dict[str, str] = {
    StorageTier.HOT: "the database; L1 and L2 are filled",
    StorageTier.WARM: "the database",
    StorageTier.COLD: "the object storage alone",
    StorageTier.ARCHIVE: "the object storage, unread until moved",
}
EXPECTED_WITHOUT_L4 = 0.98
"""Of all reads, what the tiers before the object storage are there to answer."""
ENOUGH_READS = 100
"""From which a share says something."""
BREAKER_ORDER = ("open", "half-open", "closed")
"""The worst first."""
PLANS_SHOWN = 10
MOVEMENTS_SHOWN = 12
PINNED_SHOWN = 20
PROCESSES_SHOWN = 100
MOVEMENTS = ("kernel.tier_changed", "kernel.healed", *(name for name in EVENT_TYPES if name.startswith("cache.")))


# --- The tiers


@dataclass(frozen=True, slots=True)
class Room:
    """Bytes that a tier has; ``budget`` None: it has none. ``bytes`` None: not known, or the tier ``is_off``."""

    bytes: int | None
    budget: int | None
    note: str
    is_off: bool = False

    @property
    def share(self) -> float | None:
        return None if self.bytes is None or not self.budget else min(self.bytes / self.budget, 1.0)


@dataclass(frozen=True, slots=True)
class BreakerLine:
    """The worst state that a breaker of this tier has in any process, in how many of them, and since when."""

    state: str
    count: int
    of: int
    since: datetime


@dataclass(frozen=True, slots=True)
class TierLine:
    """``report`` is None where the counts are unknown, ``breaker`` where there is none or nobody told of it."""

    name: TierName
    holds: str
    room: Room
    report: reporting.TierReport | None
    breaker: BreakerLine | None
    histogram: latency_drawing.Histogram | None


@dataclass(frozen=True, slots=True)
class Concern:
    """Something that a person should look at. ``anchor`` is where the page tells more."""

    text: str
    anchor: str


@dataclass(frozen=True, slots=True)
class Now:
    """``reads``, ``near`` and ``without_l4`` are of all reads in the window; None: unknown, or there were none."""

    window: str
    read_at: datetime
    lines: Sequence[TierLine]
    reads: int | None
    near: float | None
    without_l4: float | None
    processes: Sequence[ProcessReport]
    silence: str
    """Why the counts are unknown; empty: they are not."""
    queue: QueueReport
    concerns: Sequence[Concern]

    @property
    def owed(self) -> list[tuple[str, int]]:
        return [(OWED[kind], rows) for kind, rows in self.queue.rows.items()]

    @property
    def waiting(self) -> int:
        return sum(self.queue.rows.values())


def window_of(given: str | None) -> str:
    """One of WINDOWS, whatever an address says."""
    return given if given in WINDOWS else DEFAULT_WINDOW


def now(window: str) -> Now:
    """Without the broker, which has the counts, what is stored and owed is still told. Three queries."""
    counted, processes, silence = _counted(window)
    redis, (l3, l4), queue = reporting.redis(), reporting.stored(), reporting.queue()
    rooms = {
        TierName.L1: _room_of_processes(processes, silence),
        TierName.L2: _room_of_redis(redis),
        TierName.L3: _room_of_truth(l3),
        TierName.L4: _room_of_truth(l4),
    }
    lines = [_line(name, rooms[name], counted, processes) for name in TierName]
    concerns = [*_silences(redis, silence), *_of_tiers(lines), *_of_misses(counted), *_of_queue(queue)]
    return Now(
        window=window,
        read_at=timezone.now(),
        lines=lines,
        reads=None if counted is None else counted.total("hits"),
        near=None if counted is None else counted.answered_by([TierName.L1, TierName.L2]),
        without_l4=None if counted is None else counted.answered_by([TierName.L1, TierName.L2, TierName.L3]),
        processes=processes[:PROCESSES_SHOWN],
        silence=silence,
        queue=queue,
        concerns=concerns,
    )


@dataclass(frozen=True, slots=True)
class Bucket:
    """Hits that took so long; ``low_ms`` and ``high_ms`` are its bounds."""

    words: str
    low_ms: float
    high_ms: float
    hits: int


def latencies(tier: TierName, window: str) -> list[Bucket]:
    """The buckets that have hits, the fastest first. Raises Unavailable."""
    buckets = reporting.counted(FLEET, window).buckets(tier)
    return [_bucket(index, hits) for index, hits in enumerate(buckets) if hits]


def _bucket(index: int, hits: int) -> Bucket:
    low, high = bucket_limits(index)
    return Bucket(words=latency_drawing.limits(index), low_ms=low * 1000, high_ms=high * 1000, hits=hits)


def _counted(window: str) -> tuple[Snapshot | None, list[ProcessReport], str]:
    try:
        return reporting.counted(FLEET, window), reporting.processes(FLEET), ""
    except Unavailable as error:
        return None, [], error.detail.partition(";")[0]


def _line(name: TierName, room: Room, counted: Snapshot | None, processes: Sequence[ProcessReport]) -> TierLine:
    return TierLine(
        name=name,
        holds=HOLDS[name],
        room=room,
        report=None if counted is None else reporting.tier(counted, name),
        breaker=_breaker(name, processes),
        histogram=None if counted is None else _histogram(name, counted),
    )


def _histogram(name: TierName, counted: Snapshot) -> latency_drawing.Histogram | None:
    """None: there was no hit."""
    buckets = counted.buckets(name)
    marks = [(f"p{percent}", counted.percentile(percent / 100, name)) for percent in (50, 95)]
    return latency_drawing.histogram(buckets, marks) if any(buckets) else None


def _room_of_processes(processes: Sequence[ProcessReport], silence: str) -> Room:
    if silence:
        return Room(None, None, "the processes cannot be asked")
    if not processes:
        return Room(None, None, "no process has told of itself within half a minute")
    held: list[MemoryReport] = [process.l1 for process in processes]
    return Room(
        bytes=sum(memory.bytes for memory in held),
        budget=sum(memory.budget for memory in held),
        note=f"in {_counted_processes(len(processes))}, {sum(memory.entries for memory in held):,} entries",
    )


def _counted_processes(count: int) -> str:
    return f"{count:,} process{'' if count == 1 else 'es'}"


def _room_of_redis(redis: RedisReport | None) -> Room:
    if redis is None:
        return Room(None, None, "ESPER_CACHE_L2_URL is empty", is_off=True)
    if redis.problem:
        return Room(None, None, "does not answer")
    evicted = f", {redis.evicted:,} evicted" if redis.evicted else ""
    limit = "" if redis.limit_bytes else ", no maxmemory is set"
    return Room(bytes=redis.used_bytes, budget=redis.limit_bytes, note=f"{redis.keys or 0:,} keys{evicted}{limit}")


def _room_of_truth(stored: Stored) -> Room:
    return Room(bytes=stored.bytes, budget=None, note=f"{stored.blobs:,} blob{'' if stored.blobs == 1 else 's'}")


def _breaker(name: TierName, processes: Sequence[ProcessReport]) -> BreakerLine | None:
    found = [breaker for process in processes for breaker in process.breakers if breaker.tier == name]
    for state in BREAKER_ORDER:
        of_state = [breaker for breaker in found if breaker.state == state]
        if of_state:
            since = max(breaker.since for breaker in of_state)
            return BreakerLine(state=state, count=len(of_state), of=len(found), since=since)
    return None


def _silences(redis: RedisReport | None, silence: str) -> Iterator[Concern]:
    if silence:
        yield Concern(f"what was read is unknown now: {silence}", "tiers")
    if redis is not None and redis.problem:
        yield Concern(f"L2 does not answer: {redis.problem}", "tiers")


def _of_tiers(lines: Sequence[TierLine]) -> Iterator[Concern]:
    for line in lines:
        name = line.name.upper()
        if line.breaker is not None and line.breaker.state != "closed":
            told = f"{line.breaker.state} in {line.breaker.count} of {_counted_processes(line.breaker.of)}"
            yield Concern(f"the breaker of {name} is {told}: the tier is left alone there", "processes")
        if line.report is not None and line.report.corrupt:
            corrupt, heals = line.report.corrupt, line.report.heals
            found = "1 copy that was" if corrupt == 1 else f"{corrupt:,} copies that were"
            yield Concern(f"{name} had {found} corrupt: none was used, {heals:,} healed", "tiers")


def _of_misses(counted: Snapshot | None) -> Iterator[Concern]:
    if counted is None or counted.total("hits") < ENOUGH_READS:
        return
    share = counted.answered_by([TierName.L1, TierName.L2, TierName.L3])
    if share is not None and share < EXPECTED_WITHOUT_L4:
        yield Concern(
            f"only {numbers.percent(share)} of the reads were answered without L4: "
            f"{numbers.percent(EXPECTED_WITHOUT_L4, 0)} are expected",
            "tiers",
        )


def _of_queue(queue: QueueReport) -> Iterator[Concern]:
    if queue.failing:
        told = (
            "1 owed step has failed and is"
            if queue.failing == 1
            else f"{queue.failing:,} owed steps have failed and are"
        )
        yield Concern(f"{told} tried again", "queue")


# --- What is held, what moved, what is planned


@dataclass(frozen=True, slots=True)
class Pinned:
    """A kernel that live runs hold. ``runs``: (id, name); one that is gone has its id for a name."""

    kernel: Kernel
    runs: Sequence[tuple[UUID, str]]


@dataclass(frozen=True, slots=True)
class PinnedList:
    kernels: int
    bytes: int
    rows: Sequence[Pinned]


def pinned() -> PinnedList:
    """What live runs hold, the largest first, at most PINNED_SHOWN of them. Four queries."""
    totals = reporting.pinned()
    rows = list(
        Kernel.objects.exclude(state=KernelState.PURGED)
        .filter(held(), digest__isnull=False)
        .only("name", "size", "storage_tier")
        .order_by("-size", "pk")[:PINNED_SHOWN]
    )
    uses = list(
        KernelUse.objects.filter(kernel__in=rows, until=None).order_by("-id").values_list("kernel_id", "run_id")
    )
    names = dict(TrainingRun.objects.filter(pk__in={run for _, run in uses}).values_list("pk", "name"))
    return PinnedList(
        kernels=totals.kernels,
        bytes=totals.bytes,
        rows=[Pinned(row, [(run, names.get(run, str(run))) for key, run in uses if key == row.pk]) for row in rows],
    )


def places() -> list[tuple[str, reporting.Held, str]]:
    """(storage tier, the kernels in it, where their bytes are). One query."""
    return [(tier, held, PLACES[tier]) for tier, held in reporting.storage_tiers().items()]


def movements() -> list[trail.Line]:
    """The newest events of bytes that moved and of plans, for those who may read the trail."""
    return trail.lines_of(list(AuditEvent.objects.filter(type__in=MOVEMENTS).order_by("-at", "-id")[:MOVEMENTS_SHOWN]))


def plans(*, after: UUID | None) -> NewestPage:
    """The newest first."""
    return newest(kernels.cache_plans(), after=after, shown=PLANS_SHOWN)


@dataclass(frozen=True, slots=True)
class TierTotal:
    """Bytes of a storage tier before and after the moves; ``share_*`` of the largest of all, for the bars."""

    tier: str
    before: int
    after: int
    share_before: float
    share_after: float

    @property
    def change(self) -> str:
        """'+2.0 KiB', or nothing where it stays."""
        difference = self.after - self.before
        sign = "+" if difference > 0 else "\u2212"
        return f"{sign}{numbers.size(abs(difference))}" if difference else ""


@dataclass(frozen=True, slots=True)
class PlanPortrait:
    """``groups``: (from, to, moves, bytes). ``left``: kernel -> why it was left."""

    plan: CachePlan
    moves: Sequence[Mapping[str, Any]]
    groups: Sequence[tuple[str, str, int, int]]
    totals: Sequence[TierTotal]
    left: Mapping[str, str]
    stay: int
    """Kernels that have bytes and that the plan leaves where they are."""
    is_expired: bool

    @property
    def bytes(self) -> int:
        return sum(move["bytes"] for move in self.moves)

    @property
    def steps(self) -> list[str]:
        """What can be done to it now, the primary one first."""
        if self.plan.state == CachePlanState.PLANNED:
            nothing_to_do = not self.moves and self.plan.kind == CachePlanKind.OPTIMISE
            return ["cancel"] if self.is_expired or nothing_to_do else ["apply", "cancel"]
        return ["cancel"] if self.plan.state == CachePlanState.APPLYING else []

    @property
    def is_full(self) -> bool:
        return len(self.moves) >= MAX_MOVES

    @property
    def is_moving(self) -> bool:
        return self.plan.state == CachePlanState.APPLYING

    @property
    def share(self) -> float:
        return self.plan.done / len(self.moves) if self.moves else 1.0


def plan_portrait(plan_id: UUID) -> PlanPortrait | None:
    """None: there is no such plan. One query."""
    plan = CachePlan.objects.filter(pk=plan_id).first()
    if plan is None:
        return None
    ways = Counter[tuple[str, str]]()
    bytes_ = Counter[tuple[str, str]]()
    for move in plan.moves:
        ways[move["from"], move["to"]] += 1
        bytes_[move["from"], move["to"]] += move["bytes"]
    return PlanPortrait(
        plan=plan,
        moves=[{**move, "number": number, "source": move["from"]} for number, move in enumerate(plan.moves, 1)],
        groups=[(*way, count, bytes_[way]) for way, count in sorted(ways.items())],
        totals=_totals(plan.facts),
        left={left["kernel"]: left["reason"] for left in plan.result.get("left", [])},
        stay=plan.facts.get("kernels", 0) - len({move["kernel"] for move in plan.moves}),
        is_expired=plan.expires_at <= timezone.now(),
    )


def _totals(facts: Mapping[str, Any]) -> list[TierTotal]:
    before, after = facts.get("bytes_before", {}), facts.get("bytes_after", {})
    most = max([*before.values(), *after.values(), 1])
    return [
        TierTotal(
            tier=tier,
            before=before.get(tier, 0),
            after=after.get(tier, 0),
            share_before=before.get(tier, 0) / most,
            share_after=after.get(tier, 0) / most,
        )
        for tier in StorageTier.values
    ]


def plan_history(plan: CachePlan) -> list[trail.Line]:
    """What was done to it, for those who may read the trail."""
    mine = audit.events_of(subject_type="cache_plan", subject_id=str(plan.pk))
    return trail.lines_of(list(mine[:MOVEMENTS_SHOWN]))


# --- One kernel


@dataclass(frozen=True, slots=True)
class Warmth:
    """How near the bytes of one kernel are. ``access`` has ``score_now``; None: they were never read.

    ``in_l2`` None: it does not answer.
    """

    access: Any
    in_l2: bool | None


def warmth(digest: str) -> Warmth:
    """One query, and one question to L2."""
    access = accesses.score_now(BlobAccess.objects.filter(pk=digest)).first()
    redis = tiers().redis
    try:
        return Warmth(access, redis is not None and redis.has(digest))
    except TierAway:
        return Warmth(access, None)
