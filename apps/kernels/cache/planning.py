"""What the cache would move, and why: kernels between the storage tiers, and bytes into L2.

Rules, each with the reason that a plan tells:

- warm -> hot: read ``hot_reads`` times or more, each read halved in weight with every half-life; as many as fit into
  ``warm_share`` of L2, those with the most reads for their bytes first.
- hot -> warm: less than half of that. The gap keeps a kernel from going to and fro.
- cold -> warm: read within the last half-life.
- warm -> cold: not read for ``cold_after_days``, not held by a live run, not pinned, no alias points at it.

A pinned kernel stays where it is, and an archived one comes back by hand only.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db.models import Exists, F, FloatField, OuterRef, Q, QuerySet, Subquery, Sum, Value
from django.db.models.functions import Coalesce
from django.utils import timezone

from apps.kernels.cache.accesses import score_now
from apps.kernels.cache.config import CacheConfig, config
from apps.kernels.cache.segments import TierAway, TierName
from apps.kernels.cache.tiers import tiers
from apps.kernels.lifecycle import DOWNLOADABLE, KernelState
from apps.kernels.models import BlobAccess, Kernel, KernelAlias, KernelUse, StorageTier

MAX_MOVES = 500
"""Of one plan: what is left is in the next."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """``source`` and ``target`` are storage tiers, or L3 and L2."""

    kernel: UUID
    name: str
    digest: str
    bytes: int
    source: str
    target: str
    reason: str

    def told(self) -> dict[str, Any]:
        """As a plan keeps it."""
        found = asdict(self)
        source, target = found.pop("source"), found.pop("target")
        return {**found, "kernel": str(self.kernel), "from": str(source), "to": str(target)}


def rated() -> QuerySet[Any]:
    """Kernels with bytes, each with ``score``: its decayed reads as of now."""
    access = BlobAccess.objects.filter(digest=OuterRef("digest"))
    score = Subquery(score_now(access).values("score_now")[:1], output_field=FloatField())
    read_at = Subquery(access.values("last_read_at")[:1])
    kernels = Kernel.objects.exclude(state=KernelState.PURGED).filter(digest__isnull=False)
    return kernels.annotate(score=Coalesce(score, Value(0.0)), read_at=Coalesce(read_at, "last_used_at", "created_at"))


def held() -> Q:
    """Kernels that a live run holds."""
    return Q(Exists(KernelUse.objects.filter(kernel=OuterRef("pk"), until=None)))


def pinned() -> Q:
    """Kernels that somebody pinned: they stay where he put them."""
    return Q(pinned_until__gt=timezone.now())


def optimise() -> list[Move]:
    """The moves between storage tiers that the rules ask for now, at most MAX_MOVES."""
    settings = config()
    rules = (_cooled, _reheated, _heated, _forgotten)
    return [move for rule in rules for move in rule(settings)][:MAX_MOVES]


def _heated(settings: CacheConfig) -> Iterator[Move]:
    try:
        room = room_in_l2(settings)
    except TierAway:  # nothing becomes hot meanwhile
        return
    hot = Kernel.objects.filter(storage_tier=StorageTier.HOT).exclude(state=KernelState.PURGED)
    room -= hot.aggregate(bytes=Sum("size", default=0))["bytes"]
    wanted = rated().filter(
        storage_tier=StorageTier.WARM,
        state__in=DOWNLOADABLE,
        score__gte=settings.hot_reads,
        size__lte=settings.l2_largest,
    )
    for kernel in wanted.exclude(pinned()).order_by((F("score") / F("size")).desc(), "pk")[:MAX_MOVES]:
        if kernel.size <= room:
            room -= kernel.size
            yield _move(kernel, StorageTier.HOT, f"{kernel.score:.1f} decayed reads: at least {settings.hot_reads:g}")


def _cooled(settings: CacheConfig) -> Iterator[Move]:
    limit = settings.hot_reads / 2
    cooled = rated().filter(storage_tier=StorageTier.HOT, score__lt=limit).exclude(held() | pinned())
    for kernel in cooled.order_by("score", "pk")[:MAX_MOVES]:
        yield _move(kernel, StorageTier.WARM, f"{kernel.score:.1f} decayed reads: below {limit:g}")


def _reheated(settings: CacheConfig) -> Iterator[Move]:
    read = rated().filter(storage_tier=StorageTier.COLD, state__in=DOWNLOADABLE, score__gte=0.5)
    for kernel in read.exclude(pinned()).order_by("-score", "pk")[:MAX_MOVES]:
        yield _move(kernel, StorageTier.WARM, f"read within the last half-life ({kernel.score:.1f} decayed reads)")


def _forgotten(settings: CacheConfig) -> Iterator[Move]:
    if not settings.cold_after_days:
        return
    before = timezone.now() - timedelta(days=settings.cold_after_days)
    aliased = Exists(KernelAlias.objects.filter(kernel=OuterRef("pk")))
    spared = held() | pinned() | Q(aliased)
    idle = rated().filter(storage_tier=StorageTier.WARM, read_at__lt=before).exclude(spared)
    for kernel in idle.order_by("read_at", "pk")[:MAX_MOVES]:
        yield _move(kernel, StorageTier.COLD, f"not read for {settings.cold_after_days:g} days")


def _move(kernel: Any, target: str, reason: str) -> Move:
    return Move(
        kernel=kernel.pk,
        name=kernel.name,
        digest=kernel.digest,
        bytes=kernel.size,
        source=kernel.storage_tier,
        target=target,
        reason=reason,
    )


def warm() -> list[Move]:
    """What L2 lacks of what it should have: those of live runs first, then the most reads for their bytes.

    Raises:
        TierAway: L2 does not answer.
    """
    redis, moves = tiers().redis, []
    if redis is None:
        return []
    for kernel in wanted_in_memory(room_in_l2(config()), largest=config().l2_largest):
        if not redis.has(kernel.digest):
            why = "a live run holds it" if kernel.is_held else f"{kernel.score:.1f} decayed reads"
            moves.append(
                Move(
                    kernel=kernel.pk,
                    name=kernel.name,
                    digest=kernel.digest,
                    bytes=kernel.size,
                    source=TierName.L3,
                    target=TierName.L2,
                    reason=why,
                )
            )
    return moves


def wanted_in_memory(room: int, *, largest: int) -> Iterator[Any]:
    """Kernels whose bytes are in L3, by value density, as long as they fit into ``room`` bytes; at most MAX_MOVES."""
    near = rated().filter(
        storage_tier__in=(StorageTier.HOT, StorageTier.WARM), state__in=DOWNLOADABLE, size__lte=largest
    )
    valued = near.annotate(is_held=held()).filter(Q(is_held=True) | Q(storage_tier=StorageTier.HOT) | Q(score__gte=0.5))
    seen: set[str] = set()
    for kernel in valued.order_by("-is_held", (F("score") / F("size")).desc(), "pk")[:MAX_MOVES]:
        if kernel.digest not in seen and kernel.size <= room:
            seen.add(kernel.digest)
            room -= kernel.size
            yield kernel


def room_in_l2(settings: CacheConfig) -> int:
    """Bytes that warming may fill in L2; 0: there is no L2. Raises TierAway."""
    redis = tiers().redis
    return 0 if redis is None else int(settings.warm_share * (redis.usage().limit or UNLIMITED))


UNLIMITED = 1 << 30
"""What is taken for the size of an L2 whose server has no ``maxmemory``."""


def facts(moves: Iterable[Move]) -> Mapping[str, Any]:
    """What a plan was made from, and what it would come to."""
    kernels = Kernel.objects.exclude(state=KernelState.PURGED).filter(digest__isnull=False)
    rows = kernels.order_by().values_list("storage_tier").annotate(bytes=Sum("size", default=0))
    before = {**dict.fromkeys(StorageTier.values, 0), **dict(rows)}
    after = dict(before)
    for move in moves:
        if move.source in after and move.target in after:
            after[move.source] -= move.bytes
            after[move.target] += move.bytes
    return {
        "kernels": kernels.count(),
        "held": kernels.filter(held()).count(),
        "bytes_before": before,
        "bytes_after": after,
    }
