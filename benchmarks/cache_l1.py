"""What a read from L1 costs, beside three peers that lock and a bare dict: 1 and 4 threads, rounds in turn in one run.

Each cache holds the same keys and values, and every read hits. A round is READS reads in all by each cache in turn,
from start to end by the wall clock. The ratio that we are held to is of the same round with one thread: the shipped
policy, with statistics, over an OrderedDict that is moved to its end under a lock.
"""

import random
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from statistics import median
from typing import Any

import cachebox
import cachetools

from apps.kernels.cache.config import POLICIES
from apps.kernels.cache.memory import MemoryCache
from benchmarks.targets import Measurement, spread

KEYS, BUDGET = 1_000, 1 << 30
THREADS = (1, 4)
ROUNDS, QUICK_ROUNDS = 15, 5
READS, QUICK_READS = 200_000, 40_000
SHIPPED = POLICIES[0]
BASE = "OrderedDict+Lock"
Get = Callable[[Hashable], Any]


class LockedOrderedDict:
    """The usual LRU: one lock around each read."""

    def __init__(self, values: dict[Hashable, Any]) -> None:
        self._values = OrderedDict(values)
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Any:
        with self._lock:
            value = self._values.get(key)
            if value is not None:
                self._values.move_to_end(key)
            return value


class Locked:
    """A cache that is not made for threads, under a lock."""

    def __init__(self, cache: Any) -> None:
        self._cache = cache
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Any:
        with self._lock:
            return self._cache.get(key)


def measure(quick: bool = False, say: Callable[[str], Any] = print) -> dict[str, Any]:
    """Nanoseconds of one read by threads and cache, and their ratios to an OrderedDict with a lock."""
    say("L1: reads beside other caches ...")
    readers, keys = _readers(), random.Random(1).choices(_keys(), k=QUICK_READS if quick else READS)
    found = {}
    for threads in THREADS:
        rounds: dict[str, list[float]] = {name: [] for name in readers}
        for _ in range(QUICK_ROUNDS if quick else ROUNDS):
            for name, get in readers.items():
                rounds[name].append(_nanoseconds(get, keys, threads))
        found[str(threads)] = {name: _figures(times, rounds[BASE]) for name, times in rounds.items()}
    return {"shipped": SHIPPED, "by_threads": found}


def measurements(found: dict[str, Any]) -> dict[str, Measurement]:
    """The row of the targets."""
    return {"l1_get_vs_ordereddict_lock": Measurement.of(found["by_threads"]["1"][found["shipped"]]["ratios"])}


def lines(found: dict[str, Any]) -> list[str]:
    """For people."""
    return [
        f"  {threads} threads  {name:<26}{row['nanoseconds']:>8.0f} ns (spread {row['spread']:.0f}), "
        f"{median(row['ratios']):.2f} of {BASE}"
        for threads, caches in found["by_threads"].items()
        for name, row in caches.items()
    ]


def _keys() -> list[Hashable]:
    return [(f"{number:064x}", 0) for number in range(KEYS)]


def _readers() -> dict[str, Get]:
    """``get`` of each cache, with every key in it."""
    values: dict[Hashable, Any] = dict.fromkeys(_keys(), b"value")
    tools: Any = cachetools.LRUCache(KEYS)
    box: Any = cachebox.LRUCache(KEYS)
    tools.update(values)
    box.update(values)
    readers: dict[str, Get] = {BASE: LockedOrderedDict(values).get, "cachetools.LRUCache+Lock": Locked(tools).get}
    readers["cachebox.LRUCache"] = box.get
    readers["dict, without a bound"] = values.get
    for policy in POLICIES:
        cache = MemoryCache(BUDGET, policy)
        for key, value in values.items():
            cache.put(key, value, size=len(value), cost=0.001)
        readers[policy] = cache.get
    return readers


def _nanoseconds(get: Get, keys: list[Hashable], threads: int) -> float:
    """Of one read, where ``threads`` share the reads."""
    workers = [threading.Thread(target=_read, args=(get, keys[start::threads])) for start in range(threads)]
    began = time.perf_counter_ns()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return (time.perf_counter_ns() - began) / len(keys)


def _read(get: Get, keys: list[Hashable]) -> None:
    for key in keys:
        get(key)


def _figures(times: list[float], base: list[float]) -> dict[str, Any]:
    ratios = [mine / theirs for mine, theirs in zip(times, base, strict=True)]
    return {"nanoseconds": median(times), "spread": spread(times), "ratios": ratios}
