"""Judges of the shape of a series: a leap, a standstill, where its trend leads."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from apps.observability.contracts import Numbers
from apps.observability.rules.observed import Observed, Verdict, finite, unknown
from apps.observability.trends import Direction, trend
from apps.observability.trends import forecast as forecast_of

NORMAL = 1.4826
"""The median absolute deviation times this estimates the standard deviation of a normal distribution
(P. J. Rousseeuw and C. Croux, JASA 88, 1993)."""
LEAST_SPREAD = 0.01
"""Of the median: a series that hardly ever moves does not leap when it moves a little."""
MOST_BEFORE = 60
"""Samples that a leap is held against: of a curve that falls, the old ones say nothing of the newest."""


def spike(seen: Observed, parameters: Mapping[str, Any]) -> Verdict:
    """Whether a sample of the newest seconds is ``score`` robust standard deviations away from the median before."""
    times, values = seen.since(parameters["window_seconds"])
    counts = np.isfinite(values)
    times, values = times[counts], values[counts]
    is_new = times > seen.now - parameters["recent_seconds"]
    new, old = values[is_new], values[~is_new][-MOST_BEFORE:]
    if not len(new) or len(old) < parameters["least_samples"]:
        return unknown("too few samples", samples=len(new), baseline_samples=len(old))
    median = float(np.median(old))
    spread = NORMAL * float(np.median(np.abs(old - median)))
    spread = max(spread, LEAST_SPREAD * abs(median), np.finfo(float).tiny)
    scores = (new - median) / spread
    ranked = {"up": scores, "down": -scores, "both": np.abs(scores)}[parameters["direction"]]
    place = int(np.argmax(ranked))
    sign = 1.0 if scores[place] >= 0 else -1.0
    return Verdict(
        holds=bool(ranked[place] > parameters["score"]),
        value=finite(new[place]),
        threshold=finite(median + sign * parameters["score"] * spread),
        evidence={
            "median": finite(median),
            "spread": finite(spread),
            "score": finite(scores[place]),
            "samples": len(new),
            "baseline_samples": len(old),
        },
    )


def plateau(seen: Observed, parameters: Mapping[str, Any]) -> Verdict:
    """Whether the median of the newest samples is no better than that of as many before by ``percent``.

    Medians, not best values: of noise around a curve that falls, the best is found early.
    """
    _, values = seen.since(parameters["window_seconds"])
    values = values[np.isfinite(values)]
    count = parameters["samples"]
    if len(values) < 2 * count:
        return unknown("too few samples", samples=len(values))
    before, reading = (float(np.median(part)) for part in (values[-2 * count : -count], values[-count:]))
    sign = -1.0 if parameters["direction"] == "down" else 1.0
    limit = before + sign * abs(before) * parameters["percent"] / 100.0
    improved = sign * (reading - before)
    return Verdict(
        holds=improved <= 0 or sign * reading < sign * limit,
        value=finite(reading),
        threshold=finite(limit),
        evidence={
            "before": finite(before),
            "improved_percent": finite(improved / abs(before) * 100.0) if before else None,
            "samples": count,
        },
    )


def forecast(seen: Observed, parameters: Mapping[str, Any]) -> Verdict:
    """Whether the trend of the window (``trends``) reaches the value within ``hours``, or the series is there."""
    limit, rising = float(parameters["value"]), parameters["op"] == ">="
    times, values = seen.since(parameters["window_seconds"])
    if seen.latest_at is not None and np.isfinite(seen.latest) and _is_beyond(seen.latest, limit, rising):
        return Verdict(holds=True, value=finite(seen.latest), threshold=limit, evidence={"reaches_in_hours": 0.0})
    found = trend(times, values)
    if found is None:
        return unknown("too few samples", samples=len(values))
    evidence: dict[str, Any] = {
        "slope_an_hour": finite(found.slope * 3600),
        "slope_low": finite(found.low * 3600),
        "slope_high": finite(found.high * 3600),
        "p": finite(found.p),
        "points": found.used,
    }
    reading = _newest(seen, values)
    if found.direction is not (Direction.RISING if rising else Direction.FALLING):
        return Verdict(holds=False, value=reading, threshold=limit, evidence=evidence)
    reached = forecast_of(found, limit, horizon=parameters["hours"] * 3600).at
    if reached is not None:
        evidence["reaches_in_hours"] = max(0.0, (reached - seen.now) / 3600)
    return Verdict(holds=reached is not None, value=reading, threshold=limit, evidence=evidence)


def _newest(seen: Observed, values: Numbers) -> float | None:
    return finite(seen.latest) if seen.latest_at is not None else finite(values[-1])


def _is_beyond(value: float, limit: float, rising: bool) -> bool:
    return value >= limit if rising else value <= limit
