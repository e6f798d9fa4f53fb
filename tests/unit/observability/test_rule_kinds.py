"""What each kind of rule says of a curve. Times are seconds; ``NOW`` is when it is judged."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from apps.core.errors import Invalid
from apps.observability.models import RuleKind
from apps.observability.rules.kinds import KINDS
from apps.observability.rules.observed import Mark, Observed, Verdict

NOW = 1_000_000.0
NAN, INF = float("nan"), float("inf")


def seen(*values: float, every: float = 15.0, **known: Any) -> Observed:
    """Samples of which the newest is as old as ``NOW``."""
    times = NOW - every * np.arange(len(values) - 1, -1, -1.0)
    newest: dict[str, Any] = {"latest_at": NOW, "latest": values[-1]} if values else {}
    return Observed(now=NOW, times=times, values=np.array(values, dtype=float), **(newest | known))


def judged(kind: RuleKind, observed: Observed, **parameters: Any) -> Verdict:
    return KINDS[kind].judge(observed, KINDS[kind].checked(parameters))


def healthy(count: int, seed: int = 7) -> list[float]:
    """A loss that decays, with the noise of batches."""
    noise = np.random.default_rng(seed).normal(0.0, 0.03, count)
    return list(0.3 + 2.0 * np.exp(-np.arange(count) / 60.0) + noise)


class TestThreshold:
    @pytest.mark.parametrize(
        ("reading", "values", "says", "holds"),
        [
            ("last", [0.1, 0.95], 0.95, True),
            ("last", [0.95, 0.9], 0.9, False),
            ("mean", [0.8, 1.2, 1.0], 1.0, True),
            ("max", [0.1, 2.0, 0.1], 2.0, True),
            ("min", [0.5, 2.0, 2.0], 0.5, False),
            ("increase", [10, 11, 12], 2.0, True),
            ("increase", [10, 11, 0, 3], -7.0, False),
            ("rate", [0, 30, 60], 2.0, True),
        ],
    )
    def test_it_compares_the_reading(self, reading: str, values: list[float], says: float, holds: bool) -> None:
        verdict = judged(RuleKind.THRESHOLD, seen(*values), op=">", value=0.9, reading=reading)

        assert (verdict.holds, verdict.value, verdict.threshold) == (holds, pytest.approx(says), 0.9)

    def test_a_count_that_falls_began_anew(self) -> None:
        observed = replace(seen(10, 11, 0, 3), is_counter=True)

        assert judged(RuleKind.THRESHOLD, observed, op=">", value=0.9, reading="increase").value == 4.0

    @pytest.mark.parametrize(("op", "holds"), [(">", False), (">=", True), ("<", False), ("<=", True)])
    def test_of_equal_numbers_the_operator_decides(self, op: str, holds: bool) -> None:
        assert judged(RuleKind.THRESHOLD, seen(5.0), op=op, value=5).holds is holds

    def test_samples_before_the_window_do_not_count(self) -> None:
        verdict = judged(RuleKind.THRESHOLD, seen(9, 9, 9, 1, 1), op=">", value=2, reading="max", window_seconds=20)

        assert verdict.holds is False

    @pytest.mark.parametrize("reading", ["mean", "increase"])
    def test_with_too_few_samples_it_says_nothing(self, reading: str) -> None:
        verdict = judged(RuleKind.THRESHOLD, seen(NAN, 5.0), op=">", value=0, reading=reading, least_samples=2)

        assert verdict.holds is None

    def test_nan_is_no_reading_and_infinity_is(self) -> None:
        assert judged(RuleKind.THRESHOLD, seen(NAN), op=">", value=0).holds is None
        infinite = judged(RuleKind.THRESHOLD, seen(INF), op=">", value=0)
        assert (infinite.holds, infinite.value) == (True, None)

    def test_the_mean_of_the_largest_numbers_is_finite(self) -> None:
        assert judged(RuleKind.THRESHOLD, seen(1e308, 1e308), op=">", value=0, reading="mean").value == 1e308


class TestChange:
    def test_half_as_much_again_as_the_median_before(self) -> None:
        up = judged(RuleKind.CHANGE, seen(*[100.0] * 100, *[160.0] * 20), percent=50)

        assert (up.holds, up.value, up.threshold) == (True, 160.0, 150.0)
        assert up.evidence["percent"] == pytest.approx(60.0)

    def test_less_than_that_is_none(self) -> None:
        assert judged(RuleKind.CHANGE, seen(*[100.0] * 100, *[140.0] * 20), percent=50).holds is False

    def test_downwards(self) -> None:
        assert judged(RuleKind.CHANGE, seen(*[-100.0] * 100, *[-160.0] * 20), direction="down").holds is True

    @pytest.mark.parametrize("values", [[0.0] * 100 + [5.0] * 20, [1.0] * 3, [NAN] * 150], ids=["zero", "few", "nan"])
    def test_without_a_baseline_it_says_nothing(self, values: list[float]) -> None:
        assert judged(RuleKind.CHANGE, seen(*values)).holds is None

    def test_what_stays_nothing_has_not_moved(self) -> None:
        assert judged(RuleKind.CHANGE, seen(*[0.0] * 120)).holds is False


class TestSpike:
    def test_a_leap_in_a_loss_that_decays_is_one(self) -> None:
        losses = [*healthy(200), 2.5]

        assert judged(RuleKind.SPIKE, seen(*losses)).holds is True

    def test_a_leap_between_two_evaluations_is_not_missed(self) -> None:
        losses = [*healthy(200), 2.5, 0.4]

        verdict = judged(RuleKind.SPIKE, seen(*losses))

        assert (verdict.holds, verdict.value) == (True, 2.5)

    def test_healthy_losses_have_none_at_any_step(self) -> None:
        """20 curves, judged at each of 370 steps."""
        alarms = sum(
            judged(RuleKind.SPIKE, seen(*curve[:end])).holds is True
            for curve in (healthy(400, seed) for seed in range(20))
            for end in range(31, 401)
        )

        assert alarms == 0

    def test_one_that_never_moved_may_move_a_little(self) -> None:
        assert judged(RuleKind.SPIKE, seen(*[10.0] * 100, 10.5)).holds is False
        assert judged(RuleKind.SPIKE, seen(*[10.0] * 100, 12.0)).holds is True

    @pytest.mark.parametrize(("direction", "holds"), [("up", False), ("down", True), ("both", True)])
    def test_it_has_a_direction(self, direction: str, holds: bool) -> None:
        assert judged(RuleKind.SPIKE, seen(*[10.0] * 100, 1.0), direction=direction).holds is holds

    def test_with_too_few_before_it_says_nothing(self) -> None:
        assert judged(RuleKind.SPIKE, seen(*[1.0] * 20, 50.0)).holds is None


class TestNonFinite:
    @pytest.mark.parametrize("value", [NAN, INF, -INF])
    def test_one_such_sample_in_the_window_is_enough(self, value: float) -> None:
        verdict = judged(RuleKind.NON_FINITE, seen(1.0, value, 1.0))

        assert (verdict.holds, verdict.value, verdict.evidence["value"]) == (True, None, str(value))

    def test_numbers_are_none(self) -> None:
        assert judged(RuleKind.NON_FINITE, seen(1.0, 1e308)).holds is False

    def test_without_samples_it_says_nothing(self) -> None:
        assert judged(RuleKind.NON_FINITE, seen()).holds is None


class TestPlateau:
    def test_a_loss_that_stands_is_one_and_one_that_falls_is_not(self) -> None:
        standing, falling = [1.0, 1.001] * 20, list(np.linspace(2.0, 1.0, 40))

        assert judged(RuleKind.PLATEAU, seen(*standing)).holds is True
        assert judged(RuleKind.PLATEAU, seen(*falling)).holds is False

    def test_an_accuracy_is_better_when_it_rises(self) -> None:
        rising = list(np.linspace(0.5, 0.9, 40))

        assert judged(RuleKind.PLATEAU, seen(*rising), direction="up").holds is False
        assert judged(RuleKind.PLATEAU, seen(*rising[::-1]), direction="up").holds is True

    def test_with_too_few_samples_it_says_nothing(self) -> None:
        assert judged(RuleKind.PLATEAU, seen(*[1.0] * 39)).holds is None


class TestAbsence:
    @pytest.mark.parametrize(("age", "holds"), [(0, False), (120, False), (121, True)])
    def test_the_age_of_the_newest_sample_decides(self, age: float, holds: bool) -> None:
        verdict = judged(RuleKind.ABSENCE, seen(latest_at=NOW - age), after_seconds=120)

        assert (verdict.holds, verdict.value) == (holds, age)

    def test_no_sample_at_all_is_absent(self) -> None:
        assert judged(RuleKind.ABSENCE, seen()).holds is True

    def test_one_from_a_clock_that_is_ahead_is_new(self) -> None:
        assert judged(RuleKind.ABSENCE, seen(latest_at=NOW + 30)).value == 0.0


def mark(ago: float, score: float) -> Mark:
    at = NOW - ago
    return Mark(at=at, until=at, value=7.0, score=score, component="range", explanation="never so high")


class TestAnomaly:
    def test_the_oddest_of_the_window_is_told(self) -> None:
        verdict = judged(RuleKind.ANOMALY, seen(marks=(mark(700, 0.99), mark(60, 0.9), mark(30, 0.8))))

        assert (verdict.holds, verdict.value, verdict.evidence["score"]) == (True, 7.0, 0.9)

    def test_older_or_less_odd_ones_do_not_count(self) -> None:
        assert judged(RuleKind.ANOMALY, seen(marks=(mark(700, 0.99), mark(60, 0.4))), score=0.5).holds is False


class TestForecast:
    def test_a_disk_that_fills_steadily_is_full_within_hours(self) -> None:
        used = np.linspace(0.70, 0.85, 100)  # 15 points an hour and a half: 10 hours to 95 %
        verdict = judged(RuleKind.FORECAST, seen(*used, every=864), value=0.95, hours=24)

        assert verdict.holds is True
        assert verdict.evidence["reaches_in_hours"] == pytest.approx(16.0, rel=0.05)

    def test_one_that_is_full_later_or_does_not_fill_is_not(self) -> None:
        used, flat = np.linspace(0.70, 0.85, 100), np.full(100, 0.7)

        assert judged(RuleKind.FORECAST, seen(*used, every=864), value=0.95, hours=6).holds is False
        assert judged(RuleKind.FORECAST, seen(*flat, every=864), value=0.95).holds is False

    def test_one_that_is_there_holds_without_a_trend(self) -> None:
        assert judged(RuleKind.FORECAST, seen(0.97), value=0.95).holds is True

    def test_downwards(self) -> None:
        assert judged(RuleKind.FORECAST, seen(*np.linspace(90, 20, 100), every=864), op="<=", value=0).holds is True

    def test_with_too_few_points_it_says_nothing(self) -> None:
        assert judged(RuleKind.FORECAST, seen(0.1, 0.2, 0.3), value=0.95).holds is None


@pytest.mark.parametrize("kind", RuleKind)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_no_number_is_too_large_for_what_is_stored(kind: RuleKind) -> None:
    """Columns and JSON hold finite numbers only."""
    parameters = {"op": ">=", "value": 1} if kind in {RuleKind.THRESHOLD, RuleKind.FORECAST} else {}

    verdict = judged(kind, seen(*[1e308, -1e308, 5e-324] * 80, 1.7e308), **parameters)

    numbers = [verdict.value, verdict.threshold, *verdict.evidence.values()]
    assert all(np.isfinite(number) for number in numbers if isinstance(number, float))


@pytest.mark.parametrize(
    ("kind", "parameters", "pointer"),
    [
        (RuleKind.THRESHOLD, {"op": ">"}, "/parameters/value"),
        (RuleKind.THRESHOLD, {"op": "=", "value": 1}, "/parameters/op"),
        (RuleKind.THRESHOLD, {"op": ">", "value": True}, "/parameters/value"),
        (RuleKind.THRESHOLD, {"op": ">", "value": "1"}, "/parameters/value"),
        (RuleKind.THRESHOLD, {"op": ">", "value": NAN}, "/parameters/value"),
        (RuleKind.THRESHOLD, {"op": ">", "value": 10**400}, "/parameters/value"),
        (RuleKind.THRESHOLD, {"op": ">", "value": 1, "window_seconds": 86_400}, "/parameters/window_seconds"),
        (RuleKind.THRESHOLD, {"op": ">", "value": 1, "windows": 60}, "/parameters/windows"),
        (RuleKind.THRESHOLD, {"op": ">", "value": 1, "reading": None}, "/parameters/reading"),
        (RuleKind.THRESHOLD, {"op": [">"], "value": 1}, "/parameters/op"),
        (RuleKind.CHANGE, {"window_seconds": 600, "baseline_seconds": 600}, "/parameters/window_seconds"),
        (RuleKind.SPIKE, {"recent_seconds": 3600, "window_seconds": 60}, "/parameters/recent_seconds"),
        (RuleKind.ABSENCE, {"after_seconds": 600, "forget_seconds": 60}, "/parameters/after_seconds"),
        (RuleKind.PLATEAU, {"samples": 2.5}, "/parameters/samples"),
        (RuleKind.ANOMALY, [], "/parameters"),
    ],
)
def test_a_wrong_parameter_is_named(kind: RuleKind, parameters: Any, pointer: str) -> None:
    with pytest.raises(Invalid) as refused:
        KINDS[kind].checked(parameters)

    assert [error.pointer for error in refused.value.errors] == [pointer]


def test_every_kind_of_rule_is_there() -> None:
    assert set(KINDS) == set(RuleKind)
