"""What joins the audit events of one request: its id and its trace, carried by context variables."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

TRACEPARENT = re.compile(r"^00-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}$")  # W3C Trace Context, section 3.2


@dataclass(frozen=True, slots=True)
class RequestIds:
    request_id: str = ""
    trace_id: str = ""


NONE = RequestIds()
_current: ContextVar[RequestIds] = ContextVar("request_ids", default=NONE)


def current() -> RequestIds:
    return _current.get()


@contextmanager
def bound(*, request_id: str, trace_id: str = "") -> Iterator[None]:
    """Give the enclosed code these ids; the outer ones come back afterwards."""
    token = _current.set(RequestIds(request_id=request_id[:64], trace_id=trace_id[:64]))
    try:
        yield
    finally:
        _current.reset(token)


def trace_id_of(header: str) -> str:
    """The trace id in a ``traceparent`` header, or an empty string."""
    found = TRACEPARENT.match(header.strip())
    return found.group(1) if found else ""
