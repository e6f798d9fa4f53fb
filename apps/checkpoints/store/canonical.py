"""JSON in one spelling, read with limits: some megabytes from outside must not become gigabytes of objects."""

import json
from typing import Any, NoReturn

from apps.checkpoints.store.errors import CorruptCheckpoint

MAX_MARKS = 2_000_000
"""Commas, colons and opening brackets in one document: what bounds the number of objects that parsing it makes."""
_MARKS = (b",", b":", b"[", b"{")


def dumps(value: Any) -> bytes:
    """``value`` without spaces, as ASCII, its keys in the order that they have. Raises ValueError for nan and inf."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False, check_circular=False).encode("ascii")


def marks(data: bytes) -> int:
    """How much structure there is in a document: at least the number of values in it."""
    return sum(data.count(mark) for mark in _MARKS)


def loads(data: bytes, *, part: str) -> Any:
    """The one value that ``dumps`` wrote as ``data``.

    Raises:
        CorruptCheckpoint: not JSON, not in our one spelling (keys twice, spaces, NaN), or more than MAX_MARKS of it.
    """
    if marks(data) > MAX_MARKS:
        raise CorruptCheckpoint(f"More than {MAX_MARKS:,} values.", part=part)
    try:
        value = json.loads(data, parse_constant=_refuse)
        spelling = dumps(value)
    except RecursionError:
        raise CorruptCheckpoint("JSON that is nested too deeply.", part=part) from None
    except ValueError as error:
        raise CorruptCheckpoint(f"Not the JSON that it should be: {error!s:.80}", part=part) from None
    # Says in one comparison that no key stands twice, no number is written oddly and nothing stands beside the value.
    if spelling != data:
        raise CorruptCheckpoint("JSON in another spelling than the one that is written.", part=part)
    return value


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number of JSON")
