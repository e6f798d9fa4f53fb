"""`/alert-rules`: what people want to be told of."""

from uuid import UUID

from django.db import transaction
from django.db.models import QuerySet
from django.urls import path
from django_filters import rest_framework as filters
from drf_spectacular.utils import extend_schema
from rest_framework import status
from rest_framework.request import Request
from rest_framework.response import Response

from apps.audit.api.removal import REMOVAL, RemovableView
from apps.core.actors import actor_of
from apps.core.api import ApiView, DetailView, ListView
from apps.core.filters import any_of
from apps.core.idempotency import idempotent
from apps.kernels.api.serializers import Reason
from apps.observability.api.alert_forms import (
    AlertRuleChange,
    AlertRulePreviewSerializer,
    AlertRuleSerializer,
    NewAlertRule,
    tidied,
)
from apps.observability.models import AlertRule, RuleKind, Severity
from apps.observability.selectors.previews import preview
from apps.observability.services import rules

BOOLEANS = {"true": True, "false": False}


class AlertRuleFilter(filters.FilterSet):
    kind = any_of(RuleKind.values)
    severity = any_of(Severity.values)
    enabled = filters.ChoiceFilter(
        choices=[(text, text) for text in BOOLEANS],
        method="is_enabled",
        error_messages={"invalid_choice": "%(value)s: must be one of true, false"},
    )

    def is_enabled(self, queryset: QuerySet[AlertRule], name: str, value: str) -> QuerySet[AlertRule]:
        return queryset.filter(enabled=BOOLEANS[value])

    class Meta:
        model = AlertRule
        fields: list[str] = []


class AlertRuleListView(ListView):
    """Alert rules, newest first."""

    queryset = AlertRule.objects.all()
    serializer_class = AlertRuleSerializer
    filterset_class = AlertRuleFilter
    scopes = {"GET": "runs:read", "POST": "runs:write"}

    @extend_schema(request=NewAlertRule, responses={201: AlertRuleSerializer})
    @idempotent
    def post(self, request: Request) -> Response:
        """Write a rule. It is applied within 15 seconds to every series of its metric that its matchers admit."""
        given = tidied(self.parse(NewAlertRule))
        rule = rules.create_rule(actor=actor_of(request), **given)
        return self.show(rule, AlertRuleSerializer, code=201, location=f"/api/v1/alert-rules/{rule.pk}")


class AlertRuleView(RemovableView):
    """One alert rule."""

    queryset = AlertRule.objects.all()
    serializer_class = AlertRuleSerializer
    scopes = {"GET": "runs:read", "PATCH": "runs:write", "DELETE": "runs:write"}
    problems = {"DELETE": (409, 412, 428)}

    @extend_schema(request=AlertRuleChange, responses=AlertRuleSerializer)
    @transaction.atomic
    def patch(self, request: Request, id: UUID) -> Response:
        """Change a rule. If it looks for something else then, its open alerts are resolved and begin anew."""
        given = tidied(self.parse(AlertRuleChange))
        rule = rules.change_rule(rule=self.matched(), actor=actor_of(request), **given)
        return self.show(rule, AlertRuleSerializer)

    @REMOVAL
    @transaction.atomic
    def delete(self, request: Request, id: UUID) -> Response:
        """Remove a rule; its open alerts are resolved. One that came with the platform is disabled instead: it would
        come back."""
        given = self.parse(Reason, request.query_params.dict())
        rules.remove_rule(rule=self.matched(), actor=actor_of(request), **given)
        return Response(status=status.HTTP_204_NO_CONTENT)


class ResetRuleView(DetailView):
    """As it was shipped."""

    queryset = AlertRule.objects.all()
    serializer_class = AlertRuleSerializer
    scopes = {"POST": "runs:write"}
    http_method_names = ["post"]
    conditional = False

    @extend_schema(request=Reason, responses=AlertRuleSerializer)
    @idempotent
    def post(self, request: Request, id: UUID) -> Response:
        """Set a rule that came with the platform back to what it was shipped as, its name included."""
        given = self.parse(Reason)
        rule = rules.reset_rule(rule=self.get_object(), actor=actor_of(request), **given)
        return self.show(rule, AlertRuleSerializer)


class PreviewRuleView(ApiView):
    """Before it is written."""

    queryset = AlertRule.objects.all()
    serializer_class = AlertRulePreviewSerializer
    scopes = {"POST": "runs:read"}

    @extend_schema(request=NewAlertRule, responses=AlertRulePreviewSerializer)
    def post(self, request: Request) -> Response:
        """What a rule would say now of each series that it selects. Nothing is written, nobody is told."""
        given = tidied(self.parse(NewAlertRule))
        given.pop("reason", None)
        return Response(AlertRulePreviewSerializer(preview(rules.build_rule(**given))).data)


urlpatterns = [
    path("alert-rules", AlertRuleListView.as_view()),
    path("alert-rules/preview", PreviewRuleView.as_view()),
    path("alert-rules/<uuid:id>", AlertRuleView.as_view()),
    path("alert-rules/<uuid:id>/reset", ResetRuleView.as_view()),
]
