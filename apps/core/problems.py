"""Errors as ``application/problem+json`` (RFC 9457): one table from exceptions to problems, whoever raises them.

Django REST framework, Django itself and the middleware all answer through ``problem_of``. Who asked for a page gets the
problem as a page (``templates/404.html`` and so on, else ``errors.html``). What is not in the table is a fault of ours:
500, logged with its traceback, which nobody outside sees.
"""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import singledispatch
from http import HTTPStatus
from math import ceil
from typing import Any

import structlog
from django.core import exceptions as django
from django.db import DatabaseError, DataError, IntegrityError, InterfaceError, InternalError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse, UnreadablePostError
from django.template.loader import render_to_string
from django_redis.exceptions import ConnectionInterrupted
from kombu.exceptions import OperationalError as BrokerError
from redis.exceptions import RedisError
from rest_framework import exceptions as drf

from apps.core import context
from apps.core.errors import FieldError, ServiceError
from apps.core.signals import access_refused

log = structlog.get_logger(__name__)

MEDIA_TYPE = "application/problem+json"
RETRY_SECONDS = 5
API_PATHS = ("/api/", "/healthz", "/readyz", "/metrics")


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One refusal. ``code`` is for programs and stable, ``detail`` for people, ``errors`` one per field at fault."""

    status: int
    code: str
    detail: str
    errors: tuple[FieldError, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        return HTTPStatus(self.status).phrase

    def to_dict(self) -> dict[str, Any]:
        return {
            "type": "about:blank",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            "request_id": context.current().request_id,
            "errors": [asdict(error) for error in self.errors],
        }

    def response(self) -> HttpResponse:
        return JsonResponse(self.to_dict(), status=self.status, content_type=MEDIA_TYPE, headers=dict(self.headers))


INTERNAL = Problem(
    status=500, code="internal", detail="Esper made a mistake; it is in the log of the server under this request id."
)
UNAVAILABLE_HEADERS = {"Retry-After": str(RETRY_SECONDS)}


def unavailable(detail: str, *, code: str = "unavailable") -> Problem:
    return Problem(status=503, code=code, detail=detail, headers=UNAVAILABLE_HEADERS)


@singledispatch
def problem_of(error: BaseException) -> Problem | None:
    """The problem that ``error`` means to a client; None for a fault of ours."""
    return None


@problem_of.register
def _(error: ServiceError) -> Problem:
    headers = UNAVAILABLE_HEADERS if error.status == HTTPStatus.SERVICE_UNAVAILABLE else {}
    return Problem(status=error.status, code=error.code, detail=error.detail, errors=error.errors, headers=headers)


# --- Django REST framework


@problem_of.register
def _(error: drf.APIException) -> Problem:
    # Set by APIView.handle_exception from the view's first authentication class.
    challenge = getattr(error, "auth_header", None)
    return Problem(
        status=error.status_code,
        code=str(error.default_code),
        detail=str(error.detail),
        headers={"WWW-Authenticate": f'{challenge} realm="esper"'} if challenge else {},
    )


@problem_of.register
def _(error: drf.Throttled) -> Problem:
    wait = ceil(getattr(error, "wait", None) or 1)
    detail = f"too many requests; try again in {wait} s"
    return Problem(status=429, code="throttled", detail=detail, headers={"Retry-After": str(wait)})


@problem_of.register
def _(error: drf.ParseError) -> Problem:
    return Problem(status=400, code="malformed", detail=str(error.detail))


@problem_of.register
def _(error: drf.ValidationError) -> Problem:
    return _of_fields(tuple(_flatten(error.detail)))


def _flatten(detail: Any, pointer: str = "") -> Iterator[FieldError]:
    """DRF's nested details -> one error per field. The empty key holds errors of the whole object."""
    if isinstance(detail, Mapping):
        for name, inner in detail.items():
            yield from _flatten(inner, f"{pointer}/{escape(name)}" if name != "" else pointer)
    elif isinstance(detail, list) and any(isinstance(item, Mapping) for item in detail):
        for index, inner in enumerate(detail):
            yield from _flatten(inner, f"{pointer}/{index}")
    elif isinstance(detail, list):
        for inner in detail:
            yield from _flatten(inner, pointer)
    else:
        yield FieldError(pointer, str(getattr(detail, "code", "invalid")), str(detail))


