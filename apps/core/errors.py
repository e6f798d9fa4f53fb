"""One error type per idea. Services raise these; the API, the admin and the commands turn them into answers.

``code`` is stable and machine-readable, ``detail`` is for people and names the remedy, ``pointer`` is the JSON pointer
(RFC 6901) of the field at fault, if it is one field.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from django.core.exceptions import NON_FIELD_ERRORS, ValidationError


@dataclass(frozen=True, slots=True)
class FieldError:
    """One thing wrong with one field of a request."""

    pointer: str
    code: str
    detail: str


def field_errors(error: ValidationError) -> list[FieldError]:
    """What a model's ``full_clean`` refused, field by field; of the row as a whole without a pointer."""
    return [
        FieldError("" if name == NON_FIELD_ERRORS else f"/{name}", "invalid", message)
        for name, messages in error.message_dict.items()
        for message in messages
    ]


class ServiceError(Exception):
    """What a service refuses. Subclasses fix the HTTP status."""

    status = 400
    code = "bad_request"

    def __init__(
        self, detail: str, *, code: str | None = None, pointer: str = "", errors: Sequence[FieldError] = ()
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code or self.code
        self.errors = tuple(errors) or ((FieldError(pointer, self.code, detail),) if pointer else ())


class Invalid(ServiceError):
    """The request is understood and wrong: a field has a value that cannot be taken."""

    code = "invalid"


class Forbidden(ServiceError):
    status = 403
    code = "forbidden"


class NotFound(ServiceError):
    status = 404
    code = "not_found"


class Conflict(ServiceError):
    """The state of the thing does not allow this now."""

    status = 409
    code = "conflict"


class InvalidTransition(Conflict):
    """The life-cycle table has no such move."""

    code = "invalid_transition"


class LeaseLost(Conflict):
    """Another worker owns the run: the fencing token presented is not the current one."""

    code = "lease_lost"


class PreconditionFailed(ServiceError):
    status = 412
    code = "precondition_failed"


class PayloadTooLarge(ServiceError):
    status = 413
    code = "payload_too_large"


class Unprocessable(ServiceError):
    status = 422
    code = "unprocessable"


class PreconditionRequired(ServiceError):
    status = 428
    code = "precondition_required"


class Unavailable(ServiceError):
    """A part that this needs does not answer; nothing was written."""

    status = 503
    code = "unavailable"
