"""Cost-aware: what saves the least time for its bytes leaves.

The worth of an entry is its frequency times the seconds to fetch it again, over its bytes: as in GreedyDual-Size-
Frequency (Cherkasova, HP Labs, 1998), but with a frequency that fades: with every half-life, counted in reads of the
cache, it halves (as in LRFU; Lee et al., IEEE Transactions on Computers, 2001). What left is remembered by its
frequency, so a key that comes back is no stranger.

Who leaves is found by sampling: the least worthy of SAMPLE entries drawn at random. A newcomer always comes in: to keep
out those that are worth less than what would leave for them was tried, and lost wherever what is read changes.
``benchmarks/cache_policies.py`` says what was tuned, and on what.
"""

import random
from collections import OrderedDict
from collections.abc import Hashable
from typing import ClassVar

from apps.kernels.cache.eviction.base import Entry

SAMPLE = 24
HALF_LIFE = 4.0
"""In reads for each entry that the cache holds."""
SHORTEST_HALF_LIFE = 200.0
GHOSTS_PER_ENTRY, FEWEST_GHOSTS = 4, 2_000


class CostAware:
    name: ClassVar[str] = "cost-aware"
    touch = None

    def __init__(self, budget: int) -> None:
        self._entries: list[Entry] = []
        self._ghosts: OrderedDict[Hashable, tuple[float, int]] = OrderedDict()
        """Key -> (score, when that was)."""
        self._draw = random.Random(1).random  # noqa: S311 - no secret

    def make_room(self, newcomer: Entry, needed: int) -> list[Entry]:
        now, leaving = newcomer.read_at, []
        while needed > 0:
            entry = min(self._sample(), key=lambda entry: self._worth(entry, now))
            self._take(entry)
            self._remember(entry)
            needed -= entry.size
            leaving.append(entry)
        return leaving

    def insert(self, entry: Entry) -> None:
        score, scored_at = self._ghosts.pop(entry.key, (0.0, entry.read_at))
        entry.score = score * self._faded(entry.read_at - scored_at) + 1.0
        entry.scored_at = entry.read_at
        self._add(entry)

    def remove(self, entry: Entry) -> None:
        self._take(entry)
        self._remember(entry)  # it may be replaced, and come back at once

    def _sample(self) -> list[Entry]:
        count = len(self._entries)
        if count <= SAMPLE:
            return self._entries
        return [self._entries[int(self._draw() * count)] for _ in range(SAMPLE)]

    def _worth(self, entry: Entry, now: int) -> float:
        self._look_at(entry)
        return entry.score * self._faded(now - entry.scored_at) * entry.cost / entry.size

    def _look_at(self, entry: Entry) -> None:
        """Add what was read since it was last looked at, as if all of that had been at the last read."""
        hits, read_at = entry.hits, entry.read_at
        if hits != entry.counted:
            entry.score = entry.score * self._faded(read_at - entry.scored_at) + (hits - entry.counted)
            entry.counted, entry.scored_at = hits, read_at

    def _remember(self, entry: Entry) -> None:
        self._look_at(entry)
        self._ghosts[entry.key] = (entry.score, entry.scored_at)
        while len(self._ghosts) > max(FEWEST_GHOSTS, GHOSTS_PER_ENTRY * len(self._entries)):
            self._ghosts.popitem(last=False)

    def _faded(self, reads: int) -> float:
        """The part that is left of a score after so many reads of the cache."""
        return float(0.5 ** (reads / max(SHORTEST_HALF_LIFE, HALF_LIFE * len(self._entries))))

    def _add(self, entry: Entry) -> None:
        entry.place = len(self._entries)
        self._entries.append(entry)

    def _take(self, entry: Entry) -> None:
        """The last one comes into its place."""
        last = self._entries.pop()
        if last is not entry:
            self._entries[entry.place] = last
            last.place = entry.place
