"""Who owns a run. A lease has a holder, an expiry and a fencing token that grows with every new holder.

When a lease ends is told by the database's clock alone: those of its workers may differ, and be set.

Every write of a worker presents its token; a worker that was taken for dead and wakes up has an old one, and is refused
(Kleppmann, "How to do distributed locking", 2016; Gray and Cheriton, "Leases", SOSP 1989).
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import F, Q
from django.db.models.functions import Now
from django.utils import timezone

from apps.audit import services as audit
from apps.audit.watched import image
from apps.core.actors import SYSTEM, WORKER, Actor
from apps.core.errors import LeaseLost, Unavailable
from apps.core.queue import enqueue_after_commit
from apps.kernels import selectors as kernel_selectors
from apps.kernels.models import Kernel
from apps.kernels.services import hold_kernels
from apps.morphogenesis.protocols import Command
from apps.morphogenesis.settings import RunSettings
from apps.training.lifecycle import RunState
from apps.training.models import LibrarySource, RecoveryCause, RunKind, RunLease, TrainingRun
from apps.training.services.recovery import open_recovery, resume_recovery
from apps.training.services.runs import TRAIN_TASK, create_control, ensure_library, move_run

MAX_RECOVERIES = 5
HANDOVER_SECONDS = 60.0
"""How long a run may wait for its next segment before the orphan scan takes it up."""
EXTERNAL_GIVE_UP = timedelta(hours=1)


def _is_claimable(run: TrainingRun, lease: RunLease) -> bool:
    """Whether the run waits for somebody: a redelivered message finds that it does not."""
    if run.state == RunState.PAUSED:
        return run.command == Command.CONTINUE
    if run.state == RunState.RUNNING:
        return lease.holder == ""
    return run.state in {RunState.QUEUED, RunState.RECOVERING}


@transaction.atomic
def claim_run(*, run_id: UUID, holder: str, actor: Actor = WORKER) -> tuple[TrainingRun, int] | None:
    """Take the run and get its next fencing token; None when somebody has it or it needs nobody (a redelivery)."""
    lease = RunLease.objects.select_for_update(of=("self",)).filter(run_id=run_id).first()
    if lease is None:
        return None
    run = TrainingRun.objects.select_for_update(of=("self",)).get(pk=run_id)
    if not _is_claimable(run, lease):
        return None
    lease.fencing_token += 1
    lease.holder = holder
    _extend(lease)
    lease.save()
    if run.state != RunState.RUNNING:
        reasons = {RunState.QUEUED: "started", RunState.PAUSED: "resumed", RunState.RECOVERING: "recovered"}
        run = move_run(
            run=run,
            to=RunState.RUNNING,
            actor=actor,
            reason=reasons[RunState(run.state)],
            payload={"holder": holder, "fencing_token": lease.fencing_token},
        )
    if run.kind == RunKind.EXTERNAL:  # what the client does to come back is its own affair
        resume_recovery(run_id=run_id, holder=holder, fencing_token=lease.fencing_token, actor=actor)
    return run, lease.fencing_token


def _extend(lease: RunLease) -> None:
    lease.heartbeat_at = Now()
    lease.expires_at = Now() + timedelta(seconds=settings.LEASE_SECONDS)


def extend_lease(*, run_id: UUID, fencing_token: int) -> str:
    """A sign of life; returns the command that the run has been given.

    Raises:
        LeaseLost: another holder has a newer token.
    """
    extended = RunLease.objects.filter(run_id=run_id, fencing_token=fencing_token).update(
        heartbeat_at=Now(), expires_at=Now() + timedelta(seconds=settings.LEASE_SECONDS)
    )
    if not extended:
        raise LeaseLost("another worker owns this run now")
    return str(TrainingRun.objects.values_list("command", flat=True).get(pk=run_id))


def verify_lease(*, run_id: UUID, fencing_token: int) -> RunLease:
    """Lock the lease for the rest of the caller's transaction.

    Raises:
        LeaseLost: the token is not the current one, or the run is not running.
    """
    lease = RunLease.objects.select_for_update(of=("self",)).select_related("run").filter(run_id=run_id).first()
    if lease is None or lease.fencing_token != fencing_token or lease.run.state != RunState.RUNNING:
        raise LeaseLost("this worker does not own the run any more: its fencing token is out of date")
    return lease


@transaction.atomic
def freeze_library(*, run: TrainingRun, fencing_token: int) -> list[dict[str, Any]] | None:
    """The run's library snapshot, frozen at its first start; None while kernels that it asked for are being compiled.

    Timings never decide what grows: a run waits until each of them is VALIDATED or REJECTED.

    Raises:
        Unavailable: they have been waited for longer than ESPER_COMPILE_PATIENCE_SECONDS: the run should fail.
    """
    verify_lease(run_id=run.pk, fencing_token=fencing_token)
    if run.library is not None:
        return list(run.library)
    checked = RunSettings.from_mapping(run.settings)
    wanted = ensure_library(settings=checked, actor=WORKER) if checked.growth.enabled else []
    if waiting := kernel_selectors.pending().filter(pk__in=[kernel.pk for kernel in wanted]).count():
        _check_patience(run, waiting)
        return None
    validated = kernel_selectors.validated()
    learned = run.library_source == LibrarySource.LEARNED
    candidates = list(validated if learned else validated.filter(pk__in=[kernel.pk for kernel in wanted]))
    hold_kernels(kernels=candidates, run_id=run.pk)
    # Read again: whoever retired or archived one meanwhile has committed by now, and nobody can from here on.
    usable = list(validated.filter(pk__in=[kernel.pk for kernel in candidates]))
    priors = kernel_selectors.priors(usable) if learned else {}
    before = image(run)
    run.library = [_offer(kernel, priors.get(kernel.pk, 0.0)) for kernel in usable]
    TrainingRun.objects.filter(pk=run.pk).update(library=run.library)
    audit.record(
        type="run.library_frozen",
        subject=run,
        actor=WORKER,
        reason=f"{len(usable)} validated kernels",
        before=before,
        after=image(run),
    )
    return list(run.library)


def _check_patience(run: TrainingRun, waiting: int) -> None:
    """Waiting has an end: without a worker for the queue ``compile`` it would have none."""
    patience = settings.COMPILE_PATIENCE_SECONDS
    if run.started_at is not None and timezone.now() - run.started_at > timedelta(seconds=patience):
        raise Unavailable(
            f"{waiting} of the kernels that this run can grow were not compiled within {patience:g} seconds: "
            "is a worker running for the queue `compile`?",
            code="kernels_not_compiled",
        )


def _offer(kernel: Kernel, prior: float) -> dict[str, Any]:
    return {
        "digest": kernel.digest,
        "name": kernel.name,
        "operator": kernel.operator,
        "input_shape": kernel.compat["input"],
        "output_shape": kernel.compat["output"],
        "parameters": kernel.parameters,
        "prior": prior,
    }


@transaction.atomic
def hand_over(*, run_id: UUID, fencing_token: int, countdown: float = 0.0) -> None:
    """Give the run back between two segments and queue the next one."""
    lease = verify_lease(run_id=run_id, fencing_token=fencing_token)
    lease.holder = ""
    lease.expires_at = Now() + timedelta(seconds=HANDOVER_SECONDS)
    lease.save()
    enqueue_after_commit(TRAIN_TASK, str(run_id), countdown=countdown)


@transaction.atomic
def finish_run(
    *,
    run_id: UUID,
    fencing_token: int,
    state: RunState,
    reason: str,
    result: Mapping[str, Any] | None = None,
    failure: str = "",
    actor: Actor = WORKER,
) -> TrainingRun:
    """Let go of a run that paused or ended. A completed run that wants one gets its static control.

    Raises:
        LeaseLost: the worker does not own the run any more; nothing is written.
    """
    lease = verify_lease(run_id=run_id, fencing_token=fencing_token)
    run = TrainingRun.objects.select_for_update(of=("self",)).get(pk=run_id)
    if state == RunState.PAUSED and run.command == Command.STOP:  # asked for while the pause was being obeyed
        state, reason = RunState.CANCELLED, "stopped at a step boundary"
    lease.holder = ""
    lease.expires_at = None
    lease.save()
    changes: dict[str, Any] = {"failure": failure}
    if result is not None:
        changes["result"] = dict(result)
    run = move_run(run=run, to=state, actor=actor, reason=reason, **changes)
    if state == RunState.COMPLETED and run.wants_control:
        create_control(run=run, actor=actor)
    if state == RunState.PAUSED and run.command == Command.CONTINUE and run.kind != RunKind.EXTERNAL:
        enqueue_after_commit(TRAIN_TASK, str(run_id))  # resumed while the pause was being obeyed
    return run


@transaction.atomic
def give_up_lease(*, run_id: UUID, fencing_token: int, why: str) -> None:
    """Let the orphan scan take the run up now: its worker met a fault from outside (a dead database or store).

    Nothing happens to a run that another worker has taken over.
    """
    lease = RunLease.objects.select_for_update().filter(run_id=run_id, fencing_token=fencing_token).first()
    if lease is None:
        return
    RunLease.objects.filter(pk=lease.pk).update(expires_at=Now())
    run = TrainingRun.objects.select_for_update(of=("self",)).get(pk=run_id)
    before = image(run)
    run.failure = why
    run.save(update_fields={"failure"})
    audit.record(type="run.faulted", subject=run, actor=WORKER, reason=why, before=before, after=image(run))
    if run.state == RunState.RUNNING:
        open_recovery(
            run=run,
            cause=RecoveryCause.FAULT,
            actor=WORKER,
            reason=why,
            silent_since=lease.heartbeat_at,
            lost_holder=lease.holder,
        )


def mark_progress(*, run_id: UUID, fencing_token: int) -> None:
    """Verify the lease inside the caller's transaction, and forget earlier losses: there is a new checkpoint."""
    lease = verify_lease(run_id=run_id, fencing_token=fencing_token)
    if lease.recoveries:
        RunLease.objects.filter(pk=lease.pk).update(recoveries=0)
    if lease.run.resume_from is not None:
        _forget_the_restore(run_id)


