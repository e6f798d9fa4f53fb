"""The curve around an alert: what is drawn where, and what is never joined."""

import math
from typing import Any

import numpy as np
import pytest

from apps.dashboards import alert_drawing, units
from apps.dashboards.alert_drawing import HEIGHT, LEFT, RIGHT, TOP, WIDTH, Moment
from apps.observability.contracts import Curve, SeriesInfo


def curve(times: list[float], values: list[float], *, step: int = 0, unit: str = "", **series: Any) -> Curve:
    info = SeriesInfo(
        **{"id": 1, "name": "mine", "labels": {}, "kind": "gauge", "source": "client", "run_id": None, **series},
        unit=unit,
    )
    numbers = np.array(values, dtype=np.float64)
    return Curve(
        series=info,
        step=step,
        times=np.array(times, dtype=np.float64),
        least=numbers,
        mean=numbers,
        greatest=numbers,
        anomalies=np.array([30.0]),
    )


def drawn(made: Curve, **moment: Any) -> alert_drawing.Drawing:
    found = alert_drawing.drawn(made, Moment(**{"start": 0.0, "end": 60.0, "since": 30.0, **moment}))
    assert found is not None
    return found


def points(line: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in (point.split(",") for point in line.split())]


def test_the_curve_fills_its_frame_from_the_start_to_the_end() -> None:
    (line,) = drawn(curve([0, 15, 30, 45, 60], [0, 1, 2, 3, 4])).lines

    xs, ys = zip(*points(line), strict=True)
    assert (xs[0], xs[-1]) == (LEFT, WIDTH - RIGHT)
    assert ys == tuple(sorted(ys, reverse=True))
    assert TOP <= min(ys) < max(ys) <= HEIGHT


@pytest.mark.parametrize(
    ("times", "values"),
    [([0, 5, 10, 40, 45, 50], [1.0] * 6), ([0, 5, 10, 15, 20, 25], [1.0, 1.0, math.nan, math.inf, 1.0, 1.0])],
)
def test_a_line_never_goes_over_a_gap_or_over_what_is_no_number(times: list[float], values: list[float]) -> None:
    assert len(drawn(curve(times, values)).lines) == 2


def test_a_point_that_stands_alone_is_a_dot() -> None:
    found = drawn(curve([30], [1.0]))

    assert found.lines == []
    assert [x for x, _ in found.dots] == [LEFT + (WIDTH - LEFT - RIGHT) / 2]


def test_the_threshold_is_on_the_scale_of_the_curve() -> None:
    found = drawn(curve([0, 30, 60], [0.5, 0.92, 0.94], unit="ratio"), threshold=0.9)

    assert found.threshold is not None
    assert found.threshold.text == "90.0\xa0%"
    (line,) = found.lines
    ys = [y for _, y in points(line)]
    assert ys[0] > found.threshold.at > ys[1]


def test_what_was_so_is_shaded_from_its_beginning_to_its_end() -> None:
    goes_on = drawn(curve([0, 60], [1, 2]))
    is_over = drawn(curve([0, 60], [1, 2]), until=45.0)

    assert goes_on.span[0] == is_over.span[0] == LEFT + (WIDTH - LEFT - RIGHT) / 2
    assert goes_on.span[1] == pytest.approx(2 * is_over.span[1], abs=0.2)


def test_what_lies_outside_is_drawn_at_the_edge() -> None:
    found = drawn(curve([0, 60], [1, 2]), since=-500.0)

    assert found.span == (LEFT, WIDTH - LEFT - RIGHT)


def test_anomalies_are_marked_at_their_time() -> None:
    (mark,) = drawn(curve([0, 60], [1, 2])).anomalies

    assert points(mark)[0][0] == LEFT + (WIDTH - LEFT - RIGHT) / 2


def test_averages_have_a_band_and_samples_have_none() -> None:
    assert drawn(curve([0, 30, 60], [1, 2, 3])).bands == []
    assert len(drawn(curve([0, 30, 60], [1, 2, 3], step=30)).bands) == 1


def test_a_curve_without_a_number_is_not_drawn() -> None:
    moment = Moment(start=0.0, end=60.0, since=30.0)

    assert alert_drawing.drawn(curve([0, 60], [math.nan, math.inf]), moment) is None


@pytest.mark.parametrize("values", [[0.0, 0.0], [5.0, 5.0], [-3.0, -3.0], [1e300, -1e300], [1e-300, 2e-300]])
def test_any_values_have_a_scale(values: list[float]) -> None:
    found = drawn(curve([0, 60], values))

    assert all(math.isfinite(y) for line in found.lines for _, y in points(line))
    assert found.values[0].at > found.values[1].at


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.931, "ratio", "93.1\xa0%"),
        (2048.0, "bytes", "2.0\xa0KiB"),
        (0.25, "seconds", "250\xa0ms"),
        (0.0, "seconds", "0\xa0s"),
        (61.0, "celsius", "61\xa0°C"),
        (12.0, "", "12"),
        (12.0, "furlongs", "12"),
        (math.nan, "ratio", "not a number"),
        (-math.inf, "", "−∞"),
        (None, "ratio", "—"),
    ],
)
def test_values_are_told_in_their_unit(value: object, unit: str, text: str) -> None:
    assert units.told(value, unit) == text
