"""Kernels, as far as their life cycle lets people touch them, with the queue of those that wait for a person."""

from collections.abc import Iterator
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.html import format_html_join
from django.utils.safestring import SafeString
from unfold.contrib.filters.admin import (
    ChoicesDropdownFilter,
    DropdownFilter,
    RangeDateTimeFilter,
    RangeNumericFilter,
)
from unfold.decorators import display

from apps.accounts.admin_steps import StepAdmin
from apps.accounts.roles import Scope
from apps.core.admin import ScopedAdmin
from apps.core.admin_display import EMPTY, chip, link, number, on_one_line, short, size, state_column, whole
from apps.kernels import curation_queue
from apps.kernels.admin.steps import STEPS
from apps.kernels.lifecycle import KernelState
from apps.kernels.models import Kernel, KernelLineage, KernelVariant

KERNEL_LABELS: dict[str, str] = {
    KernelState.UPLOADED: "info",
    KernelState.COMPILED: "info",
    KernelState.BENCHMARKING: "info",
    KernelState.VALIDATED: "success",
    KernelState.REJECTED: "danger",
    KernelState.DEPRECATED: "warning",
    KernelState.RETIRED: "warning",
    KernelState.QUARANTINED: "danger",
}
ANY = "any"


class WaitsForFilter(DropdownFilter):
    """The curation queue: kernels that wait for a person, by what they wait for."""

    title, parameter_name = "waits for a person", "waits"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(ANY, "Any reason"), *((key, concern.title) for key, concern in curation_queue.CONCERNS.items())]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Kernel]) -> QuerySet[Kernel]:
        wanted, now = self.value(), timezone.now()
        if wanted == ANY:
            return queryset.filter(curation_queue.waiting(now))
        concern = curation_queue.CONCERNS.get(wanted or "")
        return queryset.filter(concern.condition(now)) if concern else queryset


@admin.register(Kernel)
class KernelAdmin(StepAdmin):
    read_scope, write_scope = Scope.LIBRARY_READ, Scope.LIBRARY_WRITE
    subject_type, page = "kernel", "dashboards:kernel"
    steps = STEPS
    list_before_template = "admin/curation_queue.html"

    list_display = [
        *("name", "state_label", "waits_for_chips", "storage_tier", "chance_of_failure", "stored_size"),
        *("usage_count", "created_at"),
    ]
    list_filter = [
        WaitsForFilter,
        ("state", ChoicesDropdownFilter),
        ("storage_tier", ChoicesDropdownFilter),
        "operator",
        "legal_hold",
        ("parameters", RangeNumericFilter),
        ("created_at", RangeDateTimeFilter),
    ]
    search_fields = ["name", "digest__startswith", "id__exact"]
    list_select_related = ["blueprint_version__blueprint"]
    fieldsets = [
        (
            None,
            {
                "fields": [
                    *("name", "state_label", "waits_for_remedies", "rejection", "version_link", "operator"),
                    *("parameter_count", "chance_of_failure"),
                ]
            },
        ),
        (
            "Artefact",
            {"fields": ["whole_digest", "stored_size", "storage_tier", "awaits_upload", "bindings", "compat"]},
        ),
        ("Proof", {"fields": ["pipeline", "compile_ms", "report", "metrics", "toolchain", "hardware"]}),
        ("Use", {"fields": ["usage_count", "last_used_at", "tags", "pinned_until", "legal_hold", "successor_link"]}),
        ("Row", {"fields": ["workspace", "id", "created_at", "updated_at", "retired_at", "purge_after"]}),
    ]

    state_label = state_column(KERNEL_LABELS)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return curation_queue.with_concerns(super().get_queryset(request), timezone.now())

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        counted = curation_queue.counts(timezone.now()) if self.has_view_permission(request) else {}
        chosen = request.GET.get(WaitsForFilter.parameter_name)
        queue = [
            {"concern": concern, "count": counted[key], "is_chosen": key == chosen}
            for key, concern in curation_queue.CONCERNS.items()
            if counted.get(key)
        ]
        return super().changelist_view(request, {**(extra_context or {}), "queue": queue, "chosen": chosen})

    @display(description="waits for")
    def waits_for_chips(self, kernel: Any) -> str | SafeString:
        found = [(chip(concern.title, concern.label),) for concern in _concerns(kernel)]
        return format_html_join(" ", "{}", found) or EMPTY

    @display(description="waits for")
    def waits_for_remedies(self, kernel: Any) -> str | SafeString:
        found = ((chip(concern.title, concern.label), concern.remedy) for concern in _concerns(kernel))
        return format_html_join("", "<div>{} {}</div>", found) or "nobody"

    @display(description="version")
    def version_link(self, kernel: Kernel) -> str:
        return link(kernel.blueprint_version)

    @display(description="successor")
    def successor_link(self, kernel: Kernel) -> str:
        return link(kernel.successor)

    @display(description="risk", ordering="risk")
    def chance_of_failure(self, kernel: Kernel) -> str:
        """That its next graft is not kept, with how sure that is."""
        if kernel.risk is None:
            return EMPTY
        return on_one_line(f"{kernel.risk:.0%} ({number(kernel.risk_confidence, '.0%')} sure)")

    @display(description="parameters", ordering="parameters")
    def parameter_count(self, kernel: Kernel) -> str:
        return number(kernel.parameters, ",d")

    @display(description="size", ordering="size")
    def stored_size(self, kernel: Kernel) -> str:
        return on_one_line(size(kernel.size))

    @display(description="digest", ordering="digest")
    def digest_short(self, kernel: Kernel) -> str:
        return short(kernel.digest)

    @display(description="digest")
    def whole_digest(self, kernel: Kernel) -> str:
        return whole(kernel.digest)


