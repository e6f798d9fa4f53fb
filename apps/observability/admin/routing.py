"""Routes with the buttons that people have on them, and what was sent over them."""

from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html_join
from django.utils.safestring import SafeString
from unfold.contrib.filters.admin import ChoicesDropdownFilter, RangeDateTimeFilter
from unfold.decorators import display
from unfold.widgets import UnfoldAdminTextareaWidget, UnfoldAdminTextInputWidget

from apps.accounts.admin import SecretOnceAdmin
from apps.accounts.admin_steps import PrettyJSONField, ReasonedForm, Step, StepAdmin
from apps.accounts.roles import Scope
from apps.core.admin_display import EMPTY, chip, link_to, number, state_column
from apps.observability.lifecycle import NotificationState
from apps.observability.models import AlertRoute, Channel, Notification
from apps.observability.selectors.notifications import shown_target
from apps.observability.services import delivering, notifying, routes

TIMES = ("group_wait_seconds", "group_interval_seconds", "repeat_interval_seconds")
FIELDS = ("name", "target", "matchers", "group_by", *TIMES, "send_resolved", "enabled")
LABELS = {
    "group_by": "Group by",
    "group_wait_seconds": "Wait (seconds)",
    "group_interval_seconds": "Between changes (seconds)",
    "repeat_interval_seconds": "Repeat after (seconds)",
    "send_resolved": "Tell of the end",
}
HELP = {
    "target": "E-mail addresses, one a line; or the URL of the webhook.",
    "group_by": "Labels with commas between them. Empty: one message for all alerts.",
    "group_wait_seconds": "Before the first message of a group.",
    "group_interval_seconds": "At least so long after the last message of a group, when alerts come or end.",
    "repeat_interval_seconds": "When nothing has changed, and nobody has acknowledged the alerts.",
}
STATES = {
    NotificationState.PENDING: "info",
    NotificationState.SENDING: "warning",
    NotificationState.DELIVERED: "success",
    NotificationState.FAILED: "danger",
}


class RouteChangeForm(ReasonedForm):
    matchers = PrettyJSONField(
        required=False,
        help_text='[{"label": "severity", "op": "=~", "value": "warning|critical"}]; empty: every alert.',
    )

    class Meta:
        model = AlertRoute
        fields = [*FIELDS]
        labels = LABELS
        help_texts = HELP
        widgets = {"target": UnfoldAdminTextareaWidget(attrs={"rows": 3, "class": "font-mono"})}

    @property
    def answers(self) -> dict[str, Any]:
        return {**self.cleaned_data, "matchers": self.cleaned_data["matchers"] or []}

    def write(self) -> AlertRoute:
        return routes.change_route(route=self.instance, **self.answers, actor=self.actor)


class RouteForm(RouteChangeForm):
    secret: Any = forms.CharField(
        required=False,
        widget=UnfoldAdminTextInputWidget,
        help_text="What webhooks are signed with. Empty: one is made, and shown once.",
    )

    class Meta(RouteChangeForm.Meta):
        fields = ["channel", *FIELDS]

    def write(self) -> AlertRoute:
        route, self.secret = routes.create_route(**self.answers, actor=self.actor)
        return route


ROTATE = Step(
    title="Rotate the secret",
    promises=(
        "Messages are signed with a new secret from now on, also those that are tried again.",
        "It is shown once: whoever receives them refuses them until it knows the new one.",
    ),
    done="has another secret",
    call=lambda route, actor, data: routes.rotate_secret(route=route, actor=actor, reason=data["reason"]),
    offered=lambda route: route.channel == Channel.WEBHOOK,
    icon="key",
    is_for_many=False,
)
TEST = Step(
    title="Send a test",
    promises=("A message about a test alert goes over the route within seconds.", "No alert is raised."),
    done="a test is on its way",
    call=lambda route, actor, data: notifying.send_test(route=route, actor=actor, reason=data["reason"]),
    icon="send",
    is_primary=True,
)
REMOVE = Step(
    title="Remove",
    promises=(
        "Nobody is told over this route any more; what is under way is given up.",
        "What it sent stays on record.",
    ),
    done="removed",
    call=lambda route, actor, data: routes.remove_route(route=route, actor=actor, reason=data["reason"]),
    icon="delete",
    is_destructive=True,
)