def _forget_the_restore(run_id: UUID) -> None:
    """The run has been set back and has saved since: its next start goes from the newest checkpoint again."""
    run = TrainingRun.objects.select_for_update(of=("self",)).get(pk=run_id)
    before = image(run)
    run.resume_from = None
    run.save(update_fields={"resume_from"})
    audit.record(
        type="run.recovered",
        subject=run,
        actor=WORKER,
        reason="it has a checkpoint since it was set back",
        before=before,
        after=image(run),
    )


def _is_over() -> Q:
    """Leases that have run out. One that is good for longer than any lease was given before the clock was set back: a
    living worker has renewed it since, or does so under another token."""
    longest = timedelta(seconds=max(settings.LEASE_SECONDS, HANDOVER_SECONDS) + settings.HEARTBEAT_SECONDS)
    return Q(expires_at__lt=Now()) | Q(expires_at__gt=Now() + longest)


def recover_orphans() -> list[UUID]:
    """Take up every running run whose worker shows no sign of life; returns their ids."""
    now = timezone.now()
    orphans = RunLease.objects.filter(_is_over(), run__state=RunState.RUNNING).values_list("run_id", flat=True)
    recovered = [run_id for run_id in orphans if _recover(run_id)]
    waiting = TrainingRun.objects.filter(
        kind=RunKind.EXTERNAL, state=RunState.RECOVERING, lease__heartbeat_at__lt=now - EXTERNAL_GIVE_UP
    )
    for run in waiting:
        move_run(run=run, to=RunState.FAILED, actor=SYSTEM, reason="the client never came back", failure="no heartbeat")
    return recovered


