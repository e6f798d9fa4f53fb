"""The real addresses and five offenders, to prove that the walks find each."""

from django.http import HttpRequest, HttpResponse
from django.urls import path
from rest_framework import serializers
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response

from apps.core.api import ApiView, ListView
from apps.training.models import TrainingRun
from esper_site.urls import urlpatterns as real

PREFIX = "api/v1/planted/"


def plain(request: HttpRequest) -> HttpResponse:
    return HttpResponse("open to everybody")


class WithoutScopes(ApiView):
    def get(self, request: Request) -> Response:
        return Response({})


class OpenToAll(ApiView):
    permission_classes = (AllowAny,)
    scopes = {"GET": "runs:read"}

    def get(self, request: Request) -> Response:
        return Response({})


class AskingForTheWrongScope(ApiView):
    """Guards a method by a scope that does not exist: everybody is refused, which the scopes test finds."""

    scopes = {"POST": "planted:write"}

    def post(self, request: Request) -> Response:
        return Response({})


class LeaseOfRun(serializers.ModelSerializer[TrainingRun]):
    holder = serializers.CharField(source="lease.holder")

    class Meta:
        model = TrainingRun
        fields = ("id", "holder")


class WithAQueryForEachRow(ListView):
    queryset = TrainingRun.objects.all()
    serializer_class = LeaseOfRun
    scopes = {"GET": "runs:read"}


urlpatterns = [
    *real,
    path(f"{PREFIX}plain", plain),
    path(f"{PREFIX}without-scopes", WithoutScopes.as_view()),
    path(f"{PREFIX}open", OpenToAll.as_view()),
    path(f"{PREFIX}wrong-scope", AskingForTheWrongScope.as_view()),
    path(f"{PREFIX}each", WithAQueryForEachRow.as_view()),
]
