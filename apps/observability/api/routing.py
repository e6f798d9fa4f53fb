"""`/alert-routes`: whom to tell of which alerts. `/notifications`: what they were told, and whether it arrived."""

from typing import Any
from uuid import UUID

from django.db import transaction
from django.urls import path
from drf_spectacular.utils import extend_schema
from rest_framework import status
from rest_framework.request import Request
from rest_framework.response import Response

from apps.audit.api.removal import REMOVAL, RemovableView
from apps.core.actors import actor_of
from apps.core.api import ApiView, DetailView, ListView
from apps.core.idempotency import idempotent
from apps.kernels.api.serializers import Reason
from apps.observability.api.routing_forms import (
    AlertRouteChange,
    AlertRouteSerializer,
    AlertRouteWithSecretSerializer,
    NewAlertRoute,
    NewSecret,
    NotificationDetailSerializer,
    NotificationFilter,
    NotificationSerializer,
    RouteFilter,
    tidied,
)
from apps.observability.models import AlertRoute, Notification
from apps.observability.selectors.notifications import with_tries
from apps.observability.services import delivering, notifying, routes


class RouteListView(ListView):
    """Routes, newest first."""

    queryset = AlertRoute.objects.all()
    serializer_class = AlertRouteSerializer
    filterset_class = RouteFilter
    scopes = {"GET": "runs:read", "POST": "runs:write"}

    @extend_schema(request=NewAlertRoute, responses={201: AlertRouteWithSecretSerializer})
    def post(self, request: Request) -> Response:
        """Make a route. The secret of a webhook is in this answer and nowhere else.

        The target is looked up: an address that is not public is refused, unless the configuration allows its network.
        No Idempotency-Key: the secret is not stored in the clear a second time. Names are unique: sent again, it is
        refused.
        """
        given = tidied(self.parse(NewAlertRoute))
        route, _ = routes.create_route(actor=actor_of(request), **given)
        return _with_secret(self, route, code=201)


class RouteView(RemovableView):
    """One route."""

    queryset = AlertRoute.objects.all()
    serializer_class = AlertRouteSerializer
    scopes = {"GET": "runs:read", "PATCH": "runs:write", "DELETE": "runs:write"}
    problems = {"DELETE": (412, 428)}

    @extend_schema(request=AlertRouteChange, responses=AlertRouteSerializer)
    def patch(self, request: Request, id: UUID) -> Response:
        """Change a route. Messages that are under way go where it leads then."""
        given = tidied(self.parse(AlertRouteChange))
        routes.look_up(route=self.seen(), changes=given)  # before the route is locked: alerts wait for it
        with transaction.atomic():
            route = routes.change_route(route=self.matched(), actor=actor_of(request), looked_up=True, **given)
            return self.show(route, AlertRouteSerializer)

    @REMOVAL
    @transaction.atomic
    def delete(self, request: Request, id: UUID) -> Response:
        """Remove a route. What it sent stays in the log; what is under way is given up."""
        given = self.parse(Reason, request.query_params.dict())
        routes.remove_route(route=self.matched(), actor=actor_of(request), **given)
        return Response(status=status.HTTP_204_NO_CONTENT)


class RouteTestView(ApiView):
    """Whether messages arrive."""

    queryset = AlertRoute.objects.all()
    serializer_class = NotificationSerializer
    scopes = {"POST": "runs:write"}

    @extend_schema(request=Reason, responses={202: NotificationSerializer})
    @idempotent
    def post(self, request: Request, id: UUID) -> Response:
        """Send a message about a test alert over the route, within seconds. Read the notification to see whether it
        arrived."""
        given = self.parse(Reason)
        sent = notifying.send_test(route=self.get_object(), actor=actor_of(request), **given)
        return _accepted(sent)


class RotateSecretView(ApiView):
    """Another secret."""

    queryset = AlertRoute.objects.all()
    serializer_class = AlertRouteWithSecretSerializer
    scopes = {"POST": "runs:write"}

    @extend_schema(request=NewSecret, responses=AlertRouteWithSecretSerializer)
    def post(self, request: Request, id: UUID) -> Response:
        """Sign with another secret from now on. It is in this answer and nowhere else. No Idempotency-Key."""
        given = self.parse(NewSecret)
        route, _ = routes.rotate_secret(route=self.get_object(), actor=actor_of(request), **given)
        return _with_secret(self, route, code=200)


class NotificationListView(ListView):
    """Messages about alerts with the tries to deliver them, newest first."""

    queryset = with_tries().defer("payload")
    serializer_class = NotificationSerializer
    filterset_class = NotificationFilter
    scopes = {"GET": "runs:read"}


class NotificationView(DetailView):
    """One message, as it is sent."""

    queryset = with_tries()
    serializer_class = NotificationDetailSerializer
    content_tagged = True
    scopes = {"GET": "runs:read"}


class RetryView(ApiView):
    """Once more."""

    queryset = Notification.objects.all()
    serializer_class = NotificationSerializer
    scopes = {"POST": "runs:write"}

    @extend_schema(request=Reason, responses={202: NotificationSerializer})
    @idempotent
    def post(self, request: Request, id: UUID) -> Response:
        """Try a message again that was given up, at once and as often as a new one."""
        given = self.parse(Reason)
        again = delivering.retry_notification(notification=self.get_object(), actor=actor_of(request), **given)
        return _accepted(again)


def _with_secret(view: ApiView, route: AlertRoute, *, code: int) -> Response:
    answer = view.show(route, AlertRouteWithSecretSerializer, code=code, location=f"/api/v1/alert-routes/{route.pk}")
    answer["Cache-Control"] = "no-store"
    return answer


def _accepted(notification: Notification) -> Response:
    data: Any = NotificationSerializer(notification).data
    location = f"/api/v1/notifications/{notification.pk}"
    return Response(data, status=status.HTTP_202_ACCEPTED, headers={"Location": location})


urlpatterns = [
    path("alert-routes", RouteListView.as_view()),
    path("alert-routes/<uuid:id>", RouteView.as_view()),
    path("alert-routes/<uuid:id>/test", RouteTestView.as_view()),
    path("alert-routes/<uuid:id>/rotate-secret", RotateSecretView.as_view()),
    path("notifications", NotificationListView.as_view()),
    path("notifications/<uuid:id>", NotificationView.as_view()),
    path("notifications/<uuid:id>/retry", RetryView.as_view()),
]
