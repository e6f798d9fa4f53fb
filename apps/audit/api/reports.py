"""`/audit/reports`: compliance reports, asked for, read with their signed note, and computed again."""

from base64 import b64encode
from collections.abc import Iterator
from itertools import chain
from typing import Any
from uuid import UUID

from django.core.files.storage import storages
from django.http import HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from apps.audit import services
from apps.audit.filters import ReportFilter
from apps.audit.lifecycle import ReportKind, ReportState
from apps.audit.models import AuditReport
from apps.audit.selectors import actor_names
from apps.core.actors import actor_of
from apps.core.api import ApiView, DetailView, ListView
from apps.core.concurrency import not_modified
from apps.core.errors import Conflict, Unavailable
from apps.core.idempotency import idempotent
from apps.core.lifecycle import choices
from apps.core.objects import STORAGE_FAULTS
from apps.core.serializers import Choice, JSONObject, StrictSerializer

CONTENT_TYPE = "application/jsonl"
NOTE_TYPE = "text/plain"
BLOCK = 1 << 18
KINDS = choices(ReportKind)


class ReportSerializer(serializers.ModelSerializer[AuditReport]):
    """``requested_by_name`` is looked up beside the report and is empty once the person was erased."""

    requested_by_name = serializers.SerializerMethodField()
    root = serializers.SerializerMethodField(  # type: ignore[assignment]  # declared fields leave the class
        help_text="of the tree that the report is answered from, in hex"
    )

    class Meta:
        model = AuditReport
        fields = (
            "id",
            "kind",
            "parameters",
            "as_of",
            "state",
            "requested_by",
            "requested_by_name",
            "size",
            "root",
            "rows",
            "sha256",
            "failure",
            "created_at",
            "finished_at",
        )
        read_only_fields = fields

    def get_requested_by_name(self, report: AuditReport) -> str:
        names: dict[UUID, str] | None = self.context.get("names")
        if names is None:
            names = actor_names([report.requested_by])
        return names.get(report.requested_by, "") if report.requested_by else ""

    def get_root(self, report: AuditReport) -> str:
        return bytes(report.root or b"").hex()


class NewReport(StrictSerializer):
    kind = Choice(choices=KINDS)
    parameters = JSONObject(required=False, help_text="which ones there are depends on the kind: see docs/audit.md")
    as_of = serializers.DateTimeField(required=False, help_text="now by default; never in the future")


class ReproductionSerializer(serializers.Serializer[Any]):
    """``sha256`` is what the trail answers now; ``stored`` that of the stored bytes, empty if they cannot be read."""

    is_same = serializers.BooleanField()
    signed = serializers.CharField()
    sha256 = serializers.CharField()
    stored = serializers.CharField()
    has_root = serializers.BooleanField(help_text="the tree still has the root that the report names")


class ReportListView(ListView):
    """Compliance reports, newest first."""

    queryset = AuditReport.objects.all()
    serializer_class = ReportSerializer
    filterset_class = ReportFilter
    content_tagged = True
    scopes = {"GET": "audit:read", "POST": "audit:read"}

    def get_serializer(self, *args: Any, **kwargs: Any) -> Any:
        """Names of the whole page in one query."""
        names = actor_names(report.requested_by for report in (args[0] if args else []))
        return ReportSerializer(*args, **{**kwargs, "context": {**self.get_serializer_context(), "names": names}})

    @extend_schema(request=NewReport, responses={202: ReportSerializer})
    @idempotent
    def post(self, request: Request) -> Response:
        """Ask for a report. It is answered in the background: read it until it is READY."""
        given = self.parse(NewReport)
        report = services.request_report(
            kind=given["kind"],
            parameters=given.get("parameters", {}),
            as_of=given.get("as_of"),
            actor=actor_of(request),
        )
        return self.show(report, ReportSerializer, code=202, location=f"/api/v1/audit/reports/{report.pk}")


