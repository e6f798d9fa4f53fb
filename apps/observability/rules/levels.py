"""Judges of how high a series is: against a value, and against its own past."""

import operator
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from apps.observability.contracts import Numbers
from apps.observability.rules.observed import Observed, Verdict, finite, unknown

COMPARE: dict[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}
READINGS = ("last", "mean", "max", "min", "rate", "increase")
GROWTH = frozenset({"rate", "increase"})
TOO_LARGE = 1e300


def threshold(seen: Observed, parameters: Mapping[str, Any]) -> Verdict:
    """Whether the reading compares to the value as ``op`` says. NaN is no reading; infinity is."""
    limit, how = float(parameters["value"]), parameters["reading"]
    if how == "last":
        reading, samples = seen.latest, 1
    else:
        times, values = seen.since(parameters["window_seconds"])
        counts = np.isfinite(values)
        times, values = times[counts], values[counts]
        samples = len(values)
        if samples < max(parameters["least_samples"], 2 if how in GROWTH else 1):
            return unknown("too few samples", samples=samples)
        reading = _read(how, times, values, is_counter=seen.is_counter)
    if np.isnan(reading):
        return unknown("the newest sample is no number")
    seconds = {} if how == "last" else {"window_seconds": parameters["window_seconds"], "samples": samples}
    return Verdict(
        holds=bool(COMPARE[parameters["op"]](reading, limit)),
        value=finite(reading),
        threshold=limit,
        evidence={"reading": how, "op": parameters["op"], **seconds},
    )


def change(seen: Observed, parameters: Mapping[str, Any]) -> Verdict:
    """Whether the median of the newest window is so many percent above (below) the median of what came before."""
    times, values = seen.since(parameters["baseline_seconds"])
    counts = np.isfinite(values)
    times, values = times[counts], values[counts]
    is_new = times > seen.now - parameters["window_seconds"]
    new, old = values[is_new], values[~is_new]
    if not len(new) or len(old) < parameters["least_samples"]:
        return unknown("too few samples", samples=len(new), baseline_samples=len(old))
    before, reading = float(np.median(old)), float(np.median(new))
    sign = 1.0 if parameters["direction"] == "up" else -1.0
    if (before == 0.0 and sign * reading > 0.0) or abs(before) > TOO_LARGE:
        return unknown("there are no percent of its baseline", baseline=finite(before))
    limit = before + sign * abs(before) * parameters["percent"] / 100.0
    return Verdict(
        holds=sign * reading > sign * limit,
        value=finite(reading),
        threshold=finite(limit),
        evidence={
            "baseline": finite(before),
            "percent": finite((reading - before) / abs(before) * 100.0) if before else None,
            "samples": len(new),
            "baseline_samples": len(old),
        },
    )


def _read(how: str, times: Numbers, values: Numbers, *, is_counter: bool) -> float:
    """One of READINGS but the last; at least one sample, for growth two. A gauge that falls has not begun anew."""
    if how in GROWTH:
        grown = growth(values) if is_counter else float(values[-1]) - float(values[0])
        return grown / float(times[-1] - times[0]) if how == "rate" else grown
    if how == "mean":
        return float((values / len(values)).sum())  # the sum of the values may be beyond the largest number
    return float(values.max() if how == "max" else values.min())


def growth(values: Numbers) -> float:
    """By how much a count has grown; one that has fallen began anew at zero (as Prometheus' ``increase``, not
    extrapolated)."""
    steps = np.diff(values)
    return float(np.where(steps < 0, values[1:], steps).sum())