def escape(name: object) -> str:
    """``name`` as one step of a JSON pointer (RFC 6901, section 3)."""
    return str(name).replace("~", "~0").replace("/", "~1")


def _of_fields(errors: tuple[FieldError, ...]) -> Problem:
    names = ", ".join(dict.fromkeys(error.pointer for error in errors if error.pointer))
    detail = f"not valid: {names}" if names else "; ".join(error.detail for error in errors) or "not valid"
    return Problem(status=400, code="invalid", detail=detail, errors=errors)


# --- Django


@problem_of.register
def _(error: Http404) -> Problem:
    return Problem(status=404, code="not_found", detail="there is no such thing here")


@problem_of.register
def _(error: django.PermissionDenied) -> Problem:
    return Problem(status=403, code="forbidden", detail=str(error) or "this is not allowed to you")


@problem_of.register(django.SuspiciousOperation)
@problem_of.register(django.BadRequest)
@problem_of.register(UnreadablePostError)
def _(error: Exception) -> Problem:
    return Problem(status=400, code="bad_request", detail="the request is not one that can be understood")


@problem_of.register
def _(error: django.DisallowedHost) -> Problem:
    return Problem(status=400, code="unknown_host", detail="this host name is not in ESPER_ALLOWED_HOSTS")


@problem_of.register
def _(error: django.RequestDataTooBig) -> Problem:
    return Problem(status=413, code="payload_too_large", detail=str(error))


@problem_of.register
def _(error: django.ValidationError) -> Problem:
    """What ``full_clean`` says, a constraint's message included."""
    by_field = error.error_dict if hasattr(error, "error_dict") else {django.NON_FIELD_ERRORS: error.error_list}
    problem = _of_fields(tuple(_field_error(name, inner) for name, errors in by_field.items() for inner in errors))
    if all(inner.code in TAKEN for inner in problem.errors):
        return replace(problem, status=409, code="duplicate")
    return problem


TAKEN = frozenset({"unique", "unique_together"})


def _field_error(name: str, error: django.ValidationError) -> FieldError:
    fields = (error.params or {}).get("unique_check")
    if fields:  # the last one is what the client chose; those before it are where it must be unique
        return FieldError(f"/{fields[-1]}", "unique", f"there is one with this {fields[-1]} already")
    pointer = "" if name == django.NON_FIELD_ERRORS else f"/{escape(name)}"
    return FieldError(pointer, str(error.code or "invalid"), " ".join(error.messages))


# --- The stores: a refusal of PostgreSQL is the client's mistake, a silence is ours


@dataclass(frozen=True, slots=True)
class Refusal:
    status: int
    code: str
    detail: str


# SQLSTATE (PostgreSQL manual, appendix A) -> what it means here; {name} is the constraint's.
REFUSALS = {
    "23505": Refusal(409, "duplicate", "something with this value exists already ({name})"),
    "23503": Refusal(409, "reference", "this refers to something that is not there, or is still referred to ({name})"),
    "23514": Refusal(400, "constraint", "the database refuses this value ({name})"),
    "23502": Refusal(400, "required", "a value is missing"),
}
SILENCES = {
    "25006": "the database takes no writes",
    "40001": "other requests changed the same rows at the same time",
    "40P01": "other requests changed the same rows at the same time",
    "53100": "the disk of the database is full",
    "53300": "the database has no free connection",
    "55P03": "the rows are locked by another request",
    "57014": "the database took too long",
}


def _sqlstate(error: DatabaseError | InterfaceError) -> str:
    return str(getattr(error.__cause__, "sqlstate", None) or "")


@problem_of.register
def _(error: IntegrityError) -> Problem:
    name = getattr(getattr(error.__cause__, "diag", None), "constraint_name", None) or "constraint"
    refusal = REFUSALS.get(_sqlstate(error), REFUSALS["23514"])
    return Problem(status=refusal.status, code=refusal.code, detail=refusal.detail.format(name=name))


@problem_of.register
def _(error: DataError) -> Problem:
    return Problem(status=400, code="invalid", detail="a value is out of range or holds what the database cannot store")


