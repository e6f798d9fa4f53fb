"""Increments for the broker's Redis, each batch applied once, however often it had to be sent.

An answer that does not come leaves open whether the server did what it was told. So a batch has a number, and the same
transaction that applies it writes the number into a key of this process. It watches that key: whichever attempt comes
first, even one that a frozen server works off after its sender gave up, makes the others fail or find the number.

What may still be lost is what a killed process had not sent (a few seconds of counts). Counted twice is a batch that
was applied without an answer and could not be sent again for longer than MARKER_SECONDS.
"""

import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar
from uuid import uuid4

import structlog
from django_redis import get_redis_connection
from redis.exceptions import RedisError

log = structlog.get_logger(__name__)

MARKER_SECONDS = 86_400

Batch = TypeVar("Batch")


def broker() -> Any:
    """The Redis that evicts nothing: pressure on the cache must not erase what is counted about it."""
    return get_redis_connection("throttle")


class Delivery(Generic[Batch]):
    """Takes batches from ``take`` and has ``write`` put their commands into a transaction, one batch at a time."""

    def __init__(self, name: str, take: Callable[[], Batch | None], write: Callable[[Any, Batch], None]) -> None:
        self._marker = f"esper:cache:delivered:{name}:{uuid4().hex}"
        self._take = take
        self._write = write
        self._lock = threading.Lock()
        self._number = 0
        self._pending: Batch | None = None
        self._is_late = False

    def send(self) -> bool:
        """Send what could not be sent before, then what is new; whether Redis took it. If not, it is kept."""
        with self._lock:
            try:
                self._send_pending()
                self._pending = self._take()
                self._number += 1
                self._send_pending()
            except (RedisError, OSError) as error:
                if not self._is_late:
                    log.warning("cache_counts_not_sent", marker=self._marker, error=str(error))
                self._is_late = True
                return False
            self._is_late = False
            return True

    def _send_pending(self) -> None:
        if self._pending is None:
            return
        with broker().pipeline() as pipeline:
            pipeline.watch(self._marker)
            if int(pipeline.get(self._marker) or 0) < self._number:
                pipeline.multi()
                self._write(pipeline, self._pending)
                pipeline.set(self._marker, self._number, ex=MARKER_SECONDS)
                pipeline.execute()
        self._pending = None
