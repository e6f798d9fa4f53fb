"""Retirement: policies that people write, plans that they look at, approve and apply."""

from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import Model
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.html import format_html_join
from django.utils.safestring import SafeString
from unfold.contrib.filters.admin import ChoicesDropdownFilter, RangeDateTimeFilter
from unfold.decorators import display
from unfold.widgets import UnfoldAdminTextareaWidget

from apps.accounts.admin_steps import ReasonedForm, ServiceFormAdmin, Step, StepAdmin
from apps.accounts.roles import Scope
from apps.audit.models import AuditEvent
from apps.core.admin import ScopedAdmin
from apps.core.admin_display import EMPTY, chip, link, size, state_column
from apps.kernels import services
from apps.kernels.admin.steps import told_plan
from apps.kernels.lifecycle import PlanState
from apps.kernels.models import RetentionItem, RetentionPlan, RetentionPolicy

PLAN_LABELS = {
    PlanState.PLANNED: "info",
    PlanState.APPROVED: "warning",
    PlanState.APPLIED: "success",
    PlanState.DISCARDED: "default",
}
OUTCOME_LABELS = {"retired": "success", "protected": "warning", "changed": "warning"}
CRITERIA = (
    *("unused_for_days", "older_than_days", "metric", "metric_below", "risk_above"),
    *("keep_latest", "keep_best", "storage_cap_bytes"),
)
GUARDS = ("max_share", "max_bytes", "grace_days", "purge_after_days")

LABELS = {
    "is_enabled": "Makes plans daily",
    "match": "Kernels",
    "unused_for_days": "Unused for (days)",
    "older_than_days": "Older than (days)",
    "keep_latest": "All but the newest",
    "keep_best": "All but the best",
    "storage_cap_bytes": "Storage cap (bytes)",
    "max_share": "Largest share",
    "max_bytes": "Most bytes",
    "grace_days": "Grace (days)",
    "purge_after_days": "Restorable for (days)",
}
HELP = {
    "is_enabled": "A plan to be looked at; none is ever applied by itself.",
    "match": "In the language of the search: tags.arch = 'conv' and usage_count < 3. Empty: every kernel.",
    "metric": "A key of the kernels' metrics: what the next field and “All but the best” look at.",
    "metric_below": "Kernels without the metric stay.",
    "risk_above": "0 to 1: the probability that the next graft is not kept. Kernels without outcomes stay.",
    "storage_cap_bytes": "The least recently used go until the others fit.",
    "max_share": "0 to 1: of the kernels in use, what one plan may retire.",
    "max_bytes": "What one plan may retire.",
    "grace_days": "Younger kernels stay.",
    "purge_after_days": "After that the bytes are freed for good.",
}


# --- Policies


class PolicyForm(ReasonedForm):
    class Meta:
        model = RetentionPolicy
        fields = ["name", "description", "is_enabled", "match", *CRITERIA, *GUARDS]
        labels = LABELS
        help_texts = HELP
        widgets = {"match": UnfoldAdminTextareaWidget(attrs={"rows": 2, "class": "font-mono", "spellcheck": "false"})}

    def write(self) -> RetentionPolicy:
        return services.create_policy(**self.cleaned_data, actor=self.actor)


class PolicyChangeForm(PolicyForm):
    class Meta(PolicyForm.Meta):
        fields = ["description", "is_enabled", "match", *CRITERIA, *GUARDS]

    def write(self) -> RetentionPolicy:
        return services.update_policy(policy=self.instance, **self.cleaned_data, actor=self.actor)


PLAN = Step(
    title="Make a plan",
    promises=(
        "What the policy would retire now is written down, with reasons and bytes: no kernel is touched.",
        "Nothing is retired before somebody approves the plan and somebody applies it.",
        "A plan that nobody applies within 24 hours expires.",
    ),
    done="has a new plan",
    call=lambda policy, actor, data: services.make_plan(policy=policy, reason=data["reason"], actor=actor),
    tell=told_plan,
    icon="checklist",
    is_primary=True,
    is_for_many=False,
)


@admin.register(RetentionPolicy)
class RetentionPolicyAdmin(ServiceFormAdmin):
    read_scope, write_scope = Scope.LIBRARY_READ, Scope.LIBRARY_WRITE
    subject_type = "retention_policy"
    add_form, change_form = PolicyForm, PolicyChangeForm
    steps = {"make_plan": PLAN}

    list_display = ["name", "is_enabled", "criteria", "match", "updated_at"]
    list_filter = ["is_enabled"]
    search_fields = ["name", "description", "match", "id__exact"]
    ordering = ["name"]
    fieldsets = [
        (None, {"fields": ["name", "description", "is_enabled", "match"]}),
        ("Criteria: all that are set must hold", {"fields": [*CRITERIA]}),
        ("Guards", {"fields": [*GUARDS]}),
    ]
    add_fieldsets = [*fieldsets, ("Why", {"fields": ["reason"]})]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        return ["name"] if obj is not None else []

    def after_step(self, request: HttpRequest, row: Model, step: Step, result: Any) -> HttpResponse:
        """To the plan that was made: it is there to be looked at."""
        super().after_step(request, row, step, result)
        return HttpResponseRedirect(reverse("admin:kernels_retentionplan_change", args=[str(result.pk)]))

    @display(description="criteria")
    def criteria(self, policy: RetentionPolicy) -> str:
        found = ((name, getattr(policy, name)) for name in CRITERIA)
        return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in found if value not in {None, ""})


