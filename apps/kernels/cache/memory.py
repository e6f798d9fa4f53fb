"""L1: values in the memory of this process, never a byte above a budget.

    cache = MemoryCache(128 << 20, "cost-aware")
    cache.put(key, value, size=len(value), cost=0.004)
    cache.get(key)

``MemoryTier`` is the tier over it: segments, verified again at every hit.
"""

import os
import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any
from weakref import WeakSet

from apps.kernels.cache import stats
from apps.kernels.cache.eviction import POLICIES, Entry
from apps.kernels.cache.segments import CorruptSegment, Segment, TierName, segment_count
from apps.kernels.models.blobs import MAX_KERNEL_BYTES

SHARE_LIMIT = 8
"""A value, or a blob of several segments, above this part of the budget stays out: it would drive out all others."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """Since the cache was made; ``bytes`` and ``entries`` as of now."""

    hits: int
    misses: int
    insertions: int
    evictions: int
    rejected: int
    """Values that were not taken: too large."""
    bytes: int
    entries: int


class MemoryCache:
    """Key -> immutable value. Reading takes no lock; changing does.

    A reader counts with ``+=`` and no lock: between reading and writing an attribute CPython (with its global lock)
    calls nothing, and so lets no other thread run. Where that does not hold a count is lost now and then, never a
    value.
    """

    def __init__(self, budget: int, policy: str, *, on_eviction: Callable[[Entry], None] = lambda entry: None) -> None:
        """``on_eviction`` hears, under the lock, of each that leaves for another."""
        self.budget = budget
        self.policy = policy
        self._on_eviction = on_eviction
        self._lock = threading.Lock()
        self._reads = self._misses = self._insertions = self._evictions = self._rejected = 0
        self._empty()
        _CACHES.add(self)

    def _empty(self) -> None:
        self._entries: dict[Hashable, Entry] = {}
        self._bytes = 0
        self._policy = POLICIES[self.policy](self.budget)
        self._touch = self._policy.touch

    def get(self, key: Hashable) -> Any:
        """The value, or None."""
        entry = self._entries.get(key)
        self._reads = now = self._reads + 1
        if entry is None:
            self._misses += 1
            return None
        entry.hits += 1
        entry.read_at = now
        if self._touch is not None:
            self._touch(entry)
        return entry.value

    def put(self, key: Hashable, value: Any, *, size: int, cost: float) -> bool:
        """Keep ``value`` of ``size`` bytes, which takes ``cost`` seconds to fetch again; whether it was taken.

        What was there under the key leaves in any case.
        """
        with self._lock:
            self._remove(key)
            newcomer = Entry(key, value, size=size, cost=cost, read_at=self._reads)
            if not 0 < size <= self.budget // SHARE_LIMIT:
                self._rejected += 1
                return False
            needed = self._bytes + size - self.budget
            leaving = self._policy.make_room(newcomer, needed) if needed > 0 else []
            for entry in leaving:
                self._forget(entry)
                self._on_eviction(entry)
            self._evictions += len(leaving)
            self._policy.insert(newcomer)
            self._bytes += size
            self._entries[key] = newcomer
            self._insertions += 1
            return True

    def remove(self, key: Hashable) -> None:
        with self._lock:
            self._remove(key)

    def _remove(self, key: Hashable) -> None:
        entry = self._entries.get(key)
        if entry is not None:
            self._policy.remove(entry)
            self._forget(entry)

    def _forget(self, entry: Entry) -> None:
        del self._entries[entry.key]
        self._bytes -= entry.size

    def has(self, key: Hashable) -> bool:
        """Is it here? Not counted as a read."""
        return key in self._entries

    def held(self) -> list[Any]:
        """The keys."""
        with self._lock:
            return list(self._entries)

    def clear(self) -> None:
        with self._lock:
            self._empty()

    def statistics(self) -> Statistics:
        with self._lock:
            return Statistics(
                hits=self._reads - self._misses,
                misses=self._misses,
                insertions=self._insertions,
                evictions=self._evictions,
                rejected=self._rejected,
                bytes=self._bytes,
                entries=len(self._entries),
            )

    def _start_anew_in_child(self) -> None:
        """A forked child begins empty: a thread that it lacks may hold the lock, in the middle of a change."""
        self._lock = threading.Lock()
        self._reads = self._misses = self._insertions = self._evictions = self._rejected = 0
        self._empty()


_CACHES: WeakSet[MemoryCache] = WeakSet()


def _after_fork_in_child() -> None:
    for cache in tuple(_CACHES):
        cache._start_anew_in_child()


os.register_at_fork(after_in_child=_after_fork_in_child)


def _count(entry: Entry) -> None:
    stats.count(TierName.L1, "evictions", size=entry.value.blob_size)


class MemoryTier:
    """L1 of this process."""

    name = TierName.L1

    def __init__(self, budget: int, policy: str) -> None:
        self.cache = MemoryCache(budget, policy, on_eviction=_count)

    def get(self, digest: str, index: int) -> Segment | None:
        """Raises CorruptSegment: the memory holds something else than was put there; it is dropped."""
        segment: Segment | None = self.cache.get((digest, index))
        if segment is not None and not segment.is_intact():
            self.cache.remove((digest, index))
            raise CorruptSegment(f"segment {index} of {digest} in the memory of this process")
        return segment

    def put(self, digest: str, index: int, segment: Segment, *, cost: float) -> bool:
        """Keep a segment that took ``cost`` seconds to read; whether it was taken."""
        if segment.blob_size > self.cache.budget // SHARE_LIMIT:
            return False
        return self.cache.put((digest, index), segment, size=len(segment.data), cost=cost)

    def drop(self, digest: str) -> None:
        """Forget every segment of the blob."""
        for index in range(segment_count(MAX_KERNEL_BYTES)):
            self.cache.remove((digest, index))

    def has(self, digest: str) -> bool:
        """Is the first segment here? Not counted as a read."""
        return self.cache.has((digest, 0))

    def gauge(self) -> dict[str, int | str]:
        """What it holds, for the statistics."""
        found = self.cache.statistics()
        return {
            "policy": self.cache.policy,
            "budget": self.cache.budget,
            "bytes": found.bytes,
            "entries": found.entries,
            "evictions": found.evictions,
        }

    def digests(self) -> set[str]:
        """The blobs of which it holds something."""
        return {digest for digest, _ in self.cache.held()}
