"""Whether a curve rises or falls, how fast, and when it reaches a value. Pure numpy: the web process may import it.

    found = trend(times, values)
    found.slope * 3600, found.low * 3600, found.high * 3600, found.p, found.direction
    forecast(found, 0.9, horizon=7 * 86_400).at

The slope is the median of the slopes of all pairs of points: up to 29 % of them can be wrong without moving it far
(P. K. Sen, "Estimates of the regression coefficient based on Kendall's tau", JASA 63, 1968; H. Theil, 1950). Its
interval is Sen's: the slopes at the ranks that Kendall's variance gives. p is of the test of Mann and Kendall
(H. B. Mann, Econometrica 13, 1945; M. G. Kendall, "Rank correlation methods", 1975): two-sided, by the normal
approximation, corrected for ties and for continuity.

Points of a metric are not independent, and the tests take them to be. The variance is therefore multiplied by how much
less the points tell than independent ones (S. Yue and C. Wang, Water Resources Management 18, 2004), with the lag-one
correlation of the ranks of what the line leaves, corrected for its bias (F. H. C. Marriott and J. A. Pope, Biometrika
41, 1954) and only where it is significant. On noise without a trend and a correlation of 0.9, 30 to 288 points, that
calls 5 to 15 % a trend instead of 55 to 68 %.

A bent curve leaves neighbours that are alike, too, and would be told as little as a few points. The variance is
therefore no larger than the drift of the curve allows: Student's t of the mean of its steps, which would be a trend
even if the curve were a random walk. A walk without drift that is called a trend no test of this kind can avoid:
``PERSISTENT`` bounds what is corrected.
"""

import math
from dataclasses import dataclass
from enum import StrEnum
from statistics import NormalDist

import numpy as np

from apps.observability.contracts import Numbers

MOST_POINTS = 1_000
"""More are thinned first: half a million pairs are enough, and take 30 ms."""
LEAST_POINTS = 10
"""Below, the normal approximation does not hold (Kendall)."""
SIGNIFICANT = 0.05
PERSISTENT = 0.95
"""The largest lag-one correlation that is corrected for: 39 points then tell as much as one."""


class Direction(StrEnum):
    RISING = "rising"
    FALLING = "falling"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trend:
    """The line through a curve. Slopes are in units of the values a second, times in seconds since 1970.

    ``level`` is where the line is at ``end``; ``level_low`` and ``level_high`` are where the lines with the slopes
    ``low`` and ``high`` are there.
    """

    points: int
    """As they were given, without those that are no finite number."""
    used: int
    """After thinning."""
    effective: float
    """To how many independent points they amount."""
    start: float
    end: float
    slope: float
    low: float
    high: float
    level: float
    level_low: float
    level_high: float
    tau: float
    """Kendall's: -1 always falling, 1 always rising."""
    p: float

    @property
    def direction(self) -> Direction:
        """None unless p is below 5 % and the slope's interval is all on one side of zero."""
        if self.p < SIGNIFICANT and self.low > 0:
            return Direction.RISING
        if self.p < SIGNIFICANT and self.high < 0:
            return Direction.FALLING
        return Direction.NONE


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """When the line reaches a value, in seconds since 1970, and when the steepest and the flattest line of the
    interval do. None: not within the horizon."""

    at: float | None = None
    earliest: float | None = None
    latest: float | None = None


def trend(times: Numbers, values: Numbers, *, confidence: float = 0.95) -> Trend | None:
    """The trend of a curve; None with fewer than ten points that are finite numbers.

    Args:
        times: seconds, any order; of points at the same time, the first counts.
        values: as many.
        confidence: of the slope's interval, above 0 and below 1.
    """
    x, y, points = _prepared(times, values)
    count = len(x)
    if count < LEAST_POINTS:
        return None
    end = float(x[-1])
    since_end = x - end
    scale = math.ldexp(1.0, math.frexp(float(np.abs(y).max()))[1] - 1) if y.any() else 1.0  # exact: no overflow below
    y = y / scale
    first, second = np.triu_indices(count, 1)
    differences = y[second] - y[first]
    slopes = differences / (x[second] - x[first])
    slope = float(np.median(slopes))
    concordant = float(np.sign(differences).sum())

    plain = math.sqrt(_kendall_variance(y))
    inflation = _inflation(y - slope * since_end)
    if inflation > 1.0:
        inflation = _allowed(
            inflation, beyond=_beyond(concordant, plain), drift=_drift(x, y) * math.copysign(1.0, concordant)
        )
    deviation = plain * math.sqrt(inflation)
    low, high = _interval(slopes, deviation * NormalDist().inv_cdf(0.5 + confidence / 2))
    level, level_low, level_high = (float(np.median(y - each * since_end)) for each in (slope, low, high))
    return Trend(
        points=points,
        used=count,
        effective=count / inflation,
        start=float(x[0]),
        end=end,
        slope=slope * scale,
        low=low * scale,
        high=high * scale,
        level=level * scale,
        level_low=level_low * scale,
        level_high=level_high * scale,
        tau=_tau(concordant, y),
        p=math.erfc(_beyond(concordant, deviation) / math.sqrt(2.0)),
    )


