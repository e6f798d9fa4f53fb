"""Identifiers: UUID version 7 (RFC 9562), so that ids sort by creation and keyset pages follow the primary key."""

from datetime import datetime
from uuid import UUID

from uuid_utils.compat import uuid7


def new_id() -> UUID:
    """A fresh UUIDv7, monotonic within this process."""
    return UUID(int=uuid7().int)


def first_id(at: datetime) -> UUID:
    """Not above any id that was made at ``at`` or later: what rows of a time are found by, where ids have an index."""
    return UUID(int=max(0, int(at.timestamp() * 1000)) << 80)


def parse_id(text: object) -> UUID | None:
    """The UUID that ``text`` spells, or None: a malformed id in an URL is a missing thing, not an error."""
    try:
        return UUID(str(text))
    except ValueError:
        return None