@admin.register(AlertRoute)
class AlertRouteAdmin(SecretOnceAdmin):
    read_scope, write_scope = Scope.RUNS_READ, Scope.RUNS_WRITE
    subject_type = "alert_route"
    secret_name = "Secret"  # noqa: S105 - a heading
    secret_kept = "Messages are signed with it, and nobody can show it again."  # noqa: S105 - a sentence
    add_form, change_form = RouteForm, RouteChangeForm
    steps = {"test": TEST, "rotate_secret": ROTATE, "remove": REMOVE}
    neighbours = (("observability.notification", "route_id", "id"),)

    list_display = ["name", "channel", "first_target", "groups", "enabled", "updated_at"]
    list_filter = [("channel", ChoicesDropdownFilter), "enabled"]
    search_fields = ["name__icontains", "id__exact"]
    fieldsets = [
        (None, {"fields": ["name", "channel", "target", "enabled"]}),
        ("Which alerts, and when", {"fields": ["matchers", "group_by", *TIMES, "send_resolved"]}),
    ]
    add_fieldsets = [
        (None, {"fields": ["name", "channel", "target", "secret", "enabled"]}),
        ("Which alerts, and when", {"fields": ["matchers", "group_by", *TIMES, "send_resolved"]}),
        ("Why", {"fields": ["reason"]}),
    ]

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        fieldsets = super().get_fieldsets(request, obj)
        if self.has_write_permission(request):
            return fieldsets
        (title, first), *rest = fieldsets
        return [(title, {**first, "fields": ["name", "channel", "first_target", "enabled"]}), *rest]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        if not self.has_write_permission(request):
            return [*super().get_readonly_fields(request, obj), "first_target"]
        return ["channel"] if obj is not None else []

    def after_step(self, request: HttpRequest, row: Any, step: Step, result: Any) -> HttpResponse:
        if step is not ROTATE:
            return super().after_step(request, row, step, result)
        route, secret = result
        return self.show_once(request, route, secret)

    @display(description="goes to")
    def first_target(self, route: AlertRoute) -> str:
        first, *others = shown_target(route).splitlines() or [EMPTY]
        return f"{first[:60]} and {len(others)} more" if others else first[:60]

    @display(description="grouped by")
    def groups(self, route: AlertRoute) -> str:
        return ", ".join(route.group_by) or EMPTY


RETRY = Step(
    title="Try again",
    promises=("It is sent again at once, and as often as a new one.", "Whoever has it already may get it twice."),
    done="is tried again",
    call=lambda row, actor, data: delivering.retry_notification(notification=row, actor=actor, reason=data["reason"]),
    offered=lambda row: row.state == NotificationState.FAILED,
    icon="replay",
)


@admin.register(Notification)
class NotificationAdmin(StepAdmin):
    """Messages and what became of them, to be read."""

    read_scope, write_scope = Scope.RUNS_READ, Scope.RUNS_WRITE
    subject_type = "notification"
    steps = {"retry": RETRY}

    list_display = ["message", "state_label", "route_link", "attempts", "problem", "created_at", "delivered_at"]
    list_filter = [
        ("state", ChoicesDropdownFilter),
        ("channel", ChoicesDropdownFilter),
        ("created_at", RangeDateTimeFilter),
    ]
    search_fields = ["id__exact", "route_id__exact", "route_name__icontains"]
    fieldsets = [
        (None, {"fields": ["message", "state_label", "route_link", "channel", "problem"]}),
        ("Tries", {"fields": ["attempts", "due_at", "delivered_at", "tries_text"]}),
        ("What it says", {"fields": ["payload"]}),
        ("Row", {"fields": ["workspace", "id", "group_key", "created_at"]}),
    ]

    state_label = state_column(STATES)

    @display(description="message", ordering="-id")
    def message(self, row: Notification) -> SafeString:
        status = row.payload.get("status", "")
        return chip(f"{status}: {len(row.alerts) or 1}", "danger" if status == "firing" else "success")

    @display(description="route", ordering="route_name")
    def route_link(self, row: Notification) -> str | SafeString:
        return link_to("observability.alertroute", row.route_id, row.route_name)

    @display(description="tries")
    def tries_text(self, row: Notification) -> str | SafeString:
        lines = [
            (f"{each.at:%Y-%m-%d %H:%M:%S}", number(each.seconds, ".2f"), each.problem or "delivered")
            for each in row.tries.order_by("pk")
        ]
        return format_html_join("", "<div>{} UTC, {} s: {}</div>", lines) or EMPTY
