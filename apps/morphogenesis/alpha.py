"""The strength of a graft: alpha's way from one value to another over a tempo, along a curve."""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

SIGMOID_STEEPNESS = 10.0


def _sigmoid(progress: float) -> float:
    def logistic(x: float) -> float:
        return 1 / (1 + math.exp(-SIGMOID_STEEPNESS * (x - 0.5)))

    return (logistic(progress) - logistic(0.0)) / (logistic(1.0) - logistic(0.0))


CURVES: Mapping[str, Callable[[float], float]] = {
    "linear": lambda progress: progress,
    "cosine": lambda progress: (1 - math.cos(math.pi * progress)) / 2,
    "sigmoid": _sigmoid,
}
"""Monotone maps of [0, 1] onto itself."""


@dataclass(slots=True, kw_only=True)
class AlphaRamp:
    """Alpha from ``start`` to ``target`` over ``steps`` training steps, of which ``taken`` are done.

    Monotone, clamped to the two ends, exact at the target.
    """

    curve: str
    start: float
    target: float
    steps: int
    taken: int = 0

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """JSON types only."""
        return asdict(self)

    @property
    def value(self) -> float:
        """Alpha now."""
        if self.holding:
            return self.target
        low, high = min(self.start, self.target), max(self.start, self.target)
        value = self.start + (self.target - self.start) * CURVES[self.curve](self.taken / self.steps)
        return min(max(value, low), high)

    @property
    def holding(self) -> bool:
        """Has alpha arrived?"""
        return self.taken >= self.steps

    def advance(self) -> None:
        """One training step is done."""
        self.taken = min(self.taken + 1, self.steps)

    def retarget(self, target: float, steps: int) -> None:
        """Set out for another target. Raises ValueError while alpha is still on its way."""
        if not self.holding:
            raise ValueError(f"alpha is on its way to {self.target:g}: it can be retargeted only from hold")
        self.start, self.target, self.steps, self.taken = self.target, target, steps, 0
