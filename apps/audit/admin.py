"""The audit trail, to be read: every row a sentence. Nothing here can be added, changed or deleted."""

from typing import Any

from django.contrib import admin
from django.db.models import OuterRef, QuerySet, Subquery
from django.http import HttpRequest
from unfold.contrib.filters.admin import RangeDateTimeFilter
from unfold.decorators import display
from unfold.paginator import InfinitePaginator

from apps.audit.canonical import leaf_digest
from apps.audit.catalogue import EVENT_TYPES
from apps.audit.models import AuditEvent, AuditPerson, AuditPersonalValue
from apps.audit.services import LEAF_COLUMNS
from apps.core.actors import ActorKind
from apps.core.admin import ScopedAdmin
from apps.core.admin_display import link_to, state_column

OUTCOMES = {"success": "success", "refused": "warning", "failure": "danger"}


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
