"""Who works on the cache while somebody is killed: a writer, a mover, a relay and a reader, each a forked process.

Each takes orders and says "done" after each; one that is armed kills itself at a named step. The writer says that a
write is acknowledged only once its transaction, with what follows the commit, is over.
"""

import hashlib
import os
import random
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from itertools import count
from multiprocessing.connection import Connection
from typing import Any

PAUSE_SECONDS = 0.002
ACKNOWLEDGED, DONE = "acknowledged", "done"


@dataclass(frozen=True, slots=True)
class Item:
    """One kernel to be written: its bytes follow from ``seed``."""

    seed: int
    size: int

    def data(self) -> bytes:
        return random.Random(self.seed).randbytes(self.size)

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.data()).hexdigest()


@dataclass(frozen=True, slots=True)
class Step:
    """Before or after the ``nth`` call of a function: "archive.store", or "remote.RedisTier.put"."""

    when: str
    name: str
    nth: int = 1

    def __str__(self) -> str:
        return f"{self.when} {self.name}"


COMMIT = "database.BaseDatabaseWrapper._commit"
WRITER_STEPS = {
    "through": (
        *("chunks.write", "outbox.owe_new_bytes", "outbox._drain_quietly", "relay._take_one", "filling.fill_anew"),
        *("remote.RedisTier.drop", "remote.RedisTier.acquire", "chunks.DatabaseTier.get", "remote.RedisTier.put"),
        *("models.CacheOutbox.delete", "queue.enqueue", COMMIT),
    ),
    "back": (COMMIT, "chunks.write", "outbox.owe_new_bytes", "outbox._forget_absence", "changes.forget_absence"),
}
RELAY_STEPS = (
    *(
        COMMIT,
        "relay._take_one",
        "filling.fill_anew",
        "filling.fill",
        "remote.RedisTier.acquire",
        "remote.RedisTier.put",
    ),
    *("mover.copy", "archive.store", "archive.put", "archive.is_whole", "models.KernelBlob.save"),
    *(
        "changes.forget",
        "remote.RedisTier.drop",
        "changes.publish",
        "changes.tell_changed",
        "models.CacheOutbox.delete",
    ),
)
MOVER_STEPS = (
    *("mover.release", "mover._require_whole", "chunks.empty", "models.KernelBlob.save", "outbox.owe_forgetting"),
    *("outbox._drain_quietly", "changes.forget", "mover.recall", "mover._copy_up", "chunks.write", COMMIT),
)
READER_STEPS = (
    *("changes.forget", "remote.RedisTier.get", "remote.RedisTier.acquire", "chunks.DatabaseTier.get"),
    *("archive.ArchiveTier.read", "remote.RedisTier.put"),
)
MODULES = {
    "models": "apps.kernels.models",
    "queue": "apps.core.queue",
    "database": "django.db.backends.base.base",
}
"""Where a step is, if not in a module of the cache."""


def arm(step: Step | None) -> None:
    """Let this process kill itself at the step."""
    if step is None:
        return
    *path, name = step.name.split(".")
    owner: Any = import_module(MODULES.get(path[0], f"apps.kernels.cache.{path[0]}"))
    for part in path[1:]:
        owner = getattr(owner, part)
    real, calls = getattr(owner, name), count(1)

    def dying(*args: Any, **kwargs: Any) -> Any:
        is_last = next(calls) == step.nth
        if is_last and step.when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        answer = real(*args, **kwargs)
        if is_last:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    setattr(owner, name, dying)
    _arm_steps_of_the_relay(real, dying)


def _arm_steps_of_the_relay(real: Callable[..., Any], dying: Callable[..., Any]) -> None:
    """The relay knows functions by their kind, not by name."""
    from apps.kernels.cache import relay

    for kind, known in relay.STEPS.items():
        if known is real:
            relay.STEPS[kind] = dying


# --- The roles. Their orders: (step or None, what to do).


def writer(pipe: Connection) -> None:
    """Writes items, (mode, items), each in a transaction of its own."""
    from django.conf import settings
    from django.db import transaction
    from django.test.utils import override_settings

    from apps.kernels.cache import KernelStore

    while True:
        step, (mode, items) = pipe.recv()
        arm(step)
        with override_settings(KERNEL_CACHE={**settings.KERNEL_CACHE, "write": mode}):
            for item in items:
                data = item.data()
                with transaction.atomic():
                    KernelStore().put(data)
                pipe.send((ACKNOWLEDGED, item))
        pipe.send((DONE, None))


