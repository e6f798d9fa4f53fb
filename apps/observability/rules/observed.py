"""What is known of a series when it is judged, and what a judge says of it. No Django."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from apps.observability.contracts import Numbers

NOTHING: Numbers = np.empty(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """An anomaly that the detector found. Times are seconds since 1970."""

    at: float
    until: float
    value: float
    score: float
    component: str
    explanation: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """A series up to ``now``. Times are seconds since 1970, ascending; ``values`` are as many, in the metric's unit.

    ``latest_at`` None: there is no sample that counts.
    """

    now: float
    latest_at: float | None = None
    latest: float = float("nan")
    times: Numbers = field(default_factory=lambda: NOTHING)
    values: Numbers = field(default_factory=lambda: NOTHING)
    is_counter: bool = False
    marks: tuple[Mark, ...] = ()

    def since(self, seconds: float) -> tuple[Numbers, Numbers]:
        """The samples of the last ``seconds``."""
        first = int(np.searchsorted(self.times, self.now - seconds, side="left"))
        return self.times[first:], self.values[first:]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether the condition ``holds`` (None: too little is known), by what ``value`` against what ``threshold``; None
    where there is no finite number. ``evidence`` is what people are shown besides, as JSON."""

    holds: bool | None
    value: float | None = None
    threshold: float | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)


def unknown(why: str, **evidence: Any) -> Verdict:
    return Verdict(holds=None, evidence={"unknown": why, **evidence})


def finite(value: float) -> float | None:
    """As a column or JSON can hold it."""
    return float(value) if np.isfinite(value) else None
