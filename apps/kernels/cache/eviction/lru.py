"""Least recently used: what has not been read for longest leaves."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import ClassVar

from apps.kernels.cache.eviction.base import Entry


class Lru:
    name: ClassVar[str] = "lru"

    def __init__(self, budget: int) -> None:
        self._order: OrderedDict[Hashable, Entry] = OrderedDict()
        self.touch = self._touch

    def _touch(self, entry: Entry) -> None:
        try:
            self._order.move_to_end(entry.key)  # one call into C: no other thread comes between
        except KeyError:  # it was evicted this moment
            return

    def make_room(self, newcomer: Entry, needed: int) -> list[Entry]:
        leaving: list[Entry] = []
        while needed > 0:
            _, entry = self._order.popitem(last=False)
            needed -= entry.size
            leaving.append(entry)
        return leaving

    def insert(self, entry: Entry) -> None:
        self._order[entry.key] = entry

    def remove(self, entry: Entry) -> None:
        self._order.pop(entry.key, None)
