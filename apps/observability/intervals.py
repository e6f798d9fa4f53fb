"""Numbers with what they are worth: shares, means and spreads, each with how many cases it came from.

    share(3, 40)         # 7.5 %, between 2.6 and 19.9 %
    mean([0.1, 0.3])     # with Student's interval
    spread([5, 1, 9])    # median and quartiles

Pure standard library: what the web process answers with needs no scipy. Intervals are of 95 %.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist, fmean, quantiles, stdev

CONFIDENCE = 0.95
_NORMAL = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2)
LARGEST = 1e150
"""A larger number was not measured, and its square would be infinite."""
_AS_GOOD_AS_NORMAL = 1_000
"""Degrees of freedom from which Student's quantile differs from the normal one by 0.1 %."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """``count`` of ``n``, with Wilson's interval; None where there are no cases."""

    count: int
    n: int
    value: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Mean:
    """With Student's interval, which takes two cases; None where there are none."""

    n: int
    value: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Median, and the quartiles ``low`` and ``high`` (of a single case all three are it)."""

    n: int
    value: float | None = None
    low: float | None = None
    high: float | None = None


def share(count: int, n: int) -> Share:
    """E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22, 1927: holds for
    few cases, and for none or all of them, too."""
    if not n:
        return Share(count=count, n=n)
    rate, square = count / n, _NORMAL**2
    middle = (rate + square / (2 * n)) / (1 + square / n)
    reach = _NORMAL / (1 + square / n) * math.sqrt(rate * (1 - rate) / n + square / (4 * n * n))
    return Share(count=count, n=n, value=rate, low=max(0.0, middle - reach), high=min(1.0, middle + reach))


def mean(values: Iterable[float | None]) -> Mean:
    """Of those ``values`` that are numbers below LARGEST."""
    known = _finite(values)
    if not known:
        return Mean(n=0)
    return mean_of(len(known), fmean(known), stdev(known) if len(known) > 1 else None)


def mean_of(n: int, value: float | None, deviation: float | None) -> Mean:
    """As ``mean``, of ``n`` cases whose mean and standard deviation are known: a database computes those."""
    if value is None or deviation is None or n < 2:
        return Mean(n=n, value=value)
    reach = student(n - 1) * deviation / math.sqrt(n)
    return Mean(n=n, value=value, low=value - reach, high=value + reach)


def spread(values: Iterable[float | None]) -> Spread:
    """Of those ``values`` that are numbers below LARGEST."""
    known = _finite(values)
    if not known:
        return Spread(n=0)
    low, middle, high = quantiles(known, n=4, method="inclusive") if len(known) > 1 else known * 3
    return Spread(n=len(known), value=middle, low=low, high=high)


@cache
def student(freedom: int) -> float:
    """The quantile of Student's t for a two-sided interval: bisection of the finite sums for whole degrees of freedom
    (M. Abramowitz and I. A. Stegun, Handbook of mathematical functions, 26.7.3 and 26.7.4)."""
    if freedom >= _AS_GOOD_AS_NORMAL:
        return _NORMAL
    low, high = _NORMAL, 13.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, freedom) < CONFIDENCE else (low, middle)
    return (low + high) / 2


def _within(t: float, freedom: int) -> float:
    """The probability that Student's variable is nearer to zero than ``t``."""
    angle = math.atan(t / math.sqrt(freedom))
    cosine = math.cos(angle)
    odd = freedom % 2
    term, total = (cosine if odd else 1.0), 0.0
    for place in range(2 + odd, freedom + 1, 2):
        total += term
        term *= cosine * cosine * (place - 1) / place
    inner = math.sin(angle) * total
    return 2 / math.pi * (angle + inner) if odd else inner


def _finite(values: Iterable[float | None]) -> list[float]:
    return [float(value) for value in values if value is not None and abs(value) < LARGEST]
