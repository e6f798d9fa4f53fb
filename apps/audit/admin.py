"""The audit trail, to be read: every row a sentence. Nothing here can be added, changed or deleted."""

from typing import Any

from django.contrib import admin
from django.db.models import OuterRef, QuerySet, Subquery
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.contrib.filters.admin import RangeDateTimeFilter
from unfold.decorators import display
from unfold.paginator import InfinitePaginator

from apps.audit.canonical import leaf_digest
from apps.audit.catalogue import EVENT_TYPES
from apps.audit.lifecycle import ReportKind, ReportState
from apps.audit.models import AuditEvent, AuditPerson, AuditPersonalValue, AuditReport
from apps.audit.services import LEAF_COLUMNS
from apps.core.actors import ActorKind
from apps.core.admin import ScopedAdmin
from apps.core.admin_display import EMPTY, link_to, number, short, state_column

OUTCOMES = {"success": "success", "refused": "warning", "failure": "danger"}
REPORT_LABELS = {ReportState.QUEUED: "info", ReportState.READY: "success", ReportState.FAILED: "danger"}


class TypeFilter(admin.SimpleListFilter):
    title = "type"
    parameter_name = "type"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(name, name) for name in EVENT_TYPES]

    def queryset(self, request: HttpRequest, queryset: QuerySet[AuditEvent]) -> QuerySet[AuditEvent]:
        return queryset.filter(type=self.value()) if self.value() else queryset


class FamilyFilter(admin.SimpleListFilter):
    title = "family"
    parameter_name = "family"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(name, name) for name in sorted({kind.family for kind in EVENT_TYPES.values()})]

    def queryset(self, request: HttpRequest, queryset: QuerySet[AuditEvent]) -> QuerySet[AuditEvent]:
        types = [kind.name for kind in EVENT_TYPES.values() if kind.family == self.value()]
        return queryset.filter(type__in=types) if self.value() else queryset


class ByFilter(admin.SimpleListFilter):
    title = "actor"
    parameter_name = "by"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("me", "me"), *((str(kind), f"any {kind}") for kind in ActorKind)]

    def queryset(self, request: HttpRequest, queryset: QuerySet[AuditEvent]) -> QuerySet[AuditEvent]:
        if self.value() == "me":
            return queryset.filter(actor_id__in=AuditPerson.objects.filter(user_id=request.user.pk).values("pk"))
        return queryset.filter(actor_kind=self.value()) if self.value() else queryset


@admin.register(AuditEvent)
class AuditEventAdmin(ScopedAdmin):
    read_scope = "audit:read"

    list_display = ["at", "sentence", "subject", "outcome_label", "reason"]
    list_filter = [FamilyFilter, TypeFilter, ByFilter, ("at", RangeDateTimeFilter)]
    search_fields = ["subject_id__exact", "request_id__exact", "type__exact", "token_id__exact"]
    search_help_text = "A whole id of a subject, a request or a token, or an event type"
    ordering = ["-id"]
    paginator = InfinitePaginator  # a count would read every partition
    fieldsets = [
        (None, {"fields": ["sentence", "at", "type", "subject", "outcome_label", "reason"]}),
        ("Who", {"fields": ["actor", "actor_id", "actor_kind", "token_id", "request_id", "trace_id"]}),
        ("What changed", {"fields": ["diff", "payload"]}),
        ("Integrity", {"fields": ["id", "leaf_hex", "leaf_is_right"]}),
    ]

    outcome_label = state_column(OUTCOMES, "outcome")

    def get_queryset(self, request: HttpRequest) -> QuerySet[AuditEvent]:
        names = AuditPersonalValue.objects.filter(person_id=OuterRef("actor_id"), kind="name", value__isnull=False)
        return super().get_queryset(request).annotate(actor_name=Subquery(names.order_by("-id").values("value")[:1]))

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        return lookup in {"subject_type", "subject_id", "actor_id"} or super().lookup_allowed(lookup, value, request)

    @display(description="event")
    def sentence(self, event: Any) -> str:
        kind = EVENT_TYPES.get(event.type)
        return f"{self.actor(event)} {kind.sentence if kind else event.type}"

    @display(description="actor")
    def actor(self, event: Any) -> str:
        if event.actor_name:
            return f"{event.actor_name} (token)" if event.actor_kind == ActorKind.TOKEN else event.actor_name
        return f"{event.actor_kind} (erased)" if event.actor_id else event.actor_kind

    @display(description="subject")
    def subject(self, event: AuditEvent) -> str:
        """Links to whichever admin page says that it shows this kind of subject."""
        text = f"{event.subject_type.replace('_', ' ')} {event.subject_id}"
        pages = self.admin_site._registry.values()
        page = next((page for page in pages if getattr(page, "subject_type", "") == event.subject_type), None)
        return link_to(page.model._meta.label_lower, event.subject_id, text) if page is not None else text

    @display(description="leaf digest")
    def leaf_hex(self, event: AuditEvent) -> str:
        return bytes(event.leaf).hex()

    @display(description="leaf fits the row", boolean=True)
    def leaf_is_right(self, event: AuditEvent) -> bool:
        return leaf_digest({name: getattr(event, name) for name in LEAF_COLUMNS}) == bytes(event.leaf)


