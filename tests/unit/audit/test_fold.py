"""A row's diffs, folded, are the row: whatever its history was."""

from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.audit.canonical import canonical_json, plain
from apps.audit.projections import begins_before, fold
from apps.audit.replay import _is_same
from apps.audit.services import json_patch
from apps.core.ids import new_id

names = st.text(st.characters(exclude_categories=["Cs"]), max_size=4) | st.sampled_from(["state", "a/b", "~", "~1"])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=5,
)
images = st.dictionaries(names, values, max_size=6)
histories = st.lists(images, max_size=8)


@given(histories)
def test_the_fold_of_a_history_is_its_last_image(history: list[dict[str, Any]]) -> None:
    diffs = [json_patch(before, after) for before, after in pairwise([{}, *history])]

    assert canonical_json(fold(diffs)) == canonical_json(history[-1] if history else {})


@given(histories)
def test_a_history_that_ends_with_a_removal_leaves_nothing(history: list[dict[str, Any]]) -> None:
    assert fold(json_patch(before, after) for before, after in pairwise([{}, *history, {}])) == {}


def test_a_fold_leaves_its_diffs_as_they_are() -> None:
    diffs = [json_patch({}, {"tags": {"a": 1}}), json_patch({"tags": {"a": 1}}, {"tags": {"a": 2}})]
    before = canonical_json(diffs)

    fold(diffs)

    assert canonical_json(diffs) == before


# --- Values that PostgreSQL writes in another way than they were told


@given(st.floats(allow_nan=False, allow_infinity=False).filter(lambda number: abs(number) >= 1e16))
def test_a_large_float_is_the_integer_that_jsonb_makes_of_it(number: float) -> None:
    assert _is_same(plain(number), plain(int(Decimal(repr(number)))))


@pytest.mark.parametrize(
    ("told", "there"),
    [("a", "b"), ("1.0", 1), (1, True), (0, False), (None, ""), ("1e+16", "10000000000000001"), ([1], [1, 2])],
)
def test_other_values_are_other_values(told: Any, there: Any) -> None:
    assert not _is_same(told, there)
    assert not _is_same({"inside": [told]}, {"inside": [there]})


def test_zero_has_no_sign_in_jsonb() -> None:
    assert _is_same("-0.0", "0.0")


# --- When a subject began


def test_an_id_tells_when_its_subject_began() -> None:
    start_of_2026 = UUID("019b76da-a800-7000-8000-000000000000")  # 2026-01-01T00:00:00Z

    assert begins_before(str(start_of_2026), None) is False
    assert begins_before("not an id", _at("2027-01-01")) is False
    assert begins_before("9c858901-8a57-4791-81fe-4c455b099bc9", _at("2027-01-01")) is False  # version 4
    assert begins_before(str(start_of_2026), _at("2026-02-01")) is True
    assert begins_before(str(start_of_2026), _at("2026-01-01")) is False
    assert begins_before(str(new_id()), _at("2026-01-01")) is False


def _at(day: str) -> datetime:
    return datetime.fromisoformat(day).replace(tzinfo=UTC)
