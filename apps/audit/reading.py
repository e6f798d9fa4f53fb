"""What reports ask of the trail, and what they read out of an event. Pure."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any

Event = Mapping[str, Any]
"""As ``proofs.exported`` gives it: the columns of the leaf, and ``index``."""
Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which events: ``types`` are patterns with ``*``; ``since`` is included, ``until`` is not; "" means any."""

    types: tuple[str, ...]
    since: datetime | None = None
    until: datetime | None = None
    subject_type: str = ""
    subject_id: str = ""


Read = Callable[[Wanted], Iterator[Event]]
"""The wanted events, in the order of the tree."""


def is_wanted(event: Event, wanted: Wanted) -> bool:
    """The rule itself; what a database's query does is only to narrow."""
    if not any(fnmatchcase(event["type"], pattern) for pattern in wanted.types):
        return False
    if wanted.subject_type and event["subject_type"] != wanted.subject_type:
        return False
    if wanted.subject_id and event["subject_id"] != wanted.subject_id:
        return False
    at = datetime.fromisoformat(event["at"])
    return (wanted.since is None or at >= wanted.since) and (wanted.until is None or at < wanted.until)


def event_row(event: Event, *, diff: bool = False) -> Row:
    """The event as a line of a report: who, what, when, why, and its place in the tree."""
    names = ("index", "id", "at", "type", "subject_type", "subject_id", "actor_id", "actor_kind", "token_id")
    row = {name: event[name] for name in (*names, "outcome", "reason")}
    return {**row, "diff": event["diff"]} if diff else row


def changed(event: Event) -> Row:
    """Column -> the value that the event gave it."""
    return patched({}, event["diff"])


def patched(state: Mapping[str, Any], diff: Sequence[Mapping[str, Any]]) -> Row:
    """``state`` after the operations of an event's diff (RFC 6902, one a member of the top level)."""
    after = dict(state)
    for operation in diff:
        name = str(operation["path"]).removeprefix("/").replace("~1", "/").replace("~0", "~")
        if operation["op"] == "remove":
            after.pop(name, None)
        else:
            after[name] = operation["value"]
    return after
