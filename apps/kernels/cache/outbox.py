"""What a transaction owes to the other tiers, written in it and worked off after it: the transactional outbox.

    owe_forgetting(digest)             # in the transaction of whoever changes something

``relay`` works the rows off: at once after the commit, by a task, by beat, whoever comes first.
"""

from functools import partial
from typing import Any

import structlog
from django.db import transaction
from django.db.models.functions import Now
from django.db.models.signals import post_save
from django.dispatch import receiver
from django.utils import timezone

from apps.core.queue import enqueue_after_commit
from apps.kernels.cache.config import config
from apps.kernels.models import CacheOutbox, Kernel, OutboxKind

log = structlog.get_logger(__name__)

RELAY_TASK = "apps.kernels.tasks.relay_cache"


def owe_new_bytes(digest: str) -> None:
    """L2, and L4 where copies are kept, get the bytes that the caller's transaction brings.

    Written through, L2 has them before the caller goes on after its commit; written back, a worker brings them.
    """
    kinds = [OutboxKind.FILL] if config().l2_url else []
    kinds += [OutboxKind.COPY] if config().copies else []
    CacheOutbox.objects.bulk_create(CacheOutbox(kind=kind, key=digest, due_at=Now()) for kind in kinds)
    if config().write == "through":
        transaction.on_commit(partial(_drain_quietly, OutboxKind.FILL, digest))
    else:
        transaction.on_commit(partial(_forget_absence, digest))
    enqueue_after_commit(RELAY_TASK)


def owe_forgetting(digest: str) -> None:
    """No process and no fast tier keeps the bytes once the caller's transaction has committed."""
    CacheOutbox.objects.create(kind=OutboxKind.FORGET, key=digest, due_at=Now())
    transaction.on_commit(partial(_drain_quietly, OutboxKind.FORGET, digest))


@receiver(post_save, sender=Kernel)
def tell_after_commit(*, instance: Kernel, created: bool, **kwargs: Any) -> None:
    """A trigger has written what the processes must hear, if it is something that they remember."""
    if not created:
        transaction.on_commit(partial(_drain_quietly, OutboxKind.CHANGED, str(instance.pk)))


def hasten(row: CacheOutbox) -> CacheOutbox:
    """Have a row tried by the next round, though it failed. Done meanwhile: there is nothing to hasten."""
    row.due_at = timezone.now()
    CacheOutbox.objects.filter(pk=row.pk).update(due_at=Now())
    enqueue_after_commit(RELAY_TASK)
    return row


def _drain_quietly(kind: str, key: str) -> None:
    """Work off what the transaction owes itself, and not what waits of others.

    After a commit that is acknowledged: whatever fails here must not look like a failure of it.
    """
    from apps.kernels.cache import relay  # it imports those who owe

    try:
        relay.drain([kind], key=key)
    except Exception as error:  # the connection, most of all; the relay finds the row
        log.warning("outbox_waits", kind=kind, key=key, error=str(error))


def _forget_absence(digest: str) -> None:
    from apps.kernels.cache import changes

    changes.forget_absence(digest)
