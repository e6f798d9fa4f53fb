"""Long work with checkpoints: asked for, done by a worker with progress, cancelled, taken up again after a crash.

What each kind of work is, is registered: by this module what checkpoints can do themselves, by ``apps.training`` what
takes a run.

    register(JobKind.REPLAY, check=check_replay, execute=replay, queue="train")

``check(run_id=, checkpoint=, parameters=)`` raises Conflict, NotFound or Invalid where it cannot be done now, and is
asked again before waiting work is taken up. ``execute(job, progress)`` does it and returns the result;
``progress(done, total)`` is a sign of life that raises ``JobCancelled`` once somebody has given the work up. Work
without ``execute`` is done by whoever looks for it: a run saves itself.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol
from uuid import UUID

import structlog
from django.db import DatabaseError, InterfaceError, connection, transaction
from django.db.models import Q
from django.utils import timezone

from apps.accounts.models import default_workspace_id
from apps.audit import services as audit
from apps.audit.transitions import move
from apps.audit.watched import image
from apps.checkpoints.lifecycle import JOB_LIFECYCLE, OVER, CheckpointState, JobState
from apps.checkpoints.models import Checkpoint, CheckpointJob, JobKind
from apps.checkpoints.services import archiving, loading
from apps.checkpoints.store.errors import CorruptCheckpoint, MissingObjects, TooLarge, UnsupportedState
from apps.core.actors import SYSTEM, WORKER, Actor
from apps.core.errors import Conflict, InvalidTransition, ServiceError
from apps.core.locks import alone
from apps.core.objects import STORAGE_FAULTS
from apps.core.queue import enqueue, enqueue_after_commit

log = structlog.get_logger(__name__)

RUN_TASK = "apps.checkpoints.tasks.run_job"
OPEN = (JobState.PENDING, JobState.RUNNING)
SILENT_AFTER = timedelta(seconds=60)
"""Work whose worker gave no sign of life for so long is taken up again."""
UNQUEUED_AFTER = timedelta(seconds=30)
"""Work that nobody took up for so long is queued again: its message may be gone."""
MAX_LOSSES = 3
"""Work that costs so many workers their lives ends."""
BEAT_SECONDS = 0.5
"""Progress is written down that often at most."""
ONCE_PER_RUN = frozenset({JobKind.CREATE, JobKind.RESTORE})
"""Two of these for one run would be in each other's way, whichever checkpoints they are of."""

Progress = Callable[[int, int], None]


class JobCancelled(Exception):
    """Somebody gave the work up: what is done stays done."""


class Check(Protocol):
    def __call__(self, *, run_id: UUID, checkpoint: Checkpoint | None, parameters: Mapping[str, Any]) -> None: ...


