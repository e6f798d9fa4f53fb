"""Range headers, after RFC 9110 section 14."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.core.ranges import ByteRange, Unsatisfiable, requested

ETAG = '"sha256:aa"'


def ask(header: str | None, *, size: int = 100, if_range: str | None = None) -> ByteRange | None:
    return requested(header, if_range, size=size, etag=ETAG)


@pytest.mark.parametrize(
    ("header", "start", "stop"),
    [
        ("bytes=0-9", 0, 10),
        ("bytes=90-", 90, 100),
        ("bytes=-10", 90, 100),
        ("bytes=-1000", 0, 100),
        ("bytes=50-1000", 50, 100),
        ("bytes=99-99", 99, 100),
    ],
)
def test_one_range_is_cut_to_the_representation(header: str, start: int, stop: int) -> None:
    assert ask(header) == ByteRange(start, stop, 100)


@pytest.mark.parametrize(
    "header",
    [None, "", "bytes=", "bytes=-", "bytes=9-3", "bytes=0-1,5-6", "lines=0-1", "bytes=a-b", f"bytes=0-{'9' * 19}"],
)
def test_anything_else_means_everything(header: str | None) -> None:
    assert ask(header) is None


@pytest.mark.parametrize("header", ["bytes=100-", "bytes=100-200", "bytes=-0"])
def test_a_range_outside_is_unsatisfiable(header: str) -> None:
    with pytest.raises(Unsatisfiable):
        ask(header)


def test_a_range_holds_only_for_the_version_in_if_range() -> None:
    assert ask("bytes=0-9", if_range=ETAG) == ByteRange(0, 10, 100)
    assert ask("bytes=0-9", if_range='"sha256:bb"') is None
    assert ask("bytes=0-9", if_range="Wed, 21 Oct 2015 07:28:00 GMT") is None


@settings(max_examples=200)
@given(st.text(alphabet="bytes=0123456789-, ", max_size=24), st.integers(1, 10**6))
def test_whatever_is_asked_stays_inside(header: str, size: int) -> None:
    try:
        found = ask(header, size=size)
    except Unsatisfiable:
        return
    assert found is None or 0 <= found.start < found.stop <= size
