"""Single flight within a process: one load for all threads that miss at once, and no shared failures."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from apps.kernels.cache.flights import Flights
from tests.support.waiting import wait_until


class Loader:
    """Loads once it is let go, and counts."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.begun = 0
        self._lock = threading.Lock()

    def __call__(self) -> str:
        with self._lock:
            self.begun += 1
        assert self.go.wait(10)
        return "bytes"


def test_of_threads_that_miss_at_once_one_loads_and_all_have_the_value() -> None:
    flights: Flights[str] = Flights()
    load = Loader()

    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(flights.once, "key", load) for _ in range(8)]
        wait_until(lambda: load.begun == 1, seconds=10)
        load.go.set()
        results = [future.result(10) for future in waiting]

    assert {value for value, _ in results} == {"bytes"}
    assert load.begun == sum(not was_spared for _, was_spared in results)


def test_who_comes_after_the_landing_loads_anew() -> None:
    flights: Flights[str] = Flights()

    assert flights.once("key", lambda: "first") == ("first", False)
    assert flights.once("key", lambda: "second") == ("second", False)


def test_who_waited_for_a_load_that_fails_loads_for_himself() -> None:
    flights: Flights[str] = Flights()
    begun, go = threading.Event(), threading.Event()

    def fail() -> str:
        begun.set()
        assert go.wait(10)
        raise LookupError("not committed yet")

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(flights.once, "key", fail)
        assert begun.wait(10)
        second = pool.submit(flights.once, "key", lambda: "committed since")
        go.set()
        assert second.result(10)[0] == "committed since"
        with pytest.raises(LookupError):
            first.result(10)


def test_other_keys_do_not_wait() -> None:
    flights: Flights[str] = Flights()
    load = Loader()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(flights.once, "slow", load)
        wait_until(lambda: load.begun == 1, seconds=10)
        assert flights.once("fast", lambda: "bytes") == ("bytes", False)
        load.go.set()


def test_a_forked_child_does_not_wait_for_a_load_of_its_parent() -> None:
    flights: Flights[str] = Flights()
    load = Loader()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(flights.once, "key", load)
        wait_until(lambda: load.begun == 1, seconds=10)
        child = os.fork()
        if child == 0:
            os._exit(0 if flights.once("key", lambda: "own") == ("own", False) else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        load.go.set()
