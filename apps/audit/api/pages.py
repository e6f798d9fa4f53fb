"""Pages of a search: keyset pages as everywhere, but each reads a bounded part of the trail, so it may be short."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from django.core import signing
from rest_framework.request import Request
from rest_framework.response import Response

from apps.audit.models import AuditEvent
from apps.audit.search import Found, Position, Search, search
from apps.core.pagination import SALT, KeysetPagination, read_cursor, read_size, read_sort, sorts_of


class SearchPagination(KeysetPagination):
    """``has_more`` is true as long as there is trail left to look at, even if this page found nothing."""

    found: Found

    def paginate_queryset(self, queryset: Any, request: Request, view: Any = None) -> list[Any]:
        wanted: Search = queryset
        self.request, self.count = request, None
        self.sort = read_sort(request.query_params.get("sort"), sorts_of(view), AuditEvent)
        size = read_size(request.query_params.get("page_size"))
        cursor = request.query_params.get("cursor")
        after = self._place(cursor) if cursor else None
        self.found = search(wanted, size=size, after=after, newest_first=self.sort.descending)
        self.has_more = self.found.after is not None
        return self.found.events

    def get_paginated_response(self, data: Any) -> Response:
        response = super().get_paginated_response(data)
        after = self.found.after
        response.data["searched_to"] = after.at if after and self.found.is_short else None
        return response

    def _cursor(self) -> str:
        after = self.found.after
        assert after is not None  # only asked when there is more
        return signing.dumps([self._binding(), after.at.isoformat(), str(after.id)], salt=SALT)

    def _place(self, cursor: str) -> Position:
        at, key = read_cursor(cursor, self._binding(), 2)
        return Position(datetime.fromisoformat(at), UUID(key))

    # --- For the OpenAPI schema

    def get_paginated_response_schema(self, schema: Mapping[str, Any]) -> dict[str, Any]:
        page = super().get_paginated_response_schema(schema)
        page["required"].append("searched_to")
        del page["properties"]["count"]
        page["properties"]["searched_to"] = {
            "type": ["string", "null"],
            "format": "date-time",
            "description": "how far a page that ended short was searched; the next one goes on from there",
        }
        return page

    def get_schema_operation_parameters(self, view: Any) -> list[dict[str, Any]]:
        return [known for known in super().get_schema_operation_parameters(view) if known["name"] != "count"]
