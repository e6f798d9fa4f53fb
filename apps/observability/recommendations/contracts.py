"""A recommendation with its evidence, and the rule that makes it."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from apps.observability.intervals import Mean, Share, Spread

if TYPE_CHECKING:
    from apps.observability.recommendations.facts import Facts

Interval = Share | Mean | Spread


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """One number that speaks for it. ``n`` cases; ``low`` and ``high`` are the ends of its interval, where it has one.

    ``link`` is where it can be seen: a page, or the query of its series.
    """

    what: str
    value: float | int | str | None
    unit: str = ""
    n: int | None = None
    low: float | None = None
    high: float | None = None
    link: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """``rule`` and ``subject`` together say what it is about: the same again is the same recommendation."""

    rule: str
    subject: str
    severity: str
    """As of alerts: info, warning, critical."""
    sentence: str
    evidence: tuple[Evidence, ...]
    remedy: str
    link: str = ""
    """The page on which to do it; empty: it is done on a machine, or in its settings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What ``find`` looks for with ``limits`` (names with their units) in what was measured."""

    key: str
    about: str
    limits: Mapping[str, float]
    find: Callable[["Facts", "Rule"], Iterable[Recommendation]]


def measured(what: str, interval: Interval, *, unit: str = "", link: str = "") -> Evidence:
    return Evidence(
        what=what, value=interval.value, unit=unit, n=interval.n, low=interval.low, high=interval.high, link=link
    )


def percent(ratio: float | None) -> str:
    return "unknown" if ratio is None else f"{ratio * 100:.3g} %"


def duration(seconds: float) -> str:
    """In the unit in which it has few digits."""
    for unit, length in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.3g} s"


def amount(size: float) -> str:
    """Bytes, in binary units."""
    units = ("B", "KiB", "MiB", "GiB", "TiB")
    power = min(len(units) - 1, max(0, (int(abs(size)).bit_length() - 1) // 10))
    value = size / 1024**power
    return f"{value:,.0f} {units[power]}" if abs(value) >= 100 else f"{value:.3g} {units[power]}"
