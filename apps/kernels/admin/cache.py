"""The cache: plans that people look at and apply, what is owed to the tiers, how often bytes are read."""

from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import Func, IntegerField, QuerySet
from django.http import HttpRequest
from django.utils.html import format_html_join
from django.utils.safestring import SafeString
from unfold.contrib.filters.admin import ChoicesDropdownFilter, RangeDateTimeFilter
from unfold.decorators import display

from apps.accounts.admin_steps import Step, StepAdmin
from apps.accounts.roles import Scope
from apps.core.admin import ScopedAdmin
from apps.core.admin_display import EMPTY, chip, link_to, short, size, state_column, whole
from apps.kernels import services
from apps.kernels.cache import outbox
from apps.kernels.cache.accesses import score_now
from apps.kernels.lifecycle import CachePlanState
from apps.kernels.models import BlobAccess, CacheOutbox, CachePlan, OutboxKind

PLAN_LABELS = {
    CachePlanState.PLANNED: "info",
    CachePlanState.APPLYING: "warning",
    CachePlanState.APPLIED: "success",
    CachePlanState.FAILED: "danger",
    CachePlanState.CANCELLED: "default",
}
MOVES_SHOWN = 100


# --- Plans

APPLY = Step(
    title="Apply",
    promises=(
        "A worker makes the moves of the plan, one after another.",
        "A kernel that has changed since, or that a run has taken up, is left where it is, and the plan says why.",
        "No byte is lost: a copy is read back and compared before the one that it replaces goes.",
    ),
    done="a worker makes its moves now",
    call=lambda plan, actor, data: services.apply_cache_plan(plan=plan, actor=actor, reason=data["reason"]),
    offered=lambda plan: plan.state == CachePlanState.PLANNED,
    icon="play_arrow",
    is_primary=True,
)
CANCEL = Step(
    title="Cancel",
    promises=(
        "The plan is over and stays on record; the move that is being made is ended.",
        "What has moved stays moved.",
    ),
    done="cancelled",
    call=lambda plan, actor, data: services.cancel_cache_plan(plan=plan, actor=actor, reason=data["reason"]),
    offered=lambda plan: plan.state in {CachePlanState.PLANNED, CachePlanState.APPLYING},
    icon="close",
)


@admin.register(CachePlan)
class CachePlanAdmin(StepAdmin):
    read_scope, write_scope = Scope.LIBRARY_READ, Scope.LIBRARY_WRITE
    subject_type = "cache_plan"
    page = "dashboards:cache-plan"
    steps = {"apply": APPLY, "cancel": CANCEL}

    list_display = ["plan", "kind", "state_label", "progress", "outcome", "created_at", "expires_at"]
    list_filter = [
        ("kind", ChoicesDropdownFilter),
        ("state", ChoicesDropdownFilter),
        ("created_at", RangeDateTimeFilter),
    ]
    search_fields = ["id__exact"]
    fieldsets = [
        (None, {"fields": ["kind", "state_label", "progress", "expires_at"]}),
        ("Moves", {"fields": ["moves_text"]}),
        ("Bytes by storage tier", {"fields": ["bytes_text"]}),
        ("Outcome", {"fields": ["outcome", "left_text", "problem"]}),
        ("Row", {"fields": ["workspace", "id", "created_at", "updated_at"]}),
    ]

    state_label = state_column(PLAN_LABELS)

    def get_queryset(self, request: HttpRequest) -> QuerySet[CachePlan]:
        """Without the moves, which are large: their number is counted by the database."""
        count = Func("moves", function="jsonb_array_length", output_field=IntegerField())
        plans: QuerySet[CachePlan] = super().get_queryset(request)
        return plans.annotate(move_count=count).defer("moves", "facts")

    @display(description="plan", ordering="-id")
    def plan(self, plan: CachePlan) -> str:
        return str(plan)

    @display(description="moves tried")
    def progress(self, plan: Any) -> str:
        return f"{plan.done} of {plan.move_count}"

    @display(description="outcome")
    def outcome(self, plan: CachePlan) -> str:
        if not plan.result:
            return EMPTY
        left = len(plan.result["left"])
        return f"{plan.result['moved']} moved, {size(plan.result['bytes'])}" + (f"; {left} left" if left else "")

    @display(description="moves")
    def moves_text(self, plan: CachePlan) -> str | SafeString:
        shown = plan.moves[:MOVES_SHOWN]
        lines = [(m["name"], m["from"], m["to"], size(m["bytes"]), m["reason"]) for m in shown]
        if len(plan.moves) > len(shown):
            lines.append((f"and {len(plan.moves) - len(shown)} more", "", "", "", "see the plan's own page"))
        return format_html_join("", "<div>{}: {} to {}, {} ({})</div>", lines) or "none"

    @display(description="before, after")
    def bytes_text(self, plan: CachePlan) -> str | SafeString:
        before, after = plan.facts.get("bytes_before", {}), plan.facts.get("bytes_after", {})
        lines = [(tier, size(number), size(after.get(tier, 0))) for tier, number in before.items()]
        return format_html_join("", "<div>{}: {}, {}</div>", lines) or EMPTY

    @display(description="left, and why")
    def left_text(self, plan: CachePlan) -> str | SafeString:
        left = [(each["name"], each["reason"]) for each in plan.result.get("left", [])]
        return format_html_join("", "<div>{}: {}</div>", left) or "none"