def _concerns(kernel: Any) -> Iterator[curation_queue.Concern]:
    return (curation_queue.CONCERNS[key] for key in kernel.waits_for)


@admin.register(KernelVariant)
class KernelVariantAdmin(ScopedAdmin):
    """The same weights in another memory format or dtype."""

    read_scope = Scope.LIBRARY_READ

    list_display = ["kernel_link", "dtype", "memory_format", "stored_size", "digest_short", "created_at"]
    list_filter = ["dtype", "memory_format"]
    list_select_related = ["kernel"]
    search_fields = ["kernel__name", "digest__startswith"]
    ordering = ["-id"]
    fields = ["kernel_link", "dtype", "memory_format", "stored_size", "whole_digest", "report", "id", "created_at"]

    @display(description="kernel", ordering="kernel__name")
    def kernel_link(self, variant: KernelVariant) -> str:
        return link(variant.kernel)

    @display(description="size", ordering="size")
    def stored_size(self, variant: KernelVariant) -> str:
        return size(variant.size)

    @display(description="digest")
    def digest_short(self, variant: KernelVariant) -> str:
        return short(variant.digest)

    @display(description="digest")
    def whole_digest(self, variant: KernelVariant) -> str:
        return whole(variant.digest)


@admin.register(KernelLineage)
class KernelLineageAdmin(ScopedAdmin):
    """Which kernel came from which; edges are never changed."""

    read_scope = Scope.LIBRARY_READ

    list_display = ["child_link", "kind", "parent_link", "weight", "created_at"]
    list_filter = ["kind"]
    list_select_related = ["child", "parent"]
    search_fields = ["child__name", "parent__name"]
    fields = ["child_link", "kind", "parent_link", "weight", "run_id", "id", "created_at"]

    @display(description="kernel", ordering="child__name")
    def child_link(self, edge: KernelLineage) -> str:
        return link(edge.child)

    @display(description="came from", ordering="parent__name")
    def parent_link(self, edge: KernelLineage) -> str:
        return link(edge.parent)
