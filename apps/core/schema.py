"""The OpenAPI 3.1 document: what the conventions of the API add to every operation, derived from the views themselves.

Scopes, problems, ETag and idempotency headers are read off the view, so that the document cannot promise another API
than the one that runs.
"""

from collections.abc import Iterator
from inspect import cleandoc
from typing import Any

from drf_spectacular.openapi import AutoSchema
from rest_framework import serializers

from apps.core.permissions import ANY, required_scope
from apps.core.problems import MEDIA_TYPE
from apps.core.serializers import StrictSerializer

WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
MEANINGS = {
    400: "something in the request is not valid; `errors` names each field",
    401: "no token or session, or one that is not valid",
    403: "the scope is missing",
    404: "no such thing",
    409: "the state does not allow this now",
    411: "Content-Length is missing",
    412: "If-Match names another version",
    413: "the body is too large",
    415: "the body is of another media type",
    416: "the range lies outside",
    422: "the Idempotency-Key was used for another request",
    428: "If-Match is missing",
    429: "too many requests; Retry-After says when",
    503: "a part of the platform does not answer; Retry-After says when to try again",
}
FIELD_ERROR = {
    "type": "object",
    "required": ["pointer", "code", "detail"],
    "properties": {
        "pointer": {"type": "string", "description": "JSON pointer into the body, or `/` and the parameter's name"},
        "code": {"type": "string"},
        "detail": {"type": "string"},
    },
}
PROBLEM = {
    "type": "object",
    "description": "RFC 9457. `code` is stable and for programs, `detail` for people.",
    "required": ["type", "title", "status", "detail", "code", "request_id", "errors"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string"},
        "request_id": {"type": "string"},
        "errors": {"type": "array", "items": FIELD_ERROR},
    },
}


def header(name: str, description: str, *, required: bool = False) -> dict[str, Any]:
    return {
        "in": "header",
        "name": name,
        "description": description,
        "required": required,
        "schema": {"type": "string"},
    }


def component_name(code: int) -> str:
    """Not from http.HTTPStatus, whose names differ between versions of Python."""
    return f"Problem{code}"


def add_problems(result: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
    """SPECTACULAR_SETTINGS["POSTPROCESSING_HOOKS"]: the problem, and one response for each status that says it."""
    components = result["components"]
    components["schemas"]["Problem"] = PROBLEM
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    components["responses"] = {
        component_name(code): {"description": meaning, "content": content} for code, meaning in MEANINGS.items()
    }
    return result


class EsperSchema(AutoSchema):
    """REST_FRAMEWORK["DEFAULT_SCHEMA_CLASS"]."""

    def get_tags(self) -> list[str]:
        return [self.path.removeprefix("/api/v1/").split("/")[0]]

    def get_operation_id(self) -> str:
        """`runs_pause` rather than `runs_pause_create` where the path itself ends in the verb."""
        if self.view.http_method_names == ["post"]:
            return "_".join(self._tokenize_path())
        return str(super().get_operation_id())

    def get_auth(self) -> list[dict[str, Any]]:
        return [{"bearer": []}, {"session": []}]

    def get_description(self) -> str:  # type: ignore[override]
        """What the handler says, else the view's own docstring (not one of a base class), and the scope."""
        text = cleandoc(getattr(self._handler(), "__doc__", None) or vars(type(self.view)).get("__doc__") or "")
        scope = required_scope(self.view, self.method)
        needs = "any scope" if scope == ANY else f"the scope `{scope}`"
        return f"{text}\n\nNeeds {needs}.".strip()

    def get_operation(self, *args: Any, **kwargs: Any) -> dict[str, Any] | None:
        operation = super().get_operation(*args, **kwargs)
        if operation is None:
            return None
        operation.setdefault("parameters", []).extend(self._headers())
        responses = operation["responses"]
        for code in self._problems():
            responses.setdefault(str(code), {"$ref": f"#/components/responses/{component_name(code)}"})
        if self._is_conditional_read():
            responses["200"].setdefault("headers", {})["ETag"] = {"schema": {"type": "string"}}
            responses.setdefault("304", {"description": "the version in If-None-Match is the current one"})
        return operation

    def _headers(self) -> Iterator[dict[str, Any]]:
        if getattr(self._handler(), "idempotent", False):
            yield header("Idempotency-Key", "the same key and body again get the same answer, for 24 hours")
        if self.method == "PATCH":
            yield header("If-Match", "the ETag that you last read", required=True)
        if self._is_conditional_read():
            yield header("If-None-Match", "the ETag that you have: 304 when it is still current")

    def _problems(self) -> Iterator[int]:
        yield from (400, 401, 403, 429, 503)
        if "{" in self.path:
            yield 404
        if self.method in WRITES:
            yield from (409, 413)
        if self.method in {"POST", "PATCH"}:
            yield 415
        if getattr(self._handler(), "idempotent", False):
            yield 422
        if self.method == "PATCH":
            yield from (412, 428)
        yield from getattr(self.view, "problems", {}).get(self.method, ())

    def _handler(self) -> Any:
        return getattr(self.view, self.method.lower(), None)

    def _is_conditional_read(self) -> bool:
        return self.method == "GET" and bool(getattr(self.view, "conditional", False))

    def _map_basic_serializer(self, serializer: serializers.Serializer[Any], direction: str) -> dict[str, Any]:
        schema: dict[str, Any] = super()._map_basic_serializer(serializer, direction)
        if isinstance(serializer, StrictSerializer):
            schema["additionalProperties"] = False
        return schema
