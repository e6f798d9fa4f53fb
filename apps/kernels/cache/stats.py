"""What the cache did in this process: counters and latencies by tier and size class. ``fleet`` sums up all processes.

    stats.count(TierName.L1, "hits", size=blob_size)
    stats.observe(TierName.L1, size=blob_size, seconds=taken, bytes=len(segment.data))
    stats.process().hit_rate(TierName.L1)

Each thread counts in a dictionary of its own, so counting needs no lock and loses nothing; who reads adds them up.
"""

import os
import threading
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from apps.kernels.cache.segments import TierName
from apps.kernels.models.blobs import MAX_KERNEL_BYTES

What = Literal[
    "hits",  # the tier had it
    "misses",  # it was asked, and did not
    "fills",  # copies that it took
    "refused",  # copies that it did not take
    "evictions",  # left it for others, or because they were too old
    "promotions",  # came into it from a slower tier because they are read often
    "demotions",  # left it for a slower tier because they are not
    "coalesced",  # loads from it that were spared: somebody else's was waited for
    "heals",  # corrupt or lost there, and put right from another tier
    "corrupt",  # was not what had been put there
    "errors",  # reads that went past it: it did not answer, not in time, or is left alone
]
COUNTERS: tuple[str, ...] = ("bytes", *get_args(What))
"""``observe`` counts the bytes that a tier gave out, ``count`` the rest."""
NANOSECONDS = "ns"
"""The counter of the time that all observed reads took together."""

SIZE_LIMITS = (64 << 10, 512 << 10, 4 << 20, 16 << 20, MAX_KERNEL_BYTES)
"""Bytes of the largest blob of each size class."""
SIZE_CLASSES = ("64KiB", "512KiB", "4MiB", "16MiB", "64MiB", "unknown")
"""Names of the classes, by their limit; the last is for blobs whose size was not known when they were counted."""
UNKNOWN_SIZE = len(SIZE_LIMITS)

STEPS_PER_DECADE = 12
BOUNDS = tuple(10.0 ** (step / STEPS_PER_DECADE - 6) for step in range(7 * STEPS_PER_DECADE + 1))
"""Seconds, 1 microsecond to 10 s: bucket i has what took at most BOUNDS[i], the one after the last what took longer.

A bound is 1.21 times the one before it, so that a percentile is at most 21 % off.
"""

Key = tuple[str, int, str | int]
"""(tier, index in SIZE_CLASSES, a counter's name or the index of a latency bucket)."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Counts at a moment, or between two. What was never counted is absent, and 0."""

    counts: Mapping[Key, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "counts", {key: count for key, count in self.counts.items() if count})

    def __add__(self, other: "Snapshot") -> "Snapshot":
        """Both together."""
        return Snapshot({key: self._of(key) + other._of(key) for key in self.counts.keys() | other.counts.keys()})

    def __sub__(self, other: "Snapshot") -> "Snapshot":
        """What came since ``other``, an earlier snapshot of the same."""
        return Snapshot({key: self._of(key) - other._of(key) for key in self.counts.keys() | other.counts.keys()})

    def __bool__(self) -> bool:
        return bool(self.counts)

    def total(self, what: str | int, tier: str | None = None, size_class: int | None = None) -> int:
        """The sum of a counter, over all tiers and size classes unless one is given."""
        return sum(
            count
            for (its_tier, its_class, its_what), count in self.counts.items()
            if its_what == what and tier in (None, its_tier) and size_class in (None, its_class)
        )

    def hit_rate(self, tier: str, size_class: int | None = None) -> float | None:
        """Of the reads that came as far as this tier, the share that it answered; None: none came."""
        hits = self.total("hits", tier, size_class)
        asked = hits + self.total("misses", tier, size_class)
        return hits / asked if asked else None

    def answered_by(self, tiers: Iterable[str], size_class: int | None = None) -> float | None:
        """Of all reads that any tier answered, the share that these did; None: there were none."""
        answered = self.total("hits", None, size_class)
        return sum(self.total("hits", tier, size_class) for tier in tiers) / answered if answered else None

    def seconds(self, tier: str | None = None, size_class: int | None = None) -> float:
        """How long the observed reads took together."""
        return self.total(NANOSECONDS, tier, size_class) / 1e9

    def buckets(self, tier: str | None = None, size_class: int | None = None) -> list[int]:
        """How many reads each latency bucket has, in the order of BOUNDS, then those that took longer."""
        found = [0] * (len(BOUNDS) + 1)
        for (its_tier, its_class, what), count in self.counts.items():
            if isinstance(what, int) and tier in (None, its_tier) and size_class in (None, its_class):
                found[what] += count
        return found

    def percentile(self, share: float, tier: str | None = None, size_class: int | None = None) -> float | None:
        """Seconds within which ``share`` (0 to 1) of the reads were answered, interpolated in its bucket.

        None: no read was observed. Of those that took more than 10 s it is only known that they did: 10 s.
        """
        buckets = self.buckets(tier, size_class)
        rank = share * sum(buckets)
        below = 0
        for index, count in enumerate(buckets):
            if count and below + count >= rank:
                low, high = bucket_limits(index)
                return low + (high - low) * (rank - below) / count
            below += count
        return None

    def _of(self, key: Key) -> int:
        return self.counts.get(key, 0)


