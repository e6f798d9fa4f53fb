"""The worker that trains is killed at every point of a save, and at random moments: the run ends with the same bits."""

import os
import random
import signal
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from django.db import connections
from django.utils import timezone

from apps.checkpoints.lifecycle import CheckpointState
from apps.checkpoints.models import Checkpoint, Pack
from apps.checkpoints.places import folder
from apps.checkpoints.services import verify
from apps.checkpoints.services.garbage import collect_garbage
from apps.checkpoints.store import crashpoints
from apps.core.actors import SYSTEM
from apps.morphogenesis import experiments
from apps.morphogenesis.protocols import Snapshot
from apps.training.lifecycle import RunState
from apps.training.models import TrainingRun
from apps.training.run_checkpoints import RunCheckpoints
from apps.training.runner import train_segment
from tests.support.checkpoints import checkpoint_folder
from tests.support.training import QUICK, checkpoints_of, quick_run, take_up
from tests.support.waiting import wait_until

__all__ = ["checkpoint_folder"]

pytestmark = pytest.mark.usefixtures("committed_db", "checkpoint_folder", "imported")

SAVE_POINTS = crashpoints.POINTS[: crashpoints.POINTS.index("commit.after") + 1]
KILLS = 3
DAYS_AGO = timedelta(days=2)


@pytest.fixture(scope="module")
def imported() -> None:
    """What takes seconds to import, and what the first step imports, once for all children."""
    import blosc2  # noqa: F401

    experiments.run(QUICK | {"epochs": 1}, [])


save = RunCheckpoints.save


def saved_at_once(store: RunCheckpoints, snapshot: Snapshot, reason: str) -> bool:
    """Training waits for each save: the second one comes after the second epoch, not when the first is done."""
    taken = save(store, snapshot, reason)
    store.settle()
    return taken


class Worker:
    """A forked child that trains the run to its end (it is one segment), unless something kills it."""

    def __init__(self, run: TrainingRun, crash_at: str = "") -> None:
        connections.close_all()  # the child must not speak over ours
        self.pid = os.fork()
        if self.pid == 0:
            try:
                if crash_at:
                    os.environ[crashpoints.VARIABLE] = crash_at
                    RunCheckpoints.save = saved_at_once  # type: ignore[method-assign]
                train_segment(run_id=run.pk, holder=f"pid {os.getpid()}")
            finally:
                os._exit(0)

    def signal_at_end(self) -> int:
        """What killed it; 0: it came to the end."""
        return os.WTERMSIG(os.waitpid(self.pid, 0)[1])

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        assert self.signal_at_end() == signal.SIGKILL


@pytest.fixture
def train_to_the_end() -> Callable[[TrainingRun], str]:
    """Train a run undisturbed; the digest of its weights."""

    def train(run: TrainingRun) -> str:
        assert Worker(run).signal_at_end() == 0
        run.refresh_from_db()
        assert run.state == RunState.COMPLETED, run.failure
        return str(run.result["weights_digest"])

    return train


def test_killed_at_every_point_of_a_save_a_run_goes_on_from_the_checkpoint_before(
    train_to_the_end: Callable[[TrainingRun], str], checkpoint_folder: Path
) -> None:
    run = quick_run(epochs=16)
    for point in SAVE_POINTS:
        before = checkpoints_of(run)
        worker = Worker(run, crash_at=f"{point}:2")  # the second time: there is a new checkpoint each time
        assert worker.signal_at_end() == signal.SIGKILL, f"nobody came to {point}"
        after = checkpoints_of(run)

        assert after[: len(before)] == before, point
        verify(checkpoint=after[-1], actor=SYSTEM)
        unfinished = Checkpoint.objects.filter(run_id=run.pk, state=CheckpointState.STAGING)
        assert all(checkpoint.digest == "" for checkpoint in unfinished), point
        take_up(run)

    assert train_to_the_end(run) == train_to_the_end(quick_run(epochs=16))
    assert run.recoveries.filter(state="RESUMED").count() == len(SAVE_POINTS)
    what_nobody_knows_of_is_collected(checkpoint_folder)


def what_nobody_knows_of_is_collected(root: Path) -> None:
    rows = (
        [*Pack.objects.values_list("pk", flat=True)],
        [*Checkpoint.objects.filter(state=CheckpointState.COMMITTED).values_list("pk", flat=True)],
    )
    assert set(folder().packs()) > set(rows[0])
    Checkpoint.objects.filter(state=CheckpointState.STAGING).update(created_at=timezone.now() - DAYS_AGO)
    old = (timezone.now() - DAYS_AGO).timestamp()
    for path in root.rglob("*"):
        if path.is_file():
            os.utime(path, (old, old))
    collect_garbage()
    assert set(folder().packs()) == set(rows[0])
    assert set(folder().manifests()) == set(rows[1])
    assert not Checkpoint.objects.filter(state=CheckpointState.STAGING).exists()


def test_killed_at_random_moments_a_run_ends_with_the_same_weights(
    train_to_the_end: Callable[[TrainingRun], str],
) -> None:
    run = quick_run(epochs=30)
    for epoch in sorted(random.Random(3).sample(range(2, 26), KILLS)):
        worker = Worker(run)
        wait_until(lambda epoch=epoch: run.metrics.filter(epoch__gte=epoch).exists(), seconds=60)  # type: ignore[misc]
        worker.kill()
        take_up(run)
    assert train_to_the_end(run) == train_to_the_end(quick_run(epochs=30))
