"""How long hits of a tier took, as bars over decades of time: one scale for all tiers, so that they compare by eye."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from apps.dashboards import numbers
from apps.kernels.cache.stats import BOUNDS, STEPS_PER_DECADE, bucket_limits

WIDTH, HEIGHT = 320, 150
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 8, 36
ACROSS, DOWN = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
SLOTS = len(BOUNDS) + 1
"""One for each bucket: the first ends at 1 microsecond, the last has what took more than 10 s."""
LABELLED_DECADES = range(0, 8, 2)


@dataclass(frozen=True, slots=True)
class Bar:
    x: float
    y: float
    width: float
    height: float
    words: str


@dataclass(frozen=True, slots=True)
class Tick:
    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Mark:
    """A percentile."""

    name: str
    x: float
    words: str


@dataclass(frozen=True, slots=True)
class Histogram:
    """In viewBox units; ``times`` are ticks along the time axis, ``counts`` along that of the hits."""

    bars: Sequence[Bar]
    times: Sequence[Tick]
    counts: Sequence[Tick]
    marks: Sequence[Mark]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    base: int = HEIGHT - BOTTOM


def histogram(buckets: Sequence[int], percentiles: Sequence[tuple[str, float | None]]) -> Histogram:
    """``buckets`` as ``Snapshot.buckets`` tells them; ``percentiles``: (name, seconds)."""
    most = nice(max(buckets, default=0))
    return Histogram(
        bars=[_bar(index, hits, most) for index, hits in enumerate(buckets) if hits],
        times=[Tick(_x(decade * STEPS_PER_DECADE + 1), _told(10.0 ** (decade - 6))) for decade in LABELLED_DECADES],
        counts=[Tick(_y(share * most, most), numbers.scaled(share * most)) for share in (0.0, 0.5, 1.0)],
        marks=[Mark(name, _x_of(seconds), _told(seconds)) for name, seconds in percentiles if seconds is not None],
    )


def nice(most: int) -> int:
    """The next even 1, 2 or 5 times a power of ten: where the axis ends, with a whole number in its middle."""
    if most <= 2:
        return 2
    power = 10 ** int(math.log10(most))
    return next(step * power for step in (1, 2, 4, 6, 8, 10) if step * power >= most)


def limits(index: int) -> str:
    """What a bucket holds: '1.21 to 1.47 ms'."""
    low, high = bucket_limits(index)
    if index == 0:
        return f"at most {_told(high)}"
    return f"more than {_told(high)}" if index == len(BOUNDS) else f"{_told(low)} to {_told(high)}"


def _bar(index: int, hits: int, most: int) -> Bar:
    y = min(_y(hits, most), TOP + DOWN - 1.5)  # one hit among thousands is still seen
    words = f"{limits(index)}: {hits:,} hit{'' if hits == 1 else 's'}"
    return Bar(x=_x(index), y=y, width=round(ACROSS / SLOTS, 2), height=round(TOP + DOWN - y, 2), words=words)


def _x(slot: float) -> float:
    return round(LEFT + ACROSS * slot / SLOTS, 2)


def _x_of(seconds: float) -> float:
    slot = 1 + STEPS_PER_DECADE * (math.log10(max(seconds, 1e-7)) + 6)
    return _x(min(max(slot, 0.0), SLOTS))


def _y(hits: float, most: int) -> float:
    return round(TOP + DOWN * (1 - hits / most), 2)


def _told(seconds: float) -> str:
    return numbers.latency(seconds * 1000)
