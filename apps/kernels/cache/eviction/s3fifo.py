"""S3-FIFO (Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023), with sizes in bytes.

A newcomer goes into the small queue (a tenth of the budget). Read twice before it comes to the end of it, it moves on
to the main queue, else its key is remembered in the ghost queue; a newcomer whose key is there goes to the main queue
at once. At the end of the main queue, what was read since goes back to its beginning, at most three times for three
reads.
"""

from collections import OrderedDict
from collections.abc import Hashable
from typing import ClassVar

from apps.kernels.cache.eviction.base import Entry

SMALL_SHARE = 0.1
MOST_FREQUENT = 3
SMALL, MAIN = 1, 2


class S3Fifo:
    name: ClassVar[str] = "s3-fifo"
    touch = None

    def __init__(self, budget: int) -> None:
        self._small: OrderedDict[Hashable, Entry] = OrderedDict()
        self._main: OrderedDict[Hashable, Entry] = OrderedDict()
        self._ghosts: OrderedDict[Hashable, int] = OrderedDict()
        self._small_bytes = self._ghost_bytes = 0
        self._small_limit = int(budget * SMALL_SHARE)
        self._ghost_limit = budget - self._small_limit
        """The ghosts of as many bytes as the main queue may hold."""

    def make_room(self, newcomer: Entry, needed: int) -> list[Entry]:
        leaving: list[Entry] = []
        while needed > 0:
            evict = self._evict_small if self._small_bytes > self._small_limit or not self._main else self._evict_main
            entry = evict()
            if entry is not None:
                needed -= entry.size
                leaving.append(entry)
        return leaving

    def insert(self, entry: Entry) -> None:
        ghost = self._ghosts.pop(entry.key, None)
        if ghost is not None:
            self._ghost_bytes -= ghost
            self._to_main(entry)
            return
        entry.place = SMALL
        self._small[entry.key] = entry
        self._small_bytes += entry.size

    def remove(self, entry: Entry) -> None:
        if self._small.pop(entry.key, None) is not None:
            self._small_bytes -= entry.size
        self._main.pop(entry.key, None)

    def _evict_small(self) -> Entry | None:
        """The oldest of the small queue leaves, or moves on to the main queue: then nobody has left."""
        _, entry = self._small.popitem(last=False)
        self._small_bytes -= entry.size
        if self._frequency(entry) > 1:
            self._to_main(entry)
            return None
        self._remember(entry)
        return entry

    def _evict_main(self) -> Entry | None:
        _, entry = self._main.popitem(last=False)
        frequency = self._frequency(entry)
        if frequency:
            entry.counted = entry.hits - (frequency - 1)
            self._main[entry.key] = entry
            return None
        return entry

    def _to_main(self, entry: Entry) -> None:
        entry.place, entry.counted = MAIN, entry.hits
        self._main[entry.key] = entry

    def _remember(self, entry: Entry) -> None:
        self._ghosts[entry.key] = entry.size
        self._ghost_bytes += entry.size
        while self._ghost_bytes > self._ghost_limit:
            _, size = self._ghosts.popitem(last=False)
            self._ghost_bytes -= size

    def _frequency(self, entry: Entry) -> int:
        return min(entry.hits - entry.counted, MOST_FREQUENT)
