"""Detectors to compare with: what the first platform had, and a Gaussian over a sliding window."""

import math
from collections import deque


class LastTen:
    """|z| > 3 against the ten values before: the rule of the first platform."""

    SIZE, LIMIT = 10, 3.0

    def __init__(self) -> None:
        self.before: deque[float] = deque(maxlen=self.SIZE)

    def update(self, timestamp_seconds: float, value: float) -> float:
        score = 0.0
        if len(self.before) == self.SIZE:
            mean = math.fsum(self.before) / self.SIZE
            spread = math.sqrt(math.fsum((each - mean) ** 2 for each in self.before) / self.SIZE)
            score = float(abs(value - mean) > self.LIMIT * spread)
        self.before.append(value)
        return score


class WindowedGaussian:
    """How improbable a value is under a Gaussian over the 6,400 values before; one in 10,000 is an anomaly."""

    SIZE, LIMIT = 6400, 4.0

    def __init__(self) -> None:
        self.before: deque[float] = deque(maxlen=self.SIZE)
        self.total = self.squares = 0.0

    def update(self, timestamp_seconds: float, value: float) -> float:
        score = 0.0
        if len(self.before) > 10:
            mean = self.total / len(self.before)
            variance = max(self.squares / len(self.before) - mean * mean, 1e-18)
            tail = math.erfc(abs(value - mean) / math.sqrt(2 * variance))
            score = min(1.0, -math.log10(max(tail, 1e-300)) / (2 * self.LIMIT))
        if len(self.before) == self.SIZE:
            oldest = self.before[0]
            self.total -= oldest
            self.squares -= oldest * oldest
        self.before.append(value)
        self.total += value
        self.squares += value * value
        return score


CONTROLS = {"z > 3 over the last 10": LastTen, "windowed Gaussian": WindowedGaussian}
