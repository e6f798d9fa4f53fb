from celery import shared_task

from apps.checkpoints import services


@shared_task
def expire_snapshots() -> None:
    """Collect what crashed saves left behind."""
    services.expire_abandoned()
