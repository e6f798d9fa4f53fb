"""What the detector looks at in a stream, each a running statistic that turns a value into a raw score of oddity.

Raw scores are comparable only with those of the same component and stream: ``calibration.Tail`` says how rare one is.
All take constant time and memory for each value. Values are finite and of at most 1e150 in size.
"""

import math
from collections import deque
from typing import Any

DAY = 86_400
RESOLUTION = 1e-6
"""Spread of a stream that never moved, as a share of its size."""
WINSOR = 4.0
"""Spreads beyond which a value counts as one that far out: an outlier must not hide the next."""


class Level:
    """Mean and variance of the whole stream, with slow forgetting."""

    __slots__ = ("mean", "seen", "slowest", "variance")

    def __init__(self, slowest: float) -> None:
        self.mean = 0.0
        self.variance = 0.0
        self.seen = 0
        self.slowest = slowest
        """Least share of a new value in the mean."""

    def spread(self) -> float:
        """Standard deviation; of a stream that never moved a millionth of its size."""
        return max(math.sqrt(self.variance), RESOLUTION * abs(self.mean), 1e-12)

    def learn(self, value: float, settled: bool) -> None:
        self.seen += 1
        step = max(1 / self.seen, self.slowest)
        difference = value - self.mean
        spread = math.sqrt(self.variance)
        if settled and spread > RESOLUTION * abs(self.mean):
            difference = min(max(difference, -WINSOR * spread), WINSOR * spread)
        self.mean += step * difference
        self.variance = (1 - step) * (self.variance + step * difference * difference)

    def to_state(self) -> list[Any]:
        return [self.mean, self.variance, self.seen, self.slowest]

    @classmethod
    def from_state(cls, state: list[Any]) -> "Level":
        level = cls(float(state[3]))
        level.mean, level.variance, level.seen = float(state[0]), float(state[1]), int(state[2])
        return level


class Range:
    """The least and the greatest value so far, and how far new extremes used to lie beyond."""

    __slots__ = ("forgetting", "high", "low", "seen", "usual")

    def __init__(self, forgetting: float) -> None:
        self.low = math.inf
        self.high = -math.inf
        self.seen = 0
        self.usual = 0.0
        """Mean excess of former new extremes, as a share of the range."""
        self.forgetting = forgetting
        """By what share of itself the range narrows with each value."""

    def raw(self, value: float) -> float:
        """How far ``value`` lies outside, as a share of the range; 0 inside."""
        if self.seen == 0 or self.low <= value <= self.high:
            return 0.0
        beyond = value - self.high if value > self.high else self.low - value
        width = max(self.high - self.low, 1e-3 * max(abs(self.high), abs(self.low)), 1e-12)
        return beyond / width

    def learn(self, value: float, raw: float, settled: bool) -> None:
        self.seen += 1
        if settled and raw > 0:
            self.usual += 0.2 * (min(raw, 1.0) - self.usual)
        elif self.seen > 1:
            narrowing = self.forgetting * (self.high - self.low)
            self.high -= narrowing
            self.low += narrowing
        self.low = min(self.low, value)
        self.high = max(self.high, value)

    def to_state(self) -> list[Any]:
        known = self.seen > 0
        return [self.low if known else None, self.high if known else None, self.seen, self.usual, self.forgetting]

    @classmethod
    def from_state(cls, state: list[Any]) -> "Range":
        low, high, seen, usual, forgetting = state
        found = cls(float(forgetting))
        found.seen, found.usual = int(seen), float(usual)
        if found.seen:
            found.low, found.high = float(low), float(high)
        return found


class Window:
    """The last values: their mean, and how much they move from one to the next."""

    __slots__ = ("moves", "values")

    def __init__(self, size: int) -> None:
        self.values: deque[float] = deque(maxlen=size)
        self.moves: deque[float] = deque(maxlen=size)

    def add(self, value: float) -> None:
        if self.values:
            self.moves.append(abs(value - self.values[-1]))
        self.values.append(value)

    def full(self) -> bool:
        return len(self.moves) == self.moves.maxlen

    def mean(self) -> float:
        return math.fsum(self.values) / len(self.values)

    def movement(self) -> float:
        return math.fsum(self.moves) / len(self.moves) if self.moves else 0.0

    def to_state(self) -> list[Any]:
        return [self.values.maxlen, list(self.values), list(self.moves)]

    @classmethod
    def from_state(cls, state: list[Any]) -> "Window":
        window = cls(int(state[0]))
        window.values.extend(float(value) for value in state[1])
        window.moves.extend(float(move) for move in state[2])
        return window


