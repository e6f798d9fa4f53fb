"""Queue ``train``: one segment of one run. Beat: take up what lost its worker, queue again what lost its message."""

import os
import socket
from datetime import timedelta
from uuid import UUID

import structlog
from celery import shared_task
from django.db import OperationalError
from django.db.models import Q
from django.utils import timezone

from apps.core.queue import enqueue
from apps.morphogenesis.protocols import Command
from apps.training import services
from apps.training.lifecycle import RunState
from apps.training.models import RunKind, TrainingRun

log = structlog.get_logger(__name__)
LOST_MESSAGE = timedelta(seconds=30)


@shared_task(autoretry_for=(OperationalError,), retry_backoff=True, retry_backoff_max=30, max_retries=None)
def train_segment(run_id: str) -> None:
    from apps.training import runner  # torch, in the forked child only

    runner.train_segment(run_id=UUID(run_id), holder=f"{socket.gethostname()}:{os.getpid()}")


@shared_task
def recover_orphans() -> None:
    for run_id in services.recover_orphans():
        log.warning("run_taken_up", run=str(run_id))


@shared_task
def dispatch_queued() -> None:
    """Queue runs again whose message may be lost (a flushed broker); for the others that is a no-op."""
    waiting = TrainingRun.objects.exclude(kind=RunKind.EXTERNAL).filter(
        Q(state__in=[RunState.QUEUED, RunState.RECOVERING]) | Q(state=RunState.PAUSED, command=Command.CONTINUE),
        updated_at__lt=timezone.now() - LOST_MESSAGE,
    )
    for run_id in waiting.values_list("pk", flat=True)[:100]:
        TrainingRun.objects.filter(pk=run_id).update(updated_at=timezone.now())
        enqueue(services.TRAIN_TASK, str(run_id))
