"""The kernels as they were at a time: rows that have not changed since as they are, the others folded from the trail.

``usage_count`` and ``last_used_at`` are outside the trail: they are always those of now.
"""

import json
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import orjson
from django.db.models import F, OuterRef, Subquery

from apps.audit.models import AuditEvent, AuditLeaf
from apps.audit.projections import archived_until, begins_before, fold
from apps.core.errors import Unprocessable
from apps.kernels.models import Kernel, TagKey, TagType
from apps.kernels.search.compiler import TABLE, Sql

MAX_CHANGED = 2_000
"""Kernels whose past is told in one search."""
OUTSIDE = ("usage_count", "last_used_at")
DOCUMENTS = ("tags", "metrics")
POINTER = "/as_of"
NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?(e[+-][0-9]+)?")


def source_at(as_of: datetime, columns: str) -> Sql:
    """In the place of the table, with the same columns.

    Raises:
        Unprocessable: too many have changed since, or what they were is in the archive.
    """
    rows = list(_rows_at(as_of))
    text = (
        f"(SELECT {columns} FROM {TABLE} WHERE updated_at <= %s AND created_at <= %s "  # noqa: S608 - names of our own
        f"UNION ALL SELECT {columns} FROM jsonb_populate_recordset(NULL::{TABLE}, %s::jsonb))"
    )
    return Sql(text, (as_of, as_of, orjson.dumps(rows).decode()))


def _rows_at(as_of: datetime) -> Iterator[dict[str, Any]]:
    changed = Kernel.objects.filter(updated_at__gt=as_of, created_at__lte=as_of)
    present = {
        str(row["id"]): row for row in changed.values("id", "created_at", *OUTSIDE, *DOCUMENTS)[: MAX_CHANGED + 1]
    }
    if len(present) > MAX_CHANGED:
        raise Unprocessable(
            f"more than {MAX_CHANGED} kernels have changed since; ask for a later time, or read single kernels by "
            "GET /kernels/{id}?as_of=",
            pointer=POINTER,
            code="too_expensive",
        )
    until = archived_until()
    if any(begins_before(key, until) for key in present):
        raise Unprocessable("what some kernels were then is in the archive", pointer=POINTER, code="archived")
    numbers = frozenset(TagKey.objects.filter(type=TagType.NUMBER).values_list("name", flat=True))
    for key, (state, at) in _states_at(list(present), as_of).items():
        if state:
            yield _row(key, state, at, present[key], numbers)


def _states_at(ids: list[str], as_of: datetime) -> dict[str, tuple[dict[str, Any], datetime]]:
    """Subject -> its row after all of its events up to then, and the time of the last."""
    place = Subquery(AuditLeaf.objects.filter(event_id=OuterRef("id")).values("index")[:1])
    told = (
        AuditEvent.objects.filter(subject_type=Kernel.audit.subject, subject_id__in=ids, at__lte=as_of)
        .annotate(place=place)
        .order_by("subject_id", F("place").asc(nulls_last=True), "id")
        .values_list("subject_id", "diff", "at")
    )
    diffs: dict[str, list[Any]] = {}
    times: dict[str, datetime] = {}
    for key, diff, at in told:
        diffs.setdefault(key, []).append(diff)
        times[key] = at
    return {key: (fold(of_one), times[key]) for key, of_one in diffs.items()}


def _row(
    key: str, state: Mapping[str, Any], at: datetime, now: Mapping[str, Any], numbers: frozenset[str]
) -> dict[str, Any]:
    """``numbers``: the tags that are declared as numbers."""
    row = {**state, "id": key, "created_at": now["created_at"], "updated_at": at, "row_version": 0}
    row |= {name: now[name] for name in OUTSIDE}
    row["metrics"] = {name: _number(value) for name, value in (state.get("metrics") or {}).items()}
    tags = now["tags"]
    row["tags"] = {
        name: _number(value) if name in numbers else _as_typed(value, tags.get(name))
        for name, value in (state.get("tags") or {}).items()
    }
    return row


def _number(value: Any) -> Any:
    """Events tell numbers as text that are not whole, or beyond 2^53."""
    return json.loads(value) if isinstance(value, str) and NUMBER.fullmatch(value) else value


def _as_typed(value: Any, now: Any) -> Any:
    """A tag that is a number now was one when it had the same spelling, or that of another number."""
    return _number(value) if isinstance(now, float) else value
