"""Handing work to Celery: by name, after the commit, and without losing anything when the broker is away."""

from functools import partial

import structlog
from celery import current_app
from django.db import transaction
from kombu.exceptions import OperationalError

log = structlog.get_logger(__name__)


def enqueue_after_commit(task: str, *arguments: str, countdown: float = 0.0, queue: str | None = None) -> None:
    """Queue ``task`` once the current transaction has committed (at once if there is none)."""
    transaction.on_commit(partial(enqueue, task, *arguments, countdown=countdown, queue=queue))


def enqueue(task: str, *arguments: str, countdown: float = 0.0, queue: str | None = None) -> bool:
    """Queue ``task`` now, on its own queue or on ``queue``; False when the broker does not answer.

    The row that the task is about is committed already, and beat queues again what waits too long: so a request
    succeeds although its work starts later.
    """
    try:
        current_app.send_task(task, args=list(arguments), countdown=countdown or None, queue=queue)
    except OperationalError as error:
        log.warning("broker_unreachable", task=task, arguments=arguments, error=str(error))
        return False
    return True
