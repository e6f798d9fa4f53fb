"""Traces of reads and writes, replayed over one cache that serves all workers.

A trace is CSV with the header ``i,op,key,size,worker``. GET reads the key and stores it on a miss, PUT stores it, DEL
removes it. A trace says no times: what it takes to fetch a key again is ``refetch_seconds`` of its size.
"""

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import NamedTuple, Protocol

from apps.kernels.cache.config import POLICIES
from apps.kernels.cache.memory import MemoryCache

HEADER = ["i", "op", "key", "size", "worker"]
OPERATIONS = ("GET", "PUT", "DEL")
LONGEST_SIZE = 18
"""Digits."""
BASE_SECONDS, BYTES_PER_SECOND = 0.0003, 550 << 20
"""A read from L3, measured by ``cache_tiers`` (medians, 2 cores): 0.29 ms at 10 KiB, 29.5 ms at 16 MiB. The policy was
tuned with 1 ms and 400 MiB/s, which were assumed before; with those its lead over S3-FIFO is twice as large."""


class BadTrace(Exception):
    """The file is no trace, and says which line is wrong; or nothing can be replayed over it."""


def refetch_seconds(size: int) -> float:
    """What it takes to read ``size`` bytes from L3."""
    return BASE_SECONDS + size / BYTES_PER_SECOND


class Request(NamedTuple):
    op: str
    key: str
    size: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """A bool for each GET, in order, and the bytes of it."""

    hits: list[bool]
    sizes: list[int]

    def by_objects(self) -> float:
        return sum(self.hits) / len(self.hits) if self.hits else 0.0

    def by_bytes(self) -> float:
        return self._weighed(lambda size: size)

    def by_latency(self) -> float:
        """Of the seconds that all reads would have taken without a cache, those that hits saved."""
        return self._weighed(refetch_seconds)

    def _weighed(self, weight: Callable[[int], float]) -> float:
        weights = list(map(weight, self.sizes))
        return sum(compress(weights, self.hits)) / sum(weights) if weights else 0.0

    def ratios(self) -> dict[str, float]:
        return {"objects": self.by_objects(), "bytes": self.by_bytes(), "latency": self.by_latency()}


class Cache(Protocol):
    """What a trace is replayed over."""

    def get(self, key: str) -> object | None: ...

    def put(self, key: str, value: object, *, size: int, cost: float) -> bool: ...

    def remove(self, key: str) -> None: ...


def read(path: Path) -> list[Request]:
    """Raises BadTrace, in one line."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return list(_requests(csv.reader(file)))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadTrace(f"{path}: {error}") from error


def _requests(rows: Iterator[list[str]]) -> Iterator[Request]:
    if next(rows, None) != HEADER:
        raise BadTrace(f"line 1: the header must be {','.join(HEADER)}")
    sizes: dict[str, int] = {}
    for number, row in enumerate(rows, start=2):
        request = _request(row, number)
        if request.op != "DEL" and sizes.setdefault(request.key, request.size) != request.size:
            raise BadTrace(f"line {number}: {request.key} had {sizes[request.key]} bytes before")
        yield request


def _request(row: list[str], number: int) -> Request:
    if len(row) != len(HEADER):
        raise BadTrace(f"line {number}: {len(row)} columns instead of {len(HEADER)}")
    _, op, key, size, _ = row
    if op not in OPERATIONS:
        raise BadTrace(f"line {number}: {op!r} is none of {', '.join(OPERATIONS)}")
    least = 0 if op == "DEL" else 1
    if not (size.isascii() and size.isdigit() and len(size) <= LONGEST_SIZE and int(size) >= least):
        raise BadTrace(f"line {number}: {size[:40]!r} is no size in bytes, {least} or more")
    return Request(op, key, int(size))


def chosen(policy: str | None) -> tuple[str, ...]:
    """The policy of this name, or each, the shipped one first. Raises BadTrace."""
    if policy not in (None, *POLICIES):
        raise BadTrace(f"there is no policy {policy!r}; policies: {', '.join(POLICIES)}")
    return (policy,) if policy else POLICIES


def replay(requests: list[Request], *, capacity: int, policy: str) -> Outcome:
    """One L1 of ``capacity`` bytes serves all."""
    return replay_over(MemoryCache(capacity, policy), requests)


def replay_over(cache: Cache, requests: list[Request]) -> Outcome:
    outcome = Outcome([], [])
    for op, key, size in requests:
        if op == "DEL":
            cache.remove(key)
            continue
        hit = op == "GET" and cache.get(key) is not None
        if op == "GET":
            outcome.hits.append(hit)
            outcome.sizes.append(size)
        if not hit:
            cache.put(key, key, size=size, cost=refetch_seconds(size))
    return outcome
