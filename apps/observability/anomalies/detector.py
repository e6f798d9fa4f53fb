"""The detector of one stream."""

import math
from dataclasses import dataclass
from typing import Any

from apps.observability.anomalies.calibration import Tail
from apps.observability.anomalies.components import Level, Range, Season, Sequences, Window
from apps.observability.anomalies.words import sentence

VERSION = 2
COMPONENTS = ("extreme", "shift", "sequence", "activity", "season")
LEAST_RAW = 1.0
"""Raw scores below it (spreads, or bits) are never of a tail."""
THRESHOLD = 0.5
"""A score of it or above is an anomaly."""
CAP = 0.6
"""What one component contributes at most: one that is certain is enough, two that are half as sure are, too."""
LEAST_EXCESS = 0.05
"""Share of the range by which a new extreme must exceed it to count in full; twice of what is usual if that is more."""
RARE = 2.0
RAREST = 3.2
"""-log10 of the probability at which a component begins to contribute, and at which it is at its cap."""
ENDLESS = 1.0
"""How much rarer, in the same unit, it must be in a stream of which nobody knows how long it will be: one value in
1,000 by chance alone is four in a stream of the usual benchmark, but six a day in each series of 15 seconds."""
DAMPED = 0.3
"""By what scores are multiplied right after an alarm; it rises to 1 over the refractory period. So an anomaly is one
alarm, but what is much odder than it must be is told of soon."""
ODD_LEARNED = 4
"""Of odd values in a row the tails learn of each fourth: one long anomaly is not many, and must not pass for usual."""
CALM = 4
"""How many times as long as a burst a calm must last: a few values that move little are nothing odd, as at night."""
FOLLOWED = 0.15
"""Share of a new value in the mean surprise: one step that is new is no odd sequence, some in a row are."""
DEFAULT_PROBATION = 120
LEAST_MEMORY = 200
"""It remembers twenty times its probation, or of this if that is more."""
DEFAULT_REFRACTORY = 200
LARGEST = 1e150
"""Larger values count as so large: their squares are still numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Why the newest score is what it is."""

    component: str
    """That weighed most; empty: nothing is odd."""
    components: dict[str, float]
    """What each contributed, before the sum is capped at 1."""
    expected_low: float | None
    expected_high: float | None
    text: str
    """A sentence without its subject: "0.83 is above everything seen in the last 6 h (0.21 to 0.35)"."""


