"""Recorded healthy training curves (see ``benchmarks.governor``): how often the detector flags a check, and what it
catches of planted faults. Its constants were set beside the one half of the curves, every figure here is of the other.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from apps.observability.anomalies import THRESHOLD, StreamDetector
from benchmarks.governor import ACCURACY, LOSS, halves

PROBATION = 20
"""As scans give series of runs."""
EVERY = 15.0
"""Seconds between two checks."""
Chance = np.random.Generator
Fault = Callable[[list[float], int], list[float]]


def spike(losses: list[float], at: int) -> list[float]:
    """One check of five times the loss."""
    return [*losses[:at], 5 * max(losses[at], 0.05), *losses[at + 1 :]]


def divergence(losses: list[float], at: int) -> list[float]:
    """The loss grows by 60 % from check to check."""
    return [*losses[:at], *(max(losses[at], 0.05) * 1.6**step for step in range(1, 25))]


def collapse(losses: list[float], at: int) -> list[float]:
    """The loss jumps to that of a network that has learned nothing, and stays there."""
    return [*losses[:at], *[max(losses[:3])] * 20]


FAULTS: dict[str, Fault] = {"spike": spike, "divergence": divergence, "collapse": collapse}


def flagged(values: Sequence[float], control: Callable[[], Any]) -> list[int]:
    """Positions of the values at which a detector gives an alarm."""
    detector = control()
    return [place for place, value in enumerate(values) if detector.update(EVERY * place, value) >= THRESHOLD]


def measure(controls: dict[str, Callable[[], Any]]) -> dict[str, Any]:
    """{"checks": n, "flagged": {detector: n}, "percent": {...}, "caught": {detector: {fault: share}}}."""
    curves = halves()[1]
    losses = [[value for kind, value in curve.events if kind == LOSS] for curve in curves]
    accuracies = [[value for kind, value in curve.events if kind == ACCURACY] for curve in curves]
    detectors = {"ours": lambda: StreamDetector(PROBATION), **controls}
    checks = sum(map(len, losses + accuracies))
    alarms = {name: sum(len(flagged(each, make)) for each in losses + accuracies) for name, make in detectors.items()}
    return {
        "curves": len(curves),
        "checks": checks,
        "flagged": alarms,
        "percent": {name: 100 * count / checks for name, count in alarms.items()},
        "caught": {name: _caught(losses, make) for name, make in detectors.items()},
    }


def _caught(losses: list[list[float]], make: Callable[[], Any]) -> dict[str, float]:
    chance = np.random.Generator(np.random.Philox(2026))
    found = dict.fromkeys(FAULTS, 0)
    planted = [each for each in losses if len(each) > PROBATION + 6]
    for each in planted:
        for name, fault in FAULTS.items():
            at = int(chance.integers(PROBATION + 2, len(each) - 3))
            found[name] += any(place >= at for place in flagged(fault(each, at), make))
    return {name: count / len(planted) for name, count in found.items()}
