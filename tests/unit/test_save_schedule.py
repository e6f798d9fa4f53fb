"""When a run saves by time, on a clock of the test's own."""

import time
from uuid import uuid4

import pytest

from apps.checkpoints.models import CheckpointPolicy, Schedule
from apps.training.schedule import LONGEST, SHORTEST, SaveSchedule


class Clock:
    """Stands still until told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def policy(kind: Schedule = Schedule.INTERVAL, seconds: int = 1800) -> CheckpointPolicy:
    return CheckpointPolicy(workspace_id=uuid4(), schedule=kind, interval_seconds=seconds)


def schedule(clock: Clock, kind: Schedule, seconds: int = 1800) -> SaveSchedule:
    return SaveSchedule(policy(kind, seconds), clock)


def save(timed: SaveSchedule, clock: Clock, stall: float) -> None:
    began = clock.now
    clock.now += stall
    timed.note_save(began)


def steps(timed: SaveSchedule, clock: Clock, count: int, seconds: float, *, storing: bool = False) -> None:
    for _step in range(count):
        clock.now += seconds
        timed.note_step(storing=storing)


def test_a_save_is_due_once_the_interval_has_passed_since_the_last(clock: Clock) -> None:
    timed = schedule(clock, Schedule.INTERVAL, 1800)
    clock.now += 1799
    assert not timed.is_due
    clock.now += 1
    assert timed.is_due
    save(timed, clock, 0.1)
    assert not timed.is_due


def test_where_saving_by_time_is_off_nothing_is_ever_due(clock: Clock) -> None:
    timed = schedule(clock, Schedule.OFF)
    clock.now += 1e9
    assert not timed.is_due


def test_auto_chooses_the_interval_at_which_saving_costs_half_a_percent(clock: Clock) -> None:
    timed = schedule(clock, Schedule.AUTO)
    steps(timed, clock, 100, 0.1)
    save(timed, clock, 0.5)
    steps(timed, clock, 10, 0.2, storing=True)  # a second more than ten steps take otherwise
    assert timed.interval == pytest.approx(300)  # 1.5 s of 300


@pytest.mark.parametrize(("stall", "interval"), [(1e-6, SHORTEST), (60.0, LONGEST)])
def test_auto_keeps_within_its_bounds(clock: Clock, stall: float, interval: float) -> None:
    timed = schedule(clock, Schedule.AUTO)
    save(timed, clock, stall)
    assert timed.interval == interval


def test_a_wall_clock_that_is_set_moves_no_save(monkeypatch: pytest.MonkeyPatch) -> None:
    timed = SaveSchedule(policy())
    for jump in (1e9, -1e9):
        monkeypatch.setattr(time, "time", lambda jump=jump: jump)
        assert not timed.is_due


def test_after_a_save_that_failed_the_next_does_not_wait_for_the_interval(clock: Clock) -> None:
    timed = schedule(clock, Schedule.INTERVAL, 1800)
    save(timed, clock, 0.1)

    timed.note_failure()

    assert timed.is_due
    save(timed, clock, 0.1)
    assert not timed.is_due
