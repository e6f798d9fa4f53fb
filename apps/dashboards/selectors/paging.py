"""Pages of rows, the newest first, that go on after the last row shown."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db.models import QuerySet


@dataclass(frozen=True, slots=True)
class NewestPage:
    rows: Sequence[Any]
    next_after: UUID | None
    """The key after which the next page goes on; None: this is the last."""


def newest(rows: QuerySet[Any], *, after: UUID | None, shown: int) -> NewestPage:
    """Up to ``shown`` rows, of those that are older than ``after``. Keys are UUIDv7: their order is that of time."""
    fitting = rows.order_by("-id")
    if after is not None:
        fitting = fitting.filter(id__lt=after)
    found = list(fitting[: shown + 1])
    return NewestPage(rows=found[:shown], next_after=found[shown - 1].pk if len(found) > shown else None)
