"""Setting a run back to a checkpoint, and what people can ask of a run's checkpoints that takes the run itself."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import F, Max
from django.utils import timezone

from apps.audit import services as audit
from apps.checkpoints.lifecycle import CheckpointState
from apps.checkpoints.models import Checkpoint, CheckpointJob, JobKind
from apps.checkpoints.services import jobs
from apps.core.actors import WORKER, Actor
from apps.core.errors import Conflict, Invalid, NotFound
from apps.core.queue import enqueue_after_commit
from apps.kernels import selectors as kernel_selectors
from apps.kernels.services import hold_kernels
from apps.morphogenesis.protocols import Command
from apps.training.lifecycle import RunState
from apps.training.models import EpochMetric, RecoveryCause, RunKind, RunLease, TrainingRun
from apps.training.services.leases import HANDOVER_SECONDS
from apps.training.services.recovery import open_recovery
from apps.training.services.runs import TRAIN_TASK, move_run

RESTORABLE = frozenset({RunState.QUEUED, RunState.PAUSED, RunState.FAILED, RunState.CANCELLED})
REMEDIES = {
    RunState.RUNNING: "pause it first",
    RunState.RECOVERING: "wait until it runs again, and pause it",
    RunState.COMPLETED: "replay one of its checkpoints to a step, or export one",
}


@transaction.atomic
def restore_run(*, run: TrainingRun, checkpoint: Checkpoint, actor: Actor, reason: str = "") -> TrainingRun:
    """Let a run go on from one of its checkpoints. What it trained since is trained again, and told once.

    Raises:
        Conflict: the run or the checkpoint is in no state for it; the message names the remedy.
    """
    lease = RunLease.objects.select_for_update(of=("self",)).get(run=run)
    run = TrainingRun.objects.select_for_update(of=("self",)).get(pk=run.pk)
    check_restore(run, checkpoint)
    RunLease.objects.filter(pk=lease.pk).update(
        fencing_token=F("fencing_token") + 1,
        holder="",
        recoveries=0,
        expires_at=timezone.now() + timedelta(seconds=HANDOVER_SECONDS),
    )
    digests = [offer["digest"] for offer in run.library or []]
    hold_kernels(kernels=kernel_selectors.validated().filter(digest__in=digests), run_id=run.pk)
    run = move_run(
        run=run,
        to=RunState.RECOVERING,
        actor=actor,
        reason=reason or f"set back to the checkpoint after step {checkpoint.step}",
        resume_from=checkpoint.pk,
        command=Command.CONTINUE,
        ended_at=None,
        failure="",
    )
    told = {"checkpoint": checkpoint.pk, "epoch": checkpoint.epoch, "step": checkpoint.step}
    audit.record(type="run.restored", subject=run, actor=actor, reason=reason, payload=told)
    open_recovery(run=run, cause=RecoveryCause.RESTORE, actor=actor, reason=reason, checkpoint=checkpoint)
    enqueue_after_commit(TRAIN_TASK, str(run.pk))
    return run


def check_restore(run: TrainingRun, checkpoint: Checkpoint) -> None:
    """Raises Conflict: the run cannot be set back to the checkpoint now."""
    _check_ours(run, checkpoint)
    if run.state not in RESTORABLE:
        raise Conflict(f"the run is {run.state}: {REMEDIES[RunState(run.state)]}", code="not_restorable")


def _check_ours(run: TrainingRun, checkpoint: Checkpoint) -> None:
    if run.kind == RunKind.EXTERNAL:
        raise Conflict("a client trains this run: let it download the checkpoint", code="external")
    if checkpoint.run_id != run.pk:
        raise Conflict(f"the checkpoint is of the run {checkpoint.run_id}", code="other_run")
    if checkpoint.state != CheckpointState.COMMITTED:
        remedy = "verify it first" if checkpoint.state == CheckpointState.QUARANTINED else "choose another"
        raise Conflict(f"the checkpoint is {checkpoint.state}: {remedy}", code="not_committed")


def steps_trained(run: TrainingRun) -> int:
    """How far the run has got, by what it measured and saved."""
    measured = EpochMetric.objects.filter(run=run).aggregate(step=Max("step"))["step"]
    saved = Checkpoint.objects.filter(run_id=run.pk).exclude(state=CheckpointState.ABANDONED)
    return max(measured or 0, saved.aggregate(step=Max("step"))["step"] or 0)


def base_of(run: TrainingRun, step: int) -> Checkpoint | None:
    """The newest good checkpoint that is not beyond ``step``."""
    good = Checkpoint.objects.filter(run_id=run.pk, state=CheckpointState.COMMITTED, step__lte=step)
    return good.order_by("-step", "-id").first()


# What jobs ask before they are taken on, and what they do


def check_create(*, run_id: UUID, checkpoint: Checkpoint | None, parameters: Mapping[str, Any]) -> None:
    """Only a run that trains has anything to save."""
    run = _run(run_id)
    if run.kind == RunKind.EXTERNAL:
        raise Conflict("a client trains this run: let it upload a checkpoint", code="external")
    if run.state not in {RunState.RUNNING, RunState.RECOVERING}:
        raise Conflict(
            f"the run is {run.state}: only a running run can be saved, and one that rests was saved when it stopped",
            code="not_running",
        )


def check_restore_job(*, run_id: UUID, checkpoint: Checkpoint | None, parameters: Mapping[str, Any]) -> None:
    """A restore needs a run at rest; trying one out (``validate_only``) needs only the checkpoint."""
    if checkpoint is None:
        raise NotFound("there is no such checkpoint")
    if parameters.get("validate_only"):
        _check_ours(_run(run_id), checkpoint)
    elif parameters.get("components"):
        raise Invalid("components can be chosen only with validate_only", pointer="/components", code="unsupported")
    else:
        check_restore(_run(run_id), checkpoint)


def check_replay(*, run_id: UUID, checkpoint: Checkpoint | None, parameters: Mapping[str, Any]) -> None:
    """Steps that the run has trained, and that a checkpoint lies before."""
    run, step = _run(run_id), parameters.get("step")
    if checkpoint is not None:
        _check_ours(run, checkpoint)
    if not isinstance(step, int) or isinstance(step, bool) or step < 0:
        raise Invalid("must be a number of training steps", pointer="/step", code="type")
    reached = steps_trained(run)
    if step > reached:
        raise Invalid(f"the run has trained {reached} steps so far", pointer="/step", code="range")
    if base_of(run, step) is None:
        raise Conflict(f"no good checkpoint is left at or before step {step}", code="no_base")


def execute_restore(job: CheckpointJob, progress: jobs.Progress) -> Mapping[str, Any]:
    """Read and check every byte, and only then set the run back (or with ``validate_only`` try it out)."""
    from apps.checkpoints.services import loading  # the codecs, in a worker only

    checkpoint = job.checkpoint
    assert checkpoint is not None
    report = loading.verify(checkpoint=checkpoint, actor=WORKER, progress=progress)
    told: dict[str, Any] = {"objects": report.objects, "bytes": report.bytes}
    if job.parameters.get("validate_only"):
        from apps.training.replay import rehearse  # torch, likewise

        return told | rehearse(run=_run(job.run_id), checkpoint=checkpoint, components=job.parameters.get("components"))
    restore_run(run=_run(job.run_id), checkpoint=checkpoint, actor=WORKER, reason="asked for as a job")
    return told


def execute_replay(job: CheckpointJob, progress: jobs.Progress) -> Mapping[str, Any]:
    """Train again from the checkpoint before the step until the step, and save there."""
    from apps.training.replay import replay  # torch, in a worker only

    return replay(run=_run(job.run_id), step=job.parameters["step"], progress=progress)


def register_jobs() -> None:
    """For ``AppConfig.ready()``. A running run saves itself: nobody executes CREATE."""
    jobs.register(JobKind.CREATE, check=check_create, execute=None)
    jobs.register(JobKind.RESTORE, check=check_restore_job, execute=execute_restore, queue="train")
    jobs.register(JobKind.REPLAY, check=check_replay, execute=execute_replay, queue="train")


def _run(run_id: UUID) -> TrainingRun:
    run = TrainingRun.objects.filter(pk=run_id).first()
    if run is None:
        raise NotFound("there is no such run")
    return run
