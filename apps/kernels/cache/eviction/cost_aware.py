"""Cost-aware: what saves the least time for its bytes leaves.

The worth of an entry is its frequency times the seconds to fetch it again, over its bytes: as in GreedyDual-Size-
Frequency (Cherkasova, HP Labs, 1998), but with a frequency that fades: with every half-life, counted in reads of the
cache, it halves (as in LRFU; Lee et al., IEEE Transactions on Computers, 2001). It is the sum of two: one that fades
soon follows what runs read now, and one that lasts knows what is always read. What left is remembered by its frequency,
so a key that comes back is no stranger.

The seconds are of one fetch, which may have been slow by chance: what is usual for the size counts as much as they do.

Who leaves is found by sampling: the least worthy of SAMPLE entries drawn at random. A newcomer always comes in: to keep
out those that are worth less than what would leave for them was tried, and lost wherever what is read changes.
``benchmarks/cache_policies.py`` says what was tuned, and on what.
"""

import random
from collections import OrderedDict
from collections.abc import Hashable
from typing import ClassVar

from apps.kernels.cache.eviction.base import Entry

SAMPLE = 32
HALF_LIFE, LASTING_FACTOR = 1.0, 16
"""Of the frequency that fades soon, in reads for each entry that the cache holds; the other's is so many times that."""
LASTING_WEIGHT = 0.3
SHORTEST_HALF_LIFE = 200.0
GHOSTS_PER_ENTRY, FEWEST_GHOSTS = 4, 2_000
FURTHEST_COST, COST_TRUST, COST_STEP = 4.0, 0.5, 1 / 16
"""How far the seconds of one fetch may be from what is usual for its size, in times; the power by which the difference
counts; and the power by which it changes what is usual."""


class CostAware:
    name: ClassVar[str] = "cost-aware"
    touch = None

    def __init__(self, budget: int) -> None:
        self._entries: list[Entry] = []
        self._ghosts: OrderedDict[Hashable, tuple[float, float, int]] = OrderedDict()
        """Key -> (recent, lasting, when that was)."""
        self._usual: dict[int, float] = {}
        """Seconds of a fetch, by the power of two above the bytes."""
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
        entry.recent, entry.lasting, entry.scored_at = self._ghosts.pop(entry.key, (0.0, 0.0, entry.read_at))
        self._add_reads(entry, 1, entry.read_at)
        entry.saved = self._seconds(entry) / entry.size
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
        recent, lasting = self._faded(now - entry.scored_at)
        return (entry.recent * recent + LASTING_WEIGHT * entry.lasting * lasting) * entry.saved

    def _seconds(self, entry: Entry) -> float:
        """What another fetch of it would take, by this one and by those of its size."""
        cost, power = max(entry.cost, 1e-9), entry.size.bit_length()
        usual = self._usual.get(power, cost)
        times = min(max(cost / usual, 1 / FURTHEST_COST), FURTHEST_COST)
        self._usual[power] = usual * times**COST_STEP
        return float(usual * times**COST_TRUST)

    def _look_at(self, entry: Entry) -> None:
        """Add what was read since it was last looked at, as if all of that had been at the last read."""
        hits = entry.hits
        if hits != entry.counted:
            self._add_reads(entry, hits - entry.counted, entry.read_at)
            entry.counted = hits

    def _add_reads(self, entry: Entry, reads: int, read_at: int) -> None:
        recent, lasting = self._faded(read_at - entry.scored_at)
        entry.recent = entry.recent * recent + reads
        entry.lasting = entry.lasting * lasting + reads
        entry.scored_at = read_at

    def _remember(self, entry: Entry) -> None:
        self._look_at(entry)
        self._ghosts[entry.key] = (entry.recent, entry.lasting, entry.scored_at)
        while len(self._ghosts) > max(FEWEST_GHOSTS, GHOSTS_PER_ENTRY * len(self._entries)):
            self._ghosts.popitem(last=False)

    def _faded(self, reads: int) -> tuple[float, float]:
        """The parts that are left of both frequencies after so many reads of the cache."""
        lasting = 0.5 ** (reads / (LASTING_FACTOR * max(SHORTEST_HALF_LIFE, HALF_LIFE * len(self._entries))))
        return lasting**LASTING_FACTOR, lasting

    def _add(self, entry: Entry) -> None:
        entry.place = len(self._entries)
        self._entries.append(entry)

    def _take(self, entry: Entry) -> None:
        """The last one comes into its place."""
        last = self._entries.pop()
        if last is not entry:
            self._entries[entry.place] = last
            last.place = entry.place
