"""Runs trained in the test's own process, segment by segment, and killed or held up where a test says so."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from apps.checkpoints.lifecycle import CheckpointState
from apps.checkpoints.models import Checkpoint
from apps.core.actors import SYSTEM
from apps.morphogenesis.protocols import Command
from apps.training import services
from apps.training.lifecycle import RunState
from apps.training.models import RunLease, TrainingRun
from apps.training.runner import RemoteControl, train_segment

QUICK = {
    "task": "spirals",
    "host": "mlp",
    "epochs": 4,
    "seed": 5,
    "snapshot_epochs": 1,
    "growth": {"enabled": False},
}
STEPS = 25
"""Of one epoch."""


class Killed(BaseException):
    """The worker is gone in this moment: nothing that it would do at its end is done."""


def quick_run(**changes: Any) -> TrainingRun:
    return services.create_run(settings=QUICK | changes, actor=SYSTEM, wants_control=False)


def train(run: TrainingRun, holder: str = "worker") -> TrainingRun:
    """One segment."""
    train_segment(run_id=run.pk, holder=holder)
    run.refresh_from_db()
    return run


def train_to_the_end(run: TrainingRun) -> TrainingRun:
    while train(run).state == RunState.RUNNING:
        pass
    assert run.state == RunState.COMPLETED, run.failure
    return run


@contextmanager
def at_step(step: int, act: Callable[[], Any]) -> Iterator[None]:
    """Do something before a step of the segment that is trained inside."""
    with pytest.MonkeyPatch.context() as patch:
        left, poll = step, RemoteControl.poll

        def polled(control: RemoteControl) -> Command:
            nonlocal left
            left -= 1
            if left == 0:
                act()
            return poll(control)

        patch.setattr(RemoteControl, "poll", polled)
        yield


def kill(run: TrainingRun, step: int, holder: str = "worker") -> None:
    """Train, and lose the worker before that step of the segment."""

    def die() -> None:
        raise Killed

    with at_step(step, die), pytest.raises(Killed):
        train_segment(run_id=run.pk, holder=holder)


def take_up(run: TrainingRun) -> None:
    """The lease has run out, and beat notices it."""
    RunLease.objects.filter(run=run).update(expires_at=timezone.now() - timedelta(seconds=1))
    assert services.recover_orphans() == [run.pk]


def checkpoints_of(run: TrainingRun, state: CheckpointState = CheckpointState.COMMITTED) -> list[Checkpoint]:
    """By step."""
    return list(Checkpoint.objects.filter(run_id=run.pk, state=state).order_by("step", "id"))
