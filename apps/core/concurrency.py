"""Optimistic concurrency over HTTP: ETag, If-None-Match and If-Match (RFC 9110, sections 8.8.3 and 13.1).

A row's ETag is its version, ``"v17"``. Where an answer shows more than the row's own columns, a digest of the answer is
appended, so that a 304 never hides a change.
"""

import hashlib
import json
import re
from typing import Any

from rest_framework.request import Request
from rest_framework.utils.encoders import JSONEncoder

from apps.core.errors import PreconditionFailed, PreconditionRequired

TAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"')


def content_etag(version: int | None, data: Any) -> str:
    """An ETag of what is sent, not only of the row behind it. The order of members says nothing."""
    text = json.dumps(data, sort_keys=True, cls=JSONEncoder)
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return f'"v{version}-{digest}"' if version is not None else f'"{digest}"'


def not_modified(request: Request, etag: str) -> bool:
    """Does If-None-Match name this ETag? Weak comparison, as GET and HEAD ask for."""
    return _names(request.headers.get("If-None-Match"), etag, weak=True)


def require_match(request: Request, etag: str) -> None:
    """Let a change pass only for a client that has seen the current version.

    Raises:
        PreconditionRequired: no If-Match. PreconditionFailed: it names another version.
    """
    given = request.headers.get("If-Match")
    if given is None:
        raise PreconditionRequired("send If-Match with the ETag that you last read", code="if_match_required")
    if not _names(given, etag, weak=False):
        raise PreconditionFailed(f"this has changed: it is {etag} now; read it again and decide anew", code="if_match")


def strong_match(header: str, etag: str) -> bool:
    """Does an If-Range name exactly this ETag? A date never does: rows have versions, not modification times."""
    return header.strip() == etag


def _names(header: str | None, etag: str, *, weak: bool) -> bool:
    if header is None:
        return False
    if header.strip() == "*":
        return True
    tags = TAG.findall(header)
    return etag in ([tag.removeprefix("W/") for tag in tags] if weak else tags)
