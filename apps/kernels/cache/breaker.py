"""A breaker in front of a tier: one that fails is left alone for a while, so that its readers do not wait for it each.

    if not breaker.allows():
        raise TierAway(...)
    try:
        ...
    except TimeoutError:
        breaker.failed(was_timeout=True)
    else:
        breaker.succeeded()

closed -> (``failures`` failures in a row, or one timeout) -> open for ``open_seconds`` -> half-open: one call is let
through, the probe -> closed, or open again for twice as long, up to ``LONGEST_SECONDS``.
"""

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal
from weakref import WeakSet

State = Literal["closed", "open", "half-open"]

LONGEST_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class _Probe:
    """The one call that may find out whether the tier is back."""

    thread: int
    given_up_at: float


class Breaker:
    """One per tier and process. Every call that was allowed reports ``succeeded`` or ``failed``, from its own thread.

    Reports of calls that began before the breaker opened are not taken for the probe's.
    """

    def __init__(
        self,
        name: str,
        *,
        failures: int = 5,
        open_seconds: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.opened = 0
        """How many times it opened, after failed probes too."""
        self._limit = failures
        self._shortest = open_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._failures = 0
        self._changed_at = clock()
        self._open_for = open_seconds
        self._open_until: float | None = None
        """None: closed."""
        self._probe: _Probe | None = None
        _BREAKERS.add(self)

    @property
    def state(self) -> State:
        """half-open from when the next call may probe until the probe has reported."""
        until = self._open_until
        if until is None:
            return "closed"
        return "open" if self._clock() < until else "half-open"

    @property
    def seconds_since_change(self) -> float:
        """Since it was last opened or closed."""
        return self._clock() - self._changed_at

    def allows(self) -> bool:
        """May the tier be called now? In the half-open state one caller hears yes: it is the probe.

        A probe that has not reported after ``open_seconds`` is given up, and the next caller probes.
        """
        if self._open_until is None:  # the way of every healthy call: without the lock
            return True
        with self._lock:
            now = self._clock()
            if self._open_until is None:
                return True
            if now < self._open_until or (self._probe is not None and now < self._probe.given_up_at):
                return False
            self._probe = _Probe(threading.get_ident(), given_up_at=now + self._shortest)
            return True

    def succeeded(self) -> None:
        """The tier answered, be it that it has no such thing."""
        if self._open_until is None and not self._failures:
            return
        with self._lock:
            if self._open_until is None:
                self._failures = 0
            elif self._is_probe():
                self._open_until, self._probe, self._failures = None, None, 0
                self._open_for = self._shortest
                self._changed_at = self._clock()

    def failed(self, *, was_timeout: bool = False) -> None:
        """The tier did not do what it was asked. One timeout opens: the next caller would stall as long."""
        with self._lock:
            if self._open_until is None:
                self._failures += 1
                if was_timeout or self._failures >= self._limit:
                    self._open()
            elif self._is_probe():
                self._open_for = min(2 * self._open_for, LONGEST_SECONDS)
                self._open()

    def _is_probe(self) -> bool:
        return self._probe is not None and self._probe.thread == threading.get_ident()

    def _open(self) -> None:
        self._changed_at = self._clock()
        self._open_until = self._changed_at + self._open_for
        self._probe = None
        self.opened += 1

    def _start_anew_in_child(self) -> None:
        """The thread that held the lock, or probes, is not in a forked child."""
        self._lock = threading.Lock()
        self._probe = None


_BREAKERS: WeakSet[Breaker] = WeakSet()


def _after_fork_in_child() -> None:
    for breaker in tuple(_BREAKERS):
        breaker._start_anew_in_child()


os.register_at_fork(after_in_child=_after_fork_in_child)