@transaction.atomic
def _recover(run_id: UUID) -> bool:
    lease = (
        RunLease.objects.select_for_update(of=("self",), skip_locked=True)
        .select_related("run")
        .filter(_is_over(), run_id=run_id, run__state=RunState.RUNNING)
        .first()
    )
    if lease is None:
        return False
    if lease.holder == "" and lease.run.kind != RunKind.EXTERNAL:
        return _queue_again(lease)
    silent_since, lost_holder = lease.heartbeat_at, lease.holder
    lease.fencing_token = F("fencing_token") + 1
    lease.holder = ""
    lease.expires_at = None
    lease.recoveries += 1
    lease.save()
    run = move_run(
        run=lease.run,
        to=RunState.RECOVERING,
        actor=SYSTEM,
        reason="the worker shows no sign of life",
        payload={"silent_since": silent_since, "recoveries": lease.recoveries},
    )
    audit.record(type="run.recovered", subject=run, actor=SYSTEM, reason="lease expired")
    open_recovery(
        run=run,
        cause=RecoveryCause.LEASE,
        reason="the worker shows no sign of life",
        silent_since=silent_since,
        lost_holder=lost_holder,
    )
    if lease.recoveries > MAX_RECOVERIES:
        failure = f"the worker was lost {lease.recoveries} times without a new checkpoint in between"
        failure += f"; the last fault: {run.failure}" if run.failure else ""
        move_run(run=run, to=RunState.FAILED, actor=SYSTEM, reason=failure, failure=failure)
    elif run.command == Command.STOP:
        move_run(run=run, to=RunState.CANCELLED, actor=SYSTEM, reason="stopped while its worker was lost")
    elif run.kind != RunKind.EXTERNAL:
        enqueue_after_commit(TRAIN_TASK, str(run_id))
    return True


def _queue_again(lease: RunLease) -> bool:
    """Nobody was lost: the run waits between two segments for a busy worker, or its message is gone."""
    if lease.run.command == Command.STOP:
        move_run(run=lease.run, to=RunState.CANCELLED, actor=SYSTEM, reason="stopped while it waited for a worker")
        return True
    lease.expires_at = Now() + timedelta(seconds=HANDOVER_SECONDS)
    lease.save()
    enqueue_after_commit(TRAIN_TASK, str(lease.run_id))
    return False
