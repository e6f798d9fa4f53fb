"""Alert rules that people write, and those that came with the platform."""

from typing import Any

from django.contrib import admin
from django.db.models import Model
from unfold.contrib.filters.admin import ChoicesDropdownFilter
from unfold.decorators import display
from unfold.widgets import UnfoldAdminTextareaWidget

from apps.accounts.admin_steps import PrettyJSONField, ReasonedForm, ServiceFormAdmin, Step
from apps.accounts.roles import Scope
from apps.core.admin_display import state_column
from apps.observability.admin.alerts import MATCHERS_HELP, SEVERITIES
from apps.observability.models import AlertRule
from apps.observability.services import rules

ABOUT = ("name", "description", "severity", "enabled")
LOOKS_FOR = ("kind", "metric", "matchers", "parameters", "for_seconds", "keep_firing_seconds")
SAYS = ("summary", "remedy", "labels", "inhibited_by")


class RuleForm(ReasonedForm):
    matchers = PrettyJSONField(required=False, initial=list, help_text=f"{MATCHERS_HELP} Empty: every series.")
    parameters = PrettyJSONField(required=False, initial=dict, help_text="As the kind asks for: docs/alerts.md.")
    labels = PrettyJSONField(required=False, initial=dict, help_text='{"team": "vision"}')
    inhibited_by = PrettyJSONField(
        required=False,
        initial=list,
        help_text='[{"rule": "Disk is nearly full", "equal": ["host", "disk"]}]: nobody is notified while that fires.',
    )

    class Meta:
        model = AlertRule
        fields = [*ABOUT, *LOOKS_FOR, *SAYS]
        labels = {"for_seconds": "For (seconds)", "keep_firing_seconds": "Keep firing (seconds)"}
        help_texts = {
            "metric": "Its name; * for every one, with anomalies.",
            "for_seconds": "The condition has to hold for so long before it fires.",
            "keep_firing_seconds": "It has to be over for so long before it is resolved.",
            "summary": "What its alerts say: {value}, {threshold}, {metric} and {<label>} are filled in.",
            "remedy": "What to do about it.",
        }
        widgets = {
            "description": UnfoldAdminTextareaWidget(attrs={"rows": 2}),
            "remedy": UnfoldAdminTextareaWidget(attrs={"rows": 2}),
        }

    @property
    def answers(self) -> dict[str, Any]:
        """An empty field of JSON is an empty list or object."""
        empty: dict[str, Any] = {"matchers": [], "parameters": {}, "labels": {}, "inhibited_by": []}
        return {**self.cleaned_data, **{name: self.cleaned_data[name] or value for name, value in empty.items()}}

    def write(self) -> AlertRule:
        return rules.create_rule(**self.answers, actor=self.actor)


class RuleChangeForm(RuleForm):
    def write(self) -> AlertRule:
        return rules.change_rule(rule=self.instance, **self.answers, actor=self.actor)


REMOVE = Step(
    title="Remove",
    promises=("The rule is gone, and its open alerts are resolved.", "Its alerts stay on record."),
    done="removed",
    call=lambda rule, actor, data: rules.remove_rule(rule=rule, actor=actor, reason=data["reason"]),
    offered=lambda rule: not rule.shipped,
    icon="delete",
    is_destructive=True,
)
RESET = Step(
    title="Reset",
    promises=("Everything about the rule is as it came with the platform, its name included.",),
    done="as it was shipped",
    call=lambda rule, actor, data: rules.reset_rule(rule=rule, actor=actor, reason=data["reason"]),
    offered=lambda rule: bool(rule.shipped),
    icon="restart_alt",
)
DISABLE = Step(
    title="Disable",
    promises=("The rule is not applied any more, and its open alerts are resolved.",),
    done="disabled",
    call=lambda rule, actor, data: rules.change_rule(rule=rule, enabled=False, actor=actor, reason=data["reason"]),
    offered=lambda rule: rule.enabled,
    icon="toggle_off",
)
ENABLE = Step(
    title="Enable",
    promises=("The rule is applied within 15 seconds, and every 15 seconds from then on.",),
    done="enabled",
    call=lambda rule, actor, data: rules.change_rule(rule=rule, enabled=True, actor=actor, reason=data["reason"]),
    offered=lambda rule: not rule.enabled,
    icon="toggle_on",
)


@admin.register(AlertRule)
class AlertRuleAdmin(ServiceFormAdmin):
    read_scope, write_scope = Scope.RUNS_READ, Scope.RUNS_WRITE
    subject_type = "alert_rule"
    add_form, change_form = RuleForm, RuleChangeForm
    steps = {"enable": ENABLE, "disable": DISABLE, "reset": RESET, "remove": REMOVE}
    neighbours = (("observability.alert", "rule_id", "id"),)

    list_display = ["name", "kind", "metric", "severity_label", "enabled", "is_shipped", "updated_at"]
    list_filter = [("kind", ChoicesDropdownFilter), ("severity", ChoicesDropdownFilter), "enabled"]
    search_fields = ["name__icontains", "metric__icontains", "id__exact"]
    fieldsets = [
        (None, {"fields": [*ABOUT]}),
        ("What it looks for", {"fields": [*LOOKS_FOR]}),
        ("What its alerts say", {"fields": [*SAYS]}),
    ]
    add_fieldsets = [*fieldsets, ("Why", {"fields": ["reason"]})]

    severity_label = state_column(SEVERITIES, "severity")

    @display(description="shipped", boolean=True)
    def is_shipped(self, rule: AlertRule) -> bool:
        return bool(rule.shipped)

    def get_readonly_fields(self, request: Any, obj: Model | None = None) -> list[Any]:
        return [] if self.has_write_permission(request) else super().get_readonly_fields(request, obj)
