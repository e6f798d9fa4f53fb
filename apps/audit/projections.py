"""Folding events: a subject's row, now or at a time, is what its diffs say when they are applied in their order.

One rule for every watched table (``watched``), no code per asset. Events of one subject stand in the order of the tree,
then, while they wait for their seal, in that of their ids: a clock that stepped back does not turn the story around.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from django.db.models import F, Max, OuterRef, QuerySet, Subquery

from apps.audit.models import AuditArchive, AuditEvent, AuditLeaf
from apps.audit.reading import patched
from apps.core.ids import parse_id

Diff = Sequence[Mapping[str, Any]]


def fold(diffs: Iterable[Diff]) -> dict[str, Any]:
    """The row that events tell of (column -> plain value) after all of these diffs; empty when it is gone."""
    state: dict[str, Any] = {}
    for diff in diffs:
        state = patched(state, diff)
    return state


@dataclass(frozen=True, slots=True)
class Past:
    """A subject at a time: ``event`` is the last one about it, ``sealed`` whether it has its place in the tree."""

    state: dict[str, Any]
    event: AuditEvent
    sealed: bool

    @property
    def exists(self) -> bool:
        return bool(self.state)


def state_of(subject_type: str, subject_id: str, as_of: datetime | None = None) -> Past | None:
    """The subject as its events up to ``as_of`` (included) tell it; None when there is none.

    Two queries over the subject's own part of the index ``audit_subject``.
    """
    events = AuditEvent.objects.filter(subject_type=subject_type, subject_id=subject_id)
    if as_of is not None:
        events = events.filter(at__lte=as_of)
    placed = _placed(events)
    last = placed.order_by(F("place").desc(nulls_first=True), "-id").defer("diff", "payload").first()
    if last is None:
        return None
    told = placed.exclude(diff=[]).order_by(F("place").asc(nulls_last=True), "id").values_list("diff", flat=True)
    return Past(state=fold(told), event=last, sealed=last.place is not None)


def _placed(events: QuerySet[AuditEvent]) -> QuerySet[Any]:
    """With ``place``, the index in the tree; null while the event waits for its seal."""
    leaves = AuditLeaf.objects.filter(event_id=OuterRef("id"))
    return events.annotate(place=Subquery(leaves.values("index")[:1]))


def archived_until() -> datetime | None:
    """The end of the newest month whose events left the store; None while all are here."""
    newest = AuditArchive.objects.aggregate(newest=Max("partition"))["newest"]
    if newest is None:
        return None
    year, month = (int(part) for part in newest.split("_")[-2:])
    return datetime(year + month // 12, month % 12 + 1, 1, tzinfo=UTC)


def begins_before(subject_id: str, end: datetime | None) -> bool:
    """Whether the subject was made before ``end``: its id is a UUIDv7, whose first 48 bits are milliseconds."""
    found = parse_id(subject_id)
    if end is None or found is None or found.version != 7:
        return False
    return (found.int >> 80) < end.timestamp() * 1000
