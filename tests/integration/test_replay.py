"""Training again to a step, and trying a checkpoint out: the same bits, and nothing told of the run."""

from typing import Any

import pytest

from apps.audit.models import AuditEvent
from apps.checkpoints.lifecycle import CheckpointState, JobState
from apps.checkpoints.models import JobKind, SaveReason
from apps.checkpoints.places import folder
from apps.checkpoints.services import jobs
from apps.core.actors import SYSTEM
from apps.core.errors import Conflict, Invalid
from apps.morphogenesis.library import EventList, InMemoryCheckpoints, NeverInterrupt
from apps.morphogenesis.settings import RunSettings
from apps.morphogenesis.trainer import Trainer
from apps.training.lifecycle import RunState
from apps.training.models import TrainingRun
from apps.training.runner import FrozenLibrary
from tests.support.training import STEPS, checkpoints_of, quick_run, train, train_to_the_end

pytestmark = pytest.mark.usefixtures("committed_db")


@pytest.fixture
def run() -> TrainingRun:
    """Completed: four epochs of 25 steps, with checkpoints after the second and the fourth."""
    return train_to_the_end(quick_run(snapshot_epochs=2))


def digest_after(run: TrainingRun, step: int) -> str:
    """Of the weights, by training from the start without the platform."""
    events = EventList()
    trainer = Trainer(
        settings=RunSettings.from_mapping(run.settings),
        kernels=FrozenLibrary([]),
        checkpoints=InMemoryCheckpoints(),
        telemetry=events,
        decisions=events,
        control=NeverInterrupt(),
    )
    assert trainer.run(until_step=step).step == step
    return trainer.weights_digest


def replay(run: TrainingRun, step: Any) -> Any:
    job = jobs.request_job(kind=JobKind.REPLAY, run_id=run.pk, parameters={"step": step}, actor=SYSTEM)
    return jobs.run_job(job_id=job.pk)


@pytest.mark.parametrize("step", [2 * STEPS + 7, 3 * STEPS])
def test_a_step_that_was_trained_is_trained_again_bit_for_bit(run: TrainingRun, step: int) -> None:
    job = replay(run, step)

    assert job.state == JobState.SUCCEEDED, job.problem
    assert job.result["weights_digest"] == digest_after(run, step)
    assert (job.done, job.total) == (step - 2 * STEPS, step - 2 * STEPS)
    made = next(checkpoint for checkpoint in checkpoints_of(run) if str(checkpoint.pk) == job.result["checkpoint"])
    assert (made.step, made.reason) == (step, SaveReason.REPLAY)


def test_a_replay_tells_nothing_of_the_run(run: TrainingRun) -> None:
    before = list(TrainingRun.objects.filter(pk=run.pk).values()), list(run.metrics.values())
    told = AuditEvent.objects.filter(subject_id=str(run.pk)).count()
    replay(run, 60)
    assert (list(TrainingRun.objects.filter(pk=run.pk).values()), list(run.metrics.values())) == before
    assert AuditEvent.objects.filter(subject_id=str(run.pk)).count() == told


def test_a_step_that_is_saved_already_is_answered_with_that_checkpoint(run: TrainingRun) -> None:
    saved = checkpoints_of(run)[0]
    job = replay(run, saved.step)
    assert job.result["checkpoint"] == str(saved.pk)
    assert len(checkpoints_of(run)) == 2


def test_a_broken_checkpoint_is_passed_over_for_the_one_before(run: TrainingRun) -> None:
    newest = checkpoints_of(run)[-1]
    folder().manifest_path(newest.pk).unlink()
    job = replay(run, newest.step)
    assert job.state == JobState.SUCCEEDED, job.problem
    assert job.result["weights_digest"] == run.result["weights_digest"]
    assert checkpoints_of(run, CheckpointState.QUARANTINED) == [newest]


@pytest.mark.parametrize(("step", "why"), [(-1, "a number of training steps"), (101, "has trained 100 steps")])
def test_a_step_that_was_never_trained_is_refused(run: TrainingRun, step: int, why: str) -> None:
    with pytest.raises(Invalid, match=why):
        replay(run, step)


def test_without_a_checkpoint_before_it_a_step_is_refused(run: TrainingRun) -> None:
    with pytest.raises(Conflict, match="no good checkpoint is left at or before step 7"):
        replay(run, 7)


def test_a_replay_that_nobody_wants_any_more_stops(run: TrainingRun) -> None:
    job = jobs.request_job(kind=JobKind.REPLAY, run_id=run.pk, parameters={"step": 90}, actor=SYSTEM)

    def give_up(done: int, total: int) -> None:
        if done == 3:
            raise jobs.JobCancelled

    jobs.run_job(job_id=job.pk, progress=give_up)
    assert len(checkpoints_of(run)) == 2


# Trying a checkpoint out


def try_out(run: TrainingRun, **parameters: Any) -> Any:
    checkpoint = checkpoints_of(run)[0]
    job = jobs.request_job(
        kind=JobKind.RESTORE, checkpoint=checkpoint, parameters={"validate_only": True, **parameters}, actor=SYSTEM
    )
    return jobs.run_job(job_id=job.pk)


def test_a_checkpoint_is_tried_out_and_the_run_stays_as_it_is(run: TrainingRun) -> None:
    job = try_out(run)
    assert job.state == JobState.SUCCEEDED, job.problem
    assert job.result["fingerprint"] == job.result["environment"] == "same"
    assert job.result["differences"] == {}
    run.refresh_from_db()
    assert run.state == RunState.COMPLETED


def test_one_component_is_tried_out_alone(run: TrainingRun) -> None:
    job = try_out(run, components=["tamiyo"])
    assert job.state == JobState.SUCCEEDED, job.problem
    assert (job.result["components"], job.result["fingerprint"]) == (["tamiyo"], "not compared")


def test_a_component_that_is_not_there_is_not_tried_out(run: TrainingRun) -> None:
    with pytest.raises(Invalid, match="no component 'nope'; it has kasmina, tamiyo, tolaria, urza"):
        try_out(run, components=["tolaria", "nope"])


def test_components_are_chosen_only_to_try_them_out() -> None:
    run = train(quick_run(epochs=1))
    with pytest.raises(Invalid, match="only with validate_only"):
        jobs.request_job(
            kind=JobKind.RESTORE, checkpoint=checkpoints_of(run)[0], parameters={"components": ["tamiyo"]}, actor=SYSTEM
        )
