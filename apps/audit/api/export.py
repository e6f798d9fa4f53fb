"""`/audit/export`: the trail as one file, streamed."""

from collections.abc import Iterator
from itertools import chain
from typing import Any

from django.http import HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django_filters.rest_framework import DjangoFilterBackend
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.mixins import ListModelMixin
from rest_framework.request import Request

from apps.audit import exporting, services
from apps.audit.filters import AuditEventFilter
from apps.audit.models import AuditEvent
from apps.audit.proofs import checkpoint_of
from apps.core.actors import actor_of
from apps.core.api import ApiView
from apps.core.errors import Invalid
from apps.core.pagination import read_boolean, read_sort, sorts_of

FORMATS = {"jsonl": "application/jsonl", "csv": "text/csv; charset=utf-8"}
OWN_PARAMETERS = frozenset({"format", "sealed", "sort"})


class AuditExportView(ListModelMixin, ApiView):
    """The events that fit, as one file. Its last line says that it is whole."""

    queryset = AuditEvent.objects.all()
    filterset_class = AuditEventFilter
    filter_backends = (DjangoFilterBackend,)
    scopes = {"GET": "audit:read"}
    problems = {"GET": (404, 503)}

    def known_parameters(self, request: Request) -> frozenset[str]:
        return OWN_PARAMETERS | frozenset(AuditEventFilter.base_filters)

    @extend_schema(
        operation_id="audit_export",
        parameters=[
            OpenApiParameter("format", str, enum=list(FORMATS), default="jsonl"),
            OpenApiParameter(
                "sealed",
                bool,
                default=False,
                description="every sealed event in the order of the tree, as `verifier.py events` reads it; "
                "only as jsonl and without filters",
            ),
            OpenApiParameter("sort", str, enum=["-id", "id"], default="-id", description="`-` is newest first"),
        ],
        responses={(200, "application/jsonl"): OpenApiTypes.STR, (200, "text/csv"): OpenApiTypes.STR},
    )
    def get(self, request: Request, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Export. The export itself becomes an event, with its filters, before the first line is sent."""
        format = _format(request)
        events = self._events(request, format)
        headers = {"Content-Disposition": f'attachment; filename="audit.{format}"', "Cache-Control": "no-store"}
        if request.method == "HEAD":
            return HttpResponse(headers=headers, content_type=FORMATS[format])
        services.record_export(format=format, filters=_given(request), actor=actor_of(request))
        lines = exporting.csv_lines(events) if format == "csv" else exporting.json_lines(events)
        first = next(lines)  # what cannot be read at all is a proper problem
        return StreamingHttpResponse(chain([first], lines), headers=headers, content_type=FORMATS[format])

    def _events(self, request: Request, format: str) -> Iterator[exporting.Event]:
        newest_first = read_sort(request.query_params.get("sort"), sorts_of(self), AuditEvent).descending
        if not read_boolean("sealed", request.query_params.get("sealed", "false")):
            wanted: Any = self.filter_queryset(self.get_queryset())
            return exporting.found_events(wanted, newest_first=newest_first)
        if format != "jsonl":
            raise Invalid("is only there as jsonl", pointer="/sealed", code="exclusive")
        others = sorted(set(request.query_params) - {"format", "sealed"})
        if others:
            raise Invalid(
                f"takes every event in the order of the tree: leave out {', '.join(others)}",
                pointer="/sealed",
                code="exclusive",
            )
        return exporting.sealed_events(int(checkpoint_of(None).size))


def _format(request: Request) -> str:
    given = request.query_params.get("format", "jsonl")
    if given not in FORMATS:
        raise Invalid(f"{given!r:.80} is not one of: {', '.join(FORMATS)}", pointer="/format", code="unknown")
    return str(given)


def _given(request: Request) -> dict[str, list[str]]:
    return {name: values for name, values in request.query_params.lists() if name != "format"}
