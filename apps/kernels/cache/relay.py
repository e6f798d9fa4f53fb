"""Works off the outbox: one row after another, each in the transaction that does what it says.

A worker killed at any step leaves the row for the next; each kind may be done twice. Rows that another process works on
are passed over (SKIP LOCKED); one that fails is tried again, later each time, and is never given up. Whatever it fails
of, those behind it do not wait for it.
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

LONGEST_PAUSE_SECONDS = 600


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


def drain(kinds: Collection[str] = OutboxKind.values, *, key: str | None = None, most: int = 1000) -> int:
    """Work off what is due, or what of it is owed for ``key``, oldest first; how many rows were done or put off."""
    tried = 0
    while tried < most and _take_one(kinds, key):
        tried += 1
    return tried


@transaction.atomic
def _take_one(kinds: Collection[str], key: str | None) -> bool:
    due = CacheOutbox.objects.filter(kind__in=kinds, due_at__lte=timezone.now())
    if key is not None:
        due = due.filter(key=key)
    row = due.select_for_update(skip_locked=True).order_by("id").first()
    if row is None:
        return False
    try:
        with transaction.atomic():  # what the database refused of it is undone, and the row can be put off
            STEPS[row.kind](row.key)
    except (TierAway, ServiceError, CorruptSegment) as error:
        _put_off(row, error)
    except Exception as error:  # a mistake of ours: this row must not keep the others waiting
        log.exception("outbox_row_failed", kind=row.kind, key=row.key)
        _put_off(row, error)
    else:
        row.delete()
    return True


def _put_off(row: CacheOutbox, error: Exception) -> None:
    row.attempts += 1
    row.due_at = timezone.now() + timedelta(seconds=min(2**row.attempts, LONGEST_PAUSE_SECONDS))
    row.error = (str(error) or type(error).__name__)[:1000]
    row.save()
    log.warning("outbox_row_put_off", kind=row.kind, key=row.key, attempts=row.attempts, error=row.error)
