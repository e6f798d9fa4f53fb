"""From an exception to a problem: the table, without a site around it."""

import psycopg
import pytest
import redis
from django.core.exceptions import RequestDataTooBig, ValidationError
from django.db import DataError, IntegrityError, InternalError, OperationalError
from kombu.exceptions import OperationalError as BrokerError
from rest_framework import exceptions as drf

from apps.core.errors import Invalid, LeaseLost, Unavailable
from apps.core.problems import problem_of


def from_driver(outer: type[Exception], inner: type[Exception], message: str = "message") -> Exception:
    """What Django raises: its own class, from psycopg's with the SQLSTATE."""
    error = outer(message)
    error.__cause__ = inner(message)
    return error


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (Invalid("wrong", pointer="/a"), 400, "invalid"),
        (LeaseLost("gone"), 409, "lease_lost"),
        (Unavailable("away"), 503, "unavailable"),
        (drf.Throttled(wait=3), 429, "throttled"),
        (drf.MethodNotAllowed("PUT"), 405, "method_not_allowed"),
        (drf.UnsupportedMediaType("text/plain"), 415, "unsupported_media_type"),
        (RequestDataTooBig("big"), 413, "payload_too_large"),
        (from_driver(IntegrityError, psycopg.errors.UniqueViolation), 409, "duplicate"),
        (from_driver(IntegrityError, psycopg.errors.CheckViolation), 400, "constraint"),
        (from_driver(IntegrityError, psycopg.errors.ForeignKeyViolation), 409, "reference"),
        (from_driver(DataError, psycopg.errors.NumericValueOutOfRange), 400, "invalid"),
        (
            from_driver(InternalError, psycopg.errors.RaiseException, "Invalid transition of field"),
            409,
            "invalid_transition",
        ),
        (from_driver(InternalError, psycopg.errors.RaiseException, "a run cannot be born in state X"), 409, "conflict"),
        (from_driver(OperationalError, psycopg.errors.ConnectionFailure), 503, "database_unavailable"),
        (from_driver(OperationalError, psycopg.errors.DiskFull), 503, "database_unavailable"),
        (from_driver(OperationalError, psycopg.errors.ProgramLimitExceeded), 400, "too_long"),
        (redis.exceptions.TimeoutError(), 503, "redis_unavailable"),
        (BrokerError(), 503, "redis_unavailable"),
    ],
)
def test_each_exception_has_its_status_and_code(error: Exception, status: int, code: str) -> None:
    problem = problem_of(error)

    assert problem is not None
    assert (problem.status, problem.code) == (status, code)


@pytest.mark.parametrize(
    "error", [KeyError("x"), RuntimeError("x"), from_driver(InternalError, psycopg.errors.InternalError_)]
)
def test_a_fault_of_ours_is_no_problem_of_the_client(error: Exception) -> None:
    assert problem_of(error) is None


def test_what_is_away_says_when_to_try_again() -> None:
    for error in (Unavailable("away"), OperationalError("gone"), redis.exceptions.ConnectionError("gone")):
        problem = problem_of(error)
        assert problem is not None
        assert problem.headers["Retry-After"] == "5"


def test_nested_serializer_errors_become_pointers() -> None:
    error = drf.ValidationError(
        {"events": {3: {"step": [drf.ErrorDetail("is required", code="required")]}}, "": ["whole"], "a/b": ["x"]}
    )

    problem = problem_of(error)

    assert problem is not None
    assert [(e.pointer, e.code) for e in problem.errors] == [
        ("/events/3/step", "required"),
        ("", "invalid"),
        ("/a~1b", "invalid"),
    ]


def test_a_models_errors_name_their_fields() -> None:
    problem = problem_of(ValidationError({"name": [ValidationError("taken", code="unique")]}))

    assert problem is not None
    assert (problem.status, problem.code) == (409, "duplicate")
    assert [(e.pointer, e.code, e.detail) for e in problem.errors] == [("/name", "unique", "taken")]
