"""Queue ``compile``: one kernel at a time, in a sandboxed subprocess of the worker."""

from datetime import timedelta
from typing import Any

import structlog
from celery import shared_task
from django.utils import timezone

from apps.core.errors import InvalidTransition
from apps.core.queue import enqueue
from apps.kernels import services
from apps.kernels.lifecycle import KernelState
from apps.kernels.models import Kernel
from apps.kernels.sandbox import InfrastructureFault
from apps.kernels.selectors import PENDING

log = structlog.get_logger(__name__)
STUCK = timedelta(minutes=2)


@shared_task(bind=True, max_retries=5)
def compile_kernel(self: Any, kernel_id: str) -> None:
    kernel = Kernel.objects.select_related("blueprint_version__blueprint").filter(pk=kernel_id).first()
    if kernel is None:
        log.warning("kernel_gone", kernel=kernel_id)
        return
    try:
        kernel = services.process_kernel(kernel=kernel)
    except InfrastructureFault as fault:
        raise self.retry(exc=fault, countdown=2**self.request.retries) from fault
    except InvalidTransition:
        log.info("kernel_processed_elsewhere", kernel=kernel_id)
        return
    log.info("kernel_processed", kernel=kernel_id, name=kernel.name, state=kernel.state, rejection=kernel.rejection)


@shared_task
def grade_kernels() -> None:
    """Bring the grades of all cohorts up to date, a batch in each transaction."""
    while changed := services.grade_kernels():
        log.info("kernels_graded", kernels=len(changed))


@shared_task
def retry_stuck() -> None:
    """Kernels whose message was lost (a flushed broker, a killed worker) are queued again."""
    stuck = Kernel.objects.filter(state__in=PENDING, updated_at__lt=timezone.now() - STUCK).exclude(
        state=KernelState.REGISTERED, awaits_upload=True
    )
    for kernel_id in stuck.values_list("pk", flat=True)[:100]:
        Kernel.objects.filter(pk=kernel_id).update(updated_at=timezone.now())
        enqueue(services.COMPILE_TASK, str(kernel_id))
