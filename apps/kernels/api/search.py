"""`/kernels/search`: the search in both spellings. POST reads, like GET: it takes what no URL can hold."""

from datetime import datetime
from typing import Any

import orjson
from drf_spectacular.extensions import OpenApiSerializerExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import Direction, OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from apps.audit.api.as_of import parse_time
from apps.core.api import ApiView
from apps.core.errors import Invalid
from apps.core.pagination import DEFAULT_SIZE, MAX_SIZE, read_boolean, read_size
from apps.core.serializers import Flag, JSONObject, StrictSerializer, Text, Whole
from apps.kernels import search
from apps.kernels.api.serializers import KernelRow
from apps.kernels.search.text import POINTER as Q

MAX_CURSOR = 2**18
"""Characters: it holds what four fields of the order are at the end of a page, texts of 4,000 characters too."""
LISTS = ("order_by", "fields", "facets")
PARAMETERS = frozenset({"q", "page_size", "cursor", "count", "as_of", *LISTS})


class RowsRenderer(JSONRenderer):
    """Rows are plain values: no serializer, and the fastest JSON there is."""

    def render(self, data: Any, accepted_media_type: str | None = None, renderer_context: Any = None) -> bytes:
        return orjson.dumps(data, option=orjson.OPT_UTC_Z)


class AnyFilter(serializers.JSONField):
    """A node of the syntax, or a list of conditions that must all hold."""


class Names(serializers.ListField):
    child = Text(max_length=200)
    max_length = 40


class SearchRequest(StrictSerializer):
    filter = AnyFilter(
        required=False,
        allow_null=True,
        help_text='`{"and"|"or": [...]}`, `{"not": node}`, `{"field", "op", "value"}`, '
        '`{"descends_from": {"id", "depth"}}`, `{"compatible_with": {"slot"}}`, or a list of these that must all hold',
    )
    order_by = Names(required=False, help_text="fields; `-` is descending; default: newest first, or by rank")
    fields = Names(required=False, help_text="members of the rows; default: all")  # type: ignore[assignment]
    facets = Names(required=False, help_text="fields whose values are counted")
    page_size = Whole(min_value=1, max_value=MAX_SIZE, default=DEFAULT_SIZE)
    cursor = Text(max_length=MAX_CURSOR, required=False, allow_null=True)
    count = Flag(default=False)
    as_of = Text(max_length=40, required=False, help_text="RFC 3339: the kernels as they were then")


class Rank(serializers.Serializer[Any]):
    """``gain``: mean contribution measured in other runs, in nats per held-out sample, shrunk towards 0."""

    gain = serializers.FloatField(read_only=True)
    reports = serializers.IntegerField(read_only=True)


class FoundKernel(KernelRow):
    """A kernel as in the list; with `fields`, only these members. ``rank``: only where a contract is asked for."""

    rank = Rank(read_only=True, required=False)

    class Meta(KernelRow.Meta):
        fields = (*KernelRow.Meta.fields, "rank")
        read_only_fields = fields


class FoundKernelSchema(OpenApiSerializerExtension):
    """Which members a row has is up to the client."""

    target_class = FoundKernel

    def map_serializer(self, auto_schema: AutoSchema, direction: Direction) -> dict[str, Any]:
        described: dict[str, Any] = auto_schema._map_serializer(self.target, direction, bypass_extensions=True)
        return {name: value for name, value in described.items() if name != "required"}


class SearchAnswer(serializers.Serializer[Any]):
    results = FoundKernel(many=True, read_only=True)
    next_cursor = serializers.CharField(read_only=True, allow_null=True)
    has_more = serializers.BooleanField(read_only=True)
    facets = JSONObject(required=False, help_text="only when asked: field -> [{value, count}], most frequent first")
    count = serializers.IntegerField(required=False, help_text="only when asked: all matches")


def _parameter(name: str, description: str, kind: Any = OpenApiTypes.STR) -> OpenApiParameter:
    return OpenApiParameter(name, kind, description=description)


DESCRIBED = [
    _parameter("q", "such as `tags.arch in ('conv','attn') and usage_count > 100`; default: every kernel"),
    _parameter("order_by", "fields, separated by commas; `-` is descending"),
    _parameter("fields", "members of the rows, separated by commas"),
    _parameter("facets", "fields whose values are counted, separated by commas"),
    OpenApiParameter("page_size", {"type": "integer", "minimum": 1, "maximum": MAX_SIZE, "default": DEFAULT_SIZE}),
    OpenApiParameter("cursor", {"type": "string", "minLength": 1}, description="from next_cursor of the page before"),
    _parameter("count", "count all matches too", OpenApiTypes.BOOL),
    _parameter("as_of", "RFC 3339: the kernels as they were then", OpenApiTypes.DATETIME),
]


class KernelSearchView(ApiView):
    """Kernels that match a search, by pages."""

    scopes = {"GET": "library:read", "POST": "library:read"}
    problems = {"GET": (422,), "POST": (422,)}
    serializer_class = SearchAnswer
    renderer_classes = (RowsRenderer,)

    def known_parameters(self, request: Request) -> frozenset[str]:
        return PARAMETERS if request.method in {"GET", "HEAD"} else frozenset()

    @extend_schema(parameters=DESCRIBED, responses=SearchAnswer)
    def get(self, request: Request) -> Response:
        """Search by the text `q`. The language is described in docs/search.md."""
        given = request.query_params
        for name in PARAMETERS & set(given):
            if len(given.getlist(name)) > 1:
                raise Invalid("is given more than once", pointer=f"/{name}", code="repeated")
        node = search.parse(given.get("q", ""))
        lists: dict[str, Any] = {name: tuple(given[name].split(",")) for name in LISTS if name in given}
        return _answer(
            search.Query(
                filter=node,
                page_size=read_size(given.get("page_size")),
                cursor=given.get("cursor"),
                count=read_boolean("count", given.get("count", "false")),
                as_of=_time(given.get("as_of")),
                pointer=Q,
                **lists,
            )
        )

    @extend_schema(request=SearchRequest, responses={200: SearchAnswer})
    def post(self, request: Request) -> Response:
        """Search by a filter in JSON. Changes nothing: it takes no Idempotency-Key and needs no scope to write."""
        given = self.parse(SearchRequest)
        lists: dict[str, Any] = {name: tuple(given[name]) for name in LISTS if name in given}
        return _answer(
            search.Query(
                filter=search.from_json(given.get("filter")),
                page_size=given["page_size"],
                cursor=given.get("cursor"),
                count=given["count"],
                as_of=_time(given.get("as_of")),
                **lists,
            )
        )


def _time(text: str | None) -> datetime | None:
    return None if text is None else parse_time([text])


def _answer(query: search.Query) -> Response:
    page = search.run(query)
    body: dict[str, Any] = {"results": page.rows, "next_cursor": page.next_cursor, "has_more": page.has_more}
    if query.facets:
        body["facets"] = page.facets
    if page.count is not None:
        body["count"] = page.count
    return Response(body)
