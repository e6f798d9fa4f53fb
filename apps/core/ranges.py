"""One byte range of a representation (RFC 9110, section 14)."""

import re
from dataclasses import dataclass

from apps.core.concurrency import strong_match

SPEC = re.compile(r"bytes=\s*(\d*)-(\d*)\s*\Z", re.ASCII)
MAX_DIGITS = 18


class Unsatisfiable(Exception):
    """The range lies outside the representation: 416."""


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Bytes ``[start, stop)`` of ``size``."""

    start: int
    stop: int
    size: int

    @property
    def length(self) -> int:
        return self.stop - self.start

    @property
    def content_range(self) -> str:
        return f"bytes {self.start}-{self.stop - 1}/{self.size}"


def requested(header: str | None, if_range: str | None, *, size: int, etag: str) -> ByteRange | None:
    """The range to send, or None for everything.

    Several ranges, another unit or a malformed header mean everything, as the RFC allows; so does an If-Range that
    names another version.

    Raises:
        Unsatisfiable: the range starts behind the end.
    """
    found = SPEC.match(header or "")
    if found is None or (if_range is not None and not strong_match(if_range, etag)):
        return None
    first, last = found.groups()
    if not (first or last) or max(len(first), len(last)) > MAX_DIGITS:
        return None
    if not first:
        length = min(int(last), size)
        if length == 0:
            raise Unsatisfiable
        return ByteRange(size - length, size, size)
    start = int(first)
    if last and int(last) < start:
        return None
    if start >= size:
        raise Unsatisfiable
    return ByteRange(start, min(int(last) + 1, size) if last else size, size)