class StreamDetector:
    """Finds anomalies in one stream of values, one value at a time, in constant time and a few KB.

        detector = StreamDetector(probation=600)
        score = detector.update(timestamp_seconds, value)   # 0 to 1
        if score >= THRESHOLD: print(detector.explain().text)

    Args:
        probation: how many values it only learns from, and scores 0; best 15 % of those to come. None: nobody knows
            how many will come; it learns from 120, and is harder to surprise.
        refractory: for how many values after an alarm others are held back; None: half of the probation, 200 if that
            is not given either.
    """

    def __init__(self, probation: int | None = None, *, refractory: int | None = None) -> None:
        if refractory is None:
            refractory = DEFAULT_REFRACTORY if probation is None else max(1, probation // 2)
        self.probation = max(1, DEFAULT_PROBATION if probation is None else int(probation))
        self.refractory = max(0, int(refractory))
        self.margin = ENDLESS if probation is None else 0.0
        """Added to what counts as rare."""
        self.seen = 0
        self.streak = 0
        """How many odd values came in a row."""
        self.quiet = 0
        """Values until the refractory period is over."""
        memory = 20 * max(self.probation, LEAST_MEMORY)
        self.level = Level(1 / memory)
        self.range = Range(1 / (3 * memory))
        size = min(max(self.probation // 40, 3), 8)
        self.window, self.longer = Window(size), Window(CALM * size)
        self.sequences = Sequences()
        self.season = Season()
        self.activity, self.calm = Level(1 / memory), Level(1 / memory)
        """Of the logarithm of the movement in the window, and in the longer one."""
        self.surprise = 0.0
        self.drift = 0.0
        self.distance = 0.0
        """Of the newest value from the mean, in spreads."""
        seeds = self.probation // 2
        self.tails = {name: Tail(seeds, LEAST_RAW) for name in COMPONENTS}
        self.first_at = 0.0
        self.last_at = 0.0
        self.score = 0.0
        """The newest."""
        self.odd = False
        """Whether the newest value is as odd as an anomaly, an alarm or not."""
        self._told: tuple[float, dict[str, float], dict[str, tuple[float, float]]] = (0.0, {}, {})

    def update(self, timestamp_seconds: float, value: float) -> float:
        """The score of ``value``; one that is no finite number is skipped and scores 0."""
        value, at = float(value), float(timestamp_seconds)
        if not math.isfinite(value) or not math.isfinite(at):
            self.score, self.odd, self._told = 0.0, False, (value, {}, {})
            return 0.0
        value = min(max(value, -LARGEST), LARGEST)
        if self.seen == 0:
            self.first_at = at
        self.seen += 1
        self.last_at = at
        settled = self.seen > self.probation
        raws, expected = self._raws(at, value)
        parts = self._parts(raws) if settled else {}
        score = min(1.0, math.fsum(parts.values()))
        self.odd = score >= THRESHOLD
        self.streak = self.streak + 1 if self.odd else 0
        self._learn(at, value, raws, settled)
        self._told = (value, parts, expected)
        self.score = self._damped(score)
        return self.score

    def _damped(self, score: float) -> float:
        """``score`` after an alarm: less at first, and as it is once the refractory period is over."""
        if self.quiet:
            score *= 1 - (1 - DAMPED) * self.quiet / self.refractory
            self.quiet -= 1
        if score >= THRESHOLD:
            self.quiet = self.refractory
        return score

    def _raws(self, at: float, value: float) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
        """Raw scores of the components that can say one, and the range in which each expected the value."""
        level, spread = self.level, self.level.spread()
        raws: dict[str, float] = {}
        expected: dict[str, tuple[float, float]] = {}
        self.window.add(value)
        self.longer.add(value)
        if not self.window.full() or level.seen < 2:
            return raws, expected
        raws["extreme"] = self.range.raw(value)
        self.distance = abs(value - level.mean) / spread
        expected["extreme"] = (self.range.low, self.range.high)
        raws["shift"] = abs(self.window.mean() - level.mean) / spread
        expected["shift"] = (level.mean - 3 * spread, level.mean + 3 * spread)
        raws["activity"] = self._activity(spread)
        if level.seen > self.probation // 4:
            symbol = self.sequences.symbol(value, level)
            self.surprise += FOLLOWED * (self.sequences.raw(symbol) - self.surprise)
            self.sequences.learn(symbol)
            raws["sequence"] = self.surprise
        usual = self.season.expected(at)
        if usual is None:
            self.drift = 0.0
        else:
            self.drift += 0.3 * ((value - usual[0]) / usual[1] - self.drift)
            raws["season"] = abs(self.drift)
            expected["season"] = (usual[0] - 3 * usual[1], usual[0] + 3 * usual[1])
        return raws, expected

    def _activity(self, spread: float) -> float:
        """How much more the window moves than usual, or how much less the longer one does, in spreads; 0: neither."""
        livelier = self._moved(self.window, self.activity, spread)
        calmer = -self._moved(self.longer, self.calm, spread) if self.longer.full() else 0.0
        return max(livelier, calmer, 0.0)

    def _moved(self, window: Window, usual: Level, spread: float) -> float:
        movement = math.log(window.movement() + 0.01 * spread)
        deviation = (movement - usual.mean) / (usual.spread() + 0.1) if usual.seen > 1 else 0.0
        usual.learn(movement, self.seen > self.probation)
        return deviation

    def _parts(self, raws: dict[str, float]) -> dict[str, float]:
        """What each component contributes to the score."""
        parts = {}
        for name, raw in raws.items():
            if name == "extreme":
                part = min(self._weight(name, self.distance), raw / max(LEAST_EXCESS, 2 * self.range.usual))
            else:
                part = self._weight(name, raw)
            if part > 0:
                parts[name] = CAP * min(part, 1.0)
        return parts

    def _weight(self, name: str, raw: float) -> float:
        return (self.tails[name].rarity(raw) - RARE - self.margin) / (RAREST - RARE)

    def _learn(self, at: float, value: float, raws: dict[str, float], settled: bool) -> None:
        if self.streak % ODD_LEARNED == 0:
            for name, raw in raws.items():
                self.tails[name].learn(self.distance if name == "extreme" else raw)
        self.range.learn(value, raws.get("extreme", 0.0), self.seen > self.probation // 2)
        self.season.learn(at, value, self.level)
        self.level.learn(value, settled)

    def explain(self) -> Explanation:
        """Why the newest score is what it is."""
        value, parts, expected = self._told
        if not parts:
            return Explanation(component="", components={}, expected_low=None, expected_high=None, text="")
        component = max(parts, key=lambda name: parts[name])
        low, high = expected.get(component, (None, None))
        return Explanation(
            component=component,
            components=parts,
            expected_low=low,
            expected_high=high,
            text=sentence(component, value, low, high, seconds=self.last_at - self.first_at),
        )

    def to_state(self) -> dict[str, Any]:
        """All that it knows, as JSON: one made of it goes on exactly as this one would."""
        return {
            "version": VERSION,
            "probation": self.probation,
            "refractory": self.refractory,
            "seen": self.seen,
            "margin": self.margin,
            "quiet": self.quiet,
            "odd": self.odd,
            "streak": self.streak,
            "surprise": self.surprise,
            "drift": self.drift,
            "first_at": self.first_at,
            "last_at": self.last_at,
            "level": self.level.to_state(),
            "range": self.range.to_state(),
            "window": self.window.to_state(),
            "longer": self.longer.to_state(),
            "sequences": self.sequences.to_state(),
            "season": self.season.to_state(),
            "activity": self.activity.to_state(),
            "calm": self.calm.to_state(),
            "tails": {name: tail.to_state() for name, tail in self.tails.items()},
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "StreamDetector":
        """The detector whose state it is.

        Raises:
            ValueError: it is none of this version.
        """
        version = state.get("version") if isinstance(state, dict) else None
        if version != VERSION:
            raise ValueError(f"no state of version {VERSION}, but of {version!r}")
        try:
            found = cls(int(state["probation"]), refractory=int(state["refractory"]))
            found.seen, found.quiet = int(state["seen"]), int(state["quiet"])
            found.odd, found.streak = bool(state["odd"]), int(state["streak"])
            for name in ("margin", "surprise", "drift", "first_at", "last_at"):
                setattr(found, name, float(state[name]))
            found.level = Level.from_state(state["level"])
            found.range = Range.from_state(state["range"])
            found.window = Window.from_state(state["window"])
            found.longer = Window.from_state(state["longer"])
            found.sequences = Sequences.from_state(state["sequences"])
            found.season = Season.from_state(state["season"])
            found.activity = Level.from_state(state["activity"])
            found.calm = Level.from_state(state["calm"])
            found.tails = {name: Tail.from_state(state["tails"][name]) for name in found.tails}
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise ValueError(f"no state of a detector: {error!r}") from error
        return found
