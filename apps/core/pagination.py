"""Keyset pages: ``?page_size=50&sort=-id&cursor=...`` -> ``{"results", "next_cursor", "has_more"}`` and a Link header.

A cursor is the sort key of the last row, signed, and bound to the path, the filters and the sort: whatever is inserted
meanwhile, every row that was committed before the first page is returned exactly once. There is no offset.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from django.core import signing
from django.core.exceptions import ValidationError
from django.db.models import Model, Q
from rest_framework.pagination import BasePagination
from rest_framework.request import Request
from rest_framework.response import Response

from apps.core.errors import Invalid

DEFAULT_SIZE = 50
MAX_SIZE = 200
SALT = "apps.core.pagination"
OWN_PARAMETERS = frozenset({"cursor", "page_size", "sort", "count"})
BOOLEANS = {"true": True, "false": False}


@dataclass(frozen=True, slots=True)
class Sort:
    """``name`` as the client writes it; ``fields`` ends with the primary key, so that no two rows are equal."""

    name: str
    fields: tuple[str, ...]
    descending: bool

    @classmethod
    def of(cls, name: str, model: type[Model]) -> "Sort":
        field, key = name.removeprefix("-"), str(model._meta.pk.name)
        unique = field in {"id", key}
        return cls(name=name, fields=(field,) if unique else (field, key), descending=name.startswith("-"))

    @property
    def order_by(self) -> list[str]:
        return [f"-{field}" if self.descending else field for field in self.fields]

    def after(self, position: list[Any]) -> Q:
        """The rows behind ``position``: (a, b) > (x, y), written so that an index on (a, b) serves it."""
        comparison = "lt" if self.descending else "gt"
        *leading, last = zip(self.fields, position, strict=True)
        condition = Q(**{f"{last[0]}__{comparison}": last[1]})
        for field, value in reversed(leading):
            condition = Q(**{f"{field}__{comparison}e": value}) & (
                Q(**{f"{field}__{comparison}": value}) | (Q(**{field: value}) & condition)
            )
        return condition


class KeysetPagination(BasePagination):
    """A view may name its ``sorts``; the first is the default. Sort fields must not be nullable."""

    request: Request
    sort: Sort
    last: Model | None
    has_more: bool
    count: int | None

    def paginate_queryset(self, queryset: Any, request: Request, view: Any = None) -> list[Any]:
        self.request = request
        self.sort = read_sort(request.query_params.get("sort"), sorts_of(view), queryset.model)
        size = read_size(request.query_params.get("page_size"))
        self.count = queryset.count() if read_boolean("count", request.query_params.get("count", "false")) else None
        cursor = request.query_params.get("cursor")
        if cursor:
            queryset = queryset.filter(self.sort.after(self._position(cursor, queryset.model)))
        rows = list(queryset.order_by(*self.sort.order_by)[: size + 1])
        self.has_more = len(rows) > size
        rows = rows[:size]
        self.last = rows[-1] if rows else None
        return rows

    def get_paginated_response(self, data: Any) -> Response:
        cursor = self._cursor() if self.has_more else None
        body = {"results": data, "next_cursor": cursor, "has_more": self.has_more}
        if self.count is not None:
            body["count"] = self.count
        headers = {"Link": f'<{self._url(cursor)}>; rel="next"'} if cursor else None
        return Response(body, headers=headers)

    def _cursor(self) -> str:
        values = [_plain(getattr(self.last, field)) for field in self.sort.fields]
        return signing.dumps([self._binding(), *values], salt=SALT)

    def _position(self, cursor: str, model: type[Model]) -> list[Any]:
        values = read_cursor(cursor, self._binding(), len(self.sort.fields))
        try:
            fields: list[Any] = [model._meta.get_field(name) for name in self.sort.fields]
            return [field.to_python(value) for field, value in zip(fields, values, strict=True)]
        except (ValidationError, ValueError):
            raise Invalid("is out of date; start again without it", pointer="/cursor", code="cursor") from None

    def _binding(self) -> str:
        """What the pages of one walk have in common: path, filters and sort, but not the size of a page."""
        filters = sorted(
            (name, values) for name, values in self.request.query_params.lists() if name not in OWN_PARAMETERS
        )
        text = json.dumps([self.request.path, self.sort.name, filters])
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]

    def _url(self, cursor: str) -> str:
        query = [
            (n, v) for n, values in self.request.query_params.lists() for v in values if n not in {"cursor", "count"}
        ]
        return f"{self.request.path}?{urlencode([*query, ('cursor', cursor)])}"

    # --- For the OpenAPI schema

    def get_paginated_response_schema(self, schema: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "type": "object",
            "required": ["results", "next_cursor", "has_more"],
            "properties": {
                "results": dict(schema),
                "next_cursor": {"type": ["string", "null"], "description": "pass as ?cursor= for the next page"},
                "has_more": {"type": "boolean"},
                "count": {"type": "integer", "description": "all rows of the filter; only with ?count=true"},
            },
        }

    def get_schema_operation_parameters(self, view: Any) -> list[dict[str, Any]]:
        sorts = sorts_of(view)
        return [
            _parameter("cursor", "from next_cursor of the page before", {"type": "string", "minLength": 1}),
            _parameter(
                "page_size",
                "rows in one page",
                {"type": "integer", "minimum": 1, "maximum": MAX_SIZE, "default": DEFAULT_SIZE},
            ),
            _parameter("sort", "`-` is descending", {"type": "string", "enum": list(sorts), "default": sorts[0]}),
            _parameter("count", "count all rows of the filter too", {"type": "boolean", "default": False}),
        ]


def sorts_of(view: Any) -> tuple[str, ...]:
    return getattr(view, "sorts", None) or ("-id", "id")


def read_cursor(cursor: str, binding: str, length: int) -> list[Any]:
    """The ``length`` values of a cursor that this server gave for ``binding``. Raises Invalid."""
    try:
        bound, *values = signing.loads(cursor, salt=SALT)
    except (signing.BadSignature, ValueError):
        raise Invalid(
            "is not a cursor that this server gave; start again without it", pointer="/cursor", code="cursor"
        ) from None
    if bound != binding:
        raise Invalid("belongs to another filter or sort; start again without it", pointer="/cursor", code="cursor")
    if len(values) != length:
        raise Invalid("is out of date; start again without it", pointer="/cursor", code="cursor")
    return values


def read_sort(given: str | None, sorts: tuple[str, ...], model: type[Model]) -> Sort:
    if given is not None and given not in sorts:
        raise Invalid(f"{given!r:.80} is not one of: {', '.join(sorts)}", pointer="/sort", code="unknown")
    return Sort.of(given or sorts[0], model)


def read_size(given: str | None) -> int:
    if given is None:
        return DEFAULT_SIZE
    if not (given.isascii() and given.isdigit() and len(given) <= 4 and 1 <= int(given) <= MAX_SIZE):
        raise Invalid(f"must be a whole number from 1 to {MAX_SIZE}", pointer="/page_size", code="range")
    return int(given)


def read_boolean(name: str, given: str) -> bool:
    if given not in BOOLEANS:
        raise Invalid("must be true or false", pointer=f"/{name}", code="type")
    return BOOLEANS[given]


def _plain(value: Any) -> int | str:
    return value if isinstance(value, int) else str(value)


def _parameter(name: str, description: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "description": description, "schema": dict(schema)}
