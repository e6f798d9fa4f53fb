"""Canonical JSON of an event (RFC 8785) and its leaf digest (RFC 9162, section 2.1.1).

Keys are ASCII, integers stay below 2^53, and every other number is a string: then sorted, compact ``json.dumps`` *is*
RFC 8785, and about five times faster than a general implementation (a property test compares them).
"""

import hashlib
import json
import math
from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

MAX_INTEGER = 2**53


def plain(value: Any) -> Any:
    """``value`` in the types that canonical JSON admits here; numbers that are not exact integers become strings."""
    if value is None or isinstance(value, bool | str):
        return str(value) if isinstance(value, Enum) else value
    if isinstance(value, int):
        return value if -MAX_INTEGER < value < MAX_INTEGER else str(value)
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else str(value)
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Decimal | UUID | date | Enum):
        return str(value)
    if isinstance(value, bytes | memoryview):
        return bytes(value).hex()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        items = sorted(value, key=str) if isinstance(value, set | frozenset) else value
        return [plain(item) for item in items]
    raise TypeError(f"an audit event cannot hold a {type(value).__name__}")


def canonical_json(value: Any) -> bytes:
    """The canonical bytes of ``plain`` data."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def leaf_digest(columns: Mapping[str, Any]) -> bytes:
    """SHA-256(0x00 || canonical JSON): the leaf of the event in the Merkle tree."""
    return hashlib.sha256(b"\x00" + canonical_json(plain(columns))).digest()
