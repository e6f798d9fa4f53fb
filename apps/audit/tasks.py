from celery import shared_task
from django.db import transaction

from apps.audit import services
from apps.core.actors import SYSTEM


@shared_task
def make_partitions() -> None:
    """Keep three months of partitions ahead; each one made is an event."""
    with transaction.atomic():
        for name in services.make_partitions():
            services.record(type="audit.partition_made", subject=("partition", name), actor=SYSTEM)
