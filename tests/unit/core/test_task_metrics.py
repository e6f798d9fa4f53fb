"""Tasks are counted by how they ended, and timed; messages say when they were sent."""

from collections.abc import Iterator

import pytest
from celery import Task, current_app
from prometheus_client import REGISTRY

from apps.core.task_metrics import SENT_AT, note_sending

NAMES = iter(f"tests.counted_{number}" for number in range(100))


@pytest.fixture
def task() -> Iterator[Task]:
    """Divides by what it is given."""
    name = next(NAMES)

    @current_app.task(name=name)
    def divide(number: int) -> float:
        return 1 / number

    yield current_app.tasks[name]
    current_app.tasks.unregister(name)


def counted(task: Task, outcome: str) -> float | None:
    return REGISTRY.get_sample_value("esper_tasks_total", {"task": task.name, "outcome": outcome})


def test_what_succeeds_and_what_fails_are_told_apart(task: Task) -> None:
    task.apply([1])
    task.apply([1])
    task.apply([0])

    assert (counted(task, "success"), counted(task, "failure")) == (2, 1)


def test_every_end_has_its_time(task: Task) -> None:
    task.apply([1])
    task.apply([0])

    assert REGISTRY.get_sample_value("esper_task_seconds_count", {"task": task.name}) == 2


def test_a_message_that_is_sent_again_keeps_the_time_of_the_first_sending() -> None:
    headers: dict[str, object] = {}
    note_sending(headers=headers)
    first = headers[SENT_AT]

    note_sending(headers=headers)

    assert headers[SENT_AT] == first