class ReportView(DetailView):
    """One report: what was asked, and what was signed."""

    queryset = AuditReport.objects.all()
    serializer_class = ReportSerializer
    content_tagged = True
    scopes = {"GET": "audit:read"}


class WrittenReportView(ApiView):
    """What only a READY report has."""

    queryset = AuditReport.objects.all()
    serializer_class = ReportSerializer
    scopes = {"GET": "audit:read"}
    conditional = True
    problems = {"GET": (409,)}

    def ready(self) -> AuditReport:
        """Raises Conflict: the report is not written, yet or ever."""
        report: AuditReport = self.get_object()
        if report.state != ReportState.READY:
            raise Conflict(f"the report is {report.state}: {report.failure or 'not written yet'}", code="not_ready")
        return report


class ReportContentView(WrittenReportView):
    """The answer: canonical JSON, a line each. It never changes."""

    @extend_schema(responses={(200, CONTENT_TYPE): OpenApiTypes.BINARY})
    def get(self, request: Request, id: UUID) -> HttpResponseBase:
        """The answer, streamed. `Repr-Digest` is what its note signs."""
        report = self.ready()
        headers = content_headers(report)
        if not_modified(request, headers["ETag"]):
            return HttpResponse(status=304, headers=headers)
        if request.method == "HEAD":
            return HttpResponse(headers=headers, content_type=CONTENT_TYPE)
        return content_response(report)


def content_headers(report: AuditReport) -> dict[str, str]:
    return {
        "ETag": f'"sha256:{report.sha256}"',
        "Repr-Digest": f"sha-256=:{b64encode(bytes.fromhex(report.sha256)).decode()}:",
        "Content-Disposition": f'attachment; filename="{report.kind}-{report.pk}.jsonl"',
    }


def content_response(report: AuditReport) -> StreamingHttpResponse:
    """The stored bytes. The first block is read before the status goes out: a silent storage is a proper problem."""
    blocks = _blocks(report)
    first = next(blocks, b"")
    return StreamingHttpResponse(chain([first], blocks), headers=content_headers(report), content_type=CONTENT_TYPE)


def _blocks(report: AuditReport) -> Iterator[bytes]:
    try:
        with storages["default"].open(report.name, "rb") as file:
            while block := file.read(BLOCK):
                yield block
    except STORAGE_FAULTS as error:
        raise Unavailable(f"the object storage does not give the report: {error}", code="storage") from error


class ReportNoteView(WrittenReportView):
    """The signed note: kind, parameters, time, tree and digest of the report (C2SP signed-note)."""

    @extend_schema(responses={(200, NOTE_TYPE): OpenApiTypes.STR})
    def get(self, request: Request, id: UUID) -> HttpResponse:
        """The note as text: `verifier.py report` checks the answer against it."""
        report = self.ready()
        headers = {"ETag": f'"note:{report.sha256}"'}
        if not_modified(request, headers["ETag"]):
            return HttpResponse(status=304, headers=headers)
        return note_response(report, headers)


def note_response(report: AuditReport, headers: dict[str, str] | None = None) -> HttpResponse:
    disposition = f'attachment; filename="{report.kind}-{report.pk}.note"'
    return HttpResponse(
        report.note,
        headers={**(headers or {}), "Content-Disposition": disposition},
        content_type=f"{NOTE_TYPE}; charset=utf-8",
    )


class ReproduceView(ApiView):
    """Answer the report again from the trail as it is now, and compare."""

    queryset = AuditReport.objects.all()
    serializer_class = ReproductionSerializer
    http_method_names = ["post"]
    scopes = {"POST": "audit:read"}

    @extend_schema(request=None, responses=ReproductionSerializer)
    @idempotent
    def post(self, request: Request, id: UUID) -> Response:
        """Compute the report again. The comparison is an event of the trail, whichever way it ends."""
        found = services.reproduce_report(report=self.get_object(), actor=actor_of(request))
        return Response(ReproductionSerializer(found).data)