Execute = Callable[[CheckpointJob, Progress], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Work:
    """One kind of work: may it be done, how, and on which queue."""

    check: Check
    execute: Execute | None
    queue: str


WORKS: dict[str, Work] = {}


def register(kind: str, *, check: Check, execute: Execute | None, queue: str = "default") -> None:
    """Say how work of a kind is done. For ``AppConfig.ready()``."""
    WORKS[str(kind)] = Work(check, execute, queue)


# --- What people ask for


@transaction.atomic
def request_job(
    *,
    kind: str,
    actor: Actor,
    run_id: UUID | None = None,
    checkpoint: Checkpoint | None = None,
    parameters: Mapping[str, Any] | None = None,
    reason: str = "",
) -> CheckpointJob:
    """Ask for work on a checkpoint, or (to save one) on a run. What is under way already is answered again.

    Raises:
        Conflict: it cannot be done now, or the same is under way with other parameters.
        NotFound, Invalid: what it is to be done to is not there.
    """
    work = WORKS[str(kind)]
    run = checkpoint.run_id if checkpoint is not None else run_id
    if run is None:
        raise ValueError("work is done to a checkpoint or to a run")
    given = dict(parameters or {})
    _take_turns(run)
    current = _under_way(kind, run, checkpoint)
    if current is not None:
        if current.checkpoint_id != (checkpoint.pk if checkpoint else None) or current.parameters != given:
            raise Conflict(
                f"other work of this kind is under way: wait for /api/v1/operations/{current.pk}, or cancel it",
                code="busy",
            )
        return current
    work.check(run_id=run, checkpoint=checkpoint, parameters=given)
    job = CheckpointJob(
        kind=kind,
        run_id=run,
        checkpoint=checkpoint,
        parameters=given,
        workspace_id=checkpoint.workspace_id if checkpoint else default_workspace_id(),
    )
    job.full_clean()
    job.save(force_insert=True)
    audit.record(type="checkpoint_job.requested", subject=job, actor=actor, reason=reason, after=image(job))
    if work.execute is not None:
        enqueue_after_commit(RUN_TASK, str(job.pk), queue=work.queue)
    return job


def _take_turns(run_id: UUID) -> None:
    """Until the transaction ends, nobody else asks for work on the run: the second finds what the first asked for."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"checkpoint jobs {run_id}"])


def _under_way(kind: str, run_id: UUID, checkpoint: Checkpoint | None) -> CheckpointJob | None:
    jobs = CheckpointJob.objects.filter(kind=kind, run_id=run_id, state__in=OPEN)
    if checkpoint is not None and kind not in ONCE_PER_RUN:
        jobs = jobs.filter(checkpoint=checkpoint)
    return jobs.order_by("id").first()


def cancel_job(*, job: CheckpointJob, actor: Actor, reason: str = "") -> CheckpointJob:
    """Give the work up; what is done stays done. Cancelled already: it is answered again.

    Raises:
        InvalidTransition: it is over.
    """
    job = CheckpointJob.objects.get(pk=job.pk)
    if job.state == JobState.CANCELLED:
        return job
    return _step(job, JobState.CANCELLED, actor, reason or "given up")


# --- What those who do it tell


def start_job(job: CheckpointJob, *, actor: Actor = WORKER) -> CheckpointJob:
    """Somebody has taken the work up.

    Raises:
        InvalidTransition: it is over, or somebody else has.
    """
    return _step(job, JobState.RUNNING, actor, "taken up", heartbeat_at=timezone.now())


def beat(job: CheckpointJob, done: int, total: int) -> bool:
    """A sign of life, with the bytes (or steps) that are done; False: the work was given up, or is over."""
    now = timezone.now()
    running = CheckpointJob.objects.filter(pk=job.pk, state=JobState.RUNNING)
    return bool(running.update(done=done, total=total, heartbeat_at=now, updated_at=now))


@transaction.atomic
def finish_job(
    job: CheckpointJob,
    *,
    result: Mapping[str, Any] | None = None,
    checkpoint: Checkpoint | None = None,
    actor: Actor = WORKER,
) -> CheckpointJob:
    """The work is done; ``checkpoint`` is the one that was saved. One that was given up meanwhile stays so."""
    told = {**({"checkpoint": str(checkpoint.pk)} if checkpoint else {}), **(result or {})}
    made = {"checkpoint": checkpoint} if checkpoint is not None and job.kind == JobKind.CREATE else {}
    return _end(job, JobState.SUCCEEDED, actor, "done", result=told, **made)


@transaction.atomic
def fail_job(job: CheckpointJob, problem: str, *, actor: Actor = WORKER) -> CheckpointJob:
    """The work cannot be done; ``problem`` says why, for people. One that was given up meanwhile stays so."""
    return _end(job, JobState.FAILED, actor, problem, problem=problem, result={})


def _end(job: CheckpointJob, to: JobState, actor: Actor, reason: str, **changes: Any) -> CheckpointJob:
    fresh = CheckpointJob.objects.select_for_update().get(pk=job.pk)
    return fresh if fresh.state in OVER else _step(fresh, to, actor, reason, **changes)


def _step(job: CheckpointJob, to: JobState, actor: Actor, reason: str, **changes: Any) -> CheckpointJob:
    return move(
        job,
        lifecycle=JOB_LIFECYCLE,
        to=to,
        event="checkpoint_job.transition",
        actor=actor,
        reason=reason,
        changes=changes,
        payload={"kind": job.kind, "run": job.run_id},
    )


# --- The worker


def run_job(*, job_id: UUID, progress: Progress = lambda done, total: None, actor: Actor = WORKER) -> CheckpointJob:
    """Do the work, and say what came of it; what is over is answered again. ``progress`` hears how far it is.

    Raises:
        Conflict: another worker is at it.
    """
    with alone(f"checkpoint job {job_id}", busy="the work is being done", code="being_done"):
        job = CheckpointJob.objects.get(pk=job_id)
        execute = WORKS[job.kind].execute
        if job.state in OVER or execute is None:
            return job
        if job.state == JobState.RUNNING:  # the lock is free: whoever had it is gone
            job = _lose(job, actor)
        if job.state in OVER:
            return job
        try:
            return _execute(start_job(job, actor=actor), execute, progress, actor)
        except InvalidTransition:  # given up in this moment
            return CheckpointJob.objects.get(pk=job_id)


def _lose(job: CheckpointJob, actor: Actor) -> CheckpointJob:
    """Its worker is gone: once more, unless it costs too many their lives."""
    losses = int(job.result.get("losses", 0)) + 1
    if losses >= MAX_LOSSES:
        return fail_job(job, f"{losses} workers were lost at it: see their logs, and ask again", actor=actor)
    return _step(job, JobState.PENDING, actor, "its worker is gone", result={"losses": losses})


def _execute(job: CheckpointJob, execute: Execute, progress: Progress, actor: Actor) -> CheckpointJob:
    try:
        result = execute(job, _paced(job, progress))
    except JobCancelled:
        return CheckpointJob.objects.get(pk=job.pk)
    except (DatabaseError, InterfaceError):  # it is taken up again once the database answers
        raise
    except ServiceError as error:
        return fail_job(job, error.detail, actor=actor)
    except (CorruptCheckpoint, MissingObjects, TooLarge, UnsupportedState) as error:
        return fail_job(job, str(error), actor=actor)
    except STORAGE_FAULTS as error:
        return fail_job(job, f"the storage did not answer: {error}", actor=actor)
    except Exception as error:  # a mistake of ours: done again, it would only come again
        fail_job(job, f"{type(error).__name__}: {error}", actor=actor)
        raise
    return finish_job(job, result=result, actor=actor)


def _paced(job: CheckpointJob, progress: Progress) -> Progress:
    """Progress that is written down, though not more often than people look."""
    written = 0.0

    def paced(done: int, total: int) -> None:
        nonlocal written
        progress(done, total)
        if done < total and time.monotonic() - written < BEAT_SECONDS:
            return
        written = time.monotonic()
        if not beat(job, done, total):
            raise JobCancelled

    return paced


def continue_jobs(*, actor: Actor = SYSTEM) -> int:
    """Queue again what nobody took up and what lost its worker; fail what cannot be done any more. Returns how many."""
    now = timezone.now()
    unqueued = Q(state=JobState.PENDING, updated_at__lt=now - UNQUEUED_AFTER)
    silent = Q(state=JobState.RUNNING, heartbeat_at__lt=now - SILENT_AFTER)
    waiting = CheckpointJob.objects.filter(unqueued | silent).select_related("checkpoint").order_by("id")
    for job in waiting:
        _continue(job, actor)
    return len(waiting)


def _continue(job: CheckpointJob, actor: Actor) -> None:
    work = WORKS[job.kind]
    if job.state == JobState.PENDING or work.execute is None:  # what was begun may be what a check would refuse
        try:
            work.check(run_id=job.run_id, checkpoint=job.checkpoint, parameters=job.parameters)
        except ServiceError as error:
            fail_job(job, error.detail, actor=actor)
            return
    if work.execute is not None:
        CheckpointJob.objects.filter(pk=job.pk).update(updated_at=timezone.now())
        enqueue(RUN_TASK, str(job.pk), queue=work.queue)
    elif job.state == JobState.RUNNING:
        _lose(job, actor)


# --- What checkpoints can do themselves


def _need(*states: CheckpointState) -> Check:
    """A check for work that takes a checkpoint in one of these states."""

    def check(*, run_id: UUID, checkpoint: Checkpoint | None, parameters: Mapping[str, Any]) -> None:
        if checkpoint is None or checkpoint.state not in states:
            state = checkpoint.state if checkpoint else "not there"
            raise Conflict(f"the checkpoint is {state}; this takes one that is {' or '.join(states)}", code="no_bytes")

    return check


def _verify(job: CheckpointJob, progress: Progress) -> Mapping[str, Any]:
    report = loading.verify(checkpoint=_checkpoint(job), actor=WORKER, progress=progress)
    return {"objects": report.objects, "bytes": report.bytes}


def _archive(job: CheckpointJob, progress: Progress) -> Mapping[str, Any]:
    moved = archiving.archive(checkpoint=_checkpoint(job), actor=WORKER, progress=progress)
    return {"location": moved.location}


def _recall(job: CheckpointJob, progress: Progress) -> Mapping[str, Any]:
    moved = archiving.recall(checkpoint=_checkpoint(job), actor=WORKER, progress=progress)
    return {"location": moved.location}


def _checkpoint(job: CheckpointJob) -> Checkpoint:
    if job.checkpoint is None:
        raise ValueError(f"{job} is not about a checkpoint")
    return job.checkpoint


register(JobKind.VERIFY, check=_need(CheckpointState.COMMITTED, CheckpointState.QUARANTINED), execute=_verify)
register(JobKind.ARCHIVE, check=_need(CheckpointState.COMMITTED), execute=_archive)
register(JobKind.RECALL, check=_need(CheckpointState.COMMITTED), execute=_recall)
