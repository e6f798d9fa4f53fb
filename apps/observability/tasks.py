"""What beat asks of observability. Each takes a lock: of two at the same time, one does the work."""

from celery import shared_task

from apps.core.actors import SYSTEM
from apps.observability.services import collecting, delivering, evaluating, rules, scanning, upkeep


@shared_task
def collect() -> None:
    """Every 15 seconds: what all collectors read now becomes samples."""
    collecting.collect()


@shared_task
def scan_anomalies() -> None:
    """Every 15 seconds: the detector looks at the samples that it has not seen."""
    scanning.scan()


@shared_task
def evaluate_alerts() -> None:
    """Every 15 seconds: shipped rules that are not there are installed; rules begin, fire and resolve alerts; what is
    to be told is written down."""
    rules.install_shipped(actor=SYSTEM)
    evaluating.evaluate()


@shared_task
def roll_up() -> None:
    """Every minute: averages of what is over, packed history, partitions, retention."""
    upkeep.roll_up()


@shared_task
def deliver() -> None:
    """Every five seconds: what is to be told and due is sent."""
    delivering.deliver()
