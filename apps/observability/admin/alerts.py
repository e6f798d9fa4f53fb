"""Alerts with the buttons that people have on them, and silences."""

from datetime import timedelta
from typing import Any

from django import forms
from django.contrib import admin
from django.utils.html import format_html_join
from django.utils.safestring import SafeString
from unfold.contrib.filters.admin import ChoicesDropdownFilter, RangeDateTimeFilter
from unfold.decorators import display
from unfold.widgets import UnfoldAdminTextareaWidget, UnfoldAdminTextInputWidget

from apps.accounts.admin_steps import (
    PrettyJSONField,
    ReasonForm,
    ServiceForm,
    ServiceFormAdmin,
    Step,
    StepAdmin,
)
from apps.accounts.roles import Scope
from apps.core.admin_display import EMPTY, chip, link_to, number, state_column, whole
from apps.observability import matchers as matching
from apps.observability.lifecycle import OPEN, AlertState
from apps.observability.models import Alert, Severity, Silence
from apps.observability.selectors.alerts import muted, state_of
from apps.observability.services import alerts, silences

STATES = {AlertState.PENDING: "info", AlertState.FIRING: "danger", AlertState.RESOLVED: "success"}
SEVERITIES = {Severity.INFO: "info", Severity.WARNING: "warning", Severity.CRITICAL: "danger"}
SILENCES = {"pending": "info", "active": "warning", "over": ""}
MATCHERS_HELP = '[{"label": "host", "op": "=", "value": "mill"}]; op is one of =, !=, =~, !~.'
HOURS = silences.LONGEST.total_seconds() / 3600


def _lines(pairs: Any) -> str | SafeString:
    return format_html_join("", "<div>{}</div>", ((f"{name}: {value}",) for name, value in pairs)) or EMPTY


# --- Alerts


class SilenceForm(ReasonForm):
    hours = forms.FloatField(
        min_value=0.01, max_value=HOURS, initial=2, widget=UnfoldAdminTextInputWidget, help_text="From now on."
    )
    field_order = ["hours", "reason"]


ACKNOWLEDGE = Step(
    title="Acknowledge",
    promises=(
        "Everybody sees that you have seen it; what you write stands beside it.",
        "It is not told again while it fires. Its end is told.",
    ),
    done="acknowledged",
    call=lambda alert, actor, data: alerts.acknowledge(alert=alert, note=data["reason"], actor=actor),
    offered=lambda alert: alert.state in OPEN,
    icon="check",
    is_primary=True,
)
SILENCE = Step(
    title="Silence",
    promises=(
        "Nobody is notified of alerts with exactly these labels until then: this one, and its next episodes.",
        "The alert goes on; the silence can be ended at any time.",
    ),
    done="silenced",
    call=lambda alert, actor, data: silences.silence_alert(
        alert=alert, duration=timedelta(hours=data["hours"]), comment=data["reason"], actor=actor
    ),
    form=SilenceForm,
    offered=lambda alert: alert.state in OPEN,
    icon="notifications_off",
)


