"""Long work with checkpoints: one at a time, told as it goes, given up, taken up again after a crash."""

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from celery import current_app
from django.db import OperationalError
from django.utils import timezone

from apps.audit.models import AuditEvent
from apps.checkpoints import tasks
from apps.checkpoints.lifecycle import CheckpointState, JobState
from apps.checkpoints.models import Checkpoint, CheckpointJob, JobKind
from apps.checkpoints.services import jobs
from apps.checkpoints.store.errors import CorruptCheckpoint
from apps.core.actors import SYSTEM
from apps.core.errors import Conflict, InvalidTransition, Unavailable
from apps.core.ids import new_id
from tests.support.checkpoints import checkpoint_folder, flip, pack_of, save
from tests.support.factories import CheckpointFactory

__all__ = ["checkpoint_folder"]

pytestmark = pytest.mark.django_db


def allowed(*, run_id: UUID, checkpoint: Checkpoint | None, parameters: Mapping[str, Any]) -> None:
    return None


def refused(*, run_id: UUID, checkpoint: Checkpoint | None, parameters: Mapping[str, Any]) -> None:
    raise Conflict("the run is PAUSED: resume it first")


class Worked:
    """Stands for the work: what it does is ``then``, or raised if it is an exception."""

    def __init__(self) -> None:
        self.done: list[CheckpointJob] = []
        self.then: Any = lambda job, progress: {"steps": 3}

    def __call__(self, job: CheckpointJob, progress: jobs.Progress) -> Mapping[str, Any]:
        self.done.append(job)
        if isinstance(self.then, Exception):
            raise self.then
        return dict(self.then(job, progress))


@pytest.fixture
def queued(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[str], str]]:
    """What was queued, in place of a broker."""
    sent: list[tuple[str, list[str], str]] = []
    monkeypatch.setattr(
        current_app, "send_task", lambda task, args, queue=None, **kwargs: sent.append((task, args, queue))
    )
    return sent


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch, queued: Any) -> Worked:
    worked = Worked()
    monkeypatch.setitem(jobs.WORKS, "replay", jobs.Work(allowed, worked, "train"))
    monkeypatch.setitem(jobs.WORKS, "create", jobs.Work(allowed, None, "default"))
    return worked


@pytest.fixture
def checkpoint() -> Checkpoint:
    return CheckpointFactory()


def asked(checkpoint: Checkpoint, **parameters: Any) -> CheckpointJob:
    return jobs.request_job(kind=JobKind.REPLAY, checkpoint=checkpoint, parameters=parameters, actor=SYSTEM)


def as_it_is(job: CheckpointJob) -> CheckpointJob:
    return CheckpointJob.objects.get(pk=job.pk)


def set_back(job: CheckpointJob, seconds: float) -> None:
    """As if everything about the job had happened so long ago."""
    at = timezone.now() - timedelta(seconds=seconds)
    CheckpointJob.objects.filter(pk=job.pk).update(updated_at=at, heartbeat_at=at)