def mover(pipe: Connection) -> None:
    """Takes the bytes of each digest out of L3, and brings every second one back; and leaves rows for the relay.

    The rows are those of a process that was killed between its commit and what it does after it.
    """
    from django.utils import timezone

    from apps.core.ids import new_id
    from apps.kernels.cache import mover
    from apps.kernels.models import CacheOutbox, OutboxKind

    while True:
        step, digests = pipe.recv()
        arm(step)
        for number, digest in enumerate(digests):
            mover.recall(digest)  # an earlier round may have left it in L4 alone
            mover.release(digest)
            if number % 2:
                mover.recall(digest)
            now = timezone.now()
            CacheOutbox.objects.create(kind=OutboxKind.FORGET, key=digest, due_at=now)
            CacheOutbox.objects.create(kind=OutboxKind.CHANGED, key=str(new_id()), due_at=now)
        pipe.send((DONE, None))


def relay(pipe: Connection) -> None:
    """Works off the outbox until it is told to stop."""
    from apps.kernels.cache import relay

    while True:
        step, _ = pipe.recv()
        arm(step)
        relay.drain()
        while not pipe.poll(PAUSE_SECONDS):
            relay.drain()
        pipe.recv()
        pipe.send((DONE, None))


def reader(pipe: Connection) -> None:
    """Reads each digest, every second one after it was forgotten everywhere; answers with what went wrong."""
    from apps.kernels.cache import KernelStore, changes
    from apps.kernels.cache.segments import TierAway

    while True:
        step, digests = pipe.recv()
        arm(step)
        wrong = []
        for number, digest in enumerate(digests):
            if number % 2 == 0:
                with suppress(TierAway):
                    changes.forget(digest)
            wrong += _wrong_with(digest, KernelStore().get)
        pipe.send((DONE, wrong))


def _wrong_with(digest: str, read: Callable[[str], bytes]) -> list[str]:
    """What is wrong with the bytes that ``read`` returns; nothing where they are right."""
    try:
        data = read(digest)
    except Exception as error:
        return [f"{digest}: {type(error).__name__}: {error}"]
    return [] if hashlib.sha256(data).hexdigest() == digest else [f"{digest}: other bytes"]


# --- Who looks at what is left, in a process that knows nothing yet


def checker(pipe: Connection, acknowledged: Sequence[Item], begun: Sequence[Item]) -> None:
    """Answers with {"lost", "wrong", "not_copied", "rows_left"}: of acknowledged writes, and of those that only began.

    Every acknowledged one is readable, now and once the outbox is worked off; then L4 has it and no row is left. One
    that was not acknowledged is there wholly, or not at all.
    """
    from apps.core.errors import NotFound
    from apps.kernels.cache import KernelStore

    store, wrong = KernelStore(), []
    lost = {item.digest: fault for item in acknowledged for fault in _wrong_with(item.digest, store.get)}
    for item in begun:
        with suppress(NotFound):
            if store.get(item.digest) != item.data():
                wrong.append(f"{item}: other bytes")
    rows_left = _drain_wholly()
    for item in acknowledged:
        for fault in _wrong_with(item.digest, _as_the_truth_has_it):
            lost.setdefault(item.digest, fault)
    not_copied = [item.digest for item in acknowledged if not _is_copied(item.digest)]
    pipe.send({"lost": list(lost.values()), "wrong": wrong, "not_copied": not_copied, "rows_left": rows_left})


def _drain_wholly(seconds: float = 20.0) -> list[str]:
    """Work off the outbox as if the pauses after failures were over; which rows are left in the end."""
    from django.utils import timezone

    from apps.kernels.cache import relay
    from apps.kernels.models import CacheOutbox
    from esper_site.embedded.process import wait_for

    def is_empty() -> bool:
        # The server may not have noticed yet that a client was killed, and hold its locks.
        CacheOutbox.objects.filter(due_at__gt=timezone.now()).update(due_at=timezone.now())
        relay.drain()
        return not CacheOutbox.objects.exists()

    wait_for(is_empty, seconds=seconds, interval=PAUSE_SECONDS)
    return [f"{row.kind} {row.key}: {row.error}" for row in CacheOutbox.objects.all()[:20]]


def _as_the_truth_has_it(digest: str) -> bytes:
    """The blob from L3 or L4, past the copies in L1 and L2."""
    from apps.kernels.cache import KernelStore, reading
    from apps.kernels.cache.segments import segment_count

    count = segment_count(KernelStore().size(digest))
    return b"".join(reading.read_truth(digest, index).segment.data for index in range(count))


def _is_copied(digest: str) -> bool:
    from apps.kernels.cache import archive
    from apps.kernels.models import KernelBlob

    if not KernelBlob.objects.filter(pk=digest, archived_at__isnull=False).exists():
        return False
    with suppress(FileNotFoundError):
        return archive.is_whole(digest)
    return False
