"""The named points at which a save, a compaction, an archive or a sweep may die: tests kill the process at each one.

``ESPER_CRASH_AT=pack.written:3`` kills the process at its third arrival at that point, as a power cut would. Tests in
the same process set ``hook``, which may raise (a full disk, a storage that is gone).
"""

import os
import signal
import threading
from collections import Counter
from collections.abc import Callable

POINTS: tuple[str, ...] = (
    "save.begun",
    "pack.created",
    "pack.written",  # once per object
    "pack.fsynced",
    "pack.named",
    "pack.folder_fsynced",
    "manifest.written",
    "manifest.fsynced",
    "manifest.named",
    "manifest.folder_fsynced",
    "commit.before",
    "commit.after",
    "archive.put",
    "archive.recorded",
    "archive.freed",
    "recall.named",
    "recall.recorded",
    "compact.named",
    "compact.committed",
    "sweep.recorded",
    "sweep.deleted",
    "expire.recorded",
    "expire.deleted",
)
"""In the order in which a save, then what follows in the life of a checkpoint, reaches them."""

VARIABLE = "ESPER_CRASH_AT"

hook: Callable[[str], None] | None = None

_arrivals: Counter[str] = Counter()
_lock = threading.Lock()


def reached(name: str) -> None:
    """Go on, unless the environment or a test wants the process to fail just here."""
    if hook is not None:
        hook(name)
    wanted = os.environ.get(VARIABLE)
    if not wanted:
        return
    point, _, arrival = wanted.partition(":")
    if point != name:
        return
    with _lock:
        _arrivals[name] += 1
        arrived = _arrivals[name]
    if arrived == int(arrival or 1):
        os.kill(os.getpid(), signal.SIGKILL)
