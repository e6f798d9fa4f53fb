"""Work with checkpoints that takes the run itself: what may be asked for, and how a worker does it."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from apps.checkpoints.models import Checkpoint, CheckpointJob, JobKind
from apps.checkpoints.services import jobs
from apps.core.actors import WORKER
from apps.core.errors import Conflict, Invalid, NotFound
from apps.training.lifecycle import RunState
from apps.training.models import RunKind, TrainingRun
from apps.training.selectors import base_of, steps_trained
from apps.training.services.restoring import check_ours, check_restore, restore_run


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
        check_ours(_run(run_id), checkpoint)
        _check_components(checkpoint, parameters.get("components") or [])
    elif parameters.get("components"):
        raise Invalid("components can be chosen only with validate_only", pointer="/components", code="unsupported")
    else:
        check_restore(_run(run_id), checkpoint)


def _check_components(checkpoint: Checkpoint, names: Sequence[str]) -> None:
    """Raises Invalid: what is to be tried out is not there, and trying nothing out would look like a success."""
    unknown = sorted(set(names) - set(checkpoint.components))
    if unknown:
        raise Invalid(
            f"the checkpoint has no component {unknown[0]!r}; it has {', '.join(sorted(checkpoint.components))}",
            pointer="/components",
            code="unknown",
        )


def check_replay(*, run_id: UUID, checkpoint: Checkpoint | None, parameters: Mapping[str, Any]) -> None:
    """Steps that the run has trained, and that a checkpoint lies before."""
    run, step = _run(run_id), parameters.get("step")
    if checkpoint is not None:
        check_ours(run, checkpoint)
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
