"""The bytes that a leaf digest is made of are RFC 8785, checked against a library of its own (rfc8785)."""

import hashlib
import json
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum, StrEnum
from typing import Any
from uuid import UUID

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from apps.audit.canonical import MAX_INTEGER, canonical_json, leaf_digest, plain

keys = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | texts
    | st.decimals(allow_nan=False)
    | st.uuids()
    | st.dates()
    | st.datetimes(timezones=st.timezones())
    | st.binary(max_size=20)
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4), max_leaves=20
)


@given(st.dictionaries(keys, values, max_size=6))
def test_canonical_json_is_rfc_8785(payload: dict[str, Any]) -> None:
    data = plain(payload)

    assert canonical_json(data) == rfc8785.dumps(data)


@given(st.dictionaries(keys, values, max_size=6))
def test_plain_data_survives_a_round_trip_through_json(payload: dict[str, Any]) -> None:
    """What PostgreSQL gives back of a jsonb column digests to the same leaf."""
    data = plain(payload)

    assert plain(json.loads(json.dumps(data))) == data


@given(values)
def test_plain_of_plain_changes_nothing(value: Any) -> None:
    once = plain(value)

    assert plain(once) == once


@given(st.dictionaries(keys, values, max_size=6))
def test_the_order_of_members_does_not_matter(payload: dict[str, Any]) -> None:
    backwards = dict(reversed(payload.items()))

    assert leaf_digest(payload) == leaf_digest(backwards)


@given(st.dictionaries(keys, texts, min_size=1, max_size=4), st.data())
def test_any_other_value_is_another_leaf(columns: dict[str, str], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(columns)))

    assert leaf_digest({**columns, name: columns[name] + "x"}) != leaf_digest(columns)


class Colour(StrEnum):
    RED = "red"


class Size(Enum):
    LARGE = 3


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (MAX_INTEGER - 1, MAX_INTEGER - 1),
        (MAX_INTEGER, str(MAX_INTEGER)),
        (-MAX_INTEGER, str(-MAX_INTEGER)),
        (0.1, "0.1"),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        (Decimal("1.50"), "1.50"),
        (True, True),
        (Colour.RED, "red"),
        (Size.LARGE, "Size.LARGE"),
        (b"\x00\xff", "00ff"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (date(2026, 2, 28), "2026-02-28"),
        (datetime(2026, 2, 28, 1, 2, 3, tzinfo=UTC), "2026-02-28T01:02:03+00:00"),
        ((1, [2]), [1, [2]]),
        ({"b", "a"}, ["a", "b"]),
    ],
)
def test_numbers_that_json_could_bend_become_text(value: Any, expected: Any) -> None:
    assert plain(value) == expected


@pytest.mark.parametrize("value", [object(), {"nested": [1j]}, timedelta(1)])
def test_what_has_no_canonical_form_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="cannot hold"):
        plain(value)


def test_a_leaf_is_domain_separated_from_inner_nodes() -> None:
    """RFC 9162, section 2.1.1: leaves are hashed with the prefix 0x00, inner nodes with 0x01."""
    assert leaf_digest({"a": 1}) == hashlib.sha256(b'\x00{"a":1}').digest()


def test_times_of_different_zones_keep_their_offset() -> None:
    east = datetime(2026, 2, 28, 3, tzinfo=timezone(timedelta(hours=2)))

    assert plain(east) == "2026-02-28T03:00:00+02:00"
