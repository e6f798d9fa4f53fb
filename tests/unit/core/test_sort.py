"""The condition behind a keyset cursor is exactly "greater than" on tuples."""

from typing import Any

import pytest
from django.db.models import Q

from apps.accounts.models import User
from apps.core.pagination import Sort

COMPARE = {"gt": lambda a, b: a > b, "lt": lambda a, b: a < b, "gte": lambda a, b: a >= b, "lte": lambda a, b: a <= b}


def holds(condition: Q, row: dict[str, int]) -> bool:
    """Evaluate a Q on a dictionary."""
    results = [holds(child, row) if isinstance(child, Q) else _leaf(child, row) for child in condition.children]
    return all(results) if condition.connector == Q.AND else any(results)


def _leaf(child: tuple[str, Any], row: dict[str, int]) -> bool:
    field, _, lookup = child[0].partition("__")
    return COMPARE[lookup](row[field], child[1]) if lookup else row[field] == child[1]


@pytest.mark.parametrize("descending", [False, True])
def test_after_is_the_order_of_tuples(descending: bool) -> None:
    sort = Sort("x", ("a", "b", "id"), descending)
    rows = [{"a": a, "b": b, "id": i} for a in range(3) for b in range(3) for i in range(3)]

    for position in rows:
        at = tuple(position.values())
        expected = [row for row in rows if (tuple(row.values()) < at if descending else tuple(row.values()) > at)]
        assert [row for row in rows if holds(sort.after(list(at)), row)] == expected


def test_every_sort_ends_with_the_primary_key() -> None:
    assert Sort.of("username", User).order_by == ["username", "id"]
    assert Sort.of("-username", User).order_by == ["-username", "-id"]
    assert Sort.of("-id", User).order_by == ["-id"]
