"""What all processes together count, in the broker's Redis: in total, and by minute and hour for the last days.

    publish()                    # every few seconds, in each process that serves
    fleet("1h").hit_rate("l1")
    processes()                  # those that published within the last ALIVE_SECONDS

A process that is killed takes with it what it had not published yet. Nothing is counted twice: ``deliveries``.
"""

import json
import os
import socket
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from redis.exceptions import RedisError

from apps.core.errors import Unavailable
from apps.kernels.cache import stats
from apps.kernels.cache.deliveries import Delivery, broker
from apps.kernels.cache.stats import Key, Snapshot

MINUTE, HOUR = 60, 3600
KEYS = "esper:cache:stats:1"
"""The 1 is the version of SIZE_CLASSES and BOUNDS: whoever changes one begins with new keys."""
TOTAL = f"{KEYS}:total"
KEPT_SECONDS = {MINUTE: 2 * HOUR + 10 * MINUTE, HOUR: 8 * 24 * HOUR}
WINDOWS: dict[str, tuple[int, int]] = {"5m": (MINUTE, 5), "1h": (MINUTE, 60), "24h": (HOUR, 24), "7d": (HOUR, 168)}
"""Window -> (unit, how many whole ones); the unit that has begun comes on top. And "total"."""

PROCESSES = "esper:cache:processes:1"
"""A sorted set: who published, by when. What they said is in a key each, which vanishes with its process.

The 1 is the version of Process.
"""
ALIVE_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Process:
    """What one process tells about itself; times in seconds since 1970."""

    identity: str
    host: str
    pid: int
    role: str
    """The program that it runs."""
    started_at: float
    published_at: float
    gauges: dict[str, dict[str, Any]]
    """As in ``stats.gauges``."""

    @property
    def name(self) -> str:
        return f"{self.host}:{self.pid}"


class _Publisher:
    """This process, as the fleet knows it."""

    def __init__(self) -> None:
        self.identity = uuid4().hex
        self.started_at = time.time()
        self._published = Snapshot()
        self.delivery: Delivery[tuple[float, Snapshot]] = Delivery("stats", self._take, _write)

    def _take(self) -> tuple[float, Snapshot] | None:
        """What was counted since the last time, and when it was taken."""
        counted = stats.process()
        new, self._published = counted - self._published, counted
        return (time.time(), new) if new else None

    def describe(self) -> Process:
        return Process(
            identity=self.identity,
            host=socket.gethostname(),
            pid=os.getpid(),
            role=_program(Path(sys.argv[0])),
            started_at=self.started_at,
            published_at=time.time(),
            gauges=stats.read_gauges(),
        )


_publisher: _Publisher


def publish() -> bool:
    """Add what this process counted since the last time, and tell how it is; whether Redis took it.

    If it did not, the counts are kept for the next time.
    """
    if not _publisher.delivery.send():
        return False
    try:
        _show(_publisher.describe())
    except (RedisError, OSError):
        return False
    return True


def fleet(window: str) -> Snapshot:
    """What all processes counted in one of WINDOWS, or in "total".

    Raises:
        Unavailable: the broker's Redis does not answer. KeyError: no such window.
    """
    try:
        pipeline = broker().pipeline(transaction=False)
        for key in [TOTAL] if window == "total" else _keys(*WINDOWS[window]):
            pipeline.hgetall(key)
        hashes = pipeline.execute()
    except (RedisError, OSError) as error:
        raise _silent(error) from error
    sums: dict[Key, int] = {}
    for found in hashes:
        for counted, number in _parsed(found):
            sums[counted] = sums.get(counted, 0) + number
    return Snapshot(sums)


def processes() -> list[Process]:
    """Those that published within the last ALIVE_SECONDS, by name. Raises Unavailable."""
    try:
        redis = broker()
        identities = [member.decode() for member in redis.zrange(PROCESSES, 0, -1)]
        told = redis.mget([_process_key(identity) for identity in identities]) if identities else []
    except (RedisError, OSError) as error:
        raise _silent(error) from error
    return sorted((Process(**json.loads(text)) for text in told if text), key=lambda process: process.name)


def this_process() -> Process:
    """This process, as it would tell the fleet now."""
    return _publisher.describe()


def _write(pipeline: Any, batch: tuple[float, Snapshot]) -> None:
    """The commands that add a batch to the total and to the minute and hour in which it was taken."""
    taken_at, new = batch
    fields = {f"{tier}:{size_class}:{what}": number for (tier, size_class, what), number in new.counts.items()}
    for key in (TOTAL, _key(MINUTE, taken_at), _key(HOUR, taken_at)):
        for name, number in fields.items():
            pipeline.hincrby(key, name, number)
    for unit, kept in KEPT_SECONDS.items():
        pipeline.expire(_key(unit, taken_at), kept)


def _show(process: Process) -> None:
    """Raises RedisError."""
    pipeline = broker().pipeline()
    pipeline.set(_process_key(process.identity), json.dumps(asdict(process)), ex=ALIVE_SECONDS)
    pipeline.zadd(PROCESSES, {process.identity: process.published_at})
    pipeline.zremrangebyscore(PROCESSES, "-inf", process.published_at - HOUR)  # far from any difference of clocks
    pipeline.execute()


def _parsed(found: dict[bytes, bytes]) -> Iterable[tuple[Key, int]]:
    for name, number in found.items():
        tier, size_class, what = name.decode().split(":")
        yield (tier, int(size_class), int(what) if what.isdigit() else what), int(number)


def _keys(unit: int, count: int) -> list[str]:
    now = time.time()
    return [_key(unit, now - back * unit) for back in range(count + 1)]


def _key(unit: int, moment: float) -> str:
    """The hash of the minute or hour in which ``moment`` lies."""
    return f"{KEYS}:{unit}:{int(moment // unit)}"


def _process_key(identity: str) -> str:
    return f"{PROCESSES}:{identity}"


def _program(path: Path) -> str:
    """ "celery" for .../bin/celery, and for .../celery/__main__.py."""
    return path.parent.name if path.name == "__main__.py" else path.name


def _silent(error: Exception) -> Unavailable:
    return Unavailable(f"the statistics of the cache cannot be read now: {error}", code="statistics")


def _start_anew() -> None:
    """At the start, and in a forked child: it has counted nothing, and a thread that it lacks may hold the lock."""
    global _publisher  # noqa: PLW0603
    _publisher = _Publisher()


_start_anew()
os.register_at_fork(after_in_child=_start_anew)
