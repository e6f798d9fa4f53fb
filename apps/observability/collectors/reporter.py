"""The thread by which a serving process tells how its host is: ``hosts.publish``, one process of a host at a time.

    reporter.start()      # wsgi.py; when a Celery worker's process is ready

A disk or a driver that does not answer holds up this thread only.
"""

import atexit
import os
import threading
from typing import Any

import structlog
from celery.concurrency.prefork import TaskPool
from celery.signals import worker_process_init, worker_ready

from apps.core.errors import Unavailable
from apps.observability.collectors import hosts

log = structlog.get_logger(__name__)

LOOK_SECONDS = 5.0
"""How often it looks whether it is its turn."""


class Reporter:
    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()

    def start(self) -> None:
        """Once is enough."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._keep_on, name="host-reporter", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Let the thread end; it is not waited for, as what it asks may never answer."""
        self._stopping.set()

    def start_anew_in_child(self) -> None:
        self._thread, self._stopping = None, threading.Event()

    def _keep_on(self) -> None:
        while True:
            try:
                hosts.publish()
            except Unavailable:
                pass  # readiness tells of a broker that is away
            except Exception:
                log.exception("host_not_read")  # the next time may do better
            if self._stopping.wait(LOOK_SECONDS):
                return


reporter = Reporter()


@worker_ready.connect(weak=False)
def start_in_worker(*, sender: Any, **kwargs: object) -> None:
    """Where tasks run in threads of this process: one that forks is to have no threads."""
    if not isinstance(sender.pool, TaskPool):
        reporter.start()


@worker_process_init.connect(weak=False)
def start_in_child(**kwargs: object) -> None:
    reporter.start()


os.register_at_fork(after_in_child=reporter.start_anew_in_child)
atexit.register(reporter.stop)
