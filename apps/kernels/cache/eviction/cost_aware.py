"""Cost-aware: what saves the least time for its bytes leaves, and what would save less than that does not come in.

The worth of an entry is its frequency times the seconds to fetch it again, over its bytes: as in GreedyDual-Size-
Frequency (Cherkasova, HP Labs, 1998), but with a frequency that fades: every half-life of the cache's own clock,
which goes on by one with each newcomer, halves it. What left is remembered by its frequency, so a key that comes back
is no stranger (as in TinyLFU; Einziger, Friedman, Manes, 2017).

Who leaves is found by sampling: the least worthy of SAMPLE entries drawn at random. A newcomer has to be worth more
than all of those together that would leave for it.
"""

import random
from collections import OrderedDict
from collections.abc import Hashable
from typing import ClassVar

from apps.kernels.cache.eviction.base import Entry

SAMPLE = 32
HALF_LIFE = 2.0
"""In newcomers for each entry that the cache holds."""
SHORTEST_HALF_LIFE = 200.0
GHOSTS_PER_ENTRY, FEWEST_GHOSTS = 4, 2_000


class CostAware:
    name: ClassVar[str] = "cost-aware"
    touch = None

    def __init__(self, budget: int) -> None:
        self._entries: list[Entry] = []
        self._ghosts: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()
        """Key -> (score, when that was)."""
        self._clock = 0.0
        self._random = random.Random(1)  # noqa: S311 - no secret

    def make_room(self, newcomer: Entry, needed: int) -> list[Entry] | None:
        self._clock += 1
        leaving = self._least_worthy(needed)
        newcomer.score, newcomer.scored_at = self._recalled(newcomer.key) + 1.0, self._clock
        if sum(self._score(entry) * entry.cost for entry in leaving) > newcomer.score * newcomer.cost:
            self._remember(newcomer)
            for entry in leaving:
                self._add(entry)
            return None
        for entry in leaving:
            self._remember(entry)
        return leaving

    def insert(self, entry: Entry) -> None:
        if not entry.scored_at:  # there was room
            self._clock += 1
            entry.score, entry.scored_at = self._recalled(entry.key) + 1.0, self._clock
        self._ghosts.pop(entry.key, None)
        self._add(entry)

    def remove(self, entry: Entry) -> None:
        if entry.place < len(self._entries) and self._entries[entry.place] is entry:
            self._take(entry)

    def _least_worthy(self, needed: int) -> list[Entry]:
        """Taken out: entries of ``needed`` bytes or more."""
        leaving: list[Entry] = []
        while needed > 0:
            entry = min(self._sample(), key=self._worth)
            self._take(entry)
            needed -= entry.size
            leaving.append(entry)
        return leaving

    def _sample(self) -> list[Entry]:
        if len(self._entries) <= SAMPLE:
            return self._entries
        return self._random.sample(self._entries, SAMPLE)

    def _worth(self, entry: Entry) -> float:
        return self._score(entry) * entry.cost / entry.size

    def _score(self, entry: Entry) -> float:
        """The decayed reads of an entry, with those since it was last looked at."""
        hits = entry.hits
        entry.score = entry.score * self._faded(entry.scored_at) + (hits - entry.counted)
        entry.counted, entry.scored_at = hits, self._clock
        return entry.score

    def _recalled(self, key: Hashable) -> float:
        score, scored_at = self._ghosts.pop(key, (0.0, self._clock))
        return score * self._faded(scored_at)

    def _remember(self, entry: Entry) -> None:
        self._ghosts[entry.key] = (self._score(entry), self._clock)
        while len(self._ghosts) > max(FEWEST_GHOSTS, GHOSTS_PER_ENTRY * len(self._entries)):
            self._ghosts.popitem(last=False)

    def _faded(self, since: float) -> float:
        half_life = max(SHORTEST_HALF_LIFE, HALF_LIFE * len(self._entries))
        return float(0.5 ** ((self._clock - since) / half_life))

    def _add(self, entry: Entry) -> None:
        entry.place = len(self._entries)
        self._entries.append(entry)

    def _take(self, entry: Entry) -> None:
        """The last one comes into its place."""
        last = self._entries.pop()
        if last is not entry:
            self._entries[entry.place] = last
            last.place = entry.place
