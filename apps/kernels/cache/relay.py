"""Works off the outbox: one row after another, each in the transaction that does what it says, but for copies to L4.

A worker killed at any step leaves the row for the next; each kind may be done twice. Rows that another process works on
are passed over (SKIP LOCKED); one that fails is tried again, later each time, and is never given up. Whatever it fails
of, those behind it do not wait for it.
"""

from collections.abc import Callable, Collection
from contextlib import nullcontext
from datetime import timedelta

import structlog
from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from apps.core.errors import ServiceError, Unavailable
from apps.kernels.cache import changes, filling, mover
from apps.kernels.cache.segments import CorruptSegment, TierAway
from apps.kernels.cache.tiers import tiers
from apps.kernels.models import CacheOutbox, OutboxKind

log = structlog.get_logger(__name__)

LONGEST_PAUSE_SECONDS = 600
SLOW = frozenset({OutboxKind.COPY})


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
    while tried < most and (_take_one(kinds, key) or _take_slow(kinds, key)):
        tried += 1
    return tried


@transaction.atomic
def _take_one(kinds: Collection[str], key: str | None) -> bool:
    row = _due(set(kinds) - SLOW, key).select_for_update(skip_locked=True).first()
    if row is not None:
        _work_off(row)
    return row is not None


def _take_slow(kinds: Collection[str], key: str | None) -> bool:
    """In no transaction, which would hold back VACUUM for as long as the object storage takes. The mover's own lock of
    the bytes keeps a second relay away, and goes with a process that is killed."""
    row = _due(set(kinds) & SLOW, key).first()
    if row is not None:
        _work_off(row)
    return row is not None


def _due(kinds: Collection[str], key: str | None) -> QuerySet[CacheOutbox]:
    due = CacheOutbox.objects.filter(kind__in=kinds, due_at__lte=timezone.now()).order_by("id")
    return due if key is None else due.filter(key=key)


def _work_off(row: CacheOutbox) -> None:
    is_slow = row.kind in SLOW
    try:
        # What the database refused of it is undone, and the row can be put off.
        with nullcontext() if is_slow else transaction.atomic():
            STEPS[row.kind](row.key)
    except (TierAway, ServiceError, CorruptSegment) as error:
        _put_off(row, error)
    except Exception as error:  # a mistake of ours: this row must not keep the others waiting
        log.exception("outbox_row_failed", kind=row.kind, key=row.key)
        _put_off(row, error)
    else:
        row.delete()


def _put_off(row: CacheOutbox, error: Exception) -> None:
    row.attempts += 1
    row.due_at = timezone.now() + timedelta(seconds=min(2**row.attempts, LONGEST_PAUSE_SECONDS))
    row.error = (str(error) or type(error).__name__)[:1000]
    # Another relay may have done it meanwhile: then it does not come back.
    CacheOutbox.objects.filter(pk=row.pk).update(attempts=row.attempts, due_at=row.due_at, error=row.error)
    log.warning("outbox_row_put_off", kind=row.kind, key=row.key, attempts=row.attempts, error=row.error)
