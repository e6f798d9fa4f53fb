"""How lost runs come back, as rows: one RecoveryEvent for each loss, OPEN until the run trains again or has ended.

A loss is told by when its worker was last heard of: the fault that a worker reports, and the orphan scan that takes the
run up afterwards, speak of the same one.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from apps.audit import services as audit
from apps.audit.transitions import move
from apps.audit.watched import image
from apps.checkpoints.lifecycle import CheckpointState
from apps.checkpoints.models import Checkpoint
from apps.core.actors import SYSTEM, WORKER, Actor
from apps.training.lifecycle import RECOVERY_LIFECYCLE, RecoveryState, RunState
from apps.training.models import RecoveryCause, RecoveryEvent, TrainingRun
from apps.training.selectors import recovery_under_way

LOST_AGAIN = "the worker was lost again before the run went on"
STAGES = ("detect_seconds", "load_seconds", "restore_seconds", "validate_seconds", "resume_seconds")


@transaction.atomic
def open_recovery(
    *,
    run: TrainingRun,
    cause: RecoveryCause,
    actor: Actor = SYSTEM,
    reason: str = "",
    silent_since: datetime | None = None,
    lost_holder: str = "",
    checkpoint: Checkpoint | None = None,
) -> RecoveryEvent:
    """The run was lost, or set back: from now on each stage of its return is timed. Told again of the same loss, the
    first answer is given; a return that was under way when the next loss came has failed."""
    current = RecoveryEvent.objects.select_for_update(of=("self",)).filter(run=run, state=RecoveryState.OPEN).first()
    if current is not None:
        if silent_since is not None and current.silent_since == silent_since:
            return current
        _fail(current, LOST_AGAIN if checkpoint is None else "the run was set back to a checkpoint", actor)
    event = RecoveryEvent(
        run=run,
        workspace_id=run.workspace_id,
        cause=cause,
        lost_holder=lost_holder,
        checkpoint=checkpoint,
        silent_since=silent_since,
        detect_seconds=_since(silent_since) if silent_since else None,
    )
    event.full_clean()
    event.save(force_insert=True)
    audit.record(type="recovery.begun", subject=event, actor=actor, reason=reason, after=image(event))
    return event


def note_recovery(*, recovery: RecoveryEvent, report: Mapping[str, Any] | None = None, **seconds: float) -> None:
    """A stage is over (``load_seconds`` and so on), or something was compared: figures, which are not audited."""
    unknown = set(seconds) - set(STAGES)
    if unknown:
        raise TypeError(f"no stages: {', '.join(sorted(unknown))}")
    changes: dict[str, Any] = {**seconds, **({} if report is None else {"report": dict(report)})}
    RecoveryEvent.objects.filter(pk=recovery.pk, state=RecoveryState.OPEN).update(**changes)


@transaction.atomic
def resume_recovery(
    *,
    run_id: UUID,
    holder: str,
    fencing_token: int,
    checkpoint_id: UUID | None = None,
    skipped: list[dict[str, Any]] | None = None,
    resume_seconds: float | None = None,
    actor: Actor = WORKER,
) -> RecoveryEvent | None:
    """The run trains again, from ``checkpoint_id`` (None: from its start). None: no recovery was under way."""
    recovery = recovery_under_way(run_id)
    if recovery is None:
        return None
    return move(
        recovery,
        lifecycle=RECOVERY_LIFECYCLE,
        to=RecoveryState.RESUMED,
        event="recovery.resumed",
        actor=actor,
        reason="the run trains again",
        changes={
            "holder": holder,
            "fencing_token": fencing_token,
            "checkpoint_id": checkpoint_id,
            "skipped": _passed_over(recovery, skipped or []),
            "resume_seconds": resume_seconds,
            "ended_at": timezone.now(),
        },
    )


def _passed_over(recovery: RecoveryEvent, skipped: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """With those that an earlier attempt of this recovery set aside before it was lost itself."""
    known = {entry["checkpoint"] for entry in skipped}
    broken = Checkpoint.objects.filter(
        run_id=recovery.run_id, state=CheckpointState.QUARANTINED, updated_at__gte=recovery.created_at
    )
    earlier = [
        {"checkpoint": str(checkpoint.pk), "step": checkpoint.step, "problem": checkpoint.problem}
        for checkpoint in broken.order_by("-step", "-id")
        if str(checkpoint.pk) not in known
    ]
    return [*earlier, *skipped]


@transaction.atomic
def end_recovery(*, run: TrainingRun, to: RunState, actor: Actor, reason: str) -> None:
    """The run has come to rest: a return that was under way has succeeded, or there will be none."""
    recovery = recovery_under_way(run.pk)
    if recovery is None:
        return
    if to in {RunState.COMPLETED, RunState.PAUSED}:
        lease = run.lease
        resume_recovery(
            run_id=run.pk,
            holder=lease.holder,
            fencing_token=lease.fencing_token,
            actor=actor,
            checkpoint_id=recovery.checkpoint_id,
        )
    else:
        _fail(recovery, reason, actor)


def _fail(recovery: RecoveryEvent, problem: str, actor: Actor) -> None:
    move(
        recovery,
        lifecycle=RECOVERY_LIFECYCLE,
        to=RecoveryState.FAILED,
        event="recovery.failed",
        actor=actor,
        reason=problem,
        changes={"problem": problem, "ended_at": timezone.now()},
    )


def _since(moment: datetime) -> float:
    """Seconds; the database's clock, which leases go by, may be ahead of ours."""
    return max(0.0, (timezone.now() - moment).total_seconds())
