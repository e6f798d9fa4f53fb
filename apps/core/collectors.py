"""How the collectors of ``core.registry`` are read: each within its time, and none in the way of the others."""

import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import structlog
from django.db import DatabaseError, InterfaceError, connection
from prometheus_client.core import GaugeMetricFamily, Metric
from redis.exceptions import RedisError

from apps.core.errors import Unavailable
from apps.core.registry import registry

log = structlog.get_logger(__name__)

EXPECTED = (DatabaseError, InterfaceError, RedisError, OSError, Unavailable)
"""What a collector fails with when the server that it asks is away."""
QUERY_SECONDS = 3
"""No query of a collector may take longer."""
SLOW_SECONDS = 0.25
REST = 100
LONGEST_REST = 600.0
LONGEST_REST_AFTER_FAILURE = 60.0

Collect = Callable[[], Iterable[Metric]]


@dataclass(frozen=True, slots=True)
class Read:
    """What came of reading a collector. ``families`` is None when it failed; ``seconds`` is how long it took."""

    families: list[Metric] | None
    seconds: float
    at: float

    @property
    def rests_until(self) -> float:
        """By the monotonic clock."""
        if self.seconds < SLOW_SECONDS:
            return self.at
        longest = LONGEST_REST_AFTER_FAILURE if self.families is None else LONGEST_REST
        return self.at + min(REST * self.seconds, longest)


class Resting:
    """Remembers what slow collectors said: one that took long rests a hundred times as long, and what it said then
    counts meanwhile. So none costs more than a hundredth of the time, however large its table has become."""

    def __init__(self) -> None:
        self._read: dict[str, Read] = {}

    def read(self, name: str, collect: Collect) -> Read:
        before = self._read.get(name)
        if before is not None and time.monotonic() < before.rests_until:
            return before
        self._read[name] = _read(name, collect)
        return self._read[name]

    def forget(self) -> None:
        self._read.clear()


def read_collectors(*, without: Collection[str] = (), resting: Resting | None = None) -> Iterator[Metric]:
    """What the registered collectors say now, and of each whether it could be read and how long that took.

    One that fails is told of in ``esper_collector_up``, and the others go on. With ``resting``, slow ones are read
    less often.
    """
    up = GaugeMetricFamily("esper_collector_up", "1 if the collector could be read.", labels=["collector"])
    took = GaugeMetricFamily(
        "esper_collector_seconds", "Seconds that reading the collector took.", labels=["collector"]
    )
    ask = resting.read if resting is not None else _read
    with short_queries():
        for name, collect in registry.collectors.items():
            if name in without:
                continue
            found = ask(name, collect)
            took.add_metric([name], found.seconds)
            up.add_metric([name], found.families is not None)
            yield from found.families or ()
    yield up
    yield took


def _read(name: str, collect: Collect) -> Read:
    begun = time.monotonic()
    families: list[Metric] | None = None
    try:
        families = list(collect())
    except EXPECTED as error:
        log.warning("collector_failed", collector=name, error=str(error))
    except Exception:
        log.exception("collector_failed", collector=name)  # a fault of ours must not blind the other collectors
    ended = time.monotonic()
    return Read(families, ended - begun, ended)


@contextmanager
def short_queries() -> Iterator[None]:
    """Let the database end each query of this connection after QUERY_SECONDS."""
    is_set = _limit_queries(f"{QUERY_SECONDS}s")
    try:
        yield
    finally:
        if is_set:
            _limit_queries("DEFAULT")


def _limit_queries(limit: str) -> bool:
    try:
        with connection.cursor() as cursor:
            cursor.execute(f"SET statement_timeout TO {limit if limit == 'DEFAULT' else repr(limit)}")
    except (DatabaseError, InterfaceError):
        return False  # each collector will find out for itself
    return True
