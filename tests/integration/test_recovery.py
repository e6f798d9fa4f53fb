"""How a run comes back: from a lost worker, a fault, a broken checkpoint, or because somebody set it back."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from django.db import transaction

from apps import morphogenesis
from apps.audit.models import AuditEvent
from apps.checkpoints.lifecycle import CheckpointState, JobState
from apps.checkpoints.models import CheckpointPolicy, JobKind, SaveReason, Schedule
from apps.checkpoints.places import folder
from apps.checkpoints.services import jobs
from apps.checkpoints.services.loading import read
from apps.checkpoints.services.retention import expire_due
from apps.checkpoints.store import crashpoints
from apps.core.actors import SYSTEM
from apps.core.errors import Conflict, LeaseLost
from apps.morphogenesis.library import EventList
from apps.morphogenesis.protocols import RunInterrupted
from apps.morphogenesis.session import Session
from apps.morphogenesis.settings import RunSettings
from apps.training import run_checkpoints, runner, services
from apps.training.lifecycle import RecoveryState, RunState
from apps.training.models import RecoveryCause, RecoveryEvent, RunLease, TrainingRun
from apps.training.run_checkpoints import RunCheckpoints
from apps.training.services.restoring import check_restore
from tests.support.factories import CheckpointFactory, CheckpointPolicyFactory
from tests.support.training import STEPS, checkpoints_of, kill, quick_run, take_up, train, train_to_the_end

pytestmark = pytest.mark.usefixtures("committed_db", "short_segments")


@pytest.fixture
def short_segments(settings: Any) -> None:
    settings.SEGMENT_EPOCHS = 2


@pytest.fixture
def hook() -> Iterator[None]:
    """Puts the hook of the crash points back."""
    yield
    crashpoints.hook = None


UNDISTURBED: list[str] = []


@pytest.fixture
def undisturbed(short_segments: None) -> str:
    """The digest of the weights of a run that nothing happened to: trained once, a run is the same every time."""
    if not UNDISTURBED:
        UNDISTURBED.append(weights(train_to_the_end(quick_run())))
    return UNDISTURBED[0]


def weights(run: TrainingRun) -> str:
    return str(run.result["weights_digest"])


def recovery_of(run: TrainingRun) -> RecoveryEvent:
    return RecoveryEvent.objects.get(run=run)


def store_of(run: TrainingRun, token: int) -> RunCheckpoints:
    return RunCheckpoints(run, token, "worker", runner.environment())


# A lost worker


def test_a_run_that_lost_its_worker_comes_back_with_the_same_weights(undisturbed: str) -> None:
    run = quick_run()
    kill(run, step=30, holder="lost")
    take_up(run)

    opened = recovery_of(run)
    assert (opened.state, opened.cause, opened.lost_holder) == (RecoveryState.OPEN, RecoveryCause.LEASE, "lost")
    assert weights(train_to_the_end(run)) == undisturbed

    recovery = recovery_of(run)
    assert (recovery.state, recovery.holder) == (RecoveryState.RESUMED, "worker")
    assert recovery.checkpoint is not None
    assert recovery.checkpoint.step == STEPS
    stages = (recovery.detect_seconds, recovery.load_seconds, recovery.restore_seconds, recovery.validate_seconds)
    assert all(seconds is not None for seconds in (*stages, recovery.resume_seconds))
    assert recovery.report["fingerprint"] == recovery.report["environment"] == "same"
    told = AuditEvent.objects.filter(subject_id=str(recovery.pk)).order_by("id").values_list("type", flat=True)
    assert list(told) == ["recovery.begun", "recovery.resumed"]


def test_segments_that_were_not_lost_are_no_recoveries() -> None:
    train_to_the_end(quick_run())
    assert not RecoveryEvent.objects.exists()


def test_a_run_lost_before_its_first_checkpoint_begins_anew(undisturbed: str) -> None:
    run = quick_run()
    kill(run, step=3)
    take_up(run)
    assert weights(train_to_the_end(run)) == undisturbed
    assert (recovery_of(run).state, recovery_of(run).checkpoint) == (RecoveryState.RESUMED, None)


def test_a_run_lost_again_on_its_way_back_has_one_failed_recovery_and_one_that_succeeded() -> None:
    run = quick_run()
    for step in (30, 1):
        kill(run, step)
        take_up(run)
    train(run)
    states = RecoveryEvent.objects.filter(run=run).order_by("id").values_list("state", "problem")
    assert list(states) == [("FAILED", "the worker was lost again before the run went on"), ("RESUMED", "")]


def test_a_run_lost_too_often_has_failed_and_so_has_its_recovery() -> None:
    run = quick_run()
    for _loss in range(6):
        kill(run, step=1)
        take_up(run)
    run.refresh_from_db()
    assert run.state == RunState.FAILED
    assert not RecoveryEvent.objects.filter(run=run).exclude(state=RecoveryState.FAILED).exists()


def test_a_fault_that_the_worker_told_of_and_the_scan_that_follows_are_one_recovery(
    settings: Any, undisturbed: str
) -> None:
    run = train(quick_run())
    kept, settings.CHECKPOINTS_ROOT = settings.CHECKPOINTS_ROOT, "/dev/null/nowhere"
    train(run)
    settings.CHECKPOINTS_ROOT = kept
    take_up(run)
    assert weights(train_to_the_end(run)) == undisturbed
    recovery = recovery_of(run)
    assert (recovery.cause, recovery.state) == (RecoveryCause.FAULT, RecoveryState.RESUMED)


# Checkpoints that are not what they were


def lose(run: TrainingRun) -> None:
    """The worker that holds the run between two segments is lost."""
    services.claim_run(run_id=run.pk, holder="lost")
    take_up(run)


def test_a_broken_checkpoint_is_set_aside_and_told_of(undisturbed: str) -> None:
    run = train(quick_run())
    newest = checkpoints_of(run)[-1]
    (folder().root / "manifests" / f"{newest.pk}.json").unlink()
    lose(run)

    assert weights(train_to_the_end(run)) == undisturbed
    assert [entry["checkpoint"] for entry in recovery_of(run).skipped] == [str(newest.pk)]
    newest.refresh_from_db()
    assert newest.state == CheckpointState.QUARANTINED


def test_a_network_that_does_not_compute_what_it_did_is_not_gone_on_with(
    monkeypatch: pytest.MonkeyPatch, undisturbed: str
) -> None:
    run = quick_run()
    kill(run, step=30)
    with monkeypatch.context() as patch:
        take_up(run)
        patch.setattr(Session, "fingerprint", lambda session: "f" * 64)
        patch.setattr(RunCheckpoints, "restored", lambda store, restored: True)
        train(run)
    lose(run)

    assert weights(train_to_the_end(run)) == undisturbed
    recovery = recovery_of_newest(run)
    assert recovery.checkpoint is not None
    assert recovery.checkpoint.step == STEPS
    assert {entry["problem"] for entry in recovery.skipped} == {
        "the restored network does not compute what it did when it was saved"
    }


def recovery_of_newest(run: TrainingRun) -> RecoveryEvent:
    return RecoveryEvent.objects.filter(run=run).order_by("-id")[0]


def test_on_another_machine_the_difference_is_told_and_the_run_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    run = train(quick_run())
    lose(run)
    here = runner.environment()
    monkeypatch.setattr(runner, "environment", lambda: here | {"threads": 99})
    monkeypatch.setattr(Session, "fingerprint", lambda session: "f" * 64)

    train(run)

    report = recovery_of(run).report
    assert (report["fingerprint"], report["environment"]) == ("different", "different")
    assert not checkpoints_of(run, CheckpointState.QUARANTINED)


def test_a_run_with_checkpoints_of_the_first_format_begins_anew_and_says_so(undisturbed: str) -> None:
    run = quick_run()
    old = CheckpointFactory(run_id=run.pk, workspace=run.workspace, epoch=3, step=75)
    assert weights(train_to_the_end(run)) == undisturbed
    event = AuditEvent.objects.get(subject_id=str(old.pk), type="checkpoint.transition")
    assert "which this one does not read: the run begins anew" in event.reason


# Setting a run back


@pytest.fixture
def resting() -> TrainingRun:
    """Stopped in the third epoch, with checkpoints after the first and the second."""
    run = train(quick_run())
    services.stop_run(run=run, actor=SYSTEM)
    return train(run)


def test_a_run_set_back_to_a_checkpoint_trains_on_from_it(resting: TrainingRun, undisturbed: str) -> None:
    first = checkpoints_of(resting)[0]
    services.restore_run(run=resting, checkpoint=first, actor=SYSTEM, reason="try again")
    resting.refresh_from_db()
    assert (resting.state, resting.resume_from) == (RunState.RECOVERING, first.pk)

    run = train_to_the_end(resting)

    assert weights(run) == undisturbed
    assert run.resume_from is None
    recovery = recovery_of(run)
    assert (recovery.cause, recovery.state, recovery.checkpoint) == ("restore", "RESUMED", first)
    assert list(run.metrics.values_list("epoch", flat=True)) == [1, 2, 3, 4]
    assert AuditEvent.objects.filter(type="run.restored", subject_id=str(run.pk)).count() == 1


@pytest.mark.parametrize(
    ("state", "remedy"),
    [
        (RunState.RUNNING, "pause it first"),
        (RunState.RECOVERING, "wait until it runs again"),
        (RunState.COMPLETED, "replay one of its checkpoints"),
    ],
)
def test_a_run_that_cannot_be_set_back_says_what_to_do(resting: TrainingRun, state: RunState, remedy: str) -> None:
    checkpoint = checkpoints_of(resting)[0]
    resting.state = state  # the row stays: the rule is asked alone
    with pytest.raises(Conflict, match=remedy):
        check_restore(resting, checkpoint)


def test_a_run_is_not_set_back_to_what_is_no_checkpoint_of_its_own(resting: TrainingRun) -> None:
    foreign = CheckpointFactory(run_id=quick_run().pk, workspace=resting.workspace)
    with pytest.raises(Conflict, match="is of the run"):
        services.restore_run(run=resting, checkpoint=foreign, actor=SYSTEM)


def test_retention_leaves_what_a_run_was_set_back_to_until_it_has_a_newer_one(resting: TrainingRun) -> None:
    CheckpointPolicyFactory(workspace=resting.workspace, keep_last=1, keep_days=0, keep_best=0)
    first = checkpoints_of(resting)[0]
    services.restore_run(run=resting, checkpoint=first, actor=SYSTEM)

    expire_due(actor=SYSTEM)

    assert first in checkpoints_of(resting)
    run = train_to_the_end(resting)
    expire_due(actor=SYSTEM)
    assert first not in checkpoints_of(run)


def test_a_run_is_not_set_back_to_what_was_let_go_since_somebody_looked(resting: TrainingRun) -> None:
    CheckpointPolicyFactory(workspace=resting.workspace, keep_last=1, keep_days=0, keep_best=0)
    first = checkpoints_of(resting)[0]
    expire_due(actor=SYSTEM)

    with pytest.raises(Conflict, match="EXPIRED"):
        services.restore_run(run=resting, checkpoint=first, actor=SYSTEM)


def test_another_version_of_the_engine_is_another_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    here = runner.environment()
    (tmp_path / "trainer.py").write_text("# another version")
    monkeypatch.setattr(morphogenesis, "__path__", [str(tmp_path)])
    runner.engine.cache_clear()
    try:
        assert runner.environment() != here
    finally:
        runner.engine.cache_clear()


def test_restoring_as_a_job_reads_every_byte_first(resting: TrainingRun) -> None:
    checkpoint = checkpoints_of(resting)[0]
    job = jobs.request_job(kind=JobKind.RESTORE, checkpoint=checkpoint, actor=SYSTEM)
    job = jobs.run_job(job_id=job.pk)
    assert (job.state, job.result["bytes"] > 0) == (JobState.SUCCEEDED, True)
    checkpoint.refresh_from_db()
    resting.refresh_from_db()
    assert checkpoint.verified_at is not None
    assert resting.resume_from == checkpoint.pk


# Saves that people ask for, that take time, and that fail


def held(run: TrainingRun) -> int:
    claim = services.claim_run(run_id=run.pk, holder="worker")
    assert claim is not None
    return claim[1]


def snapshot_of(run: TrainingRun) -> Any:
    """Some state of the run, as the engine gives it."""
    events = EventList()
    return Session(
        RunSettings.from_mapping(run.settings),
        kernels=runner.FrozenLibrary([]),
        decisions=events,
        telemetry=events,
        device=torch.device("cpu"),
    ).snapshot()


def test_a_save_that_is_asked_for_is_made_and_told() -> None:
    run = quick_run()
    token = held(run)
    job = jobs.request_job(kind=JobKind.CREATE, run_id=run.pk, actor=SYSTEM)
    with store_of(run, token) as store:
        assert store.due() == ""
        store.wanted = True  # what the control thread has read
        assert store.due() == "demand"
        assert store.save(snapshot_of(run), "demand")
        store.flush()
    job.refresh_from_db()
    checkpoint = checkpoints_of(run)[0]
    assert (job.state, job.checkpoint, checkpoint.reason) == (JobState.SUCCEEDED, checkpoint, SaveReason.DEMAND)


def test_only_a_run_that_trains_can_be_saved() -> None:
    with pytest.raises(Conflict, match="only a running run can be saved"):
        jobs.request_job(kind=JobKind.CREATE, run_id=quick_run().pk, actor=SYSTEM)


def test_a_checkpoint_holds_the_library_beside_the_three_parts_of_the_engine() -> None:
    run = train(quick_run())
    manifest = read(checkpoints_of(run)[0])
    assert set(manifest.components) == {"tolaria", "tamiyo", "kasmina", "urza"}
    assert manifest.components["urza"].tree["assets"] == {}


@pytest.mark.parametrize(("failures", "code"), [(1, errno.ENOSPC), (2, errno.EROFS), (3, errno.EIO)])
def test_a_storage_that_takes_nothing_stops_no_training(
    hook: None, monkeypatch: pytest.MonkeyPatch, failures: int, code: int
) -> None:
    """Full, read-only, broken. In a run of one epoch three saves fall due: its end, twice more while that fails."""
    monkeypatch.setattr(run_checkpoints, "RETRY_SECONDS", 0.0)
    run, left = quick_run(epochs=1), failures

    def full(point: str) -> None:
        nonlocal left
        if point == "manifest.written" and left:
            left -= 1
            raise OSError(code, os.strerror(code))

    crashpoints.hook = full
    train(run)
    assert AuditEvent.objects.filter(type="alert.checkpoint_failed", subject_id=str(run.pk)).count() == failures
    assert run.state == (RunState.COMPLETED if failures < 3 else RunState.RUNNING)
    assert len(checkpoints_of(run)) == (1 if failures < 3 else 0)


def test_after_a_failed_save_training_goes_on_in_memory(
    hook: None, monkeypatch: pytest.MonkeyPatch, undisturbed: str
) -> None:
    monkeypatch.setattr(run_checkpoints, "RETRY_SECONDS", 1.0)
    run, left = quick_run(), 1

    def full(point: str) -> None:
        nonlocal left
        if point == "manifest.written" and left:
            left -= 1
            raise OSError(errno.ENOSPC, "No space left on device")

    crashpoints.hook = full
    assert weights(train_to_the_end(run)) == undisturbed
    assert checkpoints_of(run)[-1].reason == SaveReason.END


def test_who_waits_for_a_save_that_fails_is_told_why(hook: None) -> None:
    def full(point: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    run = quick_run()
    token = held(run)
    job = jobs.request_job(kind=JobKind.CREATE, run_id=run.pk, actor=SYSTEM)
    with store_of(run, token) as store:
        store.wanted = True
        crashpoints.hook = full
        store.save(snapshot_of(run), "demand")
        assert not store.settle()
    job.refresh_from_db()
    assert job.state == JobState.FAILED
    assert "No space left on device" in job.problem


def test_a_run_saves_as_its_policy_says_and_the_policy_may_change() -> None:
    run, now = quick_run(), 0.0
    policy = CheckpointPolicyFactory(run_id=run.pk, workspace=run.workspace, interval_seconds=100)
    with RunCheckpoints(run, held(run), "worker", runner.environment(), clock=lambda: now) as store:
        assert store.due() == ""
        now = 101.0
        assert store.due() == "interval"
        CheckpointPolicy.objects.filter(pk=policy.pk).update(schedule=Schedule.OFF)
        store.tend()
        assert store.due() == ""


# Two workers


def test_a_worker_that_was_taken_for_dead_commits_nothing() -> None:
    run = quick_run()
    token = held(run)
    with store_of(run, token) as zombie:
        take_up(run)
        held(run)
        zombie.save(snapshot_of(run), "epoch")
        with pytest.raises(RunInterrupted):
            zombie.flush()
    assert not checkpoints_of(run)
    assert len(checkpoints_of(run, CheckpointState.ABANDONED)) == 1


def test_of_two_savers_of_a_run_only_the_holder_of_the_lease_stores() -> None:
    run = quick_run()
    old = held(run)
    with store_of(run, old) as zombie:
        take_up(run)
        with store_of(run, held(run)) as holder:
            for store in (zombie, holder):
                store.save(snapshot_of(run), "epoch")
            holder.flush()
            with pytest.raises(RunInterrupted):
                zombie.flush()
            with pytest.raises(RunInterrupted):
                zombie.save(snapshot_of(run), "epoch")
    assert [checkpoint.fencing_token for checkpoint in checkpoints_of(run)] == [
        RunLease.objects.get(run=run).fencing_token
    ]


def test_the_lease_is_checked_in_the_transaction_that_commits() -> None:
    run = quick_run()
    token = held(run)
    take_up(run)
    with transaction.atomic(), pytest.raises(LeaseLost):
        services.mark_progress(run_id=run.pk, fencing_token=token)