# --- What is owed

TRY_AGAIN = Step(
    title="Try again now",
    promises=(
        "The step is tried within seconds, by the next round of the relay, instead of at its due time.",
        "It may be done twice without harm. Nothing else changes, and the audit trail gets no event: it is a queue.",
    ),
    done="is tried again within seconds",
    call=lambda row, actor, data: outbox.hasten(row),
    form=forms.Form,
    foretell=lambda row, data: (f"due now instead of at {row.due_at:%Y-%m-%d %H:%M:%S} UTC",),
    icon="replay",
)


@admin.register(CacheOutbox)
class CacheOutboxAdmin(StepAdmin):
    read_scope, write_scope = Scope.LIBRARY_READ, Scope.LIBRARY_WRITE
    steps = {"try_again": TRY_AGAIN}

    list_display = ["kind_label", "key_short", "attempts_label", "error", "created_at", "due_at"]
    list_filter = [("kind", ChoicesDropdownFilter)]
    search_fields = ["key__startswith", "error"]
    ordering = ["id"]
    fields = ["kind", "key_whole", "attempts_label", "error", "created_at", "due_at", "id"]

    @display(description="kind", ordering="kind")
    def kind_label(self, row: CacheOutbox) -> SafeString:
        return chip(row.kind)

    @display(description="of", ordering="key")
    def key_short(self, row: CacheOutbox) -> str | SafeString:
        """The kernel, or the digest of which something is owed."""
        if row.kind == OutboxKind.CHANGED:
            return link_to("kernels.kernel", row.key, f"kernel …{row.key[-12:]}")
        return short(row.key)

    @display(description="digest, or kernel")
    def key_whole(self, row: CacheOutbox) -> str | SafeString:
        return link_to("kernels.kernel", row.key) if row.kind == OutboxKind.CHANGED else whole(row.key)

    @display(description="failed attempts", ordering="attempts")
    def attempts_label(self, row: CacheOutbox) -> SafeString:
        return chip(row.attempts, "warning" if row.attempts else "")


# --- What is read


@admin.register(BlobAccess)
class BlobAccessAdmin(ScopedAdmin):
    """How often bytes are read, the most read first."""

    read_scope = Scope.LIBRARY_READ

    list_display = ["digest_short", "reads", "score_as_of_now", "last_read_at"]
    list_filter = [("last_read_at", RangeDateTimeFilter)]
    search_fields = ["digest__startswith"]
    ordering = ["-score"]
    fields = ["digest_whole", "reads", "score_as_of_now", "last_read_at", "scored_at"]
    neighbours = (("kernels.kernel", "digest", "digest"),)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return score_now(super().get_queryset(request))

    @display(description="digest", ordering="digest")
    def digest_short(self, row: BlobAccess) -> str | SafeString:
        return short(row.digest)

    @display(description="digest")
    def digest_whole(self, row: BlobAccess) -> str | SafeString:
        return whole(row.digest)

    @display(description="decayed reads", ordering="score")
    def score_as_of_now(self, row: Any) -> str:
        return f"{row.score_now:.1f}"
