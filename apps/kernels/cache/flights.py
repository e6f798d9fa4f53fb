"""Single flight within a process: of the threads that miss the same thing at once, one loads it for all."""

import os
import threading
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar
from weakref import WeakSet

Value = TypeVar("Value")


class _Flight(Generic[Value]):
    def __init__(self) -> None:
        self.landed = threading.Event()
        self.value: Value | None = None


class Flights(Generic[Value]):
    """Loads under way, by key."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._flying: dict[Hashable, _Flight[Value]] = {}
        _FLIGHTS.add(self)

    def once(self, key: Hashable, load: Callable[[], Value]) -> tuple[Value, bool]:
        """What ``load`` returns, and whether another thread's call spared this one its own.

        A failure is not shared: who waited loads for itself, because what was not there when the other began may have
        been committed since. Raises whatever ``load`` raises.
        """
        with self._lock:
            flight = self._flying.get(key)
            is_first = flight is None
            if flight is None:
                flight = self._flying[key] = _Flight()
        if not is_first:
            flight.landed.wait()
            return (load(), False) if flight.value is None else (flight.value, True)
        try:
            flight.value = load()
            return flight.value, False
        finally:
            with self._lock:
                self._flying.pop(key, None)
            flight.landed.set()

    def _start_anew_in_child(self) -> None:
        """The threads that were loading are not in a forked child."""
        self._lock = threading.Lock()
        self._flying = {}


_FLIGHTS: "WeakSet[Flights[Any]]" = WeakSet()


def _after_fork_in_child() -> None:
    for flights in tuple(_FLIGHTS):
        flights._start_anew_in_child()


os.register_at_fork(after_in_child=_after_fork_in_child)
