"""Pages of rows, the newest first or by a rank, that go on after the last row shown."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db.models import Q, QuerySet


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


def ranked(rows: QuerySet[Any], *, by: str, falls: bool, after: UUID | None, shown: int) -> NewestPage:
    """As ``newest``, ordered by the never empty ``by`` (the newer first among equals), after the row ``after``."""
    fitting = rows.order_by(f"-{by}" if falls else by, "-id")
    bound = rows.filter(pk=after).values_list(by, flat=True).first() if after is not None else None
    if bound is not None:
        beyond = {f"{by}__lt" if falls else f"{by}__gt": bound}
        fitting = fitting.filter(Q(**beyond) | Q(**{by: bound, "id__lt": after}))
    found = list(fitting[: shown + 1])
    return NewestPage(rows=found[:shown], next_after=found[shown - 1].pk if len(found) > shown else None)
