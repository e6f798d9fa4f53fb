"""Configuration with which nothing would be kept is refused at the start, by the name of its variable."""

import pytest
from django.conf import LazySettings

from apps.observability import checks


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("METRICS_HOT_DAYS", 0),
        ("METRICS_RAW_DAYS", 0),
        ("METRICS_5M_DAYS", -1),
        ("METRICS_1H_DAYS", 0),
        ("METRICS_MAX_SERIES", -1),
    ],
)
def test_metrics_that_would_be_kept_for_no_day_are_named(settings: LazySettings, name: str, value: int) -> None:
    setattr(settings, name, value)

    (error,) = checks.check_metrics_days(None)

    assert error.msg == f"ESPER_{name} is {value}."


def test_the_defaults_are_right() -> None:
    assert checks.check_metrics_days(None) == []
