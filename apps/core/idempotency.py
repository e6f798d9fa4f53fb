"""Idempotency-Key (draft-ietf-httpapi-idempotency-key-header): a POST sent again is answered again, not done again.

The answer is stored in the transaction of the work itself: after any crash there are both or neither. A refused request
stores nothing, so that its key can be used again.
"""

import hashlib
import json
import re
from collections.abc import Callable
from datetime import timedelta
from functools import wraps
from typing import Any, cast
from uuid import UUID

from django.db import connection, transaction
from django.http import HttpResponse
from django.utils import timezone
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from apps.core.errors import Conflict, Invalid, Unprocessable
from apps.core.locks import number_of
from apps.core.models import IdempotencyKey

HEADER = "Idempotency-Key"
KEEP = timedelta(hours=24)
KEY = re.compile(r"[\x21-\x7e]{1,255}\Z")
STORED_HEADERS = ("Location", "ETag")

Handler = Callable[..., HttpResponse]


def idempotent(handler: Handler) -> Handler:
    """Decorates the ``post`` of a view that creates or starts something. Without the header it does nothing.

    Raises:
        Invalid: the key is malformed. Unprocessable: the key was used for another request. Conflict: that request is
            still being worked on.
    """

    @wraps(handler)
    def keyed(view: Any, request: Request, *args: Any, **kwargs: Any) -> HttpResponse:
        key = request.headers.get(HEADER)
        if key is None:
            return handler(view, request, *args, **kwargs)
        if not KEY.match(key):
            raise Invalid(f"{HEADER} must be 1 to 255 visible ASCII characters", code="idempotency_key")
        with transaction.atomic():
            _lock(_user_id(request), key)
            stored = _stored(request, key)
            if stored is not None:
                return _replay(stored)
            response = cast(Response, handler(view, request, *args, **kwargs))
            _store(request, key, response)
            return response

    keyed.idempotent = True  # type: ignore[attr-defined]
    return keyed


def _lock(user_id: UUID, key: str) -> None:
    """Hold the key until the transaction ends. An advisory lock, because waiting for the twin would hold a thread."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [lock_number(user_id, key)])
        (free,) = cursor.fetchone()
    if not free:
        raise Conflict("a request with this Idempotency-Key is being worked on", code="idempotency_in_progress")


def lock_number(user_id: UUID, key: str) -> int:
    """The advisory lock of a user's key."""
    return number_of(f"{user_id}\0{key}")


def _stored(request: Request, key: str) -> IdempotencyKey | None:
    stored = IdempotencyKey.objects.filter(user_id=_user_id(request), key=key).first()
    if stored is None:
        return None
    if stored.created_at < timezone.now() - KEEP:
        stored.delete()
        return None
    if (stored.method, stored.path, stored.body_digest) != _request(request):
        raise Unprocessable("this Idempotency-Key was used for another request", code="idempotency_key_reused")
    return stored


def _user_id(request: Request) -> UUID:
    key = request.user.pk
    if key is None:
        raise TypeError("an anonymous request cannot have an Idempotency-Key")
    return key


def _request(request: Request) -> tuple[str, str, str]:
    body = json.dumps(request.data, sort_keys=True, separators=(",", ":"))
    return str(request.method), request.path[:512], hashlib.sha256(body.encode()).hexdigest()


def _store(request: Request, key: str, response: Response) -> None:
    method, path, digest = _request(request)
    IdempotencyKey.objects.create(
        user_id=_user_id(request),
        key=key,
        method=method,
        path=path,
        body_digest=digest,
        status=response.status_code,
        headers={name: response[name] for name in STORED_HEADERS if name in response},
        body=JSONRenderer().render(response.data).decode(),
    )


def _replay(stored: IdempotencyKey) -> HttpResponse:
    """The same bytes as the first time."""
    headers = {**stored.headers, "Idempotency-Replayed": "true"}
    return HttpResponse(stored.body, status=stored.status, headers=headers, content_type="application/json")
