"""The step of a curve: none has more points than asked for, and what is kept no longer is not promised."""

from datetime import timedelta

import pytest
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from apps.core.errors import Invalid
from apps.observability.store import curves


@given(st.floats(1, 800 * 86_400), st.floats(0, 86_400 * 30), st.integers(2, 20_000))
def test_no_range_touches_more_buckets_than_points_are_wanted(length, before, points):
    end = timezone.now() - timedelta(seconds=before)
    start = end - timedelta(seconds=length)

    step = curves._chosen_step(start, end, points)

    first, last = curves._aligned(start, end, step)
    assert (last - first) / timedelta(seconds=step) <= points


@pytest.mark.parametrize(("days", "least"), [(1, 0), (29, 0), (31, 300), (89, 300), (91, 3600), (700, 3600)])
def test_what_is_old_is_there_as_averages_only(days, least):
    assert curves.kept_step(timezone.now() - timedelta(days=days)) == least


def test_a_step_that_makes_too_many_points_is_told_the_least_that_does_not():
    end = timezone.now()

    with pytest.raises(Invalid, match="more than 10,000 points of each of 2 series: at least 9"):
        curves._checked_step(end - timedelta(days=1), end, 1, 2)
    assert curves._checked_step(end - timedelta(days=1), end, 9, 2) == 9
