"""How rare a raw score is in the stream that it is of: the tail of all raw scores that the stream has shown so far."""

import math
from typing import Any

BEYOND = 0.02
"""Share of raw scores that lie beyond the threshold of the tail."""
LIGHTEST = 0.1
HEAVIEST = 0.7
"""Bounds of the tail's index: below the one everything new would look impossible, above the other nothing."""
SLOWEST = 1 / 1000
"""Least step of learning: how slowly the tail forgets, in samples."""
LEAST_SEEDS, MOST_SEEDS = 8, 64


class Tail:
    """The upper tail of positive raw scores, as Hill's estimator sees it (Hill, Annals of Statistics 3, 1975).

    Beyond the 98 % quantile ``t`` the tail is taken as P(R > r) = 0.02 (r / t)^(-1 / h), with ``h`` the mean of
    log(r / t): a stream of heavy tails learns a large ``h`` and needs much more to be called odd than a calm one. The
    quantile is followed by stochastic approximation (Robbins and Monro, 1951).

        rarity = tail.rarity(raw)   # -log10 of how probable something as odd is; 0 below the quantile
        tail.learn(raw)

    It says 0 until it was told of ``seeds`` raw scores.
    """

    __slots__ = ("floor", "index", "seeds", "seen", "seen_beyond", "threshold", "warm")

    def __init__(self, seeds: int, floor: float) -> None:
        self.seeds = min(max(seeds, LEAST_SEEDS), MOST_SEEDS)
        self.floor = floor
        """Raw scores below it are never of the tail."""
        self.warm: list[float] | None = []
        self.threshold = floor
        self.index = 0.3
        self.seen = 0
        self.seen_beyond = 0

    def rarity(self, raw: float) -> float:
        if self.warm is not None or raw <= self.threshold:
            return 0.0
        return -math.log10(BEYOND) + math.log(raw / self.threshold) / (self.index * math.log(10))

    def learn(self, raw: float) -> None:
        self.seen += 1
        if self.warm is not None:
            self.warm.append(raw)
            if len(self.warm) >= self.seeds:
                self._begin(self.warm)
            return
        step = max(1 / self.seen, SLOWEST)
        # The density at the quantile is BEYOND / index in logarithms: its inverse is the gain that converges fastest.
        moved = math.log(self.threshold) - step * self.index
        if raw > self.threshold:
            self.seen_beyond += 1
            beyond = min(math.log(raw / self.threshold), 3 * self.index + 0.3)
            self.index += max(1 / (self.seen_beyond + 5), 1 / 100) * (beyond - self.index)
            self.index = min(max(self.index, LIGHTEST), HEAVIEST)
            moved += step * self.index / BEYOND
        self.threshold = max(math.exp(moved), self.floor)

    def _begin(self, warm: list[float]) -> None:
        ordered = sorted(warm)
        low = ordered[int(0.9 * (len(ordered) - 1))]
        self.threshold = max(low, self.floor)
        self.warm = None

    def to_state(self) -> list[Any]:
        return [self.seeds, self.floor, self.warm, self.threshold, self.index, self.seen, self.seen_beyond]

    @classmethod
    def from_state(cls, state: list[Any]) -> "Tail":
        seeds, floor, warm, threshold, index, seen, seen_beyond = state
        tail = cls(int(seeds), float(floor))
        tail.warm = None if warm is None else [float(raw) for raw in warm]
        tail.threshold, tail.index = float(threshold), float(index)
        tail.seen, tail.seen_beyond = int(seen), int(seen_beyond)
        return tail
