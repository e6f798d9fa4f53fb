"""Setting a run back to one of its checkpoints."""

from datetime import timedelta
from uuid import UUID

from django.db import transaction
from django.db.models import F
from django.db.models.functions import Now

from apps.audit import services as audit
from apps.checkpoints.lifecycle import CheckpointState
from apps.checkpoints.models import Checkpoint
from apps.core.actors import Actor
from apps.core.errors import Conflict
from apps.core.queue import enqueue_after_commit
from apps.kernels import selectors as kernel_selectors
from apps.kernels.services import hold_kernels
from apps.morphogenesis.protocols import Command
from apps.training.lifecycle import RunState
from apps.training.models import RecoveryCause, RunKind, RunLease, TrainingRun
from apps.training.services.leases import HANDOVER_SECONDS
from apps.training.services.recovery import open_recovery
from apps.training.services.runs import TRAIN_TASK, move_run

RESTORABLE = frozenset({RunState.QUEUED, RunState.PAUSED, RunState.FAILED, RunState.CANCELLED})
UNDER_WAY = frozenset({RunState.RECOVERING, RunState.RUNNING, RunState.PAUSED})
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
    # As it is now: from here on it is not broken, and let go of only by who finds that the run needs it.
    checkpoint = Checkpoint.objects.select_for_update(of=("self",)).get(pk=checkpoint.pk)
    check_restore(run, checkpoint)
    RunLease.objects.filter(pk=lease.pk).update(
        fencing_token=F("fencing_token") + 1,
        holder="",
        recoveries=0,
        expires_at=Now() + timedelta(seconds=HANDOVER_SECONDS),
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


def needed_to_go_on(run_id: UUID) -> dict[UUID, str]:
    """The checkpoint that a run was set back to, until it has a newer one (``checkpoints.needs``)."""
    set_back = TrainingRun.objects.filter(pk=run_id, state__in=UNDER_WAY, resume_from__isnull=False)
    return {key: "the run is to go on from it" for key in set_back.values_list("resume_from", flat=True) if key}


def check_restore(run: TrainingRun, checkpoint: Checkpoint) -> None:
    """Raises Conflict: the run cannot be set back to the checkpoint now."""
    check_ours(run, checkpoint)
    if run.state not in RESTORABLE:
        raise Conflict(f"the run is {run.state}: {REMEDIES[RunState(run.state)]}", code="not_restorable")


def check_ours(run: TrainingRun, checkpoint: Checkpoint) -> None:
    """Raises Conflict: the checkpoint is none that our workers could take this run up from."""
    if run.kind == RunKind.EXTERNAL:
        raise Conflict("a client trains this run: let it download the checkpoint", code="external")
    if checkpoint.run_id != run.pk:
        raise Conflict(f"the checkpoint is of the run {checkpoint.run_id}", code="other_run")
    if checkpoint.state != CheckpointState.COMMITTED:
        remedy = "verify it first" if checkpoint.state == CheckpointState.QUARANTINED else "choose another"
        raise Conflict(f"the checkpoint is {checkpoint.state}: {remedy}", code="not_committed")
