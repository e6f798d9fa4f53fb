"""Traces of reads and writes, replayed over one L1 that serves all workers.

A trace is CSV with the header ``i,op,key,size,worker``. GET reads the key and stores it on a miss, PUT stores it, DEL
removes it. Every fetch costs the same here: a trace says no times.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from apps.kernels.cache.memory import MemoryCache

HEADER = ["i", "op", "key", "size", "worker"]
OPERATIONS = ("GET", "PUT", "DEL")
COST_SECONDS = 0.001


class BadTrace(Exception):
    """The file is no trace; says which line."""


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
        hit = sum(size for size, was_hit in zip(self.sizes, self.hits, strict=True) if was_hit)
        return hit / sum(self.sizes) if any(self.sizes) else 0.0


def read(path: Path) -> list[Request]:
    """Raises BadTrace."""
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
    if not (size.isascii() and size.isdigit()):
        raise BadTrace(f"line {number}: {size!r} is no size in bytes")
    return Request(op, key, int(size))


def replay(requests: list[Request], *, capacity: int, policy: str) -> Outcome:
    """One cache of ``capacity`` bytes serves all."""
    cache, outcome = MemoryCache(capacity, policy), Outcome([], [])
    for op, key, size in requests:
        if op == "DEL":
            cache.remove(key)
            continue
        hit = op == "GET" and cache.get(key) is not None
        if op == "GET":
            outcome.hits.append(hit)
            outcome.sizes.append(size)
        if not hit:
            cache.put(key, key, size=size, cost=COST_SECONDS)
    return outcome
