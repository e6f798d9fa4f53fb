"""The kernel cache in tests: bytes, what was counted, and a process beside this one that serves reads too.

with serving() as other:
    other.state_of(kernel)
"""

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from apps.kernels.cache import KernelStore, TierName, stats
from apps.kernels.cache.tiers import tiers
from apps.kernels.models import Kernel
from benchmarks.cache_site import Child


def content(size: int, *, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def tier_of(digest: str, *, start: int = 0, stop: int | None = None) -> TierName:
    """The tier that a read is answered by."""
    reading = KernelStore().stream(digest, start, stop)
    list(reading)
    return reading.tier


class Counts:
    """What this process has counted since."""

    def __init__(self) -> None:
        self._before = stats.process()

    def of(self, what: str, tier: str, *, size: int | None = None) -> int:
        """``size``: only of kernels of the same size class."""
        size_class = None if size is None else stats.size_class_of(size)
        return (stats.process() - self._before).total(what, tier, size_class)


@dataclass(frozen=True, slots=True)
class Answer:
    """A read in the other process."""

    status: int
    code: str
    tier: str


class Other:
    """A forked process with all that a process that serves reads has; its answers come over a pipe."""

    def __init__(self, child: Child) -> None:
        self._child = child

    def _ask(self, *order: Any) -> Any:
        self._child.send(order)
        return self._child.receive()

    @property
    def pid(self) -> int:
        return int(self._ask("pid"))

    def is_current(self) -> bool:
        """Does it hear of changes?"""
        return bool(self._ask("is_current"))

    def state_of(self, kernel: Kernel) -> str:
        """The kernel's state, as it knows it or has to ask."""
        return str(self._ask("look_up", kernel.pk)[0])

    def remembers(self, kernel: Kernel) -> bool:
        """Does it know the kernel without a question to the database? After the answer it does, if it may."""
        return bool(self._ask("look_up", kernel.pk)[1])

    def download(self, kernel: Kernel, secret: str) -> Answer:
        return Answer(*self._ask("download", f"/api/v1/kernels/{kernel.pk}/binary", secret))

    def has_in_memory(self, digest: str) -> bool:
        return bool(self._ask("has_in_memory", digest))

    def read_into_memory(self, digest: str) -> None:
        """Twice, as L1 wants it."""
        self._ask("read_twice", digest)

    def published(self) -> None:
        """Have it tell the fleet what it counted."""
        self._ask("publish")


@contextmanager
def serving() -> Iterator[Other]:
    child = Child(_serve)
    try:
        yield Other(child)
    finally:
        child.kill()
        child.pipe.close()


def _serve(pipe: Connection) -> None:
    from apps.kernels.cache import process

    process.start()
    while True:
        order, *arguments = pipe.recv()
        pipe.send(ORDERS[order](*arguments))


def _is_current() -> bool:
    from apps.kernels.cache.changes import follower

    return follower.is_current()


def _look_up(kernel_id: Any) -> tuple[str, bool]:
    from django.db import connection

    from apps.kernels.cache.bindings import bindings

    asked: list[str] = []

    def note(execute: Any, sql: str, *rest: Any) -> Any:
        asked.append(sql)
        return execute(sql, *rest)

    with connection.execute_wrapper(note):
        found = bindings.of(kernel_id)
    return (found.state if found else "none", not asked)


def _download(path: str, secret: str) -> tuple[int, str, str]:
    from tests.api.conftest import Caller

    response = Caller(secret).get(path)
    if response.status_code != 200:
        return response.status_code, response.json()["code"], ""
    response.getvalue()
    return 200, "", response["X-Esper-Cache-Tier"]


def _has_in_memory(digest: str) -> bool:
    return tiers().memory.has(digest)


def _read_twice(digest: str) -> None:
    for _ in range(2):
        KernelStore().get(digest)


def _publish() -> None:
    from apps.kernels.cache import process

    process.publish()


ORDERS: dict[str, Any] = {
    "is_current": _is_current,
    "look_up": _look_up,
    "download": _download,
    "has_in_memory": _has_in_memory,
    "read_twice": _read_twice,
    "publish": _publish,
    "pid": os.getpid,
}