@problem_of.register
def _(error: InternalError) -> Problem | None:
    """A trigger raised: the life-cycle tables speak up in the database too."""
    if _sqlstate(error) in SILENCES:
        return _silence(error)
    if _sqlstate(error) != "P0001":
        return None
    message = str(error).partition("\n")[0]
    code = "invalid_transition" if message.startswith("Invalid transition") else "conflict"
    return Problem(status=409, code=code, detail=message)


@problem_of.register(OperationalError)
@problem_of.register(InterfaceError)
def _(error: Any) -> Problem:
    if _sqlstate(error).startswith("54"):  # a limit of the program, such as the size of an index entry
        return Problem(status=400, code="too_long", detail="a value is too long for the database; nothing was written")
    return _silence(error)


def _silence(error: Any) -> Problem:
    reason = SILENCES.get(_sqlstate(error), "the database does not answer")
    return unavailable(f"{reason}; nothing was written, try again", code="database_unavailable")


@problem_of.register(RedisError)
@problem_of.register(ConnectionInterrupted)
@problem_of.register(BrokerError)
def _(error: Exception) -> Problem:
    return unavailable("the cache or the queue (Redis) does not answer; try again", code="redis_unavailable")


# --- The doors


def exception_handler(error: Exception, view_context: Mapping[str, Any]) -> HttpResponse | None:
    """For REST_FRAMEWORK["EXCEPTION_HANDLER"]. None lets Django log the fault and answer through ``server_error``."""
    problem = problem_of(error)
    if problem is None:
        return None
    note(problem, error, view_context.get("request"))
    return problem.response()


def note(problem: Problem, error: BaseException | None, request: Any) -> None:
    """A 5xx that is not a fault of ours still belongs in the log, without a traceback; a 403 in the audit trail."""
    if problem.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        log.warning("request_failed", status=problem.status, code=problem.code, error=str(error))
    elif problem.status == HTTPStatus.FORBIDDEN:
        access_refused.send_robust(sender=None, request=request, detail=problem.detail)


def is_api(request: HttpRequest) -> bool:
    return request.path.startswith(API_PATHS)


def answer(request: HttpRequest, problem: Problem) -> HttpResponse:
    """The problem in the form that the caller reads: JSON for programs, a page for people."""
    if is_api(request):
        return problem.response()
    # Rendered without the request: context processors would ask the database, which may be what is missing.
    values = {"problem": problem, "exception": problem.detail, "request_id": context.current().request_id}
    page = render_to_string([f"{problem.status}.html", "errors.html"], values)
    return HttpResponse(page, status=problem.status, headers=dict(problem.headers))


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    return answer(request, problem_of(exception) or _plain(HTTPStatus.BAD_REQUEST))


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponse:
    problem = problem_of(exception) or _plain(HTTPStatus.FORBIDDEN)
    note(problem, exception, request)
    return answer(request, problem)


def page_not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    return answer(request, _plain(HTTPStatus.NOT_FOUND))


def server_error(request: HttpRequest) -> HttpResponse:
    """Also for what middleware raises: a session that cannot be saved is a silent database, not a fault of ours."""
    error = sys.exc_info()[1]
    return answer(request, (problem_of(error) if error else None) or INTERNAL)


def of_bare_response(response: HttpResponse) -> Problem:
    """The problem that an error response without one stands for, e.g. Django's own 405."""
    kept = {name: response[name] for name in ("Allow", "Retry-After", "WWW-Authenticate") if name in response}
    plain = _plain(HTTPStatus(response.status_code))
    return Problem(status=plain.status, code=plain.code, detail=plain.detail, headers=kept)


def _plain(status: HTTPStatus) -> Problem:
    known = {
        HTTPStatus.NOT_FOUND: "there is no such thing here",
        HTTPStatus.FORBIDDEN: "this is not allowed to you",
        HTTPStatus.METHOD_NOT_ALLOWED: "this method is not allowed here",
    }
    code = "not_found" if status == HTTPStatus.NOT_FOUND else status.name.lower()
    return Problem(status=status, code=code, detail=known.get(status, status.phrase))
