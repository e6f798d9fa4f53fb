"""What beat asks of the trail."""

from datetime import timedelta

import structlog
from celery import shared_task
from django.db import transaction
from django.utils import timezone

from apps.audit import services
from apps.audit.keys import KeyFault
from apps.audit.lifecycle import ReportState
from apps.audit.models import AuditReport
from apps.audit.services.reporting import WRITE_TASK
from apps.core.actors import SYSTEM
from apps.core.errors import ServiceError
from apps.core.queue import enqueue

log = structlog.get_logger(__name__)

WAITING = timedelta(seconds=15)
REPORTS_AT_ONCE = 100


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
def index_text() -> None:
    """Daily: months that are over get the index that free text is found by; each one made is an event."""
    with transaction.atomic():
        for name in services.index_text():
            services.record(type="audit.text_indexed", subject=("partition", name), actor=SYSTEM)


@shared_task
def verify() -> None:
    """Nightly: what was sealed since the last clean verification, and that it goes on from there (consistency)."""
    services.verify_trail(actor=SYSTEM, since=services.verified_size())


@shared_task
def verify_all() -> None:
    """Weekly: the whole trail, with its archives and side tables."""
    services.verify_trail(actor=SYSTEM)


@shared_task
def archive() -> None:
    """Daily: months older than ESPER_AUDIT_KEEP_MONTHS go to the object storage, oldest first."""
    for partition in services.archivable_partitions():
        try:
            services.archive_partition(partition=partition, actor=SYSTEM, reason="older than ESPER_AUDIT_KEEP_MONTHS")
        except ServiceError as error:
            log.warning("audit_not_archived", partition=partition, error=error.detail)
            return


@shared_task
def write_report(report_id: str) -> None:
    """Answer, store and sign one report."""
    report = AuditReport.objects.filter(pk=report_id).first()
    if report is None:
        log.warning("report_gone", report=report_id)
        return
    report = services.write_report(report=report)
    log.info("report", report=report_id, kind=report.kind, state=report.state, failure=report.failure)


@shared_task
def write_waiting_reports() -> None:
    """Reports whose message was lost, or that wait for a storage or a key, are queued again."""
    waiting = AuditReport.objects.filter(state=ReportState.QUEUED, updated_at__lt=timezone.now() - WAITING)
    for report_id in waiting.order_by("id").values_list("pk", flat=True)[:REPORTS_AT_ONCE]:
        AuditReport.objects.filter(pk=report_id).update(updated_at=timezone.now())
        enqueue(WRITE_TASK, str(report_id))
