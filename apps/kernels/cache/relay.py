"""Works off the outbox: one row after another, each in the transaction that does what it says.

A worker killed at any step leaves the row for the next; each kind may be done twice. Rows that another process works on
are passed over (SKIP LOCKED); one that fails is tried again, later each time, and is never given up.
"""

from collections.abc import Callable, Collection
from datetime import timedelta

import structlog
from django.db import transaction
from django.utils import timezone

from apps.core.errors import ServiceError, Unavailable
from apps.kernels.cache import changes, filling, mover
from apps.kernels.cache.segments import CorruptSegment, TierAway
from apps.kernels.cache.tiers import tiers
from apps.kernels.models import CacheOutbox, OutboxKind

log = structlog.get_logger(__name__)

LONGEST_PAUSE = timedelta(minutes=10)


def _copy(digest: str) -> None:
    """As ``mover.copy``, but a storage that did not answer lately is left alone: each call would wait for it.

    Raises:
        TierAway, ServiceError, CorruptKernel.
    """
    breaker = tiers().storage.breaker
    if not breaker.allows():
        raise TierAway("the object storage did not answer lately")
    try:
        mover.copy(digest)
    except Unavailable:
        breaker.failed()
        raise
    except BaseException:
        breaker.succeeded()
        raise
    breaker.succeeded()


STEPS: dict[str, Callable[[str], object]] = {
    OutboxKind.FILL: filling.fill_anew,
    OutboxKind.COPY: _copy,
    OutboxKind.FORGET: changes.forget,
    OutboxKind.CHANGED: changes.tell_changed,
}


def drain(kinds: Collection[str] = OutboxKind.values, *, most: int = 1000) -> int:
    """Work off what is due, oldest first; how many rows were done or put off."""
    tried = 0
    while tried < most and _take_one(kinds):
        tried += 1
    return tried


@transaction.atomic
def _take_one(kinds: Collection[str]) -> bool:
    due = CacheOutbox.objects.filter(kind__in=kinds, due_at__lte=timezone.now())
    row = due.select_for_update(skip_locked=True).order_by("id").first()
    if row is None:
        return False
    try:
        STEPS[row.kind](row.key)
    except (TierAway, ServiceError, CorruptSegment) as error:
        _put_off(row, error)
    else:
        row.delete()
    return True


def _put_off(row: CacheOutbox, error: Exception) -> None:
    row.attempts += 1
    row.due_at = timezone.now() + min(timedelta(seconds=2**row.attempts), LONGEST_PAUSE)
    row.error = str(error)[:1000]
    row.save()
    log.warning("outbox_row_put_off", kind=row.kind, key=row.key, attempts=row.attempts, error=row.error)
