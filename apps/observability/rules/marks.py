"""Judges of what stands out by itself: samples that are no numbers or do not come, and what the detector found."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from apps.observability.rules.observed import Observed, Verdict, finite, unknown


def non_finite(seen: Observed, parameters: Mapping[str, Any]) -> Verdict:
    """Whether a sample of the window is NaN or infinite."""
    times, values = seen.since(parameters["window_seconds"])
    if not len(values):
        return unknown("no samples")
    wrong = np.flatnonzero(~np.isfinite(values))
    if not len(wrong):
        return Verdict(holds=False, value=finite(values[-1]), evidence={"samples": len(values)})
    first = int(wrong[0])
    return Verdict(
        holds=True,
        evidence={
            "value": str(float(values[first])),
            "at": float(times[first]),
            "non_finite_samples": len(wrong),
            "samples": len(values),
        },
    )


def absence(seen: Observed, parameters: Mapping[str, Any]) -> Verdict:
    """Whether the newest sample is older than ``after_seconds``. The value is its age in seconds."""
    limit = float(parameters["after_seconds"])
    if seen.latest_at is None:
        return Verdict(holds=True, threshold=limit, evidence={"samples": 0})
    age = max(0.0, seen.now - seen.latest_at)
    return Verdict(holds=age > limit, value=age, threshold=limit, evidence={"newest_at": seen.latest_at})


def anomaly(seen: Observed, parameters: Mapping[str, Any]) -> Verdict:
    """Whether the detector found one within the window; the evidence is the oddest."""
    since = seen.now - parameters["window_seconds"]
    odd = [mark for mark in seen.marks if mark.until >= since and mark.score >= parameters["score"]]
    if not odd:
        return Verdict(holds=False)
    oddest = max(odd, key=lambda mark: mark.score)
    return Verdict(
        holds=True,
        value=finite(oddest.value),
        evidence={
            "score": finite(oddest.score),
            "component": oddest.component,
            "explanation": oddest.explanation,
            "at": oddest.at,
            "anomalies": len(odd),
        },
    )