class Sequences:
    """A Markov model of variable order over the stream's levels: how surprising is the next after those before.

    A level is the distance to the stream's mean in steps of half a spread, of ``LEVELS``. The order is the longest for
    which the last levels were seen ``ENOUGH`` times. Counts fade, so that at most ``MOST`` contexts are kept.
    """

    LEVELS = 16
    ORDER = 2
    ENOUGH = 6
    MOST = 60
    """Contexts."""
    LARGEST = 4000
    """Sum of counts of a context at which they are halved."""

    __slots__ = ("contexts", "last")

    def __init__(self) -> None:
        self.contexts: dict[str, dict[str, int]] = {}
        self.last = ""

    def symbol(self, value: float, level: Level) -> str:
        place = int((value - level.mean) / (0.5 * level.spread()) + self.LEVELS / 2)
        return "0123456789abcdef"[min(max(place, 0), self.LEVELS - 1)]

    def raw(self, symbol: str) -> float:
        """Bits of surprise at ``symbol``."""
        for order in range(len(self.last), -1, -1):
            counts = self.contexts.get(self.last[len(self.last) - order :])
            if counts:
                total = sum(counts.values())
                if total >= self.ENOUGH:
                    return -math.log2((counts.get(symbol, 0) + 0.1) / (total + 0.1 * self.LEVELS))
        return 0.0

    def learn(self, symbol: str) -> None:
        for order in range(len(self.last) + 1):
            context = self.last[len(self.last) - order :]
            counts = self.contexts.get(context)
            if counts is None:
                if len(self.contexts) >= self.MOST:
                    continue
                counts = self.contexts[context] = {}
            counts[symbol] = counts.get(symbol, 0) + 1
            if counts[symbol] >= self.LARGEST:
                self.contexts[context] = {each: count // 2 for each, count in counts.items() if count > 1}
        self.last = (self.last + symbol)[-self.ORDER :]

    def to_state(self) -> list[Any]:
        return [self.last, self.contexts]

    @classmethod
    def from_state(cls, state: list[Any]) -> "Sequences":
        found = cls()
        found.last = str(state[0])
        found.contexts = {
            str(context): {str(symbol): int(count) for symbol, count in counts.items()}
            for context, counts in state[1].items()
        }
        return found


class Season:
    """What the stream does at this time of the day, in bins of half an hour, once it has seen two days."""

    BINS = 48
    STEP = 0.05
    """Least share of a new value in a bin's mean."""

    __slots__ = ("bins", "first_day", "residual", "total")

    def __init__(self) -> None:
        self.bins: list[list[float]] = [[0.0, 0.0, 0.0] for _ in range(self.BINS)]
        """Mean, variance and count of each."""
        self.first_day: int | None = None
        self.residual = 0.0
        self.total = 0.0
        """Mean squares of what remains after the season, and of the deviations from the mean."""

    def expected(self, at: float) -> tuple[float, float] | None:
        """Mean and spread of the values at this time of the day; None: not known, or the day does not matter."""
        if self.first_day is None or at // DAY - self.first_day < 2 or self.residual > 0.5 * self.total:
            return None
        mean, variance, count = self.bins[self._bin(at)]
        if count < 2:
            return None
        return mean, math.sqrt(max(variance, 0.1 * self.residual)) + 1e-12

    def learn(self, at: float, value: float, level: Level) -> None:
        if self.first_day is None:
            self.first_day = int(at // DAY)
        entry = self.bins[self._bin(at)]
        if at // DAY - self.first_day >= 1 and entry[2]:
            # Before it learns of the value: what remains is an error of prediction.
            bound = WINSOR * level.spread()
            error = min(max(value - entry[0], -bound), bound)
            deviation = min(max(value - level.mean, -bound), bound)
            self.residual += 0.003 * (error * error - self.residual)
            self.total += 0.003 * (deviation * deviation - self.total)
        entry[2] += 1
        step = max(1 / entry[2], self.STEP)
        bound = WINSOR * level.spread()
        difference = value - entry[0] if entry[2] == 1 else min(max(value - entry[0], -bound), bound)
        entry[0] += step * difference
        entry[1] = (1 - step) * (entry[1] + step * difference * difference)

    def _bin(self, at: float) -> int:
        return int(at % DAY // (DAY // self.BINS))

    def to_state(self) -> list[Any]:
        return [self.bins if self.first_day is not None else [], self.first_day, self.residual, self.total]

    @classmethod
    def from_state(cls, state: list[Any]) -> "Season":
        bins, first_day, residual, total = state
        season = cls()
        if first_day is not None:
            season.first_day = int(first_day)
            season.bins = [[float(number) for number in entry] for entry in bins]
        season.residual, season.total = float(residual), float(total)
        return season