@admin.register(Alert)
class AlertAdmin(StepAdmin):
    read_scope, write_scope = Scope.RUNS_READ, Scope.RUNS_WRITE
    subject_type = "alert"
    steps = {"acknowledge": ACKNOWLEDGE, "silence": SILENCE}

    list_display = ["summary", "state_label", "severity_label", "rule_link", "value_shown", "seen", "started_at"]
    list_filter = [
        ("state", ChoicesDropdownFilter),
        ("severity", ChoicesDropdownFilter),
        ("started_at", RangeDateTimeFilter),
    ]
    search_fields = ["rule_name__icontains", "metric__exact", "run_id__exact", "rule_id__exact", "id__exact"]
    fieldsets = [
        (None, {"fields": ["summary", "state_label", "severity_label", "remedy", "muted_by"]}),
        ("What was seen", {"fields": ["metric", "value_shown", "threshold_shown", "evidence_lines", "labels_lines"]}),
        ("Since when", {"fields": ["started_at", "fired_at", "resolved_at", "last_true_at", "last_seen_at"]}),
        ("Who has seen it", {"fields": ["acknowledged_at", "acknowledged_by", "note"]}),
        ("Row", {"fields": ["rule_link", "run_link", "fingerprint_whole", "workspace", "id"]}),
    ]

    state_label = state_column(STATES)
    severity_label = state_column(SEVERITIES, "severity")

    @display(description="rule", ordering="rule_name")
    def rule_link(self, alert: Alert) -> str | SafeString:
        return link_to("observability.alertrule", alert.rule_id, alert.rule_name)

    @display(description="run")
    def run_link(self, alert: Alert) -> str | SafeString:
        return link_to("training.trainingrun", alert.run_id)

    @display(description="value", ordering="value")
    def value_shown(self, alert: Alert) -> str:
        return number(alert.value)

    @display(description="threshold")
    def threshold_shown(self, alert: Alert) -> str:
        return number(alert.threshold)

    @display(description="acknowledged", boolean=True, ordering="acknowledged_at")
    def seen(self, alert: Alert) -> bool:
        return alert.acknowledged_at is not None

    @display(description="by")
    def acknowledged_by(self, alert: Alert) -> str | SafeString:
        return link_to("accounts.user", alert.acknowledged_by_id)

    @display(description="evidence")
    def evidence_lines(self, alert: Alert) -> str | SafeString:
        return _lines(sorted(alert.evidence.items()))

    @display(description="labels")
    def labels_lines(self, alert: Alert) -> str | SafeString:
        return _lines(sorted(alert.labels.items()))

    @display(description="nobody is notified because of")
    def muted_by(self, alert: Alert) -> str:
        found = muted(alert)
        return (
            ", ".join(
                [f"silence {key}" for key in found.silences]
                + [f"alert {key}, which fires" for key in found.inhibited_by]
            )
            or EMPTY
        )

    @display(description="fingerprint")
    def fingerprint_whole(self, alert: Alert) -> str | SafeString:
        return whole(alert.fingerprint)


# --- Silences


class NewSilenceForm(ServiceForm):
    matchers = PrettyJSONField(initial=list, help_text=f"{MATCHERS_HELP} All of them have to fit.")
    hours = forms.FloatField(
        min_value=0.01, max_value=HOURS, initial=2, widget=UnfoldAdminTextInputWidget, help_text="From now on."
    )

    class Meta:
        model = Silence
        fields = ["matchers", "comment"]
        help_texts = {"comment": "Why: it stands in the audit trail, too."}
        widgets = {"comment": UnfoldAdminTextareaWidget(attrs={"rows": 2})}

    def write(self) -> Silence:
        return silences.create_silence(
            matchers=self.cleaned_data["matchers"],
            duration=timedelta(hours=self.cleaned_data["hours"]),
            comment=self.cleaned_data["comment"],
            actor=self.actor,
        )


END = Step(
    title="End it",
    promises=("People are notified again of what still fires.",),
    done="over",
    call=lambda silence, actor, data: silences.end_silence(silence=silence, actor=actor, reason=data["reason"]),
    offered=lambda silence: state_of(silence) != "over",
    icon="notifications_active",
    is_primary=True,
)


@admin.register(Silence)
class SilenceAdmin(ServiceFormAdmin):
    read_scope, write_scope = Scope.RUNS_READ, Scope.RUNS_WRITE
    subject_type = "silence"
    add_form = NewSilenceForm
    steps = {"end": END}

    list_display = ["comment", "state_now", "matchers_text", "starts_at", "ends_at"]
    list_filter = [("starts_at", RangeDateTimeFilter), ("ends_at", RangeDateTimeFilter)]
    search_fields = ["comment__icontains", "id__exact"]
    fieldsets = [
        (None, {"fields": ["comment", "state_now", "matchers_text", "starts_at", "ends_at"]}),
        ("Row", {"fields": ["created_by", "workspace", "id", "created_at"]}),
    ]
    add_fieldsets = [(None, {"fields": ["matchers", "hours", "comment"]})]

    @display(description="state")
    def state_now(self, silence: Silence) -> SafeString:
        state = state_of(silence)
        return chip(state, SILENCES[state])

    @display(description="of alerts with")
    def matchers_text(self, silence: Silence) -> str:
        return ", ".join(map(str, matching.parse(silence.matchers)))

    @display(description="made by")
    def created_by(self, silence: Silence) -> str | SafeString:
        return link_to("accounts.user", silence.created_by_id)
