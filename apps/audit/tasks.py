"""What beat asks of the trail."""

import structlog
from celery import shared_task
from django.db import transaction

from apps.audit import services
from apps.audit.keys import KeyFault
from apps.core.actors import SYSTEM

log = structlog.get_logger(__name__)


@shared_task
def seal() -> None:
    """Every few seconds: seal what is final. Without a key nothing is sealed and the unsealed age grows."""
    try:
        services.seal()
    except KeyFault as error:
        log.error("audit_not_sealed", error=str(error))


@shared_task
def make_partitions() -> None:
    """Keep three months of partitions ahead; each one made is an event."""
    with transaction.atomic():
        for name in services.make_partitions():
            services.record(type="audit.partition_made", subject=("partition", name), actor=SYSTEM)