# --- Plans


def _told_application(events: list[AuditEvent]) -> tuple[str, ...]:
    done = events[-1].payload
    return tuple(f"{count} {outcome}" for outcome, count in done.items() if count) or ("retires nothing",)


APPROVE = Step(
    title="Approve",
    promises=(
        "The plan may be applied from now on, until it expires.",
        "No kernel is touched by the approval.",
    ),
    done="approved",
    call=lambda plan, actor, data: services.approve_plan(plan=plan, reason=data["reason"], actor=actor),
    offered=lambda plan: plan.state == PlanState.PLANNED,
    icon="check",
    is_primary=True,
)
APPLY = Step(
    title="Apply",
    promises=(
        "The kernels of the plan leave the library; each can be restored until its grace ends.",
        "Only kernels that have not changed since, that the policy still condemns and that nothing protects.",
        "The others are left alone, and the plan says why. More than 100 are retired in the background.",
        "The reason is the one that it was approved with.",
    ),
    done=lambda plan: ", ".join(f"{count} {outcome}" for outcome, count in plan.outcome.items()) or "nothing to retire",
    call=lambda plan, actor, data: services.apply_plan(plan=plan, actor=actor),
    form=forms.Form,
    tell=_told_application,
    offered=lambda plan: plan.state == PlanState.APPROVED,
    icon="inventory_2",
    is_destructive=True,
    is_for_many=False,
)
DISCARD = Step(
    title="Discard",
    promises=("The plan is given up: it can no longer be approved or applied.", "No kernel is touched."),
    done="discarded",
    call=lambda plan, actor, data: services.discard_plan(plan=plan, reason=data["reason"], actor=actor),
    offered=lambda plan: plan.state in {PlanState.PLANNED, PlanState.APPROVED},
    icon="delete",
)


@admin.register(RetentionPlan)
class RetentionPlanAdmin(StepAdmin):
    read_scope, write_scope = Scope.LIBRARY_READ, Scope.LIBRARY_WRITE
    subject_type = "retention_plan"
    steps = {"approve": APPROVE, "apply": APPLY, "discard": DISCARD}

    list_display = ["plan", "policy_link", "state_label", "item_count", "freed", "outcome_text", "expires_at"]
    list_filter = [
        ("state", ChoicesDropdownFilter),
        ("policy", admin.RelatedOnlyFieldListFilter),
        ("created_at", RangeDateTimeFilter),
    ]
    list_select_related = ["policy"]
    search_fields = ["policy__name", "id__exact"]
    fieldsets = [
        (None, {"fields": ["policy_link", "state_label", "item_count", "freed", "expires_at"]}),
        ("Kept, and why", {"fields": ["kept_text"]}),
        ("Applied", {"fields": ["outcome_text"]}),
        ("Row", {"fields": ["workspace", "id", "created_at", "updated_at"]}),
    ]

    state_label = state_column(PLAN_LABELS)

    @display(description="plan", ordering="-id")
    def plan(self, plan: RetentionPlan) -> str:
        return str(plan)

    @display(description="policy", ordering="policy__name")
    def policy_link(self, plan: RetentionPlan) -> str:
        return link(plan.policy)

    @display(description="bytes that its purge frees", ordering="byte_count")
    def freed(self, plan: RetentionPlan) -> str:
        return size(plan.byte_count)

    @display(description="condemned, and kept for")
    def kept_text(self, plan: RetentionPlan) -> str | SafeString:
        return format_html_join("", "<div>{}: {}</div>", plan.kept.items()) or "none"

    @display(description="outcome")
    def outcome_text(self, plan: RetentionPlan) -> str:
        return ", ".join(f"{count} {outcome}" for outcome, count in plan.outcome.items()) or EMPTY


@admin.register(RetentionItem)
class RetentionItemAdmin(ScopedAdmin):
    """The kernels of plans: why each would go, and what became of it."""

    read_scope = Scope.LIBRARY_READ

    list_display = ["kernel_link", "plan_link", "reason", "freed", "outcome_label", "detail"]
    list_filter = ["outcome"]
    list_select_related = ["kernel", "plan__policy"]
    search_fields = ["kernel__name", "plan__id__exact", "kernel__id__exact", "reason"]
    fields = ["kernel_link", "plan_link", "reason", "freed", "outcome_label", "detail", "row_version", "id"]

    @display(description="kernel", ordering="kernel__name")
    def kernel_link(self, item: RetentionItem) -> str:
        return link(item.kernel)

    @display(description="plan")
    def plan_link(self, item: RetentionItem) -> str:
        return link(item.plan)

    @display(description="bytes", ordering="bytes")
    def freed(self, item: RetentionItem) -> str:
        return size(item.bytes)

    @display(description="outcome", ordering="outcome")
    def outcome_label(self, item: RetentionItem) -> str:
        return chip(item.outcome, OUTCOME_LABELS.get(item.outcome, "")) if item.outcome else EMPTY
