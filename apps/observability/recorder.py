"""Records values in a loop that must not wait: a call puts one entry into a queue, and a thread stores them later.

    recorder = Recorder(sink)
    loss = recorder.series("esper_run_train_loss", run="0192...")      # once, outside the loop
    loss.record(0.31)                                                  # well below a microsecond
    recorder.close()

Nothing that the sink does reaches the loop: it may be slow, fail, or hang. What it does not take waits for the next
time, up to a bound; beyond that the oldest is dropped and counted. No Django: the sink knows where readings go.
"""

import itertools
import logging
import math
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

log = logging.getLogger(__name__)

FLUSH_SECONDS = 5.0
RESOLUTION_SECONDS = 2.0
"""Of each series, one value in so many seconds goes to the sink."""
LOOP_CAPACITY = 4096
"""Entries of one series between two flushes."""
WAITING_CAPACITY = 20_000
"""Values that wait for a sink that does not take them."""
CLOSE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Recorded:
    """One value on its way to the sink; ``at`` in seconds since 1970."""

    name: str
    labels: Mapping[str, str]
    at: float
    value: float


Sink = Callable[[Sequence[Recorded]], None]


class Entry(NamedTuple):
    """What the loop leaves: the count of entries of its series, when, and what."""

    number: int
    at: float
    value: float


class Handle:
    """One series in the loop. ``record(value)`` takes a float, and never raises or waits."""

    __slots__ = ("_entries", "_seen", "labels", "name", "record")

    def __init__(self, name: str, labels: Mapping[str, str]) -> None:
        self.name = name
        self.labels = dict(labels)
        self._entries: deque[tuple[int, float, float]] = deque(maxlen=LOOP_CAPACITY)
        self._seen = -1
        append, count, clock = self._entries.append, itertools.count().__next__, time.time

        def record(value: float) -> None:
            append((count(), clock(), value))

        self.record: Callable[[float], None] = record
        """A closure: no attribute is looked up in the loop."""

    def take(self) -> tuple[list[Entry], int]:
        """What came since the last time, and how much of it was lost because it was more than LOOP_CAPACITY."""
        taken: list[Entry] = []
        for _ in range(len(self._entries)):
            try:
                taken.append(Entry(*self._entries.popleft()))
            except IndexError:  # the loop has just pushed the oldest out
                break
        if not taken:
            return taken, 0
        came, self._seen = taken[-1].number - self._seen, taken[-1].number
        return taken, came - len(taken)


class Recorder:
    """Hands what its series record to ``sink``, every ``flush_seconds``, in a thread of its own."""

    _thread: threading.Thread | None

    def __init__(
        self,
        sink: Sink,
        *,
        flush_seconds: float = FLUSH_SECONDS,
        resolution_seconds: float = RESOLUTION_SECONDS,
        on_dropped: Callable[[int], None] = lambda number: None,
    ) -> None:
        self._sink = sink
        self._flush_seconds = flush_seconds
        self._resolution = resolution_seconds
        self._on_dropped = on_dropped
        self._handles: dict[tuple[str, tuple[tuple[str, str], ...]], Handle] = {}
        self._waiting: deque[Recorded] = deque()
        self._failing = False
        self.dropped = 0
        self._begin()
        _recorders.add(self)

    def series(self, name: str, **labels: str) -> Handle:
        """The series of that name and labels; the thread starts with the first."""
        key = (name, tuple(sorted(labels.items())))
        if key not in self._handles:
            self._handles = {**self._handles, key: Handle(name, labels)}  # the thread may be going through the old one
        if self._thread is None and not self._closing.is_set():
            self._thread = threading.Thread(target=self._keep_on, name="recorder", daemon=True)
            self._thread.start()
        return self._handles[key]

    def flush(self) -> bool:
        """Hand over what there is; whether the sink took it. If not, it waits. Never raises."""
        with self._lock:
            self._gather()
            if not self._waiting:
                return True
            batch = list(self._waiting)
            try:
                self._sink(batch)
            except Exception as error:
                if not self._failing:
                    log.warning("readings are not taken, and wait: %s", error)
                self._failing = True
                return False
            self._failing = False
            self._waiting.clear()
            return True

    def close(self) -> None:
        """Hand over what there is, and end. A sink that hangs is left behind after CLOSE_SECONDS."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join(CLOSE_SECONDS)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread = None

    def _start_anew_in_child(self) -> None:
        """After a fork: the thread is the parent's, and so is what waits."""
        self._begin()
        self._waiting.clear()
        for handle in self._handles.values():
            handle.take()

    def _keep_on(self) -> None:
        while not self._closing.wait(self._flush_seconds):
            self.flush()
        self.flush()

    def _gather(self) -> None:
        lost = 0
        for handle in self._handles.values():
            entries, missed = handle.take()
            lost += missed
            self._waiting.extend(
                Recorded(handle.name, handle.labels, entry.at, float(entry.value))
                for entry in thinned(entries, self._resolution)
            )
        while len(self._waiting) > WAITING_CAPACITY:
            self._waiting.popleft()
            lost += 1
        if lost:
            self.dropped += lost
            self._on_dropped(lost)


def thinned(entries: Sequence[Entry], seconds: float) -> list[Entry]:
    """The last entry of each stretch of ``seconds``; one that is no finite number goes before: it is an alarm."""
    if seconds <= 0:
        return list(entries)
    kept: dict[int, Entry] = {}
    for entry in entries:
        stretch = int(entry.at // seconds)
        if stretch not in kept or math.isfinite(kept[stretch].value):
            kept[stretch] = entry
    return list(kept.values())


_recorders: "weakref.WeakSet[Recorder]" = weakref.WeakSet()


def _after_fork() -> None:
    for recorder in list(_recorders):
        recorder._start_anew_in_child()


os.register_at_fork(after_in_child=_after_fork)
