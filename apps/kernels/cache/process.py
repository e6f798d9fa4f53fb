"""What a process that serves reads does beside them: it follows changes, publishes its counts, warms its L1.

    process.start()          # wsgi.py; when a Celery worker's process is ready

Commands and tests that do not start it read as well: they remember no kernels, and count for themselves only.
"""

import atexit
import os
import threading
import time
from typing import Any
from uuid import UUID

import structlog
from celery.concurrency.prefork import TaskPool
from celery.signals import worker_process_init, worker_ready
from django.db import DatabaseError, InterfaceError, connection

from apps.core.ids import parse_id
from apps.kernels.cache import accesses, fleet, stats, warming
from apps.kernels.cache.bindings import bindings
from apps.kernels.cache.changes import Event, follower
from apps.kernels.cache.tiers import tiers
from apps.kernels.models import KernelBlob

log = structlog.get_logger(__name__)

PUBLISH_SECONDS = 5.0


class Companion:
    """The thread that publishes, and warms when it is told to."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._warm = threading.Event()

    def start(self) -> None:
        if self._thread is None:
            self._stopping.clear()
            self._thread = threading.Thread(target=self._keep_on, name="kernel-cache", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
        self._thread = None

    def warm(self) -> None:
        """Load what is read most into L1, soon."""
        self._warm.set()

    def start_anew_in_child(self) -> None:
        self._thread, self._stopping, self._warm = None, threading.Event(), threading.Event()

    def _keep_on(self) -> None:
        while True:
            is_over = self._stopping.wait(PUBLISH_SECONDS)
            try:
                if self._warm.is_set() and not is_over:
                    self._warm.clear()
                    warming.warm_memory(self._stopping)
                publish()
            except Exception:
                log.exception("cache_companion_failed")  # the next round may do better
            finally:
                connection.close()
            if is_over:
                return


companion = Companion()


def publish() -> None:
    """Add what this process counted to what the fleet has. What is not taken is kept for the next time."""
    fleet.publish()
    accesses.publish()


def start() -> None:
    """Begin, in this process. Once is enough; a forked child begins anew."""
    follower.on_event, follower.on_gap, follower.on_loss = hear, forget_the_gone, bindings.clear
    follower.start()
    companion.warm()
    companion.start()


def _memory() -> dict[str, int | str]:
    return tiers().memory.gauge()


def _breakers() -> dict[str, dict[str, str | float]]:
    return {
        name: {"state": breaker.state, "since": time.time() - breaker.seconds_since_change, "opened": breaker.opened}
        for name, breaker in tiers().breakers.items()
    }


stats.gauges.update(l1=_memory, breakers=_breakers)


def hear(event: Event) -> None:
    """Do what an event of the stream says."""
    kind, key = event
    if kind == "forget":
        tiers().memory.drop(key)
    elif kind == "changed":
        kernel_id = parse_id(key)
        if isinstance(kernel_id, UUID):
            bindings.drop(kernel_id)
    elif kind == "warm":
        companion.warm()


def forget_the_gone() -> None:
    """After a gap: what is known of kernels may be out of date, and bytes may be gone for good."""
    bindings.clear()
    held = tiers().memory.digests()
    try:
        alive = set(KernelBlob.objects.filter(pk__in=held, in_database=True).values_list("pk", flat=True))
    except (DatabaseError, InterfaceError):
        alive = set()
    finally:
        connection.close()
    for digest in held - alive:
        tiers().memory.drop(digest)


@worker_ready.connect(weak=False)
def start_in_worker(*, sender: Any, **kwargs: object) -> None:
    """Where tasks run in threads of this process. One that forks reads nothing itself, and is not to fill its L1."""
    if not isinstance(sender.pool, TaskPool):
        start()


@worker_process_init.connect(weak=False)
def start_in_child(**kwargs: object) -> None:
    start()


def start_anew_in_child() -> None:
    follower.start_anew_in_child()
    companion.start_anew_in_child()


os.register_at_fork(after_in_child=start_anew_in_child)
atexit.register(companion.stop)
