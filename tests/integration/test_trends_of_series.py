"""Trends of stored series: which values they go by, and what they say of each."""

from datetime import timedelta

import numpy as np
import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from apps.core.errors import Invalid
from apps.observability.matchers import Matcher
from apps.observability.selectors.trends import MOST_SERIES, trends
from apps.observability.trends import Direction
from tests.support.measured import hourly, lately

pytestmark = pytest.mark.django_db

DISK = "esper_host_disk_used_ratio"


def test_a_week_of_averages_tells_the_slope_and_when_a_value_is_reached() -> None:
    hourly(DISK, list(np.linspace(0.2, 0.5, 160)), host="a", disk="/")

    (seen,) = trends(name=DISK, hours=7 * 24, threshold=0.6, horizon_hours=7 * 24)

    assert seen.step == 3600
    assert seen.found is not None
    assert seen.found.direction is Direction.RISING
    assert seen.found.slope * 3600 == pytest.approx(0.3 / 159, rel=0.01)
    assert seen.reaches is not None
    assert seen.reaches.at is not None
    hours = seen.reaches.at - timezone.now().timestamp()
    assert hours / 3600 == pytest.approx(53, abs=2), "0.1 is missing, at 0.0019 an hour"
    assert seen.last == 0.5


def test_of_a_counter_the_growth_a_second_moves() -> None:
    lately("esper_redis_commands_total", [10.0 * n for n in range(60)], every=60, kind="counter", server="broker")

    (seen,) = trends(name="esper_redis_commands_total", hours=1)

    assert seen.found is not None
    assert seen.found.level == pytest.approx(10 / 60)
    assert seen.found.direction is Direction.NONE


def test_series_are_chosen_by_labels_and_one_with_few_points_has_no_trend() -> None:
    lately(DISK, [0.1] * 30, host="a", disk="/")
    lately(DISK, [0.1] * 5, host="b", disk="/")

    (seen,) = trends(name=DISK, matchers=[Matcher("host", "=", "b")], hours=1, threshold=0.9)

    assert dict(seen.series.labels) == {"host": "b", "disk": "/"}
    assert (seen.found, seen.reaches, seen.last) == (None, None, 0.1)


def test_a_series_without_samples_in_the_window_says_so() -> None:
    lately(DISK, [0.1] * 30, host="a", disk="/")

    (seen,) = trends(name=DISK, hours=1, now=timezone.now() - timedelta(days=10))

    assert (seen.last, seen.last_at, seen.found) == (None, None, None)


def test_more_series_than_can_be_looked_at_are_refused() -> None:
    for number in range(MOST_SERIES + 1):
        lately(DISK, [0.1], host=str(number), disk="/")

    with pytest.raises(Invalid, match="add a label"):
        trends(name=DISK, hours=1)


def test_many_series_take_as_many_queries_as_few() -> None:
    counts = []
    for number in (1, 12):
        for host in range(number):
            lately(DISK, [0.1 * n for n in range(12)], host=str(host), disk="/")
        with CaptureQueriesContext(connection) as queries:
            assert len(trends(name=DISK, hours=24)) == number
        counts.append(len(queries))

    assert counts[0] == counts[1] <= 6
