"""Geometry of the small drawings that the server makes (SVG): pure functions from numbers to coordinates."""

from collections.abc import Sequence
from dataclasses import dataclass


def polyline(values: Sequence[float | None], *, width: float, height: float, pad: float = 1.5) -> list[str]:
    """The ``points`` attributes of a sparkline: one per stretch without a gap, scaled to its own range."""
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return []
    low, high = min(known), max(known)
    span = (high - low) or 1.0
    across = (width - 2 * pad) / (len(values) - 1)
    stretches: list[list[str]] = [[]]
    for index, value in enumerate(values):
        if value is None:
            stretches.append([])
            continue
        y = pad + (height - 2 * pad) * (1 - (value - low) / span)
        stretches[-1].append(f"{pad + index * across:.1f},{y:.1f}")
    return [" ".join(stretch) for stretch in stretches if len(stretch) > 1]


@dataclass(frozen=True, slots=True)
class Interval:
    """One interval drawn on a shared scale; all in viewBox units."""

    low: float
    high: float
    middle: float
    rent: float
    zero: float


def intervals(
    rows: Sequence[tuple[float | None, float | None, float | None, float]], *, width: float
) -> list[Interval | None]:
    """Place (low, middle, high, rent) rows on one scale that holds them all and zero; None: nothing was measured."""
    shown = [value for low, middle, high, rent in rows for value in (low, middle, high, rent) if value is not None]
    least, most = min([0.0, *shown]), max([0.0, *shown])
    span = (most - least) or 1.0

    def x(value: float) -> float:
        return round(4 + (width - 8) * (value - least) / span, 2)

    return [
        None
        if low is None or middle is None or high is None
        else Interval(low=x(low), high=x(high), middle=x(middle), rent=x(rent), zero=x(0.0))
        for low, middle, high, rent in rows
    ]
