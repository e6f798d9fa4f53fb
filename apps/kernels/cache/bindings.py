"""What a process remembers of kernels, so that a download need not ask the database: id -> digest, size, state, name.

It is the only mutable thing that is cached. It is used only while the process hears of every change
(``changes.Follower``), and never for longer than ``binding_ttl``.
"""

import os
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from uuid import UUID

from django.db import connection

from apps.kernels.cache.changes import follower
from apps.kernels.cache.config import config
from apps.kernels.models import Kernel

MOST = 10_000


@dataclass(frozen=True, slots=True)
class Binding:
    """As the row of the kernel had it."""

    kernel_id: UUID
    name: str
    state: str
    digest: str | None
    size: int | None


class Bindings:
    """The table of one process, of at most MOST kernels: who was asked for longest ago goes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[UUID, tuple[float, Binding]] = OrderedDict()

    def of(self, kernel_id: UUID) -> Binding | None:
        """The kernel as it is, or was a moment ago; None: there is none."""
        in_transaction = connection.in_atomic_block  # it sees the past, and what it changes itself
        known = self._get(kernel_id) if follower.is_current() and not in_transaction else None
        if known is not None:
            return known
        heard = follower.events
        row = Kernel.objects.filter(pk=kernel_id).values_list("pk", "name", "state", "digest", "size").first()
        if row is None:
            return None
        found = Binding(*row)
        if follower.is_current() and not in_transaction:
            self._keep(kernel_id, found, heard)  # unless something was told meanwhile: it may be about this row
        return found

    def drop(self, kernel_id: UUID) -> None:
        with self._lock:
            self._known.pop(kernel_id, None)

    def clear(self) -> None:
        with self._lock:
            self._known.clear()

    def _get(self, kernel_id: UUID) -> Binding | None:
        with self._lock:
            known = self._known.get(kernel_id)
            if known is None or time.monotonic() > known[0]:
                return None
            self._known.move_to_end(kernel_id)
            return known[1]

    def _keep(self, kernel_id: UUID, found: Binding, heard: int) -> None:
        with self._lock:
            if follower.events != heard:
                return
            self._known[kernel_id] = (time.monotonic() + config().binding_ttl, found)
            while len(self._known) > MOST:
                self._known.popitem(last=False)

    def start_anew_in_child(self) -> None:
        self._lock = threading.Lock()
        self._known = OrderedDict()


bindings = Bindings()
os.register_at_fork(after_in_child=bindings.start_anew_in_child)
