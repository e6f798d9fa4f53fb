"""What clients send about routes, and routes and notifications as they read them."""

from typing import Any

from django_filters import rest_framework as filters
from rest_framework import serializers

from apps.accounts.roles import Scope
from apps.core.filters import any_of
from apps.core.permissions import scopes_of
from apps.core.serializers import Choice, Flag, JSONObject, Text, Whole
from apps.kernels.api.serializers import Reason
from apps.observability.api.matching import LabelMatcher
from apps.observability.lifecycle import NotificationState
from apps.observability.matchers import MOST
from apps.observability.models import AlertRoute, Channel, DeliveryAttempt, Notification
from apps.observability.selectors.notifications import shown_target
from apps.observability.services.routes import BOUNDS, MOST_LABELS

SECRET_HELP = "what webhooks are signed with, 16 to 200 visible ASCII characters; left out: one is made"  # noqa: S105
TARGET_HELP = "e-mail addresses, one a line; or the URL of the webhook"


def _whole(name: str, help_text: str) -> Whole:
    least, most = BOUNDS[name]
    return Whole(min_value=least, max_value=most, required=False, help_text=help_text)


class AlertRouteChange(Reason):
    """What is left out stays as it is."""

    name = Text(max_length=80, required=False)
    target = Text(max_length=4000, required=False, help_text=TARGET_HELP)
    matchers = serializers.ListField(
        child=LabelMatcher(), required=False, max_length=MOST, help_text="empty: every alert"
    )
    group_by = serializers.ListField(
        child=Text(max_length=60),
        required=False,
        max_length=MOST_LABELS,
        help_text="alerts with the same values of these labels go into one message; empty: one message for all",
    )
    group_wait_seconds = _whole("group_wait_seconds", "before the first message of a group")
    group_interval_seconds = _whole("group_interval_seconds", "between messages of a group that has changed")
    repeat_interval_seconds = _whole("repeat_interval_seconds", "until a message is repeated without a change")
    send_resolved = Flag(required=False)
    enabled = Flag(required=False)


class NewAlertRoute(AlertRouteChange):
    name = Text(max_length=80)
    channel = Choice(choices=Channel.choices)
    target = Text(max_length=4000, help_text=TARGET_HELP)
    secret = Text(max_length=200, required=False, help_text=SECRET_HELP)


class NewSecret(Reason):
    secret = Text(max_length=200, required=False, help_text=SECRET_HELP)


class AlertRouteSerializer(serializers.ModelSerializer[AlertRoute]):
    """Whom to tell of which alerts. The secret of a webhook is never shown again.

    ``target``: without the scope runs:write the URL of a webhook ends after its host.
    """

    channel = serializers.ChoiceField(choices=Channel.choices, read_only=True)
    target = serializers.SerializerMethodField()
    matchers = LabelMatcher(many=True, read_only=True)
    has_secret = serializers.SerializerMethodField()

    class Meta:
        model = AlertRoute
        fields: tuple[str, ...] = (
            "id",
            "name",
            "channel",
            "target",
            "has_secret",
            "matchers",
            "group_by",
            "group_wait_seconds",
            "group_interval_seconds",
            "repeat_interval_seconds",
            "send_resolved",
            "enabled",
            "created_at",
            "updated_at",
        )
        read_only_fields = fields

    def get_target(self, route: AlertRoute) -> str:
        return route.target if Scope.RUNS_WRITE in scopes_of(self.context["request"]) else shown_target(route)

    def get_has_secret(self, route: AlertRoute) -> bool:
        return bool(route.secret)


class AlertRouteWithSecretSerializer(AlertRouteSerializer):
    """``secret`` is shown this once; empty where messages are not signed."""

    secret = serializers.CharField(read_only=True)

    class Meta(AlertRouteSerializer.Meta):
        fields = (*AlertRouteSerializer.Meta.fields, "secret")
        read_only_fields = fields


class DeliveryAttemptSerializer(serializers.ModelSerializer[DeliveryAttempt]):
    """``status``: HTTP status or SMTP code, null without an answer. An empty ``problem``: it was delivered."""

    class Meta:
        model = DeliveryAttempt
        fields = ("at", "seconds", "status", "problem")
        read_only_fields = fields


class NotificationSerializer(serializers.ModelSerializer[Notification]):
    """A message on its way over a route, and the tries to deliver it, oldest first."""

    state = serializers.ChoiceField(choices=list(NotificationState), read_only=True)
    channel = serializers.ChoiceField(choices=Channel.choices, read_only=True)
    alerts = serializers.ListField(child=serializers.UUIDField(), read_only=True)
    tries = DeliveryAttemptSerializer(many=True, read_only=True)

    class Meta:
        model = Notification
        fields: tuple[str, ...] = (
            "id",
            "route_id",
            "route_name",
            "channel",
            "group_key",
            "state",
            "alerts",
            "attempts",
            "created_at",
            "due_at",
            "delivered_at",
            "problem",
            "tries",
        )
        read_only_fields = fields


class NotificationDetailSerializer(NotificationSerializer):
    """``payload``: as Alertmanager's webhooks have it, version 4."""

    payload = JSONObject(read_only=True)

    class Meta(NotificationSerializer.Meta):
        fields = (*NotificationSerializer.Meta.fields, "payload")
        read_only_fields = fields


class RouteFilter(filters.FilterSet):
    channel = any_of(Channel.values)

    class Meta:
        model = AlertRoute
        fields: list[str] = []


class NotificationFilter(filters.FilterSet):
    state = any_of(NotificationState)
    route = filters.UUIDFilter(field_name="route_id")

    class Meta:
        model = Notification
        fields: list[str] = []


def tidied(given: dict[str, Any]) -> dict[str, Any]:
    """Checked input as services take it: matchers are plain JSON."""
    if "matchers" in given:
        given["matchers"] = [dict(matcher) for matcher in given["matchers"]]
    return given
