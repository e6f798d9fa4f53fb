"""What every request passes: its id, security headers, the body limit, and errors as answers instead of tracebacks."""

import re
from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

from apps.core import context, problems
from apps.core.ids import new_id

GetResponse = Callable[[HttpRequest], HttpResponseBase]

SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}\Z")

POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
# The admin's widgets (Alpine.js) compile expressions and set styles in the markup; nothing of that is ours.
ADMIN_POLICY = POLICY.replace("script-src 'self'", "script-src 'self' 'unsafe-eval'").replace(
    "style-src 'self'", "style-src 'self' 'unsafe-inline'"
)
PERMISSIONS = "camera=(), geolocation=(), microphone=(), payment=(), usb=()"


class RequestContext:
    """Binds the request id and the trace for the audit trail, the logs and the problems, and echoes the id."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        given = request.META.get("HTTP_X_REQUEST_ID", "")
        request_id = given if SANE_REQUEST_ID.match(given) else str(new_id())
        request.META["HTTP_X_REQUEST_ID"] = request_id  # django_structlog logs under the same one
        trace_id = context.trace_id_of(request.META.get("HTTP_TRACEPARENT", ""))
        with context.bound(request_id=request_id, trace_id=trace_id):
            response = self.get_response(request)
        response["X-Request-Id"] = request_id
        return response


class SecurityHeaders:
    """Scripts and styles from this site only; API answers stay out of shared caches."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        response = self.get_response(request)
        is_admin = request.path.startswith("/admin/")
        response.headers.setdefault("Content-Security-Policy", ADMIN_POLICY if is_admin else POLICY)
        response.headers.setdefault("Permissions-Policy", PERMISSIONS)
        if problems.is_api(request):
            response.headers.setdefault("Cache-Control", "private, no-cache")
        return response


class StripTrailingSlash:
    """``/api/v1/runs/`` is ``/api/v1/runs``, without a redirect (which would turn a POST into a GET)."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if problems.is_api(request) and request.path_info.endswith("/"):
            request.path_info = request.path_info.rstrip("/")
            request.path = request.path.rstrip("/")
        return self.get_response(request)


class LimitBody:
    """Refuses bodies over MAX_JSON_BODY before they are read, and while, when their length is not announced.

    A view that takes more declares ``max_body`` (bytes) and bounds what it reads itself.
    """

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        return self.get_response(request)

    def process_view(self, request: HttpRequest, view: Any, args: Any, kwargs: Any) -> HttpResponse | None:
        view_class = getattr(view, "cls", None) or getattr(view, "view_class", None)
        limit = getattr(view_class, "max_body", settings.MAX_JSON_BODY)
        if _announced(request) > limit:
            return problems.answer(request, _too_large(limit))
        stream = getattr(request, "_stream", None)
        if stream is not None:
            request._stream = BoundedStream(stream, limit)  # type: ignore[assignment]
        return None


class BoundedStream:
    """A request body that ends in RequestDataTooBig once it has given more than ``limit`` bytes."""

    def __init__(self, stream: Any, limit: int) -> None:
        self._stream = stream
        self._limit = limit
        self._left = limit

    def read(self, size: int | None = -1) -> bytes:
        wanted = self._left + 1 if size is None or size < 0 else min(size, self._left + 1)
        return self._taken(self._stream.read(wanted))

    def readline(self, size: int | None = -1) -> bytes:
        wanted = self._left + 1 if size is None or size < 0 else min(size, self._left + 1)
        return self._taken(self._stream.readline(wanted))

    def close(self) -> None:
        if hasattr(self._stream, "close"):
            self._stream.close()

    def _taken(self, data: bytes) -> bytes:
        self._left -= len(data)
        if self._left < 0:
            raise RequestDataTooBig(_too_large(self._limit).detail)
        return data


def _announced(request: HttpRequest) -> int:
    try:
        return int(request.META.get("CONTENT_LENGTH") or 0)
    except ValueError:
        return 0


def _too_large(limit: int) -> problems.Problem:
    return problems.Problem(
        status=413, code="payload_too_large", detail=f"the body may have at most {limit:,} bytes here"
    )


class ServiceErrors:
    """Innermost: what a page's view raises becomes a page, and a bare error of an API path becomes a problem."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        response = self.get_response(request)
        if response.status_code < 400 or not problems.is_api(request):
            return response
        if response.headers.get("Content-Type") == problems.MEDIA_TYPE or response.streaming:
            return response
        return problems.of_bare_response(response).response()  # type: ignore[arg-type]

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        problem = problems.problem_of(error)
        if problem is None:
            return None
        problems.note(problem, error, request)
        return problems.answer(request, problem)
