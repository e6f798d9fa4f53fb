"""What beat asks of the trail."""

import structlog
from celery import shared_task
from django.db import transaction

from apps.audit import services
from apps.audit.keys import KeyFault
from apps.core.actors import SYSTEM
from apps.core.errors import ServiceError

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


@shared_task
def verify() -> None:
    """Nightly: what was sealed since the last clean verification, and that it goes on from there (consistency)."""
    services.verify_trail(actor=SYSTEM, since=services.verified_size())


@shared_task
def archive() -> None:
    """Daily: months older than ESPER_AUDIT_KEEP_MONTHS go to the object storage, oldest first."""
    for partition in services.archivable_partitions():
        try:
            services.archive_partition(partition=partition, actor=SYSTEM, reason="older than ESPER_AUDIT_KEEP_MONTHS")
        except ServiceError as error:
            log.warning("audit_not_archived", partition=partition, error=error.detail)
            return
