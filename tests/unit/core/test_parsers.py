"""What a JSON body may hold: everything that PostgreSQL can store, and nothing that would surprise a reader."""

import io
import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rest_framework.exceptions import ParseError, ValidationError

from apps.core.errors import Invalid
from apps.core.flat import flat_object
from apps.core.parsers import MAX_DEPTH, StrictJSONParser
from apps.core.problems import problem_of


def parse(body: bytes) -> Any:
    return StrictJSONParser().parse(io.BytesIO(body))


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(alphabet="abc/~", max_size=3), inner, max_size=4)
    ),
    max_leaves=20,
)


@settings(max_examples=100, deadline=None)
@given(JSON)
def test_what_json_can_say_comes_through_unchanged(document: Any) -> None:
    assert parse(json.dumps(document).encode()) == document


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_parsed_or_refused(body: bytes) -> None:
    with suppress(ParseError, ValidationError):
        json.dumps(parse(body))


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "not JSON"),
        (b'{"a": 1', "line 1, column"),
        (b'{"a": 1, "a": 2}', "'a' stands twice"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": -Infinity}', "-Infinity"),
        (b"\xff\xfe", "not UTF-8"),
        (b"[" * 100_000, f"deeper than {MAX_DEPTH}"),
        (b"[" * 70 + b"]" * 70, f"deeper than {MAX_DEPTH}"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not JSON"),
    ],
)
def test_a_malformed_body_is_refused_with_its_reason(body: bytes, says: str) -> None:
    with pytest.raises(ParseError) as caught:
        parse(body)

    assert says in str(caught.value.detail)


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        (rb'{"a": {"b/c": ["x", "\u0000"]}}', "/a/b~1c/1"),
        (rb'{"a": "\ud800"}', "/a"),
        (rb'{"a": {"\u0000": 1}}', "/a"),
        (rb'{"a": 1e999}', "/a"),
        (b'{"a": ' + b"9" * 400 + b"}", "/a"),
        (rb'"\u0000"', ""),
    ],
)
def test_what_postgresql_cannot_store_is_refused_with_its_place(body: bytes, pointer: str) -> None:
    with pytest.raises(ValidationError) as caught:
        parse(body)

    problem = problem_of(caught.value)
    assert problem is not None
    assert [error.pointer for error in problem.errors] == [pointer]


@pytest.mark.parametrize(
    "value", ["\0", "\ud800", float("nan"), ["x", float("inf")], 10**400], ids=lambda value: ascii(value)[:12]
)
def test_what_no_reader_could_take_is_no_member_of_a_flat_object(value: Any) -> None:
    with pytest.raises(Invalid) as caught:
        flat_object("/tags", {"x": value})

    assert caught.value.errors[0].pointer == "/tags/x"