def forecast(found: Trend, threshold: float, *, horizon: float) -> Forecast:
    """When the trend reaches ``threshold``, at most ``horizon`` seconds after its end. A curve without a direction
    reaches nothing. Where the line has passed it already, that is at the end."""
    if found.direction is Direction.NONE:
        return Forecast()
    lines = ((found.slope, found.level), (found.low, found.level_low), (found.high, found.level_high))
    line, *ends = (_reached(slope, level, threshold, horizon) for slope, level in lines)
    within = [seconds for seconds in ends if seconds is not None]
    return Forecast(
        at=None if line is None else found.end + line,
        earliest=found.end + min(within) if within else None,
        latest=found.end + max(within) if len(within) == len(ends) else None,
    )


def thinned(times: Numbers, values: Numbers, most: int = MOST_POINTS) -> tuple[Numbers, Numbers]:
    """At most ``most`` points: medians of the times and values of neighbours, each of as many (the last of fewer)."""
    if len(times) <= most:
        return times, values
    each = -(-len(times) // most)
    edges = range(0, len(times), each)
    return (
        np.array([np.median(times[edge : edge + each]) for edge in edges]),
        np.array([np.median(values[edge : edge + each]) for edge in edges]),
    )


def _prepared(times: Numbers, values: Numbers) -> tuple[Numbers, Numbers, int]:
    finite = np.isfinite(times) & np.isfinite(values)
    ordered, places = np.unique(np.asarray(times, dtype=float)[finite], return_index=True)
    x, y = thinned(ordered, np.asarray(values, dtype=float)[finite][places])
    return x, y, len(ordered)


def _kendall_variance(y: Numbers) -> float:
    """Of the number of rises less falls over all pairs, for as many independent values with as many ties."""
    n = len(y)
    _, ties = np.unique(y, return_counts=True)
    tied = float((ties * (ties - 1.0) * (2.0 * ties + 5.0)).sum())
    return (n * (n - 1.0) * (2.0 * n + 5.0) - tied) / 18.0


def _inflation(rest: Numbers) -> float:
    """How many times larger the variance of a mean is than that of as many independent points: of a process whose
    correlation falls with the lag as rho to the power of the lag."""
    n = len(rest)
    rho = _lag_one(rest)
    if rho <= 1.96 / math.sqrt(n):
        return 1.0
    rho = min(PERSISTENT, (n * rho + 2.0) / (n - 4.0))
    lags = np.arange(1, n)
    return float(1.0 + 2.0 * ((1.0 - lags / n) * rho**lags).sum())


def _lag_one(rest: Numbers) -> float:
    _, ranks, counts = np.unique(rest, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - (counts - 1) / 2.0  # equal values share the mean of their ranks
    centred = middle[ranks] - middle[ranks].mean()
    total = float(centred @ centred)
    return float(centred[1:] @ centred[:-1]) / total if total else 0.0


def _interval(slopes: Numbers, reach: float) -> tuple[float, float]:
    """Sen 1968, equation 2.6: the slopes as far from the middle rank as ``reach`` says."""
    pairs = len(slopes)
    low = max(0, round((pairs - reach) / 2) - 1)
    high = min(pairs - 1, round((pairs + reach) / 2))
    ordered = np.partition(slopes, (low, high))
    return float(ordered[low]), float(ordered[high])


def _beyond(concordant: float, deviation: float) -> float:
    """In standard deviations, corrected for continuity."""
    return max(0.0, abs(concordant) - 1.0) / deviation if deviation else 0.0


def _allowed(inflation: float, *, beyond: float, drift: float) -> float:
    """As much of ``inflation`` as leaves the trend as certain as its drift; ``beyond`` is how certain it is without."""
    return max(1.0, min(inflation, (beyond / drift) ** 2)) if beyond and drift > 0 else inflation


def _drift(x: Numbers, y: Numbers) -> float:
    """Student's t of the mean step of a random walk, as the normal deviate that is as rare (D. L. Wallace, Annals of
    Mathematical Statistics 30, 1959); with the sign of the drift."""
    spans, steps = np.diff(x), np.diff(y)
    freedom, whole = len(steps) - 1, float(x[-1] - x[0])
    mean = float(y[-1] - y[0]) / whole
    variance = float(((steps - mean * spans) ** 2 / spans).sum()) / freedom
    if not variance:
        return math.copysign(math.inf, mean) if mean else 0.0
    square = mean * mean * whole / variance
    deviate = math.sqrt(freedom * math.log1p(square / freedom)) * (8 * freedom + 1) / (8 * freedom + 3)
    return math.copysign(deviate, mean)


def _tau(concordant: float, y: Numbers) -> float:
    pairs = len(y) * (len(y) - 1) / 2.0
    _, ties = np.unique(y, return_counts=True)
    untied = pairs - float((ties * (ties - 1.0)).sum()) / 2.0
    return concordant / math.sqrt(pairs * untied) if untied else 0.0


def _reached(slope: float, level: float, threshold: float, horizon: float) -> float | None:
    """Seconds after the end; 0: it is behind."""
    missing = threshold - level
    if missing * slope <= 0:
        return 0.0
    if abs(missing) > abs(slope) * horizon:
        return None
    return missing / slope
