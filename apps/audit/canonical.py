"""Canonical JSON of an event (RFC 8785) and its leaf digest (RFC 9162, section 2.1.1).

Integers stay below 2^53 and every other number is a string: then a fast JSON library's output of sorted members *is*
RFC 8785, without a general implementation's cost (a property test compares them).
"""

import math
from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import orjson

from apps.audit.verifier import leaf_hash

MAX_INTEGER = 2**53


def plain(value: Any) -> Any:
    """``value`` in the types that canonical JSON admits here; numbers that are not exact integers become strings.

    The members of objects are put in their canonical order.
    """
    kind = type(value)
    if kind is str or value is None or kind is bool:
        return value
    if kind is dict:
        return _sorted({name if type(name) is str else str(name): plain(item) for name, item in value.items()})
    if kind is int:
        return value if -MAX_INTEGER < value < MAX_INTEGER else str(value)
    if kind is float:
        return repr(value) if math.isfinite(value) else str(value)
    if kind is list or kind is tuple:
        return [plain(item) for item in value]
    return _plain_of_rarer(value)


def _plain_of_rarer(value: Any) -> Any:
    if isinstance(value, Enum):
        return str(value)
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Decimal | UUID | date):
        return str(value)
    if isinstance(value, bytes | memoryview):
        return bytes(value).hex()
    if isinstance(value, Mapping):
        return plain(dict(value))
    if isinstance(value, set | frozenset):
        return [plain(item) for item in sorted(value, key=str)]
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int):
        return plain(int(value))
    if isinstance(value, float):
        return plain(float(value))
    if isinstance(value, list | tuple):
        return plain(list(value))
    raise TypeError(f"an audit event cannot hold a {type(value).__name__}")


def _sorted(members: dict[str, Any]) -> dict[str, Any]:
    """Members in the order of their names' UTF-16 code units (RFC 8785, section 3.2.3): for ASCII, that of the text."""
    if all(map(str.isascii, members)):
        return dict(sorted(members.items()))
    return dict(sorted(members.items(), key=lambda member: member[0].encode("utf-16-be", "surrogatepass")))


def canonical_json(value: Any) -> bytes:
    """The canonical bytes of any data that ``plain`` takes."""
    return dumps(plain(value))


dumps = orjson.dumps
"""The canonical bytes of what ``plain`` returned: its members are in order already."""


def leaf_digest(columns: Mapping[str, Any]) -> bytes:
    """SHA-256(0x00 || canonical JSON): the leaf of the event in the Merkle tree."""
    return leaf_hash(canonical_json(columns))
