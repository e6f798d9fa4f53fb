"""What a verified read of a kernel costs in each tier, by size, beside the bare reads of the same bytes.

Each way is taken once in each repetition, in an order that changes, so that what else the machine does meets all alike.
A tier's read is ``get`` of each segment (4 MiB), with the checks of all its bytes; joining segments is left out
everywhere. Bare are: GET of redis-py as it comes, of the whole blob; a file that is in the page cache; a SELECT of one
``bytea`` by Django's cursor.
"""

import os
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import psycopg

from benchmarks.cache_site import Site, in_fresh_process
from benchmarks.targets import Measurement

KIB, MIB = 1 << 10, 1 << 20
SIZES = {"10KiB": 10 * KIB, "100KiB": 100 * KIB, "1MiB": MIB, "4MiB": 4 * MIB, "16MiB": 16 * MIB}
FULL_REPEATS = {"10KiB": 1000, "100KiB": 1000, "1MiB": 300, "4MiB": 100, "16MiB": 50}
QUICK_SHARE = 10
ROUNDS = 10
"""A ratio is taken of the medians of each tenth of the repetitions."""
SEED = 2026
PLAIN_TABLE = "bench_plain_bytes"
COMPARED = "100KiB"

Read = Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Latency:
    """Of one way at one size, in milliseconds."""

    p50_ms: float
    p95_ms: float
    n: int

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Latency":
        p95 = statistics.quantiles(seconds, n=20)[18]
        return cls(p50_ms=statistics.median(seconds) * 1e3, p95_ms=p95 * 1e3, n=len(seconds))


def measure(site: Site, *, quick: bool, say: Callable[[str], Any]) -> dict[str, Any]:
    """{"latencies": {size: {way: Latency}}, "ratios": L2 to the bare GET at 100 KiB, by round}."""
    say("reading from each tier, by size ...")
    repeats = {size: count // QUICK_SHARE if quick else count for size, count in FULL_REPEATS.items()}
    found: dict[str, Any] = in_fresh_process(read_all, site, repeats)
    return found


def measurements(found: dict[str, Any]) -> dict[str, Measurement]:
    return {"l2_get_100kib_vs_bare_redis_get": Measurement.of(found["ratios"])}


def read_all(site: Site, repeats: dict[str, int]) -> dict[str, Any]:
    """In a process with the environment of ``site``."""
    with psycopg.connect(os.environ["DATABASE_OWNER_URL"], autocommit=True) as owner:
        owner.execute(f"CREATE TABLE {PLAIN_TABLE} (name text PRIMARY KEY, data bytea NOT NULL)".encode())
        owner.execute(f"ALTER TABLE {PLAIN_TABLE} ALTER data SET STORAGE EXTERNAL".encode())
    seconds = {size: _alternate(_ways(site, size), count) for size, count in repeats.items()}
    latencies = {
        size: {way: asdict(Latency.of(taken)) for way, taken in ways.items()} for size, ways in seconds.items()
    }
    compared = seconds[COMPARED]
    return {"latencies": latencies, "ratios": _ratios(compared["l2"], compared["redis_get"])}


def _ways(site: Site, size: str) -> dict[str, Read]:
    """Every way to the bytes of one kernel of this size; all of them hold it when this returns."""
    from django.db import connection

    from apps.kernels.cache import KernelStore, filling, relay
    from apps.kernels.cache.segments import segment_count
    from apps.kernels.cache.tiers import tiers

    data = random.Random(f"{SEED} {size}").randbytes(SIZES[size])
    digest = KernelStore().put(data)
    relay.drain()  # the copy in L4
    filling.fill(digest)
    indexes, found, client, plain = range(segment_count(len(data))), tiers(), site.l2.client(), site.folder / size
    segments = [_there(found.database.get(digest, index)) for index in indexes]
    for index, segment in enumerate(segments):
        if not found.memory.put(digest, index, segment, cost=0.01):
            raise RuntimeError(f"L1 does not keep {size}")
    client.set(f"plain:{size}", data)
    plain.write_bytes(data)
    with connection.cursor() as cursor:
        cursor.execute(f"INSERT INTO {PLAIN_TABLE} VALUES (%s, %s)", [size, data])

    def of_tier(get: Callable[[int], Any]) -> Read:
        return lambda: [_there(get(index)) for index in indexes]

    digests = [segment.digests for segment in segments]
    redis = _there(found.redis)
    return {
        "l1": of_tier(partial(found.memory.get, digest)),
        "l2": of_tier(partial(redis.get, digest)),
        "l3": of_tier(partial(found.database.get, digest)),
        "l4": of_tier(
            lambda index: found.storage.read(digest, index, digests=digests[index], blob_size=len(data)),
        ),
        "redis_get": lambda: _there(client.get(f"plain:{size}")),
        "file": plain.read_bytes,
        "select": partial(_select, size),
    }


def _there(found: Any) -> Any:
    """Raises RuntimeError: nothing was found, so nothing would be measured."""
    if found is None:
        raise RuntimeError("what was put there is gone")
    return found


def _select(size: str) -> bytes:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(f"SELECT data FROM {PLAIN_TABLE} WHERE name = %s", [size])
        return bytes(cursor.fetchone()[0])


def _alternate(ways: dict[str, Read], repeats: int) -> dict[str, list[float]]:
    """Seconds of each way, ``repeats`` times; the first few reads, which warm all, are left out."""
    chance, order = random.Random(SEED), list(ways)
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(repeats + 3):
        chance.shuffle(order)
        for way in order:
            began = time.perf_counter()
            ways[way]()
            taken = time.perf_counter() - began
            if number >= 3:
                seconds[way].append(taken)
    return seconds


def _ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Of the medians, round by round."""
    length = len(ours) // ROUNDS
    starts = range(0, length * ROUNDS, length)
    return [
        statistics.median(ours[start : start + length]) / statistics.median(theirs[start : start + length])
        for start in starts
    ]


def lines(found: dict[str, Any]) -> list[str]:
    """For people: milliseconds, p50 and p95."""
    ways = ("l1", "l2", "l3", "l4", "redis_get", "file", "select")
    head = "".join(f"{way:>17}" for way in ways)
    rows = [f"  {'p50 / p95 in ms':<18}{head}"]
    for size, latencies in found["latencies"].items():
        cells = (f"{latencies[way]['p50_ms']:.3f} / {latencies[way]['p95_ms']:.3f}" for way in ways)
        rows.append(f"  {size:<18}" + "".join(f"{cell:>17}" for cell in cells))
    return rows
