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
from django.db.models.functions import Now

from apps.core.errors import Conflict, ServiceError, Unavailable
from apps.core.objects import STORAGE_TIMEOUTS
from apps.kernels.cache import changes, filling, mover
from apps.kernels.cache.segments import CorruptSegment, TierAway
from apps.kernels.cache.tiers import tiers
from apps.kernels.models import CacheOutbox, OutboxKind

log = structlog.get_logger(__name__)

LONGEST_PAUSE_SECONDS = 600
SLOW = frozenset({OutboxKind.COPY})


def _copy(digest: str) -> None:
    """As ``mover.copy``, but a storage that did not answer lately is left alone: each call would wait for it.

    The breaker hears nothing of a copy for which the storage was not asked: such a probe is given up.

    Raises:
        TierAway, ServiceError, CorruptKernel.
    """
    breaker = tiers().storage.breaker
    if not breaker.allows():
        raise TierAway("the object storage did not answer lately")
    try:
        was_asked = mover.copy(digest)
    except Conflict:
        raise
    except Unavailable as error:
        breaker.failed(was_timeout=isinstance(error.__cause__, STORAGE_TIMEOUTS))
        raise
    except BaseException:
        breaker.succeeded()
        raise
    if was_asked:
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
    # By the clock of the database, which the trigger goes by: nothing waits because this machine's is behind.
    due = CacheOutbox.objects.filter(kind__in=kinds, due_at__lte=Now()).order_by("id")
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


def _put_off(row: CacheOutbox, problem: Exception) -> None:
    attempts, error = row.attempts + 1, _storable(str(problem) or type(problem).__name__)[:1000]
    due_at = Now() + timedelta(seconds=min(2**attempts, LONGEST_PAUSE_SECONDS))
    # Another relay may have done it meanwhile: then it does not come back.
    CacheOutbox.objects.filter(pk=row.pk).update(attempts=attempts, due_at=due_at, error=error)
    log.warning("outbox_row_put_off", kind=row.kind, key=row.key, attempts=attempts, error=error)


def _storable(text: str) -> str:
    """Without what PostgreSQL refuses: an error repeats what a server or a file system said."""
    return text.replace("\0", "").encode(errors="replace").decode()
