"""The way of one segment to its reader: from the fastest tier that has it, into the faster ones that may keep it.

Every step may fail and the next one answers: a tier that is away is passed over, what is corrupt is dropped and healed
from the tier below. What the last one cannot answer is a clear error.

Within a transaction nothing is loaded for others and L2 is not filled: it may see rows that are never committed.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import structlog
from django.db import DatabaseError, connection

from apps.core.errors import NotFound, ServiceError, Unavailable
from apps.kernels.cache import mover, stats
from apps.kernels.cache.changes import follower
from apps.kernels.cache.chunks import CorruptKernel
from apps.kernels.cache.config import config
from apps.kernels.cache.flights import Flights
from apps.kernels.cache.references import no_such_bytes, require_readable
from apps.kernels.cache.remote import ABSENT, Absent, RedisTier
from apps.kernels.cache.segments import SEGMENT_BYTES, SEGMENT_CHUNKS, CorruptSegment, Segment, TierAway, TierName
from apps.kernels.cache.tiers import Tiers, tiers
from apps.kernels.models.blobs import CHUNK_BYTES

log = structlog.get_logger(__name__)

TRUTH = {TierName.L3, TierName.L4}
LOOKS = 3
"""How often L3 and L4 are asked for bytes that were in neither: between the two questions they may have been written,
or moved from the one to the other."""


@dataclass(slots=True)
class Found:
    """A segment, the tier that had it, how long each tier was asked, in seconds, and where in the blob it begins."""

    segment: Segment
    tier: TierName
    seconds: dict[TierName, float]
    offset: int


@dataclass(slots=True)
class _Way:
    """What happened on the way down."""

    seconds: dict[TierName, float] = field(default_factory=dict)
    passed: list[TierName] = field(default_factory=list)
    corrupt: dict[TierName, CorruptSegment] = field(default_factory=dict)
    unhealed: set[TierName] = field(default_factory=set)
    away: dict[TierName, TierAway] = field(default_factory=dict)

    def ask(self, tier: TierName, get: Callable[[], Segment | None]) -> Segment | None:
        """The segment, or None with the reason noted."""
        began = time.perf_counter()
        found = None
        try:
            found = get()
        except CorruptSegment as error:
            self.corrupt[tier] = error
        except TierAway as error:
            self.away[tier] = error
        self.seconds[tier] = self.seconds.get(tier, 0.0) + time.perf_counter() - began
        if found is None and tier not in self.passed:
            self.passed.append(tier)
        return found

    def arrived(self, segment: Segment, tier: TierName, *, offset: int) -> Found:
        """Counted: the hit, what each tier above lacked, and what was healed."""
        size = segment.blob_size
        for name in self.passed:
            if name == tier:
                continue
            stats.count(name, "errors" if name in self.away else "misses", size=size)
        for name in self.corrupt:
            stats.count(name, "corrupt", size=size)
            if name not in self.unhealed:
                stats.count(name, "heals", size=size)
        stats.count(tier, "hits", size=size)
        stats.observe(tier, size=size, seconds=self.seconds.get(tier, 0.0), bytes=len(segment.data))
        return Found(segment, tier, self.seconds, offset)


_flights: Flights[Found] = Flights()


def read(digest: str, index: int, *, keep_in_memory: bool, blob_size: int | None = None) -> Found:
    """Segment ``index`` of a blob, verified. ``keep_in_memory``: it may enter L1. ``blob_size``: where it is known.

    Raises:
        NotFound: there is no such blob, or it ends before. Conflict: it is archived. CorruptKernel: no tier has the
        right bytes. Unavailable: the tier that has them does not answer.
    """
    found, way = tiers(), _Way()
    segment = way.ask(TierName.L1, lambda: found.memory.get(digest, index))
    if segment is not None:
        return way.arrived(segment, TierName.L1, offset=index * SEGMENT_BYTES)
    if connection.in_atomic_block:
        return _below(found, digest, index, way, blob_size)
    heard = follower.events
    below, was_spared = _flights.once((digest, index), lambda: _below(found, digest, index, way, blob_size))
    if was_spared:
        stats.count(TierName.L1, "misses", size=below.segment.blob_size)
        stats.count(below.tier, "coalesced", size=below.segment.blob_size)
    elif keep_in_memory and found.memory.put(digest, index, below.segment, cost=sum(below.seconds.values())):
        stats.count(TierName.L1, "promotions", size=below.segment.blob_size)
        if follower.events != heard:  # perhaps it was to be forgotten meanwhile
            found.memory.drop(digest)
    return below


def read_chunks(digest: str, start: int, stop: int) -> Found | None:
    """The chunks that hold the bytes ``[start, stop)``, and no others, from L3 or L4; no tier keeps them.

    None: one of them is wrong or not to be had so, or L1 has the whole segment: ``read`` knows more ways. What is wrong
    is healed.
    """
    first, last, found, way = start // CHUNK_BYTES, -(-stop // CHUNK_BYTES), tiers(), _Way()
    if found.memory.has(digest):
        return None
    way.passed.append(TierName.L1)
    offset = first * CHUNK_BYTES
    segment = way.ask(TierName.L3, lambda: found.database.get_chunks(digest, first, last))
    if segment is not None:
        return way.arrived(segment, TierName.L3, offset=offset)
    if TierName.L3 in way.corrupt and _heal(digest):  # ``read`` may not come to L3: L2 may have right bytes
        stats.count(TierName.L3, "corrupt", size=None)
        stats.count(TierName.L3, "heals", size=None)
    return None


def _below(found: Tiers, digest: str, index: int, way: _Way, blob_size: int | None) -> Found:
    """From below L1: L2, or what the tiers of truth say, which then is put into L2."""
    if found.redis is None or (blob_size or 0) > config().l2_largest:  # there it is not: nobody waits for it
        return _truth(found, digest, index, way)
    redis = found.redis
    segment = way.ask(TierName.L2, lambda: _known(found, redis, digest, index))
    if segment is not None:
        return way.arrived(segment, TierName.L2, offset=index * SEGMENT_BYTES)
    if TierName.L2 in way.away or connection.in_atomic_block:
        return _truth(found, digest, index, way)
    return _load_for_all(found, redis, digest, index, way)


def _known(found: Tiers, redis: RedisTier, digest: str, index: int) -> Segment | None:
    """As L2 has it. Raises as ``_unless_absent``."""
    return _unless_absent(found, redis, digest, redis.get(digest, index))


def _unless_absent(found: Tiers, redis: RedisTier, digest: str, answer: Segment | Absent | None) -> Segment | None:
    """What L2 answered. That there is no such blob is believed if the database says so too: Redis may have been away
    when the bytes were written, or they belong to the transaction of the caller.

    Raises:
        NotFound: there is none. Unavailable: the database does not answer.
    """
    if answer is not ABSENT:
        return answer
    try:
        is_there = found.database.has(digest)
    except TierAway as error:
        raise _database_away(error) from error
    if not is_there:
        raise no_such_bytes(digest)
    redis.drop(digest)
    return None


def _load_for_all(found: Tiers, redis: RedisTier, digest: str, index: int, way: _Way) -> Found:
    """One process at a time loads; the others wait for what it puts into L2. If it dies, the next one loads for all
    once its lease is over: so they wait for as long as two leases last."""
    until = time.monotonic() + 2 * config().lease
    lease = None
    while lease is None:
        try:
            lease = redis.acquire(digest, index)
            if lease is None:
                segment = way.ask(TierName.L2, lambda: _waited_for(found, redis, digest, index, until))
                if segment is not None:
                    stats.count(TierName.L2, "coalesced", size=segment.blob_size)
                    return way.arrived(segment, TierName.L2, offset=index * SEGMENT_BYTES)
        except TierAway:
            break
        if TierName.L2 in way.away or time.monotonic() > until:
            break
    try:
        loaded = _truth(found, digest, index, way)
    except NotFound:
        if lease is not None:
            with suppress(TierAway):
                redis.put_absent(digest, index, lease)
        raise
    except BaseException:
        if lease is not None:
            with suppress(TierAway):
                redis.release(digest, index, lease)
        raise
    if lease is not None:
        _put_into(redis, digest, index, loaded.segment, lease)
    return loaded


def _waited_for(found: Tiers, redis: RedisTier, digest: str, index: int, until: float) -> Segment | None:
    """Raises as ``_unless_absent``."""
    return _unless_absent(found, redis, digest, redis.wait(digest, index, until))


def _put_into(redis: RedisTier, digest: str, index: int, segment: Segment, lease: str) -> None:
    try:
        taken = redis.put(digest, index, segment, lease=lease)
    except TierAway:
        return
    stats.count(TierName.L2, "fills" if taken else "refused", size=segment.blob_size)


def _truth(found: Tiers, digest: str, index: int, way: _Way) -> Found:
    """From L3, or from L4 where L3 has no bytes or wrong ones; those are healed."""
    for _ in range(LOOKS):
        segment = way.ask(TierName.L3, lambda: found.database.get(digest, index))
        if segment is not None:
            return way.arrived(segment, TierName.L3, offset=index * SEGMENT_BYTES)
        if TierName.L3 in way.away:
            raise _failure(digest, index, way)
        segment = way.ask(TierName.L4, lambda: _archived(found, digest, index))
        if segment is not None or TRUTH & (way.corrupt.keys() | way.away.keys()):
            break
    if TierName.L3 in way.corrupt:
        healed = _heal(digest)
        if not healed:
            way.unhealed.add(TierName.L3)
            if segment is None and healed is None:
                raise _being_healed(digest)
        elif segment is None:  # the digests that L3 keeps of its chunks were what was wrong
            way.corrupt.pop(TierName.L4, None)
            segment = way.ask(TierName.L3, lambda: found.database.get(digest, index))
            if segment is not None:
                return way.arrived(segment, TierName.L3, offset=index * SEGMENT_BYTES)
    if segment is not None:
        return way.arrived(segment, TierName.L4, offset=index * SEGMENT_BYTES)
    raise _failure(digest, index, way)


def read_truth(digest: str, index: int) -> Found:
    """The segment as L3 or L4 has it, past the copies in L1 and L2. Raises as ``read`` does."""
    return _truth(tiers(), digest, index, _Way())


def _archived(found: Tiers, digest: str, index: int) -> Segment | None:
    """Raises NotFound, Conflict, Unavailable (the database does not answer), TierAway (L4), CorruptSegment."""
    try:
        described = found.database.describe(digest, index)
    except TierAway as error:
        raise _database_away(error) from error
    if described is None:
        raise no_such_bytes(digest)
    require_readable(digest)
    if not described.has_copy:
        return None
    if described.blob_size <= CHUNK_BYTES and described.digests[0].hex() != digest:
        raise CorruptKernel(digest, 0)
    return found.storage.read(digest, index, digests=described.digests, blob_size=described.blob_size)


def heal(digest: str) -> None:
    """Have right bytes in L3, if L4 has them, and count it. Raises Unavailable: that cannot be known now."""
    healed = _heal(digest)
    if healed is None:
        raise _being_healed(digest)
    stats.count(TierName.L3, "corrupt", size=None)
    if healed:
        stats.count(TierName.L3, "heals", size=None)


def _being_healed(digest: str) -> Unavailable:
    return Unavailable(f"the bytes {digest} cannot be healed now: try again", code="being_healed")


def _heal(digest: str) -> bool | None:
    """Have right bytes in L3 again; whether they were healed. None: that cannot be known now.

    Somebody else may be at it, the copy may not be readable now, or the database not writable.
    """
    try:
        return mover.heal(digest)
    except ServiceError as error:
        log.warning("kernel_not_healed", digest=digest, reason=error.detail)
    except DatabaseError as error:
        if connection.in_atomic_block:
            raise
        log.warning("kernel_not_healed", digest=digest, reason=str(error))
    return None


def _failure(digest: str, index: int, way: _Way) -> Exception:
    """What to say when no tier had the segment."""
    for name in way.corrupt:
        stats.count(name, "corrupt", size=None)
    for name in way.away:
        stats.count(name, "errors", size=None)
    if TierName.L3 in way.away:
        return _database_away(way.away[TierName.L3])
    if TierName.L4 in way.away:
        return Unavailable(str(way.away[TierName.L4]), code="storage")
    wrong = way.corrupt.get(TierName.L3) or way.corrupt.get(TierName.L4)
    if isinstance(wrong, CorruptKernel):
        return wrong
    return CorruptKernel(digest, index * SEGMENT_CHUNKS)


def _database_away(error: TierAway) -> Unavailable:
    return Unavailable(str(error), code="database")
