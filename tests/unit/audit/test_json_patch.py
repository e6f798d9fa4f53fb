"""Diffs are RFC 6902 patches of the top-level members."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.audit.canonical import plain
from apps.audit.services import json_patch

names = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
members = st.dictionaries(names, st.integers() | st.text(max_size=4), max_size=5)


def apply_patch(document: dict[str, Any], patch: list[dict[str, Any]]) -> dict[str, Any]:
    """RFC 6902, sections 4.1 to 4.3, for one-level pointers (RFC 6901)."""
    result = dict(document)
    for operation in patch:
        name = operation["path"].removeprefix("/").replace("~1", "/").replace("~0", "~")
        if operation["op"] in {"remove", "replace"}:
            del result[name]
        if operation["op"] in {"add", "replace"}:
            result[name] = operation["value"]
    return result


@given(members, members)
def test_the_patch_turns_before_into_after(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert apply_patch(plain(before), json_patch(before, after)) == plain(after)


@given(members)
def test_no_change_is_an_empty_patch(document: dict[str, Any]) -> None:
    assert json_patch(document, dict(document)) == []


@pytest.mark.parametrize(
    ("before", "after", "patch"),
    [
        ({}, {"state": "DRAFT"}, [{"op": "add", "path": "/state", "value": "DRAFT"}]),
        ({"state": "DRAFT"}, {}, [{"op": "remove", "path": "/state"}]),
        ({"state": "A", "n": 1}, {"state": "B", "n": 1}, [{"op": "replace", "path": "/state", "value": "B"}]),
        ({"n": 1}, {"n": True}, [{"op": "replace", "path": "/n", "value": True}]),
        ({"n": [0]}, {"n": [False]}, [{"op": "replace", "path": "/n", "value": [False]}]),
        ({}, {"a/b~c": 1}, [{"op": "add", "path": "/a~1b~0c", "value": 1}]),
    ],
)
def test_examples(before: dict[str, Any], after: dict[str, Any], patch: list[dict[str, Any]]) -> None:
    assert json_patch(before, after) == patch