def bucket_limits(index: int) -> tuple[float, float]:
    """The seconds between which a latency bucket lies; the last, open one is a point."""
    return BOUNDS[index - 1] if index else 0.0, BOUNDS[min(index, len(BOUNDS) - 1)]


def count(tier: TierName, what: What, *, size: int | None, n: int = 1) -> None:
    """Count ``n`` more of ``what``. ``size`` is of the whole blob, in bytes; None: not known."""
    _own()[tier, size_class_of(size), what] += n


def observe(tier: TierName, *, size: int | None, seconds: float, bytes: int) -> None:
    """A read that ``tier`` answered with ``bytes`` took ``seconds``. ``size`` as in ``count``."""
    own = _own()
    size_class = size_class_of(size)
    own[tier, size_class, "bytes"] += bytes
    own[tier, size_class, NANOSECONDS] += round(seconds * 1e9)
    own[tier, size_class, bisect_left(BOUNDS, seconds)] += 1


def size_class_of(size: int | None) -> int:
    """The index in SIZE_CLASSES of a blob of ``size`` bytes; None: not known."""
    return UNKNOWN_SIZE if size is None else bisect_left(SIZE_LIMITS, size)


def process() -> Snapshot:
    """What this process has counted since it started; after a fork, since then."""
    return _counted.snapshot()


gauges: dict[str, Callable[[], dict[str, Any]]] = {}
"""What other parts of the cache tell about this process, as JSON values, by their name. None of them may raise.

``gauges["l1"]`` -> {"bytes", "budget", "entries", "policy"}; ``gauges["breakers"]`` -> {tier: {"state", "since"}}, the
latter in seconds since 1970.
"""


def read_gauges() -> dict[str, dict[str, Any]]:
    """What each registered gauge says now."""
    return {name: read() for name, read in sorted(gauges.items())}


class _Counted:
    """The dictionaries of all threads, and what the threads that ended had counted."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._threads: list[tuple[threading.Thread, dict[Key, int]]] = []
        self._ended: defaultdict[Key, int] = defaultdict(int)
        self.local = threading.local()

    def new_thread(self) -> defaultdict[Key, int]:
        """A dictionary for the calling thread. Servers make a thread per request: those that ended are added up."""
        own: defaultdict[Key, int] = defaultdict(int)
        self.local.own = own
        with self._lock:
            self._add_up_ended()
            self._threads.append((threading.current_thread(), own))
        return own

    def snapshot(self) -> Snapshot:
        with self._lock:
            self._add_up_ended()
            sums = self._ended.copy()
            for _, counts in self._threads:
                # The copy is one step of the interpreter: its thread cannot add a key meanwhile.
                for key, number in counts.copy().items():
                    sums[key] += number
        return Snapshot(sums)

    def _add_up_ended(self) -> None:
        threads, self._threads = self._threads, []
        for thread, counts in threads:
            if thread.is_alive():
                self._threads.append((thread, counts))
                continue
            for key, number in counts.items():
                self._ended[key] += number


_counted = _Counted()


def _own() -> defaultdict[Key, int]:
    try:
        own: defaultdict[Key, int] = _counted.local.own
    except AttributeError:
        return _counted.new_thread()
    return own


def _start_at_zero() -> None:
    """In a forked child: what its parent counted, its parent tells."""
    global _counted  # noqa: PLW0603 - the lock may be held by a thread that the child does not have
    _counted = _Counted()


os.register_at_fork(after_in_child=_start_at_zero)
