"""The thread by which a process tells how its host is."""

import threading
from collections.abc import Iterator

import pytest
from celery.concurrency.prefork import TaskPool

from apps.core.errors import Unavailable
from apps.observability.collectors import hosts, reporter
from tests.support.waiting import wait_until


class Worker:
    """What Celery sends with its signal."""

    def __init__(self, pool: object) -> None:
        self.pool = pool


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> Iterator[reporter.Reporter]:
    made = reporter.Reporter()
    monkeypatch.setattr(reporter, "reporter", made)
    yield made
    made.stop()


def test_a_process_that_serves_tells_of_its_host_at_once(own: reporter.Reporter) -> None:
    own.start()

    wait_until(hosts.readings, seconds=10)


def test_what_goes_wrong_once_does_not_end_it(own: reporter.Reporter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporter, "LOOK_SECONDS", 0.001)
    errors = iter([ValueError("a fault of ours"), Unavailable("the broker is away")])
    publish = hosts.publish

    def fail_first() -> bool:
        for error in errors:
            raise error
        return publish()

    monkeypatch.setattr(hosts, "publish", fail_first)

    own.start()

    wait_until(hosts.readings, seconds=10)


def test_one_start_is_enough(own: reporter.Reporter) -> None:
    own.start()
    before = threading.active_count()

    own.start()

    assert threading.active_count() <= before


def test_a_worker_that_forks_has_its_children_tell(own: reporter.Reporter, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []
    monkeypatch.setattr(own, "start", lambda: started.append("yes"))

    reporter.start_in_worker(sender=Worker(TaskPool.__new__(TaskPool)))
    assert started == []
    reporter.start_in_worker(sender=Worker(object()))
    reporter.start_in_child()

    assert started == ["yes", "yes"]
