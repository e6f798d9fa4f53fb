"""The checkpoints of a run over its steps: a bar each, what it added below, what it shares with others above."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from apps.dashboards import numbers

HEIGHT = 210
LEFT, RIGHT, TOP, BOTTOM = 70, 12, 20, 38
DOWN = HEIGHT - TOP - BOTTOM
WIDEST, THINNEST = 26.0, 4.0
LEAST_SEEN = 1.5
"""A checkpoint that added a thousandth is still seen."""
PIXELS_PER_TICK = 60


@dataclass(frozen=True, slots=True)
class Saved:
    """What is drawn of one checkpoint. ``added`` and ``shared`` are raw bytes."""

    step: int
    added: int
    shared: int
    words: str
    is_broken: bool = False
    is_archived: bool = False
    is_pinned: bool = False


@dataclass(frozen=True, slots=True)
class Bar:
    """``top`` is where the shared part begins, ``cut`` where it ends and the added part begins."""

    x: float
    width: float
    top: float
    cut: float
    shared_height: float
    added_height: float
    saved: Saved

    @property
    def middle(self) -> float:
        return round(self.x + self.width / 2, 2)


@dataclass(frozen=True, slots=True)
class Tick:
    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Timeline:
    """In viewBox units, which are pixels at the width that it is drawn for."""

    bars: Sequence[Bar]
    steps: Sequence[Tick]
    bytes: Sequence[Tick]
    width: int
    height: int = HEIGHT
    left: int = LEFT
    top: int = TOP
    base: int = HEIGHT - BOTTOM

    @property
    def right(self) -> int:
        return self.width - RIGHT


def timeline(saved: Sequence[Saved], *, width: int) -> Timeline:
    """Bars from the first step to the last, on one scale of bytes; those that would lie on another stand beside it."""
    ordered = sorted(saved, key=lambda each: each.step)
    most = nice_bytes(max((each.added + each.shared for each in ordered), default=0))
    bar_width = _bar_width([each.step for each in ordered], width)
    bars: list[Bar] = []
    free = 0.0
    for each in ordered:
        x = max(_x(each.step, ordered, width) - bar_width / 2, free)
        bars.append(_bar(each, x, bar_width, most))
        free = x + bar_width + 1
    return Timeline(
        bars=bars,
        steps=[Tick(_x(step, ordered, width), f"{step:,}") for step in _round_steps(ordered, width)],
        bytes=[Tick(_y(share * most, most), numbers.size(share * most)) for share in (0.0, 0.5, 1.0)],
        width=width,
    )


def nice_bytes(most: int) -> int:
    """The next 1, 2, 4 ... 512 of B, KiB, MiB ...: where the axis ends, so that its middle is a whole number too."""
    return 1 << max(1, math.ceil(math.log2(most))) if most > 1 else 2


def _bar(saved: Saved, x: float, width: float, most: int) -> Bar:
    base = TOP + DOWN
    added = max(base - _y(saved.added, most), LEAST_SEEN) if saved.added else 0.0
    top = min(_y(saved.added + saved.shared, most), base - added)
    return Bar(
        x=round(x, 2),
        width=round(width, 2),
        top=round(top, 2),
        cut=round(base - added, 2),
        shared_height=round(base - added - top, 2),
        added_height=round(added, 2),
        saved=saved,
    )


def _bar_width(steps: Sequence[int], width: int) -> float:
    """As wide as the nearest neighbours let it be."""
    gaps = [later - earlier for earlier, later in pairwise(steps) if later > earlier]
    if not gaps:
        return WIDEST
    pixels = min(gaps) * _across(width) / (steps[-1] - steps[0])
    return min(max(pixels * 0.7, THINNEST), WIDEST)


def _across(width: int) -> float:
    """Pixels between the middles of the first bar and of the last."""
    return width - LEFT - RIGHT - WIDEST - 4


def _x(step: int, ordered: Sequence[Saved], width: int) -> float:
    first, last = ordered[0].step, ordered[-1].step
    share = (step - first) / (last - first) if last > first else 0.5
    return round(LEFT + 2 + WIDEST / 2 + share * _across(width), 2)


def _round_steps(ordered: Sequence[Saved], width: int) -> list[int]:
    """Round numbers between the first step and the last, as many as have room; these two where there are none."""
    if not ordered:
        return []
    first, last = ordered[0].step, ordered[-1].step
    if first == last:
        return [first]
    apart = max((last - first) / max(2, _across(width) // PIXELS_PER_TICK), 1)
    power = 10 ** math.floor(math.log10(apart))
    unit = int(next(power * each for each in (1, 2, 5, 10) if power * each >= apart))
    ticks = list(range(math.ceil(first / unit) * unit, last + 1, unit))
    return ticks if len(ticks) > 1 else [first, last]


def _y(bytes_: float, most: int) -> float:
    return round(TOP + DOWN * (1 - bytes_ / most), 2)
