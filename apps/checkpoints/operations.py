"""Work with checkpoints that somebody asked for, as `/operations/{id}` shows long work."""

from uuid import UUID

from apps.checkpoints.lifecycle import JobState
from apps.checkpoints.models import CheckpointJob, JobKind
from apps.checkpoints.services import jobs
from apps.core.actors import Actor
from apps.core.operations import Operation, OperationState
from apps.core.registry import registry

STATES = {state: OperationState(state.lower()) for state in JobState}


class CheckpointJobs:
    read_scope = "runs:read"
    write_scope = "runs:write"

    def find(self, id: UUID) -> Operation | None:
        job = CheckpointJob.objects.filter(pk=id).first()
        return None if job is None else operation_of(job)

    def cancel(self, id: UUID, *, actor: Actor) -> Operation:
        return operation_of(jobs.cancel_job(job=CheckpointJob.objects.get(pk=id), actor=actor))


def operation_of(job: CheckpointJob) -> Operation:
    """``done`` and ``total`` are bytes, or steps of a replay; the result of a save or a replay has ``checkpoint``."""
    is_about_run = job.kind == JobKind.CREATE or job.checkpoint_id is None
    return Operation(
        id=job.pk,
        kind=f"checkpoint.{job.kind}",
        state=STATES[JobState(job.state)],
        done=job.done,
        total=job.total,
        subject=f"/api/v1/runs/{job.run_id}" if is_about_run else f"/api/v1/checkpoints/{job.checkpoint_id}",
        created_at=job.created_at,
        updated_at=job.updated_at,
        result=job.result if job.state == JobState.SUCCEEDED else None,
        problem=job.problem or None,
    )


registry.operations["checkpoints"] = CheckpointJobs()
