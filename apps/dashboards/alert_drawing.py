"""The curve around an alert or an anomaly, drawn by the server: what was measured, the threshold, and the moment."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from apps.dashboards import numbers, units
from apps.observability.contracts import Curve

WIDTH, HEIGHT = 440, 124
LEFT, RIGHT, TOP, BOTTOM = 58, 8, 8, 20
ACROSS, DOWN = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
ROOM = 105
"""For the words at the ends of the time axis."""
MISSED = 2.5
"""Readings that are missing before the line breaks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """What is drawn: from when to when, and what happened (seconds since 1970; None: not, or not yet)."""

    start: float
    end: float
    since: float
    until: float | None = None
    word: str = "began"
    """What happened at ``since``."""
    is_now: bool = False
    """Whether the end is now."""
    threshold: float | None = None
    expected: tuple[float, float] | None = None
    """The range in which the detector expected the value."""


@dataclass(frozen=True, slots=True)
class Label:
    at: float
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """In viewBox units. ``lines`` and ``bands`` are ``points`` attributes, one for each stretch without a gap."""

    lines: Sequence[str]
    dots: Sequence[tuple[float, float]]
    """Points that stand alone."""
    bands: Sequence[str]
    values: Sequence[Label]
    times: Sequence[Label]
    span: tuple[float, float]
    """x and width of the time in which it was so."""
    threshold: Label | None
    expected: tuple[float, float] | None
    """y and height."""
    anomalies: Sequence[str]
    """``points`` of a mark for each."""
    words: str
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    base: int = HEIGHT - BOTTOM
    across: int = ACROSS
    down: int = DOWN


def drawn(curve: Curve, moment: Moment) -> Drawing | None:
    """None: no value of the curve in this time is a finite number."""
    known = [value for value in (*curve.least.tolist(), *curve.greatest.tolist()) if math.isfinite(value)]
    if not known:
        return None
    besides = [value for value in (moment.threshold, *(moment.expected or ())) if value is not None]
    frame = _Frame(moment, *_range([*known, *besides], curve.series.unit == "ratio"))
    every = _stretches(curve)
    stretches = [stretch for stretch in every if len(stretch) > 1]
    unit = curve.series.unit
    suffix = "/s" if curve.series.kind == "counter" else ""
    return Drawing(
        lines=[frame.line(curve, stretch) for stretch in stretches],
        dots=[
            (frame.x(curve.times[stretch[0]]), frame.y(curve.mean[stretch[0]]))
            for stretch in every
            if len(stretch) == 1
        ],
        bands=[frame.band(curve, stretch) for stretch in stretches] if curve.step else [],
        values=[Label(frame.y(value), units.told(value, unit) + suffix) for value in (frame.low, frame.high)],
        times=frame.times(),
        span=frame.span(),
        threshold=Label(frame.y(moment.threshold), units.told(moment.threshold, unit))
        if moment.threshold is not None and math.isfinite(moment.threshold)
        else None,
        expected=frame.expected(),
        anomalies=[frame.mark(at) for at in curve.anomalies.tolist()],
        words=_words(curve, moment, min(known), max(known)),
    )


class _Frame:
    def __init__(self, moment: Moment, low: float, high: float) -> None:
        self.moment, self.low, self.high = moment, low, high
        self.long = moment.end - moment.start

    def x(self, at: float) -> float:
        return round(LEFT + ACROSS * min(max((at - self.moment.start) / self.long, 0.0), 1.0), 1)

    def y(self, value: float) -> float:
        return round(TOP + DOWN * (1 - min(max((value - self.low) / (self.high - self.low), 0.0), 1.0)), 1)

    def line(self, curve: Curve, stretch: range) -> str:
        return " ".join(f"{self.x(curve.times[i])},{self.y(curve.mean[i])}" for i in stretch)

    def band(self, curve: Curve, stretch: range) -> str:
        above = [f"{self.x(curve.times[i])},{self.y(curve.greatest[i])}" for i in stretch]
        below = [f"{self.x(curve.times[i])},{self.y(curve.least[i])}" for i in reversed(stretch)]
        return " ".join([*above, *below])

    def times(self) -> list[Label]:
        """Where it begins and ends, counted from the moment; and the moment, where there is room for its word."""
        moment, middle = self.moment, self.x(self.moment.since)
        first = Label(LEFT, f"{numbers.duration(moment.since - moment.start)} before")
        last = Label(WIDTH - RIGHT, "now" if moment.is_now else f"{numbers.duration(moment.end - moment.since)} later")
        has_room = LEFT + ROOM < middle < WIDTH - RIGHT - ROOM
        return [first, Label(middle, moment.word), last] if has_room else [first, last]

    def span(self) -> tuple[float, float]:
        left, right = self.x(self.moment.since), self.x(self.moment.until or self.moment.end)
        return (left, max(round(right - left, 1), 1.0))

    def expected(self) -> tuple[float, float] | None:
        if self.moment.expected is None:
            return None
        low, high = self.moment.expected
        top = self.y(high)
        return (top, max(round(self.y(low) - top, 1), 1.0))

    def mark(self, at: float) -> str:
        x, base = self.x(at), TOP + DOWN
        return f"{x},{base - 7} {round(x + 4.5, 1)},{base} {round(x - 4.5, 1)},{base}"


def _range(values: Sequence[float], is_share: bool) -> tuple[float, float]:
    """Where the axis ends. It begins at zero unless that flattens the curve; shares stay within 0 and 1."""
    low, high = min(values), max(values)
    if low >= 0 and low < 0.6 * high:
        return (0.0, min(high * 1.08, 1.0) if is_share and high <= 1 else high * 1.08)
    margin = 0.15 * (high - low) or abs(high) * 0.1 or 1.0
    ends = (low - margin if low < 0 else max(low - margin, 0.0), high + margin)
    return (ends[0], min(ends[1], 1.0)) if is_share and high <= 1 else ends


def _stretches(curve: Curve) -> list[range]:
    """Places of points that belong together: a line never goes over a gap, or over what is no finite number."""
    times, values = curve.times.tolist(), curve.mean.tolist()
    steps = sorted(after - before for before, after in pairwise(times))
    usual = curve.step or (steps[len(steps) // 2] if steps else 0.0)
    stretches: list[range] = []
    begin = None
    for place, value in enumerate(values):
        is_apart = place > 0 and times[place] - times[place - 1] > MISSED * usual
        if begin is not None and (is_apart or not math.isfinite(value)):
            stretches.append(range(begin, place))
            begin = None
        if begin is None and math.isfinite(value):
            begin = place
    if begin is not None:
        stretches.append(range(begin, len(values)))
    return stretches


def _words(curve: Curve, moment: Moment, low: float, high: float) -> str:
    unit = curve.series.unit
    long = numbers.duration(moment.end - moment.start)
    said = f"{curve.series.name}: {units.told(low, unit)} to {units.told(high, unit)} in {long}"
    if moment.threshold is not None:
        said += f", threshold {units.told(moment.threshold, unit)}"
    return said
