"""How recommendations write numbers for people."""

import pytest

from apps.observability.recommendations.contracts import amount, duration, percent


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (0, "0 B"),
        (1_010, "1,010 B"),
        (1_024, "1 KiB"),
        (1.5 * 2**30, "1.5 GiB"),
        (1_000 * 2**20, "1,000 MiB"),
        (2**60, "1,048,576 TiB"),
    ],
)
def test_bytes_are_written_in_binary_units(size: float, words: str) -> None:
    assert amount(size) == words


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.0123, "0.0123 s"), (90, "90 s"), (3_600, "60 min"), (86_400, "24 h"), (9e5, "10 days")]
)
def test_a_duration_has_few_digits(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_a_share_is_written_in_percent() -> None:
    assert [percent(ratio) for ratio in (0.9, 0.0123, None)] == ["90 %", "1.23 %", "unknown"]
