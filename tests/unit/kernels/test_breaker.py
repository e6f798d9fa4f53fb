"""The breaker in front of a tier: when it opens, who may probe, and what threads and forks do to it."""

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from apps.kernels.cache.breaker import Breaker


class Clock:
    """Seconds that pass only when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def passes(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker("l2", failures=5, open_seconds=5.0, clock=clock)


def in_another_thread(call: Callable[[], bool | None]) -> bool | None:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call).result()


def fails(breaker: Breaker, times: int) -> None:
    for _ in range(times):
        assert breaker.allows()
        breaker.failed()


def test_four_failures_in_a_row_leave_it_closed(breaker: Breaker) -> None:
    fails(breaker, 4)

    assert (breaker.state, breaker.opened, breaker.allows()) == ("closed", 0, True)


def test_the_fifth_failure_in_a_row_opens_it(breaker: Breaker) -> None:
    fails(breaker, 5)

    assert (breaker.state, breaker.opened, breaker.allows()) == ("open", 1, False)


def test_a_success_in_between_begins_the_count_anew(breaker: Breaker) -> None:
    fails(breaker, 4)
    breaker.succeeded()
    fails(breaker, 4)

    assert breaker.state == "closed"


def test_one_timeout_opens_it_at_once(breaker: Breaker) -> None:
    breaker.failed(was_timeout=True)

    assert not breaker.allows()


def test_it_stays_open_for_five_seconds(breaker: Breaker, clock: Clock) -> None:
    breaker.failed(was_timeout=True)

    clock.passes(4.9)
    assert (breaker.state, breaker.allows()) == ("open", False)
    clock.passes(0.1)
    assert (breaker.state, breaker.allows()) == ("half-open", True)


def test_one_caller_of_many_is_the_probe(breaker: Breaker, clock: Clock) -> None:
    breaker.failed(was_timeout=True)
    clock.passes(5)

    together = threading.Barrier(8)

    def asks() -> bool:
        together.wait(10)
        return breaker.allows()

    with ThreadPoolExecutor(8) as pool:
        answers = [future.result() for future in [pool.submit(asks) for _ in range(8)]]

    assert sorted(answers) == [False] * 7 + [True]


def test_a_probe_that_succeeds_closes_it(breaker: Breaker, clock: Clock) -> None:
    fails(breaker, 5)
    clock.passes(5)
    assert breaker.allows()
    breaker.succeeded()

    assert breaker.state == "closed"
    fails(breaker, 4)
    assert breaker.state == "closed", "the failures from before it opened were forgotten"


def test_each_probe_that_fails_doubles_the_time_up_to_thirty_seconds(breaker: Breaker, clock: Clock) -> None:
    breaker.failed(was_timeout=True)

    for seconds in (5, 10, 20, 30, 30):
        clock.passes(seconds - 0.1)
        assert not breaker.allows()
        clock.passes(0.1)
        assert breaker.allows()
        breaker.failed()
    assert breaker.opened == 6


def test_after_it_closed_it_opens_for_five_seconds_again(breaker: Breaker, clock: Clock) -> None:
    breaker.failed(was_timeout=True)
    for seconds in (5, 10):
        clock.passes(seconds)
        assert breaker.allows()
        breaker.failed()
    clock.passes(20)
    assert breaker.allows()
    breaker.succeeded()
    breaker.failed(was_timeout=True)

    clock.passes(5)
    assert breaker.allows()


def test_a_probe_that_never_reports_is_given_up(breaker: Breaker, clock: Clock) -> None:
    breaker.failed(was_timeout=True)
    clock.passes(5)
    assert in_another_thread(breaker.allows)

    clock.passes(4.9)
    assert not breaker.allows()
    clock.passes(0.1)
    assert breaker.allows()


@pytest.mark.parametrize("report", ["succeeded", "failed"])
def test_a_call_from_before_it_opened_does_not_report_for_the_probe(
    breaker: Breaker, clock: Clock, report: str
) -> None:
    breaker.failed(was_timeout=True)
    clock.passes(5)
    assert breaker.allows()

    in_another_thread(getattr(breaker, report))

    assert (breaker.state, breaker.opened) == ("half-open", 1)


def test_late_timeouts_do_not_open_an_open_one_for_longer(breaker: Breaker, clock: Clock) -> None:
    breaker.failed(was_timeout=True)
    clock.passes(1)
    breaker.failed(was_timeout=True)
    clock.passes(4)

    assert (breaker.opened, breaker.allows()) == (1, True)


def test_it_tells_for_how_long_it_has_been_open(breaker: Breaker, clock: Clock) -> None:
    breaker.failed(was_timeout=True)
    clock.passes(3)

    assert breaker.seconds_since_change == 3


def test_a_forked_child_may_probe_although_its_parent_was_probing(breaker: Breaker, clock: Clock) -> None:
    breaker.failed(was_timeout=True)
    clock.passes(5)
    assert breaker.allows()

    assert in_forked_child(breaker.allows)
    assert not breaker.allows(), "in the parent the probe is pending still"


def test_a_fork_while_another_thread_holds_the_lock_leaves_a_working_breaker(breaker: Breaker, clock: Clock) -> None:
    breaker.failed(was_timeout=True)
    clock.passes(5)
    is_held, may_go = threading.Event(), threading.Event()

    def hold() -> None:
        with breaker._lock:
            is_held.set()
            may_go.wait(30)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(hold)
        assert is_held.wait(10)
        try:
            assert in_forked_child(breaker.allows)
        finally:
            may_go.set()


def in_forked_child(call: Callable[[], bool]) -> bool:
    """What ``call`` says in a forked child of this process; False too if it hangs there."""
    child = os.fork()
    if child == 0:
        answer = threading.Thread(target=lambda: os._exit(0 if call() else 1), daemon=True)
        answer.start()
        answer.join(10)
        os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
