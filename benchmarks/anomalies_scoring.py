"""The score of the Numenta Anomaly Benchmark (Lavin and Ahmad, "Evaluating Real-time Anomaly Detection Algorithms",
ICMLA 2015), standard profile.

Each labelled window is worth 1 if it is noticed at its left edge, less and less to its right edge by a sigmoid, and
costs 1 if it is missed; of its alarms the earliest counts. An alarm outside costs up to 0.11: next to nothing right
behind a window, all of it where no window came before or three lengths behind. The first 15 % of a stream, of its first
5,000 values at most, are not scored. Scores are normalised: 0 for no alarms at all, 100 for every window
noticed at its left edge and nothing else.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from apps.observability.contracts import Numbers

PROBATION_SHARE = 0.15
PROBATION_OF = 5000
MISSED = -1.0
FALSE_ALARM_WEIGHT = 0.11
FAR = 3.0
"""Window lengths behind a window at which a false alarm costs all of its weight."""


def probation(length: int) -> int:
    """How many values at the beginning of a stream are not scored."""
    return math.floor(min(PROBATION_SHARE * length, PROBATION_SHARE * PROBATION_OF))


def sigmoid(position: float) -> float:
    """2 / (1 + exp(5 position)) - 1; -1 from ``FAR`` on."""
    return -1.0 if position >= FAR else 2 / (1 + math.exp(5 * position)) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Marked:
    """What an alarm is worth at each value of one stream, and in which window it is (-1: none, -2: not scored)."""

    worth: Numbers
    window: np.ndarray
    windows: int
    """That are scored."""


def mark(length: int, windows: Sequence[tuple[int, int]]) -> Marked:
    """``windows`` are (first, last) positions, ascending and apart."""
    worth = np.full(length, -FALSE_ALARM_WEIGHT)
    window = np.full(length, -1)
    for number, (first, last) in enumerate(windows):
        width = last - first + 1
        for place in range(first, last + 1):
            worth[place] = sigmoid(-(last - place + 1) / width) / sigmoid(-1.0)
            window[place] = number
        behind = windows[number + 1][0] if number + 1 < len(windows) else length
        for place in range(last + 1, behind):
            worth[place] = FALSE_ALARM_WEIGHT * sigmoid((place - last) / max(width - 1, 1))
    start = probation(length)
    worth[:start], window[:start] = 0.0, -2
    return Marked(worth=worth, window=window, windows=len(set(window[window >= 0].tolist())))


def raw_score(marked: Marked, scores: Numbers, threshold: float) -> float:
    """Of one stream whose alarms are the ``scores`` of ``threshold`` and above."""
    alarms = np.flatnonzero((scores >= threshold) & (marked.window > -2))
    total = float(marked.worth[alarms[marked.window[alarms] == -1]].sum())
    inside = alarms[marked.window[alarms] >= 0]
    named = np.unique(marked.window[marked.window >= 0])
    best = np.full(int(named.max(initial=-1)) + 1, MISSED)
    np.maximum.at(best, marked.window[inside], marked.worth[inside])
    return total + float(best[named].sum())


def normalised(raw: float, windows: int) -> float | None:
    """``raw`` on the scale of 0, nothing ever said, to 100, perfect; None without windows."""
    return 100 * (raw + windows) / (2 * windows) if windows else None


def standard(marked: Sequence[Marked], scores: Sequence[Numbers], threshold: float) -> float | None:
    """The normalised score of several streams with one threshold."""
    raw = sum(raw_score(each, found, threshold) for each, found in zip(marked, scores, strict=True))
    return normalised(raw, sum(each.windows for each in marked))


def best_threshold(marked: Sequence[Marked], scores: Sequence[Numbers]) -> float:
    """The threshold that scores most over all the streams, as the benchmark itself picks it."""
    offsets = np.cumsum([0, *(int(each.window.max(initial=-1)) + 1 for each in marked)])
    worth = np.concatenate([each.worth for each in marked])
    window = np.concatenate(
        [
            np.where(each.window >= 0, each.window + offset, each.window)
            for each, offset in zip(marked, offsets, strict=False)
        ]
    )
    score = np.concatenate(list(scores))
    kept = np.flatnonzero(window > -2)
    order = kept[np.argsort(-score[kept], kind="stable")]
    total, best, threshold = 0.0, 0.0, 1.1
    found: dict[int, float] = {}
    for place, (value, paid, inside) in enumerate(
        zip(score[order].tolist(), worth[order].tolist(), window[order].tolist(), strict=True)
    ):
        if inside < 0:
            total += paid
        elif paid > found.get(inside, MISSED):
            total += paid - found.get(inside, MISSED)
            found[inside] = paid
        last = place + 1 == len(order) or score[order[place + 1]] != value
        if last and total > best:
            best, threshold = total, value
    return threshold
