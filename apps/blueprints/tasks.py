"""Queue default: the curated blueprints become rows, also after an update that brought new ones."""

from celery import shared_task

from apps.blueprints import services
from apps.core.actors import SYSTEM


@shared_task
def load_library() -> None:
    """Nothing to do but one statement once they are there."""
    services.load_starter_library(actor=SYSTEM)