class TestAsking:
    def test_work_is_queued_where_its_kind_is_done_once_the_request_is_committed(
        self, checkpoint: Checkpoint, work: Worked, queued: list[Any], django_capture_on_commit_callbacks: Any
    ) -> None:
        with django_capture_on_commit_callbacks(execute=True):
            job = asked(checkpoint, step=50)
            assert queued == []

        assert queued == [("apps.checkpoints.tasks.run_job", [str(job.pk)], "train")]
        assert (job.state, job.run_id, job.parameters) == (JobState.PENDING, checkpoint.run_id, {"step": 50})
        assert AuditEvent.objects.get(type="checkpoint_job.requested").subject_id == str(job.pk)

    def test_the_same_work_asked_for_twice_is_one(self, checkpoint: Checkpoint, work: Worked) -> None:
        assert asked(checkpoint, step=50) == asked(checkpoint, step=50)
        assert CheckpointJob.objects.count() == 1

    def test_other_work_of_the_kind_waits_for_what_is_under_way(self, checkpoint: Checkpoint, work: Worked) -> None:
        first = asked(checkpoint, step=50)

        with pytest.raises(Conflict, match=str(first.pk)):
            asked(checkpoint, step=60)

    def test_work_that_is_over_can_be_asked_for_again(self, checkpoint: Checkpoint, work: Worked) -> None:
        first = asked(checkpoint)
        jobs.run_job(job_id=first.pk)

        assert asked(checkpoint) != first

    def test_a_run_is_saved_once_at_a_time(self, work: Worked) -> None:
        run_id = new_id()

        first, second = (jobs.request_job(kind=JobKind.CREATE, run_id=run_id, actor=SYSTEM) for _ in range(2))

        assert first == second

    def test_what_the_check_refuses_leaves_nothing(
        self, checkpoint: Checkpoint, work: Worked, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(jobs.WORKS, "replay", jobs.Work(refused, work, "train"))

        with pytest.raises(Conflict, match="resume it first"):
            asked(checkpoint)
        assert not CheckpointJob.objects.exists()

    @pytest.mark.parametrize("state", [CheckpointState.EXPIRED, CheckpointState.STAGING])
    def test_a_checkpoint_without_bytes_cannot_be_verified(self, state: CheckpointState, queued: Any) -> None:
        without = CheckpointFactory(state=state)

        with pytest.raises(Conflict, match=f"is {state}; this takes one that is COMMITTED or QUARANTINED"):
            jobs.request_job(kind=JobKind.VERIFY, checkpoint=without, actor=SYSTEM)


class TestDoing:
    def test_the_worker_tells_how_far_it_is_and_what_came_of_it(self, checkpoint: Checkpoint, work: Worked) -> None:
        heard: list[tuple[int, int]] = []
        work.then = lambda job, progress: progress(30, 30) or {"steps": 30}

        job = jobs.run_job(job_id=asked(checkpoint).pk, progress=lambda *told: heard.append(told))

        assert (job.state, job.result, job.done, job.total) == (JobState.SUCCEEDED, {"steps": 30}, 30, 30)
        assert heard == [(30, 30)]

    def test_progress_is_not_written_more_often_than_people_look(
        self, checkpoint: Checkpoint, work: Worked, django_assert_max_num_queries: Any
    ) -> None:
        job = asked(checkpoint)
        work.then = lambda job, progress: [progress(done, 1000) for done in range(500)] and {}

        with django_assert_max_num_queries(40):
            jobs.run_job(job_id=job.pk)

    def test_work_that_is_over_is_not_done_again(self, checkpoint: Checkpoint, work: Worked) -> None:
        job = asked(checkpoint)
        for _ in range(2):
            jobs.run_job(job_id=job.pk)

        assert len(work.done) == 1

    @pytest.mark.parametrize(
        ("fault", "problem"),
        [
            (Unavailable("the storage is away"), "the storage is away"),
            (CorruptCheckpoint("it ends too early", part="pack index"), "pack index: it ends too early"),
            (OSError("no space left"), "the storage did not answer: no space left"),
        ],
    )
    def test_what_goes_wrong_becomes_the_problem_of_the_job(
        self, checkpoint: Checkpoint, work: Worked, fault: Exception, problem: str
    ) -> None:
        work.then = fault

        job = jobs.run_job(job_id=asked(checkpoint).pk)

        assert (job.state, job.problem) == (JobState.FAILED, problem)

    def test_a_mistake_of_ours_ends_the_job_and_is_raised(self, checkpoint: Checkpoint, work: Worked) -> None:
        job = asked(checkpoint)
        work.then = ZeroDivisionError("division by zero")

        with pytest.raises(ZeroDivisionError):
            jobs.run_job(job_id=job.pk)
        assert as_it_is(job).problem == "ZeroDivisionError: division by zero"

    def test_a_database_that_is_away_leaves_the_job_to_be_taken_up_again(
        self, checkpoint: Checkpoint, work: Worked
    ) -> None:
        job = asked(checkpoint)
        work.then = OperationalError("the connection is closed")

        with pytest.raises(OperationalError):
            jobs.run_job(job_id=job.pk)
        assert as_it_is(job).state == JobState.RUNNING

    def test_a_message_of_a_job_that_is_gone_is_dropped(self, work: Worked) -> None:
        tasks.run_job(str(new_id()))

        assert work.done == []


class TestWhatCheckpointsDoThemselves:
    def test_verifying_tells_how_much_was_read(self, checkpoint_folder: Path, queued: Any) -> None:
        job = jobs.run_job(job_id=jobs.request_job(kind=JobKind.VERIFY, checkpoint=save(), actor=SYSTEM).pk)

        assert (job.state, job.result["bytes"], job.done) == (JobState.SUCCEEDED, job.total, job.total)
        assert job.checkpoint is not None
        assert job.checkpoint.verified_at is not None

    def test_a_broken_checkpoint_fails_the_job_and_is_set_aside(self, checkpoint_folder: Path, queued: Any) -> None:
        broken = save()
        flip(pack_of(broken), 100)

        job = jobs.run_job(job_id=jobs.request_job(kind=JobKind.VERIFY, checkpoint=broken, actor=SYSTEM).pk)

        assert (job.state, job.problem.split()[0]) == (JobState.FAILED, "object")
        assert Checkpoint.objects.get(pk=broken.pk).state == CheckpointState.QUARANTINED

    def test_a_checkpoint_goes_to_the_archive_and_comes_back(self, checkpoint_folder: Path, queued: Any) -> None:
        checkpoint = save()

        for kind, location in ((JobKind.ARCHIVE, "ARCHIVED"), (JobKind.RECALL, "LOCAL")):
            job = jobs.run_job(job_id=jobs.request_job(kind=kind, checkpoint=checkpoint, actor=SYSTEM).pk)

            assert (job.state, job.result) == (JobState.SUCCEEDED, {"location": location})


class TestGivingUp:
    def test_a_job_that_is_given_up_stops_at_its_next_sign_of_life(self, checkpoint: Checkpoint, work: Worked) -> None:
        def given_up_meanwhile(job: CheckpointJob, progress: jobs.Progress) -> dict[str, Any]:
            jobs.cancel_job(job=job, actor=SYSTEM)
            progress(1, 10)
            raise AssertionError("it went on")

        work.then = given_up_meanwhile

        assert jobs.run_job(job_id=asked(checkpoint).pk).state == JobState.CANCELLED

    def test_what_was_done_before_it_was_given_up_does_not_bring_it_back(
        self, checkpoint: Checkpoint, work: Worked
    ) -> None:
        job = jobs.start_job(asked(checkpoint))
        jobs.cancel_job(job=job, actor=SYSTEM)

        assert jobs.finish_job(job, result={}).state == JobState.CANCELLED
        assert jobs.fail_job(job, "too late").state == JobState.CANCELLED
        assert not jobs.beat(job, 1, 2)

    def test_giving_up_twice_is_giving_up_once(self, checkpoint: Checkpoint, work: Worked) -> None:
        job = asked(checkpoint)
        for _ in range(2):
            assert jobs.cancel_job(job=job, actor=SYSTEM).state == JobState.CANCELLED

    def test_what_is_done_cannot_be_given_up(self, checkpoint: Checkpoint, work: Worked) -> None:
        job = jobs.run_job(job_id=asked(checkpoint).pk)

        with pytest.raises(InvalidTransition):
            jobs.cancel_job(job=job, actor=SYSTEM)


class TestGoingOn:
    def test_a_job_whose_message_was_lost_is_queued_again(
        self, checkpoint: Checkpoint, work: Worked, queued: list[Any]
    ) -> None:
        job = asked(checkpoint)
        set_back(job, 31)
        queued.clear()

        assert jobs.continue_jobs() == 1
        assert jobs.continue_jobs() == 0
        assert queued == [(jobs.RUN_TASK, [str(job.pk)], "train")]

    def test_a_job_whose_worker_died_is_done_by_another(self, checkpoint: Checkpoint, work: Worked) -> None:
        job = jobs.start_job(asked(checkpoint))
        set_back(job, 61)

        assert jobs.continue_jobs() == 1
        assert jobs.run_job(job_id=job.pk).state == JobState.SUCCEEDED

    def test_a_job_that_shows_signs_of_life_is_left_alone(self, checkpoint: Checkpoint, work: Worked) -> None:
        job = jobs.start_job(asked(checkpoint))
        set_back(job, 61)
        jobs.beat(job, 1, 2)

        assert jobs.continue_jobs() == 0

    def test_a_job_that_kills_its_workers_ends(self, checkpoint: Checkpoint, work: Worked) -> None:
        job = asked(checkpoint)
        work.then = OperationalError("the connection is closed")  # as a worker that dies: it says nothing more
        for _ in range(jobs.MAX_LOSSES):
            with pytest.raises(OperationalError):
                jobs.run_job(job_id=job.pk)

        ended = jobs.run_job(job_id=job.pk)

        assert (ended.state, len(work.done)) == (JobState.FAILED, jobs.MAX_LOSSES)
        assert "3 workers were lost at it" in ended.problem

    def test_a_save_of_a_run_that_no_longer_trains_fails_with_the_remedy(
        self, work: Worked, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        job = jobs.request_job(kind=JobKind.CREATE, run_id=new_id(), actor=SYSTEM)
        set_back(job, 31)
        monkeypatch.setitem(jobs.WORKS, "create", jobs.Work(refused, None, "default"))

        jobs.continue_jobs()

        assert (as_it_is(job).state, as_it_is(job).problem) == (
            JobState.FAILED,
            "the run is PAUSED: resume it first",
        )

    def test_a_save_that_lost_its_worker_waits_for_the_next(self, work: Worked) -> None:
        job = jobs.start_job(jobs.request_job(kind=JobKind.CREATE, run_id=new_id(), actor=SYSTEM))
        set_back(job, 61)

        jobs.continue_jobs()

        assert as_it_is(job).state == JobState.PENDING
