"""`/alerts`: what is wrong, who has seen it, and what silences it."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from django.urls import path
from django_filters import rest_framework as filters
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from apps.audit.api.as_of import PastView
from apps.core.actors import actor_of
from apps.core.api import DetailView, ListView
from apps.core.filters import any_of
from apps.core.idempotency import idempotent
from apps.observability.api import alert_rules, silences
from apps.observability.api.alert_forms import Acknowledgement, AlertSerializer, AlertSilence, SilenceSerializer
from apps.observability.lifecycle import OPEN, AlertState
from apps.observability.models import Alert, Severity
from apps.observability.selectors.alerts import Muting, muted_ids, mutings
from apps.observability.services import alerts
from apps.observability.services.silences import silence_alert

BOOLEANS = {"true": True, "false": False}


def _flag(ask: Callable[[QuerySet[Alert], bool], QuerySet[Alert]], label: str) -> filters.ChoiceFilter:
    def method(queryset: QuerySet[Alert], name: str, value: str) -> QuerySet[Alert]:
        return ask(queryset, BOOLEANS[value])

    return filters.ChoiceFilter(
        choices=[(text, text) for text in BOOLEANS],
        method=method,
        label=label,
        error_messages={"invalid_choice": "%(value)s: must be one of true, false"},
    )


def _muted(queryset: QuerySet[Alert], wanted: bool) -> QuerySet[Alert]:
    of_open = queryset.filter(state__in=OPEN)
    return of_open.filter(pk__in=muted_ids()) if wanted else of_open.exclude(pk__in=muted_ids())


class AlertFilter(filters.FilterSet):
    state = any_of(AlertState)
    severity = any_of(Severity.values)
    rule = filters.UUIDFilter(field_name="rule_id")
    run = filters.UUIDFilter(field_name="run_id")
    muted = _flag(_muted, "open ones of which nobody is notified, or of which somebody is")
    acknowledged = _flag(
        lambda queryset, wanted: queryset.filter(acknowledged_at__isnull=not wanted), "whether somebody has seen it"
    )

    class Meta:
        model = Alert
        fields: list[str] = []


class OfAlerts:
    """Looks once what mutes all alerts that it shows."""

    _mutings: dict[UUID, Muting]

    def look(self, alerts: list[Alert]) -> None:
        self._mutings = mutings(alerts)

    def muting(self, alert: Alert) -> Muting:
        if alert.pk not in getattr(self, "_mutings", {}):
            self.look([alert])
        return self._mutings[alert.pk]


class AlertListView(OfAlerts, ListView):
    """Alerts, newest first; resolved ones stay."""

    queryset = Alert.objects.all()
    serializer_class = AlertSerializer
    filterset_class = AlertFilter
    scopes = {"GET": "runs:read"}

    def paginate_queryset(self, queryset: Any) -> Any:
        page = super().paginate_queryset(queryset)
        self.look(list(page or ()))
        return page


class AlertView(OfAlerts, PastView):
    """One alert."""

    queryset = Alert.objects.all()
    serializer_class = AlertSerializer
    content_tagged = True
    scopes = {"GET": "runs:read"}


class DoneToAlert(OfAlerts, DetailView):
    queryset = Alert.objects.all()
    serializer_class = AlertSerializer
    content_tagged = True
    conditional = False
    scopes = {"POST": "runs:write"}
    http_method_names = ["post"]


class AcknowledgeView(DoneToAlert):
    @extend_schema(request=Acknowledgement, responses=AlertSerializer)
    @idempotent
    def post(self, request: Request, id: UUID) -> Response:
        """Say that you have seen an open alert: it is not told again while it fires. A newer note replaces an older."""
        given = self.parse(Acknowledgement)
        alert = alerts.acknowledge(alert=self.get_object(), actor=actor_of(request), **given)
        return self.show(alert, AlertSerializer)


class SilenceAlertView(DoneToAlert):
    @extend_schema(request=AlertSilence, responses={201: SilenceSerializer})
    @idempotent
    def post(self, request: Request, id: UUID) -> Response:
        """Notify nobody for some hours of alerts with exactly the labels of this one: it, and its next episodes."""
        given = self.parse(AlertSilence)
        silence = silence_alert(
            alert=self.get_object(),
            duration=timedelta(hours=given["hours"]),
            comment=given["comment"],
            actor=actor_of(request),
        )
        location = f"/api/v1/silences/{silence.pk}"
        return self.show(silence, SilenceSerializer, code=201, location=location)


urlpatterns = [
    path("alerts", AlertListView.as_view()),
    path("alerts/<uuid:id>", AlertView.as_view()),
    path("alerts/<uuid:id>/acknowledge", AcknowledgeView.as_view()),
    path("alerts/<uuid:id>/silence", SilenceAlertView.as_view()),
    *alert_rules.urlpatterns,
    *silences.urlpatterns,
]
