"""Loading what is read most before it is asked for: L1 of a process that starts, L2 by schedule.

Both are filled to ``warm_share`` at most, by decayed reads for their bytes, and not faster than
``warm_bytes_per_second``, so that warming does not keep readers waiting.
"""

import threading
import time

import structlog

from apps.core.errors import ServiceError
from apps.kernels.cache import planning, reading
from apps.kernels.cache.config import config
from apps.kernels.cache.memory import SHARE_LIMIT
from apps.kernels.cache.segments import CorruptSegment, segment_count
from apps.kernels.cache.tiers import tiers

log = structlog.get_logger(__name__)


class Pace:
    """Keeps a loader below a rate of bytes per second."""

    def __init__(self, bytes_per_second: int, over: threading.Event | None = None) -> None:
        """``over``: once it is set, nobody waits any more."""
        self._rate = bytes_per_second
        self._began = time.monotonic()
        self._bytes = 0
        self._over = over or threading.Event()

    def moved(self, size: int) -> None:
        """Wait until ``size`` more bytes are within the rate."""
        self._bytes += size
        ahead = self._bytes / self._rate - (time.monotonic() - self._began)
        if ahead > 0:
            self._over.wait(ahead)


def warm_memory(over: threading.Event | None = None) -> int:
    """Load what is read most into this process's L1; how many kernels. One that cannot be read is passed over.

    ``over``: set when the process is to end, which does not wait for the rest.
    """
    settings, over, loaded = config(), over or threading.Event(), 0
    pace = Pace(settings.warm_bytes_per_second, over)
    room = int(settings.warm_share * settings.l1_bytes)
    for kernel in planning.wanted_in_memory(room, largest=settings.l1_bytes // SHARE_LIMIT):
        if over.is_set():
            break
        if tiers().memory.has(kernel.digest):
            continue
        try:
            for index in range(segment_count(kernel.size)):
                reading.read(kernel.digest, index, keep_in_memory=True)
        except (ServiceError, CorruptSegment) as error:
            log.warning("kernel_not_warmed", kernel=str(kernel.pk), reason=str(error))
            continue
        loaded += 1
        pace.moved(kernel.size)
    return loaded
