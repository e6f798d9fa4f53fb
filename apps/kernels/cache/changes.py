"""How processes hear of what changed: a Redis stream that each of them follows from where it stopped.

    follower.start()                   # in a process that serves
    follower.is_current()              # nothing that was told longer ago than this is unknown here

Whoever changes a kernel writes an outbox row in the same transaction (by a trigger); the relay adds it to the stream. A
process that has lost the connection, or finds a gap (the stream was trimmed, flushed, or begins anew), empties what it
knows of kernels and asks the database which of its bytes are still there.
"""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import structlog

from apps.kernels.cache import clients
from apps.kernels.cache.config import config
from apps.kernels.cache.remote import ERRORS
from apps.kernels.cache.segments import TierAway
from apps.kernels.cache.tiers import tiers

log = structlog.get_logger(__name__)

STREAM = "esper:k1:changes"
KEPT = 10_000
"""Entries of the stream; whoever misses more than this has a gap."""
BLOCK_MS = 500
BATCH = 500
"""Entries that are asked for at a time."""
TRUSTED_SECONDS = 2.0
"""After so long without an answer of the stream, what a process knows is not trusted."""
PAUSE_SECONDS = 1.0
BEGINNING = b"0-0"

Event = tuple[str, str]
"""("forget", digest), ("changed", kernel id) or ("warm", "")."""


def publish(kind: str, key: str) -> None:
    """Add one event. Raises TierAway."""
    redis = tiers().redis
    if redis is not None:
        redis.tell(STREAM, {"kind": kind, "key": key}, kept=KEPT)


def forget(digest: str) -> None:
    """Take the bytes out of L2, and tell every process to let go of them. Raises TierAway."""
    found = tiers()
    found.memory.drop(digest)
    if found.redis is not None:
        found.redis.drop(digest)
    publish("forget", digest)


def forget_absence(digest: str) -> None:
    """L2 no longer says that there are no such bytes. If it does not answer, the relay's fill says so later."""
    redis = tiers().redis
    if redis is not None:
        with suppress(TierAway):
            redis.drop(digest)


def tell_changed(kernel_id: str) -> None:
    """Tell every process that what it knows of the kernel is out of date. Raises TierAway."""
    publish("changed", kernel_id)


class Follower:
    """Reads the stream in a thread of its own; one per process."""

    def __init__(self) -> None:
        self.on_event: Callable[[Event], None] = lambda event: None
        self.on_gap: Callable[[], None] = lambda: None
        self.on_loss: Callable[[], None] = lambda: None
        self._last_id = b""
        self._current_until = 0.0
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self.events = 0
        """Goes up with what is heard or missed: whoever reads the database meanwhile sees that something changed."""

    def start(self) -> None:
        """Begin to follow, from the end of the stream. Started already: nothing happens."""
        if self._thread is None and config().l2_url:
            self._stopping.clear()
            self._thread = threading.Thread(target=self._follow, name="kernel-changes", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
        self._thread, self._current_until, self._last_id = None, 0.0, b""

    def is_current(self) -> bool:
        return time.monotonic() < self._current_until

    def start_anew_in_child(self) -> None:
        self._thread, self._current_until, self._last_id = None, 0.0, b""
        self._stopping = threading.Event()

    def _follow(self) -> None:
        while not self._stopping.is_set():
            try:
                client = clients.waiter(2 * BLOCK_MS / 1000)
                self._resume(client)
                while not self._stopping.is_set():
                    self._hear(client)
            except ERRORS as error:
                self._lose(error)
            except Exception:
                log.exception("changes_not_followed")
                self._lose(None)

    def _lose(self, error: Exception | None) -> None:
        if self.is_current():
            log.warning("changes_lost", error=str(error))
        self._current_until = 0.0
        self.events += 1
        self.on_loss()
        self._stopping.wait(PAUSE_SECONDS)

    def _resume(self, client: Any) -> None:
        """Find the place in the stream, at its end for a process that begins."""
        if self._last_id:
            self._look_for_gap(client)
            return
        newest = client.xrevrange(STREAM, count=1)
        self._last_id = newest[0][0] if newest else BEGINNING
        self.events += 1  # whatever came before was not heard

    def _look_for_gap(self, client: Any) -> bool:
        """A stream is trimmed from its old end: if what was read last is still there, so is all that came after."""
        if self._last_id == BEGINNING or client.xrange(STREAM, self._last_id, self._last_id):
            return False
        self._last_id = b""
        self._resume(client)
        self.on_gap()
        return True

    def _hear(self, client: Any) -> None:
        asked = time.monotonic()
        answer = client.xread({STREAM: self._last_id}, block=BLOCK_MS, count=BATCH)
        # Flushed under an open connection, or trimmed while this process was stopped: what is read next may not be
        # what came next.
        entries = [] if self._look_for_gap(client) or not answer else answer[0][1]
        for entry_id, fields in entries:
            self._last_id = entry_id  # also of what cannot be understood: it would come again and again
            self.events += 1
            self.on_event((fields[b"kind"].decode(), fields[b"key"].decode()))
        if len(entries) < BATCH:  # else there may be more, told long ago
            self._current_until = asked + TRUSTED_SECONDS


follower = Follower()