class ReportKindFilter(admin.SimpleListFilter):
    title = "question"
    parameter_name = "kind"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(str(kind), str(kind)) for kind in ReportKind]

    def queryset(self, request: HttpRequest, queryset: QuerySet[AuditReport]) -> QuerySet[AuditReport]:
        return queryset.filter(kind=self.value()) if self.value() else queryset


@admin.register(AuditReport)
class AuditReportAdmin(ScopedAdmin):
    """Asked for on the page *Audit > Reports*; here they are looked up."""

    read_scope = "audit:read"
    subject_type = "report"

    list_display = ["kind", "state_label", "as_of", "tree_size", "row_count", "requester", "created_at", "downloads"]
    list_filter = [ReportKindFilter, ("as_of", RangeDateTimeFilter)]
    search_fields = ["id__exact", "sha256__exact"]
    search_help_text = "A whole id or a whole sha256"
    fieldsets = [
        (None, {"fields": ["kind", "state_label", "parameters", "as_of", "requester", "failure", "downloads"]}),
        ("What was signed", {"fields": ["tree_size", "root_hex", "row_count", "sha256", "name", "note"]}),
        ("Times", {"fields": ["created_at", "finished_at", "id"]}),
    ]

    state_label = state_column(REPORT_LABELS)

    def get_queryset(self, request: HttpRequest) -> QuerySet[AuditReport]:
        names = AuditPersonalValue.objects.filter(person_id=OuterRef("requested_by"), kind="name", value__isnull=False)
        return (
            super().get_queryset(request).annotate(requester_name=Subquery(names.order_by("-id").values("value")[:1]))
        )

    @display(description="asked by")
    def requester(self, report: Any) -> str:
        return report.requester_name or ("user (erased)" if report.requested_by else "system")

    @display(description="events", ordering="size")
    def tree_size(self, report: AuditReport) -> str:
        return number(report.size, ",")

    @display(description="rows", ordering="rows")
    def row_count(self, report: AuditReport) -> str:
        return number(report.rows, ",") if report.state == ReportState.READY else EMPTY

    @display(description="root")
    def root_hex(self, report: AuditReport) -> str | SafeString:
        return short(bytes(report.root).hex() if report.root else None)

    @display(description="downloads")
    def downloads(self, report: AuditReport) -> str | SafeString:
        if report.state != ReportState.READY:
            return EMPTY
        path = f"/api/v1/audit/reports/{report.pk}"
        return format_html('<a href="{}/content">content</a> · <a href="{}/note">signed note</a>', path, path)
