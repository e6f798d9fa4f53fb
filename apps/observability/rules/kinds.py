"""What a rule can look for in a series: each kind with its parameters, what it reads, and a pure function that judges.

    kind = KINDS[RuleKind.THRESHOLD]
    parameters = kind.checked({"op": ">", "value": 0.9})
    kind.judge(Observed(...), parameters).holds      # True, False, or None: too little is known

A judge that says None changes nothing: what was firing fires on, what was not does not begin.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from apps.core.errors import Invalid
from apps.observability.models import RuleKind
from apps.observability.rules import curves, levels, marks
from apps.observability.rules.observed import Observed, Verdict
from apps.observability.rules.parameters import Parameter, checked

HOUR = 3600
DAY = 24 * HOUR
MOST_WINDOW = 6 * HOUR
"""Of what is judged by its samples: 1,440 at one in 15 seconds."""


class Reads(StrEnum):
    """What a kind wants to know of a series."""

    LATEST = "the newest sample"
    SAMPLES = "samples of a window"
    AVERAGES = "averages of a long window"
    ANOMALIES = "what the detector found"


Parameters = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """``window`` is how many seconds back it looks. ``consistent`` returns the name of a parameter that contradicts
    another, and why, or nothing."""

    parameters: tuple[Parameter, ...]
    judge: Callable[[Observed, Parameters], Verdict]
    reads: Callable[[Parameters], Reads] = lambda parameters: Reads.SAMPLES
    window: Callable[[Parameters], int] = lambda parameters: parameters["window_seconds"]
    consistent: Callable[[Parameters], tuple[str, str] | None] = lambda parameters: None

    def checked(self, given: Any) -> dict[str, Any]:
        """All parameters, the defaults filled in.

        Raises:
            Invalid: naming what is wrong.
        """
        values = checked(self.parameters, given)
        if fault := self.consistent(values):
            raise Invalid(fault[1], pointer=f"/parameters/{fault[0]}", code="inconsistent")
        return values


def _window(default: int, most: int = MOST_WINDOW, *, name: str = "window_seconds", help: str = "") -> Parameter:
    return Parameter(
        name=name,
        help=help or "How many seconds back it looks.",
        default=default,
        whole=True,
        least=15,
        most=most,
    )


def _count(name: str, default: int, help: str, *, least: int = 1, most: int = 10_000) -> Parameter:
    return Parameter(name=name, help=help, default=default, whole=True, least=least, most=most)


def _threshold_reads(parameters: Parameters) -> Reads:
    return Reads.LATEST if parameters["reading"] == "last" else Reads.SAMPLES


def _shorter(short: str, long: str) -> Callable[[Parameters], tuple[str, str] | None]:
    def check(parameters: Parameters) -> tuple[str, str] | None:
        if parameters[short] < parameters[long]:
            return None
        return short, f"must be shorter than {long}"

    return check


KINDS: dict[str, Kind] = {
    RuleKind.THRESHOLD: Kind(
        parameters=(
            Parameter(name="op", help="How the reading compares to the value.", choices=tuple(levels.COMPARE)),
            Parameter(name="value", help="In the unit of the metric."),
            Parameter(
                name="reading",
                help="The newest sample; or of the window's the mean, greatest, least, growth a second, growth.",
                choices=levels.READINGS,
                default="last",
            ),
            _window(300),
            _count("least_samples", 1, "With fewer in the window it says nothing."),
        ),
        judge=levels.threshold,
        reads=_threshold_reads,
        window=lambda parameters: 0 if parameters["reading"] == "last" else parameters["window_seconds"],
    ),
    RuleKind.CHANGE: Kind(
        parameters=(
            Parameter(name="direction", help="Which way it moved.", choices=("up", "down"), default="up"),
            Parameter(name="percent", help="By how much of the baseline.", default=50.0, least=0.1, most=1e6),
            _window(300, HOUR, help="The median of the newest so many seconds is compared to that of the baseline."),
            _window(HOUR, name="baseline_seconds", help="The baseline begins so many seconds back."),
            _count("least_samples", 20, "With fewer in the baseline it says nothing.", least=3),
        ),
        judge=levels.change,
        window=lambda parameters: parameters["baseline_seconds"],
        consistent=_shorter("window_seconds", "baseline_seconds"),
    ),
    RuleKind.SPIKE: Kind(
        parameters=(
            Parameter(name="direction", help="Which way it leapt.", choices=("up", "down", "both"), default="up"),
            Parameter(
                name="score", help="Robust standard deviations from the median.", default=8.0, least=1.0, most=1e4
            ),
            _window(60, HOUR, name="recent_seconds", help="Each sample of the newest so many seconds is tried."),
            _window(HOUR, help="Those before them, so many seconds back, say what is usual."),
            _count("least_samples", 30, "With fewer before, it says nothing.", least=5),
        ),
        judge=curves.spike,
        consistent=_shorter("recent_seconds", "window_seconds"),
    ),
    RuleKind.NON_FINITE: Kind(parameters=(_window(300),), judge=marks.non_finite),
    RuleKind.PLATEAU: Kind(
        parameters=(
            Parameter(name="direction", help="Which way is better.", choices=("down", "up"), default="down"),
            _count("samples", 20, "The median of so many is compared to that of as many before.", least=3, most=1000),
            Parameter(name="percent", help="It should have improved by so much.", default=1.0, least=0.0, most=1000.0),
            _window(MOST_WINDOW),
        ),
        judge=curves.plateau,
    ),
    RuleKind.ABSENCE: Kind(
        parameters=(
            Parameter(
                name="after_seconds", help="No sample for so long.", default=120, whole=True, least=30, most=DAY - 60
            ),
            Parameter(
                name="forget_seconds",
                help="A series without samples for so long is over, and nothing is absent.",
                default=DAY,
                whole=True,
                least=60,
                most=DAY,
            ),
        ),
        judge=marks.absence,
        reads=lambda parameters: Reads.LATEST,
        window=lambda parameters: parameters["forget_seconds"],
        consistent=_shorter("after_seconds", "forget_seconds"),
    ),
    RuleKind.ANOMALY: Kind(
        parameters=(
            _window(600),
            Parameter(name="score", help="At least so odd, 0 to 1.", default=0.0, least=0.0, most=1.0),
        ),
        judge=marks.anomaly,
        reads=lambda parameters: Reads.ANOMALIES,
    ),
    RuleKind.FORECAST: Kind(
        parameters=(
            Parameter(name="op", help="From which side the value is reached.", choices=(">=", "<="), default=">="),
            Parameter(name="value", help="In the unit of the metric."),
            Parameter(name="hours", help="Within so many.", default=24.0, least=0.25, most=24 * 30),
            _window(DAY, 14 * DAY, help="The trend is that of so many seconds."),
        ),
        judge=curves.forecast,
        reads=lambda parameters: Reads.AVERAGES,
    ),
}
