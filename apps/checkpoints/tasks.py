from uuid import UUID

import structlog
from celery import shared_task

from apps.checkpoints import services
from apps.checkpoints.models import CheckpointJob
from apps.checkpoints.services import jobs
from apps.core.errors import Conflict

log = structlog.get_logger(__name__)


@shared_task
def expire_snapshots() -> None:
    """Collect what crashed saves left behind."""
    services.expire_abandoned()


@shared_task
def run_job(job_id: str) -> None:
    """Do the work that somebody asked for: on the queue of its kind."""
    try:
        job = jobs.run_job(job_id=UUID(job_id))
    except CheckpointJob.DoesNotExist:
        log.warning("checkpoint_job_gone", job=job_id)
        return
    except Conflict as error:
        log.info("checkpoint_job_done_elsewhere", job=job_id, reason=error.detail)
        return
    log.info("checkpoint_job_done", job=job_id, kind=job.kind, state=job.state, problem=job.problem)


@shared_task
def continue_jobs() -> None:
    """Work whose message was lost, or whose worker died, goes on."""
    jobs.continue_jobs()
