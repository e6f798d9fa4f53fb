from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

import structlog
from celery import shared_task

from apps.checkpoints.models import CheckpointJob
from apps.checkpoints.services import compaction, garbage, jobs, retention, rounds
from apps.core.actors import SYSTEM
from apps.core.errors import Conflict, Unavailable

log = structlog.get_logger(__name__)


@shared_task
def keep_checkpoints() -> None:
    """Let go of what no policy keeps, and have in the folder what LOCAL checkpoints need."""
    expired = retention.expire_due(actor=SYSTEM)
    if expired.checkpoints:
        log.info("checkpoints_expired", checkpoints=expired.checkpoints, runs=expired.runs)
    rounds.bring_back_needed()


@shared_task
def collect_checkpoints() -> None:
    """Sweep what no checkpoint needs, and write packs anew that are mostly garbage."""
    with _passed_over("checkpoint_garbage"):
        log.info("checkpoint_garbage_collected", **garbage.collect_garbage().as_dict())
        compacted = compaction.compact()
        log.info("checkpoint_packs_compacted", packs=compacted.packs, bytes=compacted.bytes)


@shared_task
def copy_checkpoints() -> None:
    """Copy to the object storage what is not there yet, where copies are wanted."""
    with _passed_over("checkpoint_copies"):
        rounds.copy_due()


@shared_task
def archive_checkpoints() -> None:
    """Copies that are due, moves to the object storage that policies ask for, and the room that these leave."""
    with _passed_over("checkpoint_archive"):
        rounds.copy_due()
        rounds.archive_due()
        rounds.free_archived()


@shared_task
def scrub_checkpoints() -> None:
    """Verify the checkpoints that were not looked at for longest."""
    with _passed_over("checkpoint_scrub"):
        scrubbed = rounds.scrub()
        log.info(
            "checkpoints_scrubbed",
            checkpoints=scrubbed.checkpoints,
            bytes=scrubbed.bytes,
            broken=scrubbed.broken,
        )


@contextmanager
def _passed_over(name: str) -> Iterator[None]:
    """A storage that is away, or another worker that is at it, ends the round: beat comes again."""
    try:
        yield
    except Conflict as error:
        log.info(f"{name}_done_elsewhere", reason=error.detail)
    except Unavailable as error:
        log.warning(f"{name}_postponed", error=error.detail)


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
